//! `runs check`: verifies the files of runs by their checksums.

use std::fmt::Write;

use serde_json::json;

use super::{Failure, Outcome, print, print_json_lines};
use crate::format::counted;
use crate::run::{RunFolders, check_run};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Runs: each a path, name, id, or unique id prefix
    #[arg(required = true, value_name = "RUN")]
    run: Vec<String>,
    /// Print one JSON object per run
    #[arg(long)]
    json: bool,
}

/// Exit code 1 if anything is damaged.
pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let runs = super::find_all(arguments.run.iter().map(String::as_str), run_folders)?;
    let (mut text, mut documents, mut damaged) = (String::new(), Vec::new(), 0);
    for run in &runs {
        let found = check_run(run)?;
        damaged += found.damaged.len();
        let mut line = |text_line: String| _ = writeln!(text, "{}", visible(&text_line));
        for damage in &found.damaged {
            line(format!("damaged: {}", damage.problem));
            line(format!("  affects {}", damage.affects));
        }
        for file in &found.unverified {
            line(format!("not verified, has no checksum: {file}"));
        }
        line(format!(
            "{}: {} verified, {} not verified, {}",
            run.id(),
            counted(found.verified, "file"),
            found.unverified.len(),
            match found.damaged.len() {
                0 => "nothing damaged".to_owned(),
                count => format!("{count} damaged"),
            }
        ));
        documents.push(json!({"run": run.id(), "path": run.path(), "damaged": found.damaged, "unverified": found.unverified, "verified": found.verified}));
    }
    match arguments.json {
        true => print_json_lines(documents)?,
        false => print(&text)?,
    };
    match damaged {
        0 => Ok(std::process::ExitCode::SUCCESS),
        count => Err(Failure::failed(format!(
            "{} found",
            counted(count, "damaged place")
        ))),
    }
}
