//! What is kept of runs and what is not: tags, exports, promoted checkpoints, and removal.

use std::path::{Path, PathBuf};

use super::actions::no_run;
use crate::format::{bytes, percent};
use crate::report::{self, Page, Report, ReportError};
use crate::run::{Removal, RunDirectory, RunReference, change_tags, check_tag, disk_use, free_path, write_export};
use crate::secrets::redact;
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::popup::{Ask, Confirm, Popup};

/// Ask for tags and give them to the marked runs, or to the one under the cursor.
pub(super) fn tag(model: &mut Model) -> Vec<Command> {
    let runs = model.runs.chosen();
    let there = model.runs.row().map_or_else(String::new, |row| row.tags.join(" "));
    let whose = if runs.len() == 1 {
        format!("Tags: {}", if there.is_empty() { "none" } else { &there })
    } else {
        format!("{} marked runs", runs.len())
    };
    let question = Ask::new("Tags", format!("{whose}. Add tags; -tag removes:"), "", move |_, text| {
        let (remove, add): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|tag| tag.starts_with('-'));
        let add: Vec<String> = add.iter().map(|tag| tag.trim_start_matches('+').to_owned()).collect();
        let remove: Vec<String> = remove.iter().map(|tag| tag.trim_start_matches('-').to_owned()).collect();
        vec![Work::once(
            "runs.tag",
            move || -> Result<usize, String> {
                for run in &runs {
                    let directory = RunDirectory::open(run).map_err(|error| error.to_string())?;
                    directory.check_private().map_err(|error| error.to_string())?;
                    change_tags(run, &add, &remove).map_err(|error| error.to_string())?;
                }
                Ok(runs.len())
            },
            |model, outcome| {
                match outcome {
                    Ok(count) => model.shared.say(format!("tags of {count} {} saved", if count == 1 { "run" } else { "runs" })),
                    Err(error) => model.shared.complain(error),
                }
                super::look(model)
            },
        )]
    });
    model.shared.popup = Some(Popup::Ask(question.checked(|text| wrong_tags(text))));
    Vec::new()
}

fn wrong_tags(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("enter a tag, such as baseline".to_owned());
    }
    text.split_whitespace().find_map(|tag| check_tag(tag.strip_prefix(['-', '+']).unwrap_or(tag)))
}

/// Write the run as HTML where the user says.
pub(super) fn html(model: &mut Model) -> Vec<Command> {
    export(model, "html", report::html)
}

/// Write the run's metrics as CSV where the user says.
pub(super) fn csv(model: &mut Model) -> Vec<Command> {
    export(model, "csv", |report| {
        let text = report::csv(&report.history);
        let (text, masked) = redact(&text);
        Ok(Page { text: text.into_owned(), masked })
    })
}

fn export(model: &mut Model, form: &'static str, page: fn(&Report) -> Result<Page, ReportError>) -> Vec<Command> {
    let Some(row) = model.runs.row() else { return Vec::new() };
    let (directory, here) = (row.directory.clone(), model.shared.options.here.clone());
    let proposed = here.join(format!("{}.{form}", directory.id())).display().to_string();
    model.shared.popup = Some(Popup::Ask(Ask::new("Export", "File:", &proposed, move |_, file| {
        let file = written_path(&file, &here);
        vec![Work::once(
            "runs.export",
            move || -> Result<String, String> {
                let report = Report::read(directory).map_err(|error| error.to_string())?;
                written(&file, page(&report))
            },
            told,
        )]
    })));
    Vec::new()
}

/// Writes an export, under a numbered name where the file exists; what is said of it.
pub(in crate::view::screens) fn written(file: &Path, page: Result<Page, ReportError>) -> Result<String, String> {
    let (Page { text, masked }, free) = (page.map_err(|error| error.to_string())?, free_path(file));
    write_export(&free, text.as_bytes(), false).map_err(|error| error.to_string())?;
    let taken = if free == file { String::new() } else { format!("; {} exists, not overwritten", file.display()) };
    Ok(format!("wrote {} ({}), {masked} secrets masked{taken}", free.display(), bytes(text.len() as u64)))
}

/// What came of it, as a notice.
pub(in crate::view::screens) fn told(model: &mut Model, outcome: Result<String, String>) -> Vec<Command> {
    match outcome {
        Ok(text) => model.shared.say(text),
        Err(error) => model.shared.complain(error),
    }
    Vec::new()
}

/// A path as typed: `~` is the user's home, a relative one begins at `here`.
pub(in crate::view::screens) fn written_path(text: &str, here: &Path) -> PathBuf {
    let text = text.trim();
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => here.join(text),
    }
}

