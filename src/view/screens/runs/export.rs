//! Tags, exports, promoted checkpoints, and deletion of runs.

use std::path::PathBuf;

use super::Runs;
use super::no_run;
use crate::format::{bytes, percent};
use crate::report::{self, Page, Report, ReportError};
use crate::run::{Removal, RunDirectory, RunReference, change_tags, check_tag, disk_use};
use crate::secrets::redact;
use crate::view::export::{self, report, typed_path};
use crate::view::message::{Command, Work};
use crate::view::popup::{Ask, Confirm, Popup};
use crate::view::shared::Shared;

/// Edits the tags of the marked runs, or of the one under the cursor.
pub(super) fn tag(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let chosen = runs.chosen(shared);
    let there = runs.row(shared).map_or_else(String::new, |row| row.tags.join(" "));
    let whose = if chosen.len() == 1 {
        format!("Tags: {}", if there.is_empty() { "none" } else { &there })
    } else {
        format!("{} marked runs", chosen.len())
    };
    let question = Ask::new("Tags", format!("{whose}. Add tags; -tag removes:"), "", move |_: &mut (), _, text| {
        let (remove, add): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|tag| tag.starts_with('-'));
        let add: Vec<String> = add.iter().map(|tag| tag.trim_start_matches('+').to_owned()).collect();
        let remove: Vec<String> = remove.iter().map(|tag| tag.trim_start_matches('-').to_owned()).collect();
        vec![Work::once(
            "runs.tag",
            move || -> Result<usize, String> {
                for run in &chosen {
                    let directory = RunDirectory::open(run).map_err(|error| error.to_string())?;
                    directory.check_private().map_err(|error| error.to_string())?;
                    change_tags(run, &add, &remove).map_err(|error| error.to_string())?;
                }
                Ok(chosen.len())
            },
            |_: &mut Runs, shared, outcome| {
                match outcome {
                    Ok(count) => {
                        shared.say(format!("tags of {count} {} saved", if count == 1 { "run" } else { "runs" }))
                    }
                    Err(error) => shared.complain(error),
                }
                shared.look_for_runs()
            },
        )]
    });
    shared.popup = Some(Popup::Ask(question.checked(wrong_tags)));
    Vec::new()
}

fn wrong_tags(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("enter a tag, such as baseline".to_owned());
    }
    text.split_whitespace().find_map(|tag| check_tag(tag.strip_prefix(['-', '+']).unwrap_or(tag)))
}

/// Exports the run as HTML.
pub(super) fn html(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    export(runs, shared, "html", report::html)
}

/// Exports the run's metrics as CSV.
pub(super) fn csv(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    export(runs, shared, "csv", |report| {
        let text = report::csv(&report.history);
        let (text, masked) = redact(&text);
        Ok(Page { text: text.into_owned(), masked })
    })
}

fn export(
    runs: &mut Runs,
    shared: &mut Shared,
    form: &'static str,
    page: fn(&Report) -> Result<Page, ReportError>,
) -> Vec<Command> {
    let Some(row) = runs.row(shared) else { return Vec::new() };
    let directory = row.directory.clone();
    let name = format!("{}.{form}", directory.id());
    let make = move || page(&Report::read(directory).map_err(ReportError::from)?);
    shared.popup = Some(export::ask(shared, "File:", &name, "runs.export", make));
    Vec::new()
}

/// Copies a checkpoint, by default the best, into a folder of its own.
pub(super) fn promote(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(row) = runs.row(shared) else { return Vec::new() };
    let (path, here) = (row.directory.path().to_owned(), shared.options.here.clone());
    let steps: Vec<String> = row.checkpoints.iter().map(u64::to_string).collect();
    let label = format!("Checkpoint (best, last, or one of {}), then the new folder:", steps.join(" "));
    let proposed = format!("best {}", here.join(format!("{}-adapter", row.directory.file().task)).display());
    let question = Ask::new("Export checkpoint", label, &proposed, move |_: &mut (), _, text| {
        let (at, folder) = text.trim().split_once(' ').unwrap_or(("best", text.trim()));
        let (reference, folder) = (RunReference::parse(&format!("run@{at}")), typed_path(folder, &here));
        vec![Work::once(
            "runs.promote",
            move || -> Result<String, String> {
                let run = RunDirectory::open(&path).map_err(|error| error.to_string())?;
                let step = crate::run::resolve_checkpoint(&run, reference.at).map_err(|error| error.to_string())?;
                crate::run::promote(&run, step, &folder).map_err(|error| error.to_string())?;
                Ok(format!("wrote {}: the checkpoint of step {step}, with provenance.json", folder.display()))
            },
            report,
        )]
    });
    shared.popup = Some(Popup::Ask(question.checked(wrong_promotion)));
    Vec::new()
}

