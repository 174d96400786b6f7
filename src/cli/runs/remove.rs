//! `runs remove`: delete a run that has ended, after asking.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, output, print_json_lines};
use crate::format::bytes;
use crate::report::Report;
use crate::run::{Removal, RemovedRun, RunFolders};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Run: a path, name, id, or unique id prefix
    run: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print what was deleted as one JSON document; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let directory = places.find(&arguments.run)?;
    // A run that can be found but not read can still be removed.
    let seen = Report::read(directory.clone()).ok();
    let removal = Removal::prepare(directory, places)?;
    let users = removal.started_from_it.clone();
    if !arguments.yes {
        let what = seen.as_ref().map_or_else(String::new, |seen| {
            format!(
                ", {}, {} steps, checkpoints of {}",
                seen.status().name(),
                seen.history.last_step,
                seen.checkpoints.len()
            )
        });
        let used =
            if users.is_empty() { String::new() } else { format!("\nUsed as base by: {}", visible(&users.join(", "))) };
        if !confirm(&format!(
            "{} ({}{what}){used}\nDelete it for good? [y/N] ",
            visible(removal.id()),
            bytes(removal.bytes)
        ))? {
            return Err(Failure::failed("nothing was deleted"));
        }
    }
    let RemovedRun { id, bytes: size } = removal.carry_out()?;
    if arguments.json {
        return print_json_lines(vec![json!({"removed": id, "bytes": size, "started_from_it": users})]);
    }
    output::eprint_line(&format!("deleted {id} ({})", bytes(size)));
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// Exit code 2 without a terminal.
fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("no terminal to confirm on: add --yes"));
    }
    output::eprint_prompt(question);
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