/// Copy the best checkpoint, or another, into a folder of its own.
pub(super) fn promote(model: &mut Model) -> Vec<Command> {
    let Some(row) = model.runs.row() else { return Vec::new() };
    let (path, here) = (row.directory.path().to_owned(), model.shared.options.here.clone());
    let steps: Vec<String> = row.checkpoints.iter().map(u64::to_string).collect();
    let label = format!("Checkpoint (best, last, or one of {}), then the new folder:", steps.join(" "));
    let proposed = format!("best {}", here.join(format!("{}-adapter", row.directory.file().task)).display());
    let question = Ask::new("Export checkpoint", label, &proposed, move |_, text| {
        let (at, folder) = text.trim().split_once(' ').unwrap_or(("best", text.trim()));
        let (reference, folder) = (RunReference::parse(&format!("run@{at}")), written_path(folder, &here));
        vec![Work::once(
            "runs.promote",
            move || -> Result<String, String> {
                let run = RunDirectory::open(&path).map_err(|error| error.to_string())?;
                let step = crate::run::resolve_checkpoint(&run, reference.at).map_err(|error| error.to_string())?;
                crate::run::promote(&run, step, &folder).map_err(|error| error.to_string())?;
                Ok(format!("wrote {}: the checkpoint of step {step}, with provenance.json", folder.display()))
            },
            told,
        )]
    });
    model.shared.popup = Some(Popup::Ask(question.checked(|text| wrong_promotion(text))));
    Vec::new()
}

fn wrong_promotion(text: &str) -> Option<String> {
    let (at, folder) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let known = ["best", "last"].contains(&at) || at.parse::<u64>().is_ok();
    (!known || folder.trim().is_empty()).then(|| "write `best FOLDER`, `last FOLDER` or `40 FOLDER`".to_owned())
}

/// Why the run cannot be removed.
pub(super) fn no_removal(model: &Model) -> Option<String> {
    let alive = || {
        let status = model.runs.row()?.status;
        (!status.is_ended() && status != crate::run::Status::Created).then(|| format!("the run is {}: stop it first (x)", status.name()))
    };
    let unreadable = || {
        let error = model.runs.entry()?.row.as_ref().err()?;
        Some(format!("cannot read the run ({error}): delete its folder by hand"))
    };
    no_run(model).or_else(unreadable).or_else(alive)
}

/// Say what would be lost, then delete the run after a yes.
pub(super) fn remove(model: &mut Model) -> Vec<Command> {
    let Some(row) = model.runs.row().cloned() else { return Vec::new() };
    let (path, places) = (row.directory.path().to_owned(), model.shared.places.clone());
    let (measured, asked) = (path.clone(), model.shared.keys);
    vec![Work::once(
        "runs.remove",
        move || {
            let removal = RunDirectory::open(&measured).and_then(|directory| Removal::prepare(directory, &places));
            // The hold ends here, since the question may stay open for long; it is taken again for the deed.
            removal.map(|removal| (removal.started_from_it.clone(), disk_use(&measured))).map_err(|error| error.to_string())
        },
        move |model, found| {
            match found {
                // A `y` on its way to something else must not be the answer.
                Ok(_) if model.shared.keys != asked => model.shared.complain("delete cancelled: other keys were pressed; press d again"),
                Ok((users, disk)) => confirm_removal(model, &row, users, disk.total_bytes, path),
                Err(error) => model.shared.complain(error),
            }
            Vec::new()
        },
    )]
}

fn confirm_removal(model: &mut Model, row: &crate::report::RunRow, users: Vec<String>, size: u64, path: PathBuf) {
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
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Delete run?", text, "delete", move |model| {
        let places = model.shared.places.clone();
        vec![Work::once(
            "runs.remove",
            move || {
                let removed = RunDirectory::open(&path).and_then(|directory| Removal::prepare(directory, &places)?.carry_out());
                removed.map(|removed| format!("deleted {} ({})", removed.id, bytes(removed.bytes))).map_err(|error| error.to_string())
            },
            |model, outcome| {
                told(model, outcome);
                super::look(model)
            },
        )]
    })));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_export_takes_a_free_name_and_says_what_was_masked() {
        let folder = tempfile::tempdir().unwrap();
        let (file, second) = (folder.path().join("run.html"), folder.path().join("run-2.html"));
        assert_eq!(
            written(&file, Ok(Page { text: "one".into(), masked: 2 })).unwrap(),
            format!("wrote {} ({}), 2 secrets masked", file.display(), bytes(3))
        );
        let left = format!("{} exists, not overwritten", file.display());
        let said = format!("wrote {} ({}), 0 secrets masked; {left}", second.display(), bytes(5));
        assert_eq!(written(&file, Ok(Page { text: "other".into(), masked: 0 })).unwrap(), said);
        assert_eq!((std::fs::read(&file).unwrap(), std::fs::read(&second).unwrap()), (b"one".to_vec(), b"other".to_vec()));
    }
}
