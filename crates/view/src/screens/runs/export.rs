//! Tags, exports, and promoted checkpoints of runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Row, Runs, columns};
use crate::command_log::CommandLine;
use crate::export::{self, masked_secrets, report, typed_path};
use crate::format::counted;
use crate::message::{Command, Work};
use crate::popup::{Ask, Popup};
use crate::report::{self, Page, Report, ReportError, RunRow};
use crate::run::{RunDirectory, RunError, RunReference, change_tags, check_tag};
use crate::shared::Shared;

pub(super) fn tag(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let chosen = runs.chosen(shared);
    let there = runs
        .row(shared)
        .map_or_else(String::new, |row| row.tags.join(" "));
    let whose = if chosen.len() == 1 {
        format!("Tags: {}", if there.is_empty() { "none" } else { &there })
    } else {
        format!("{} runs", chosen.len())
    };
    let question = Ask::new(
        "Tags",
        format!("{whose}. Add tags; -tag removes:"),
        "",
        move |_: &mut (), _, text| {
            let (remove, add): (Vec<&str>, Vec<&str>) = text
                .split_whitespace()
                .partition(|tag| tag.starts_with('-'));
            let add: Vec<String> = add
                .iter()
                .map(|tag| tag.trim_start_matches('+').to_owned())
                .collect();
            let remove: Vec<String> = remove
                .iter()
                .map(|tag| tag.trim_start_matches('-').to_owned())
                .collect();
            let removed: Vec<String> = remove.iter().map(|tag| format!("--remove={tag}")).collect();
            let changes: Vec<&str> = add.iter().chain(&removed).map(String::as_str).collect();
            let runs = chosen
                .iter()
                .map(|run| run.display().to_string())
                .collect::<Vec<_>>()
                .join(",");
            let line = CommandLine::for_runs("tag", &[runs.into()], &changes);
            let change = Work::once(
                "runs.tag",
                move || -> Result<usize, String> {
                    for run in &chosen {
                        let directory =
                            RunDirectory::open(run).map_err(|error| error.to_string())?;
                        directory
                            .check_private()
                            .map_err(|error| error.to_string())?;
                        change_tags(run, &add, &remove).map_err(|error| error.to_string())?;
                    }
                    Ok(chosen.len())
                },
                |_: &mut Runs, shared, outcome| {
                    match outcome {
                        Ok(count) => shared.say(format!("tags of {} saved", counted(count, "run"))),
                        Err(error) => shared.complain(error),
                    };
                    shared.look_for_runs()
                },
            );
            vec![change.like(line)]
        },
    );
    shared.open_popup(Popup::Ask(question.checked(wrong_tags)))
}

fn wrong_tags(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some("enter a tag, such as baseline".to_owned());
    }
    text.split_whitespace()
        .find_map(|tag| check_tag(tag.strip_prefix(['-', '+']).unwrap_or(tag)))
}

pub(super) fn html(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    export(runs, shared, "html", report::html)
}

pub(super) fn csv(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    export(runs, shared, "csv", |report| {
        Ok(Page::masked(&report::csv(&report.history)))
    })
}

