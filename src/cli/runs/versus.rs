//! `runs versus`: a run's base against its result, or the results of two or three runs, answer by answer on the same prompts.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, pretty, print};
use crate::report::{PassId, ReportError, Versus, base_and_trained, passes_of, versus_html};
use crate::run::{RunPlaces, replace_file};
use crate::score::Scorer;
use crate::task::Task;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One run: its base against its result. Two or three: their results
    #[arg(required = true, num_args = 1..=3, value_name = "RUN")]
    these: Vec<String>,
    /// The set that was read [default: proof where it was, else eval]
    #[arg(long, value_name = "SET")]
    on: Option<String>,
    /// Score all answers again with the schema of this task as it is now
    #[arg(long, value_name = "TASK")]
    rescore: Option<String>,
    /// One JSON document
    #[arg(long)]
    json: bool,
    /// As one self-contained HTML file with the answers that changed; secrets are masked
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, places: &RunPlaces) -> Outcome {
    let mut passes = Vec::new();
    for run in &arguments.these {
        let directory = places.find(run)?;
        let found = base_and_trained(directory.path())?;
        let found = match &arguments.on {
            Some(set) => on_set(&passes_of(directory.path())?, set)
                .ok_or_else(|| Failure::failed(format!("{} has not read its base and its result on {set}", directory.id())))?,
            None => found,
        };
        // Of several runs only the results count.
        passes.extend(if arguments.these.len() == 1 { found } else { found.into_iter().skip(1).collect() });
    }
    let versus = match &arguments.rescore {
        Some(task) => {
            let task = Task::resolve(task)?;
            Versus::rescored(&passes, &task, &Scorer::new(&task)?)?
        }
        None => Versus::read(&passes).map_err(|error| match error {
            ReportError::OtherSchemas(text) => {
                Failure::failed(format!("{text}; to score all answers again by one schema, add --rescore TASK"))
            }
            error => error.into(),
        })?,
    };
    if let Some(file) = &arguments.html {
        let page = versus_html(&versus);
        replace_file(file, page.text.as_bytes())?;
        if arguments.json {
            return print(&format!("{}\n", json!({"file": file, "bytes": page.text.len(), "masked": page.masked})));
        }
        eprintln!("wrote {}", file.display());
        return Ok(ExitCode::SUCCESS);
    }
    print(&if arguments.json { pretty(&versus.document()) } else { versus.page() })
}

/// The base and the last result on a set.
fn on_set(passes: &[PassId], set: &str) -> Option<Vec<PassId>> {
    let base = passes.iter().find(|pass| pass.set == set && pass.target == "base")?;
    let trained = passes.iter().rfind(|pass| pass.set == set && pass.target == "trained")?;
    Some(vec![base.clone(), trained.clone()])
}
