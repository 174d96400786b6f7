//! `runs remove`: delete runs that have ended, after asking once.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, output, print_json_lines};
use crate::format::{bytes, counted};
use crate::report::Report;
use crate::run::{Removal, RemovedRun, RunFolders};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Runs: each a path, name, id, or unique id prefix
    #[arg(required = true, value_name = "RUN")]
    run: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print what was deleted, one JSON object per run; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    let directories = super::find_all(arguments.run.iter().map(String::as_str), run_folders)?;
    // All are locked before the first is deleted: one that is in use, or another user's, leaves all of them.
    let mut removals = Vec::new();
    for directory in directories {
        // A run that can be found but not read can still be removed.
        let seen = Report::read(directory.clone()).ok();
        removals.push((Removal::prepare(directory, run_folders)?, seen));
    }
    if !arguments.yes {
        let what: String = removals
            .iter()
            .map(|(removal, seen)| described(removal, seen.as_ref()))
            .collect();
        let what = what.trim_end();
        let them = if removals.len() == 1 {
            "it".to_owned()
        } else {
            format!("these {} runs", removals.len())
        };
        if !confirm(&format!("{what}\nDelete {them} for good? [y/N] "))? {
            return Err(Failure::failed("nothing was deleted"));
        }
    }
    let mut documents = Vec::new();
    for (removal, _) in removals {
        let users = removal.started_from_it.clone();
        let RemovedRun { id, bytes: size } = removal.carry_out()?;
        if !arguments.json {
            output::eprint_line(&format!("deleted {id} ({})", bytes(size)));
        }
        documents.push(json!({"removed": id, "bytes": size, "started_from_it": users}));
    }
    if arguments.json {
        print_json_lines(documents)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

fn described(removal: &Removal, seen: Option<&Report>) -> String {
    let what = seen.map_or_else(String::new, |seen| {
        let steps = counted(seen.history.last_step as usize, "step");
        let checkpoints = seen.checkpoints.len();
        format!(
            ", {}, {steps}, checkpoints of {checkpoints}",
            seen.status().name()
        )
    });
    let users = &removal.started_from_it;
    let used = if users.is_empty() {
        String::new()
    } else {
        format!("  used as base by: {}\n", visible(&users.join(", ")))
    };
    format!(
        "{} ({}{what})\n{used}",
        visible(removal.id()),
        bytes(removal.bytes)
    )
}

/// # Errors
/// Exit code 2 without a terminal.
fn confirm(question: &str) -> Result<bool, Failure> {
    if output::is_captured() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("no terminal to confirm on: add --yes"));
    }
    output::eprint_prompt(question);
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