fn export(
    runs: &mut Runs,
    shared: &mut Shared,
    form: &'static str,
    page: fn(&Report) -> Result<Page, ReportError>,
) -> Vec<Command> {
    let chosen = runs.chosen(shared);
    let make = move |run: &Path| page(&Report::read(RunDirectory::open(run)?)?);
    let id = |run: &Path| {
        run.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    shared.open_popup(match chosen.as_slice() {
        [run] => {
            let run = run.clone();
            let of_file = {
                let run = run.clone();
                move |file: &Path| Some(command_line(form, &[run], file))
            };
            export::ask(
                shared,
                "File:",
                &format!("{}.{form}", id(&run)),
                "runs.export",
                of_file,
                move || make(&run),
            )
        }
        several => {
            let label = format!("Folder for {} files ID.{form}:", several.len());
            let here = shared.options.here.clone();
            let proposed = here.join(format!("runs-{form}")).display().to_string();
            Popup::Ask(Ask::new(
                "Export",
                label,
                &proposed,
                move |_: &mut (), _, folder| {
                    let folder = typed_path(&folder, &here);
                    let line = match form {
                        "csv" => CommandLine::for_runs(
                            "export",
                            &chosen,
                            &["--csv", "--out", &folder.display().to_string()],
                        ),
                        _ => command_line(form, &chosen, &folder),
                    };
                    let write = move || {
                        chosen.iter().try_fold(String::new(), |_, run| {
                            std::fs::create_dir_all(&folder)
                                .map_err(|error| format!("{}: {error}", folder.display()))?;
                            export::written(&folder.join(format!("{}.{form}", id(run))), make(run))
                        })?;
                        Ok(format!(
                            "wrote {} files to {}",
                            chosen.len(),
                            folder.display()
                        ))
                    };
                    vec![Work::once("runs.export", write, report).like(line)]
                },
            ))
        }
    })
}

/// Exports the chosen runs as TensorBoard event files. One that is there is this run's, and is renewed.
pub(super) fn event_files(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let (chosen, here) = (runs.chosen(shared), shared.options.here.clone());
    let proposed = here.join("tensorboard").display().to_string();
    shared.open_popup(Popup::Ask(Ask::new(
        "Export",
        "Log folder of TensorBoard:",
        &proposed,
        move |_: &mut (), _, text| {
            let folder = typed_path(&text, &here);
            let line = CommandLine::for_runs(
                "export",
                &chosen,
                &["--force", "--tensorboard", &folder.display().to_string()],
            );
            let write = move || {
                let write_one = |masked: usize, run: &PathBuf| -> Result<usize, RunError> {
                    let run = RunDirectory::open(run)?;
                    Ok(masked + report::write_event_file(&folder, &run, true)?.masked)
                };
                let masked = chosen
                    .iter()
                    .try_fold(0, write_one)
                    .map_err(|error| error.to_string())?;
                let runs = counted(chosen.len(), "run");
                Ok(format!(
                    "wrote {runs} to {}{}; tensorboard --logdir shows it",
                    folder.display(),
                    masked_secrets(masked)
                ))
            };
            vec![Work::once("runs.export", write, report).like(line)]
        },
    )))
}

/// `runs export` into a file, or as HTML of several runs into a folder.
fn command_line(form: &str, runs: &[PathBuf], file: &Path) -> CommandLine {
    match form {
        "html" => CommandLine::for_runs("export", runs, &["--html", &file.display().to_string()]),
        _ => CommandLine::for_runs("export", runs, &[&format!("--{form}")]).into_file(file),
    }
}

pub(super) fn list(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let fields = shared
        .options
        .runs_columns
        .clone()
        .unwrap_or_else(columns::usual);
    let fields: Vec<String> = fields
        .into_iter()
        .filter(|field| field != columns::TREND)
        .collect();
    let entries = shared.runs.listing.entries();
    let mut seen = std::collections::BTreeSet::new();
    let shown = runs.shown.iter().flat_map(|row| match row {
        Row::Run(index) => vec![*index],
        Row::Group(index) => runs.groups[*index].entries.clone(),
    });
    let rows = shown
        .filter(|index| seen.insert(*index))
        .filter_map(|index| entries.get(index)?.row.as_ref().ok());
    let cells = |row: &Arc<RunRow>| {
        fields
            .iter()
            .map(|name| {
                row.field(name, false)
                    .map_or_else(String::new, |value| value.to_string())
            })
            .collect()
    };
    let lines = std::iter::once(fields.clone()).chain(rows.map(cells));
    let text: String = lines
        .map(|cells: Vec<String>| report::csv_line(&cells))
        .collect();
    let none = |_: &Path| None;
    shared.open_popup(export::ask(
        shared,
        "File:",
        "runs.csv",
        "runs.export",
        none,
        move || Ok(Page::masked(&text)),
    ))
}

/// Copies a checkpoint, by default the best, into a folder of its own.
pub(super) fn promote(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(row) = runs.row(shared) else {
        return Vec::new();
    };
    let (path, here) = (row.directory.path().to_owned(), shared.options.here.clone());
    let steps: Vec<String> = row.checkpoints.iter().map(u64::to_string).collect();
    let label = format!(
        "Checkpoint (best, last, or one of {}), then the new folder:",
        steps.join(" ")
    );
    let proposed = format!(
        "best {}",
        here.join(format!("{}-adapter", row.directory.file().task))
            .display()
    );
    let question = Ask::new(
        "Export checkpoint",
        label,
        &proposed,
        move |_: &mut (), _, text| {
            let (at, folder) = text.trim().split_once(' ').unwrap_or(("best", text.trim()));
            let (reference, folder) = (
                RunReference::parse(&format!("run@{at}")),
                typed_path(folder, &here),
            );
            let checkpoint = format!("{}@{at}", path.display()).into();
            let line = CommandLine::for_runs(
                "promote",
                &[checkpoint],
                &["--out", &folder.display().to_string()],
            );
            let promote = Work::once(
                "runs.promote",
                move || -> Result<String, String> {
                    let run = RunDirectory::open(&path).map_err(|error| error.to_string())?;
                    let step = crate::run::resolve_checkpoint(&run, reference.at)
                        .map_err(|error| error.to_string())?;
                    let report = Report::read(run.clone()).map_err(|error| error.to_string())?;
                    let form = report::ExportForm::of_checkpoint(&run)
                        .map_err(|error| error.to_string())?;
                    let card = report::model_card(&report, step, None, None, &form);
                    crate::run::promote(&run, step, &card.text, &folder)
                        .map_err(|error| error.to_string())?;
                    Ok(format!(
                        "wrote {}: the checkpoint of step {step}, with provenance.json",
                        folder.display()
                    ))
                },
                report,
            );
            vec![promote.like(line)]
        },
    );
    shared.open_popup(Popup::Ask(question.checked(wrong_promotion)))
}

fn wrong_promotion(text: &str) -> Option<String> {
    let (at, folder) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let known = ["best", "last"].contains(&at) || at.parse::<u64>().is_ok();
    (!known || folder.trim().is_empty())
        .then(|| "write `best FOLDER`, `last FOLDER` or `40 FOLDER`".to_owned())
}