fn wrong_promotion(text: &str) -> Option<String> {
    let (at, folder) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let known = ["best", "last"].contains(&at) || at.parse::<u64>().is_ok();
    (!known || folder.trim().is_empty()).then(|| "write `best FOLDER`, `last FOLDER` or `40 FOLDER`".to_owned())
}

/// Why the run cannot be deleted.
pub(super) fn no_removal(runs: &Runs, shared: &Shared) -> Option<String> {
    let alive = || {
        let status = runs.row(shared)?.status;
        (!status.is_ended() && status != crate::run::Status::Created)
            .then(|| format!("the run is {}: stop it first ({})", status.name(), shared.key_of("runs.stop")))
    };
    let unreadable = || {
        let error = runs.entry(shared)?.row.as_ref().err()?;
        Some(format!("cannot read the run ({error}): delete its folder by hand"))
    };
    no_run(runs, shared).or_else(unreadable).or_else(alive)
}

/// Shows what would be lost, and deletes the run after confirmation.
pub(super) fn remove(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(row) = runs.row(shared).cloned() else { return Vec::new() };
    let (path, places) = (row.directory.path().to_owned(), shared.options.run_folders.clone());
    let (measured, keys) = (path.clone(), shared.keys);
    vec![Work::once(
        "runs.remove",
        move || {
            let removal = RunDirectory::open(&measured).and_then(|directory| Removal::prepare(directory, &places));
            // The lock is released here, since the question may stay open for long, and taken again for the deletion.
            removal
                .map(|removal| (removal.started_from_it.clone(), disk_use(&measured)))
                .map_err(|error| error.to_string())
        },
        move |_: &mut Runs, shared, found| {
            match found {
                // A `y` typed for something else must not be the answer.
                Ok(_) if shared.keys != keys => {
                    let key = shared.key_of("runs.remove");
                    shared.complain(format!("delete cancelled: other keys were pressed; press {key} again"))
                }
                Ok((users, disk)) => confirm_removal(shared, &row, users, disk.total_bytes, path),
                Err(error) => shared.complain(error),
            }
            Vec::new()
        },
    )]
}

fn confirm_removal(shared: &mut Shared, row: &crate::report::RunRow, users: Vec<String>, size: u64, path: PathBuf) {
    let rate = row.valid().map_or_else(String::new, |valid| format!(", {} valid", percent(valid)));
    let mut text = format!(
        "{}: {} steps{rate}, {} checkpoints, {} total. This cannot be undone.",
        row.directory.id(),
        row.last_step,
        row.checkpoints.len(),
        bytes(size)
    );
    if !users.is_empty() {
        text.push_str(&format!("\nUsed as base by: {} (cannot be resumed without it)", users.join(", ")));
    }
    shared.popup = Some(Popup::Confirm(Confirm::new("Delete run?", text, "delete", move |_: &mut Runs, shared| {
        let places = shared.options.run_folders.clone();
        vec![Work::once(
            "runs.remove",
            move || {
                let removed =
                    RunDirectory::open(&path).and_then(|directory| Removal::prepare(directory, &places)?.carry_out());
                removed
                    .map(|removed| format!("deleted {} ({})", removed.id, bytes(removed.bytes)))
                    .map_err(|error| error.to_string())
            },
            |_: &mut Runs, shared, outcome| {
                _ = report(&mut (), shared, outcome);
                shared.look_for_runs()
            },
        )]
    })));
}
