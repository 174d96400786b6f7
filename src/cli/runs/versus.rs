//! `runs versus`: a run's base against its result, or the results of two or three runs, answer by answer on the same prompts.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, pretty, print};
use crate::report::{Versus, base_and_trained, base_and_trained_on, versus_html};
use crate::run::{RunPlaces, replace_file};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One run: its base against its result. Two or three: their results
    #[arg(required = true, num_args = 1..=3, value_name = "RUN")]
    these: Vec<String>,
    /// The set that was read [default: proof where it was, else eval]
    #[arg(long, value_name = "SET")]
    on: Option<String>,
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
        let found = match &arguments.on {
            Some(set) => base_and_trained_on(directory.path(), &[set.as_str()])
                .map_err(|_| Failure::failed(format!("{} has not read its base and its result on {set}", directory.id())))?,
            None => base_and_trained(directory.path())?,
        };
        // Of several runs only the results count.
        passes.extend(if arguments.these.len() == 1 { found } else { found.into_iter().skip(1).collect() });
    }
    let versus = Versus::read(&passes)?;
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
