//! Deletion of the chosen runs, into the trash: what goes is shown first.

use std::path::{Path, PathBuf};

use super::{Runs, no_run};
use crate::command_log::CommandLine;
use crate::format::{bytes, counted, listed, percent, short_id};
use crate::message::{Command, Work};
use crate::popup::{Confirm, Popup};
use crate::report::{Entry, RunRow};
use crate::run::{Removal, RunDirectory, RunFolders, Status, disk_use};
use crate::shared::Shared;
use crate::widgets::text_width::one_line;

/// Names in the question; further ones are counted.
const MAX_NAMES: usize = 6;

struct RemovableRun {
    path: PathBuf,
    id: String,
    name: String,
    bytes: u64,
    /// Runs that cannot be resumed without it.
    users: Vec<String>,
}

pub(super) fn no_removal(runs: &Runs, shared: &Shared) -> Option<String> {
    let chosen = runs.chosen(shared);
    let wrong = |entry: &Entry| match &entry.row {
        Ok(row) if row.status.is_ended() || row.status == Status::Created => None,
        Ok(row) => Some(format!(
            "{} is {}: stop it first ({})",
            short_id(row.directory.id()),
            row.status.name(),
            shared.key_of("runs.stop")
        )),
        Err(error) => Some(format!(
            "cannot read the run {} ({error}): delete its folder by hand",
            entry.id()
        )),
    };
    let entries = shared
        .runs
        .listing
        .entries()
        .iter()
        .filter(|entry| chosen.contains(&entry.path));
    if chosen.is_empty() {
        no_run(runs, shared)
    } else {
        entries.filter_map(wrong).next()
    }
}

pub(super) fn remove(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let (chosen, run_folders, keys) = (
        runs.chosen(shared),
        shared.options.run_folders.clone(),
        shared.keys,
    );
    let measure = move || {
        chosen
            .iter()
            .map(|run| prepare(run, &run_folders))
            .collect::<Result<Vec<_>, _>>()
    };
    vec![Work::once(
        "runs.remove",
        measure,
        move |_: &mut Runs, shared, found| match found {
            // A `y` typed for something else must not be the answer.
            Ok(_) if shared.keys != keys => {
                let key = shared.key_of("runs.remove");
                shared.complain(format!(
                    "delete cancelled: other keys were pressed; press {key} again"
                ))
            }
            Ok(prepared) => confirm(shared, prepared),
            Err(error) => shared.complain(error),
        },
    )]
}

/// The lock is released here, since the question may stay open for long, and taken again for the deletion.
fn prepare(run: &Path, run_folders: &RunFolders) -> Result<RemovableRun, String> {
    let directory = RunDirectory::open(run).map_err(|error| error.to_string())?;
    let name = one_line(directory.name());
    let removal = Removal::prepare(directory, run_folders);
    let removal = removal.map_err(|error| error.to_string())?;
    let users = removal.started_from_it.clone();
    Ok(RemovableRun {
        path: run.to_owned(),
        id: removal.id().to_owned(),
        name,
        bytes: disk_use(run).total_bytes,
        users,
    })
}

fn confirm(shared: &mut Shared, prepared: Vec<RemovableRun>) -> Vec<Command> {
    let size = bytes(prepared.iter().map(|run| run.bytes).sum());
    let note = "In the trash for 7 days: 'grpo-tui runs trash --restore NAME' brings one back.";
    let rows = shared.runs.listing.entries();
    let row = |run: &RemovableRun| {
        rows.iter()
            .find(|entry| entry.path == run.path)?
            .row
            .as_deref()
            .ok()
    };
    let mut text = match prepared.as_slice() {
        [run] => {
            let about = row(run).map_or_else(String::new, about);
            let name = if run.name.is_empty() {
                String::new()
            } else {
                format!(" ({})", run.name)
            };
            format!("{}{name}:\n{about}{size} total.\n{note}", run.id)
        }
        several => {
            let named = |run: &RemovableRun| match run.name.as_str() {
                "" => short_id(&run.id).to_owned(),
                name => format!("{} ({name})", short_id(&run.id)),
            };
            let names: Vec<String> = several.iter().map(named).collect();
            let checkpoints: usize = several
                .iter()
                .filter_map(row)
                .map(|row| row.checkpoints.len())
                .sum();
            format!(
                "{}: {}, {size} total.\n{note}",
                listed(&names, MAX_NAMES),
                counted(checkpoints, "checkpoint")
            )
        }
    };
    let going = |user: &&String| !prepared.iter().any(|run| run.id == **user);
    let users: Vec<&str> = prepared
        .iter()
        .flat_map(|run| &run.users)
        .filter(going)
        .map(String::as_str)
        .collect();
    if !users.is_empty() {
        text.push_str(&format!(
            "\nUsed as base by: {} (cannot be resumed without it)",
            users.join(", ")
        ));
    }
    let title = match prepared.len() {
        1 => "Delete run?".to_owned(),
        count => format!("Delete {count} runs?"),
    };
    let paths: Vec<PathBuf> = prepared.into_iter().map(|run| run.path).collect();
    shared.open_popup(Popup::Confirm(Confirm::new(
        title,
        text,
        "delete",
        move |_: &mut Runs, shared| {
            let run_folders = shared.options.run_folders.clone();
            let line = CommandLine::for_runs("remove", &paths, &["--yes"]);
            let delete = Work::once(
                "runs.remove",
                move || carry_out(&paths, &run_folders),
                |runs: &mut Runs, shared, (done, error)| {
                    runs.marked.retain(|path| path.exists());
                    match error {
                        Some(error) if done.is_empty() => shared.complain(error),
                        Some(error) => shared.complain(format!("{done}; {error}")),
                        None => shared.say(done),
                    };
                    shared.look_for_runs()
                },
            );
            vec![delete.like(line)]
        },
    )))
}

/// `40 steps, 99.0% valid, 3 checkpoints, `
fn about(row: &RunRow) -> String {
    let rate = row
        .valid()
        .map_or_else(String::new, |valid| format!(", {} valid", percent(valid)));
    format!(
        "{}{rate}, {}, ",
        counted(row.last_step as usize, "step"),
        counted(row.checkpoints.len(), "checkpoint")
    )
}

/// Deletes one after the other; says what was deleted, and why the rest was not.
fn carry_out(runs: &[PathBuf], run_folders: &RunFolders) -> (String, Option<String>) {
    let (mut ids, mut size) = (Vec::new(), 0);
    let mut error = None;
    for run in runs {
        match RunDirectory::open(run)
            .and_then(|directory| Removal::prepare(directory, run_folders)?.carry_out())
        {
            Ok(removed) => {
                size += removed.bytes;
                ids.push(removed.id);
            }
            Err(failed) => {
                error = Some(failed.to_string());
                break;
            }
        }
    }
    let done = match ids.as_slice() {
        [] => String::new(),
        [id] => format!("{id} is in the trash ({})", bytes(size)),
        several => format!("{} runs are in the trash ({})", several.len(), bytes(size)),
    };
    (done, error)
}
