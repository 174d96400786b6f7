//! `runs remove`: delete a run that has ended, after asking.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, Seen, print, size};
use crate::run::{RunLock, RunPlaces, RunReference, disk_use};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run's path, id, name, or a unique beginning of its id
    run: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// What was deleted, as one JSON document; needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunPlaces) -> Outcome {
    let directory = places.find(&arguments.run)?;
    let path = directory.path().to_owned();
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        let where_to = path.canonicalize().unwrap_or_else(|_| path.clone());
        return Err(Failure::failed(format!("{} is a link; remove the run where it lies: {}", path.display(), where_to.display())));
    }
    directory.check_private()?;
    // Held to the end: no worker can begin meanwhile.
    let lock = RunLock::acquire(&path)?;
    // A run that can be found but not read, by damage or age, can be removed all the same.
    let seen = Seen::read(directory.clone()).ok();
    let bytes = disk_use(&path).total_bytes;
    let users = started_from(&directory, places);
    if !arguments.yes {
        let what = seen.as_ref().map_or_else(String::new, |seen| {
            format!(", {}, {} steps, checkpoints of {}", seen.status().name(), seen.history.last_step, seen.checkpoints.len())
        });
        let used = if users.is_empty() { String::new() } else { format!("\nStarted from its result: {}", users.join(", ")) };
        if !ask(&format!("{} ({}{what}){used}\nDelete it for good? [y/N] ", directory.id(), size(bytes)))? {
            return Err(Failure::failed("nothing was deleted"));
        }
    }
    // First out of sight, so that a deletion cut short leaves no half of a run behind that looks like one.
    let hidden = path.with_file_name(format!(".{}.removed", directory.id()));
    std::fs::rename(&path, &hidden).map_err(|error| Failure::failed(format!("cannot remove {}: {error}", path.display())))?;
    std::fs::remove_dir_all(&hidden)
        .map_err(|error| Failure::failed(format!("cannot remove all of {}: {error}; delete that folder", hidden.display())))?;
    drop(lock);
    if arguments.json {
        return print(&format!("{}\n", json!({"removed": directory.id(), "bytes": bytes, "started_from_it": users})));
    }
    eprintln!("deleted {} ({})", directory.id(), size(bytes));
    Ok(ExitCode::SUCCESS)
}

/// Runs whose base model is this run's result: they cannot be resumed without it.
fn started_from(directory: &crate::run::RunDirectory, places: &RunPlaces) -> Vec<String> {
    let runs = places.list().into_iter().filter_map(|(_, run)| run.ok()).filter(|run| run.id() != directory.id());
    let names = |base: &str| {
        let run = RunReference::parse(base).run;
        run == directory.id() || (!run.is_empty() && run == directory.file().name) || std::path::Path::new(&run) == directory.path()
    };
    runs.filter(|run| names(&run.file().config.base_model)).map(|run| run.id().to_owned()).collect()
}

/// # Errors
/// Exit code 2 where nobody can answer.
fn ask(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask on; add --yes to delete it"));
    }
    let mut error = std::io::stderr();
    write!(error, "{question}").and_then(|()| error.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
