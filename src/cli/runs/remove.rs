//! `runs remove`: moves runs that have ended, or their checkpoints, to the trash, after asking once.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, output, print_json_lines};
use crate::format::{bytes, counted};
use crate::report::Report;
use crate::run::{
    At, Removal, RemovedRun, RunDirectory, RunFolders, RunReference, resolve_checkpoint,
};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Runs: each a path, name, id, or unique id prefix; RUN@STEP: only that checkpoint
    #[arg(required = true, value_name = "RUN")]
    run: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Delete for good instead of moving to the trash, which is emptied after 7 days (`runs trash`)
    #[arg(long)]
    permanent: bool,
    /// Print what was removed, one JSON object per run; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, run_folders: &RunFolders) -> Outcome {
    // All are locked before the first is removed: one that is in use, or another user's, leaves all of them.
    let mut removals: Vec<(Removal, Option<Report>)> = Vec::new();
    for (directory, at) in found(&arguments.run, run_folders)? {
        // A run that can be found but not read can still be removed.
        let seen = Report::read(directory.clone()).ok();
        let step = at
            .map(|at| resolve_checkpoint(&directory, at))
            .transpose()?;
        let removal = Removal::prepare(directory, run_folders)?;
        let removal = match step {
            Some(step) => removal.of_checkpoint(step),
            None => removal,
        };
        removals.push((removal, seen));
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
            format!("these {}", removals.len())
        };
        let question = match arguments.permanent {
            true => format!("Delete {them} for good?"),
            false => format!("Move {them} to the trash?"),
        };
        if !confirm(&format!("{what}\n{question} [y/N] "))? {
            return Err(Failure::failed("nothing was removed"));
        }
    }
    let mut documents = Vec::new();
    for (removal, _) in removals {
        let users = removal.started_from_it.clone();
        let removed = match arguments.permanent {
            true => removal.delete()?,
            false => removal.carry_out()?,
        };
        let RemovedRun {
            id,
            step,
            bytes: size,
            in_trash,
        } = removed;
        if !arguments.json {
            let at = step.map_or_else(String::new, |step| format!("@{step}"));
            let size = bytes(size);
            output::eprint_line(&match &in_trash {
                Some(name) => format!(
                    "moved {id}{at} to the trash for 7 days ({size}): `grpo-tui runs trash --restore {name}` brings it back"
                ),
                None => format!("deleted {id}{at} ({size})"),
            });
        }
        documents.push(json!({"removed": id, "step": step, "bytes": size, "trash": in_trash, "started_from_it": users}));
    }
    if arguments.json {
        print_json_lines(documents)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs, or a checkpoint of one where `@` follows; each counts once.
fn found(
    names: &[String],
    run_folders: &RunFolders,
) -> Result<Vec<(RunDirectory, Option<At>)>, Failure> {
    let mut found: Vec<(RunDirectory, Option<At>)> = Vec::new();
    for name in names {
        let reference = RunReference::parse(name);
        // A run's own name may have an `@`.
        let (directory, at) = match run_folders.find(name) {
            Err(_) if reference.explicit => (run_folders.find(&reference.run)?, Some(reference.at)),
            directory => (directory?, None),
        };
        let known = { found.iter() }.find(|(other, _)| other.path() == directory.path());
        match known.map(|(_, known)| known.is_none() && at.is_none()) {
            None => found.push((directory, at)),
            Some(true) => {}
            Some(false) => {
                return Err(Failure::usage(format!(
                    "{name}: remove one checkpoint of a run at a time, or the run as a whole"
                )));
            }
        }
    }
    Ok(found)
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
    let step = removal.step();
    let (at, what) = match step {
        Some(step) => (format!("@{step}"), String::new()),
        None => (String::new(), what),
    };
    format!(
        "{}{at} ({}{what})\n{used}",
        visible(removal.id()),
        bytes(removal.bytes)
    )
}

/// # Errors
/// Exit code 2 without a terminal.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    if output::is_captured() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("no terminal to confirm on: add --yes"));
    }
    output::eprint_prompt(question);
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
