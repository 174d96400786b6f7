//! Actions on the list of runs: open, mark, sort, rename, compare.

use std::path::PathBuf;

use super::{Runs, columns, rows_of, under_cursor};
use crate::command_log::CommandLine;
use crate::format::short_id;
use crate::message::{Command, Work};
use crate::page::Block;
use crate::pane::page::PageLines;
use crate::popup::{Ask, Page, Pick, PickEntry, Popup};
use crate::report::{
    Report, RunComparison, base_and_trained, field_text, held_out_sets, result_on,
};
use crate::run::{RunDirectory, check_name, rename_run, unpack_recording};
use crate::screens::Screen;
use crate::shared::{self, Shared};

pub(super) fn open(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(path) = runs.entry(shared).map(|entry| entry.path.clone()) else {
        return Vec::new();
    };
    shared.overlay.clear();
    vec![Command::ShowRun(path), Command::GoTo(Screen::Live)]
}

/// Opens the run under the cursor with the marked ones as overlays. Of several marked runs without it, the newest is
/// opened: marking moves the cursor on, to a run that need not be meant.
pub(super) fn overlay(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let chosen = runs.chosen(shared);
    let under = runs.entry(shared).map(|entry| entry.path.clone());
    let path = under
        .filter(|path| chosen.len() < 2 || chosen.contains(path))
        .or_else(|| chosen.last().cloned());
    let Some(path) = path else { return Vec::new() };
    let others: Vec<_> = chosen.into_iter().filter(|other| *other != path).collect();
    shared.overlay.clone_from(&others);
    let mut commands = vec![Command::ShowRun(path)];
    for other in others {
        commands.extend(shared::follow(shared, other));
    }
    commands.push(Command::GoTo(Screen::Live));
    commands
}

/// Marks the run under the cursor, or unmarks it, and goes to the next.
pub(super) fn mark(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    if let Some(path) = runs.entry(shared).map(|entry| entry.path.clone())
        && !runs.marked.remove(&path)
    {
        runs.marked.insert(path);
    }
    let length = runs.shown.len();
    runs.cursor.go(1, length);
    under_cursor(runs, shared)
}

pub(super) fn rename(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(directory) = runs.row(shared).map(|row| row.directory.clone()) else {
        return Vec::new();
    };
    let label = format!(
        "Name of {}; empty: the one it was created with",
        short_id(directory.id())
    );
    let now = directory.name().to_owned();
    let question = Ask::new("Rename run", label, &now, move |_: &mut (), _, name| {
        let line = CommandLine::for_runs("rename", &[directory.path().to_owned()], &[&name]);
        let rename = move || -> Result<String, String> {
            directory
                .check_private()
                .and_then(|()| rename_run(directory.path(), &name))
                .map_err(|error| error.to_string())?;
            let renamed =
                RunDirectory::open(directory.path()).map_err(|error| error.to_string())?;
            let name = if renamed.name().is_empty() {
                "without a name"
            } else {
                renamed.name()
            };
            Ok(format!("{} is now {name}", short_id(renamed.id())))
        };
        let renaming = Work::once("runs.rename", rename, |_: &mut (), shared, outcome| {
            match outcome {
                Ok(text) => shared.say(text),
                Err(error) => shared.complain(error),
            };
            shared.look_for_runs()
        });
        vec![renaming.like(line)]
    });
    let wrong = |name: &str| {
        if name.trim().is_empty() {
            None
        } else {
            check_name(name.trim())
        }
    };
    shared.open_popup(Popup::Ask(question.checked(wrong)))
}

fn is_descending_by_default(field: &str) -> bool {
    ![
        "status", "run", "task", "model", "tags", "name", "alerts", "outcome",
    ]
    .contains(&field)
}

/// Lists the fields, metrics and keys to sort by, with the value of the run under the cursor.
pub(super) fn sort_by(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let fields: Vec<String> = columns::offered(rows_of(&shared.runs.listing))
        .into_iter()
        .filter(|field| field != columns::TREND)
        .collect();
    let row = runs.row(shared);
    let value = |field: &str| Some(field_text(field, &row?.field(field, false)?));
    let entry = |field: &String| PickEntry {
        label: field.clone(),
        beside: value(field).unwrap_or_default(),
        ..PickEntry::default()
    };
    let entries = fields.iter().map(entry).collect();
    let now = fields.iter().position(|field| *field == runs.sort.field);
    let chosen = move |runs: &mut Runs, shared: &mut Shared, index: usize| {
        if let Some(field) = fields.get(index) {
            runs.sort.descending = is_descending_by_default(field);
            runs.sort.field.clone_from(field);
            runs.arrange(shared);
        }
        Vec::new()
    };
    let pick = Pick::new("Sort runs by", entries, now.unwrap_or(0), chosen);
    shared.open_popup(Popup::Pick(pick))
}

/// Shows evals of the chosen runs on the eval screen: base and result of one run, the results of several.
pub(super) fn versus(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    show_answers(runs.chosen(shared))
}

pub(super) fn show_answers(runs: Vec<PathBuf>) -> Vec<Command> {
    let line = CommandLine::for_runs("compare", &runs, &[]);
    let compare = Work::once(
        "runs.versus",
        move || {
            let evals = match &runs[..] {
                [run] => base_and_trained(run),
                // Several runs show only their results.
                runs => runs
                    .iter()
                    .map(|run| result_on(run, &held_out_sets(run)))
                    .collect(),
            };
            evals.map_err(|error| error.to_string())
        },
        |_: &mut Runs, shared, evals| match evals {
            Ok(evals) => vec![Command::Compare(evals)],
            Err(error) => shared.complain(error),
        },
    );
    vec![Command::GoTo(Screen::Eval), compare.like(line)]
}

pub(super) fn compare(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let paths = runs.chosen(shared);
    let line = CommandLine::for_runs("compare", &paths, &[]);
    let work = Work::once(
        "runs.compare",
        move || -> Result<Vec<Block>, crate::run::RunError> {
            let reports = paths
                .iter()
                .map(|path| Report::read(RunDirectory::open(path)?))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(RunComparison::for_reports(&reports).page(Vec::new()))
        },
        |_: &mut Runs, shared, page| match page {
            Ok(_) if shared.takes_text() => {
                let key = shared.key_of("runs.compare");
                shared.complain(format!("comparison ready: press {key} again to show it"))
            }
            Ok(page) => {
                let page = PageLines {
                    theme: &shared.theme,
                    columns: usize::MAX,
                }
                .lines(&page);
                shared.open_popup(Popup::Page(Page::new("Run comparison", page)))
            }
            Err(error) => shared.complain(error.to_string()),
        },
    );
    vec![work.like(line)]
}

pub(super) fn open_recording(_: &mut Runs, _: &mut Shared) -> Vec<Command> {
    vec![Work::once(
        "runs.recording",
        unpack_recording,
        |_: &mut Runs, shared, unpacked| match unpacked {
            Ok(run) => vec![Command::ShowRun(run), Command::GoTo(Screen::Live)],
            Err(error) => shared.complain(error.to_string()),
        },
    )]
}
