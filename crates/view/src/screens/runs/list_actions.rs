//! Actions on the list of runs: open, mark, sort, group, rename, compare.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Row, Runs, columns, rows_of, under_cursor};
use crate::command_log::CommandLine;
use crate::format::{counted, short_id};
use crate::message::{Command, Work};
use crate::page::Block;
use crate::pane::page::PageLines;
use crate::popup::{Ask, Page, Pick, PickEntry, Popup};
use crate::report::{
    GROUPINGS, Report, RunComparison, RunGroup, base_and_trained, field_text, group_values,
    held_out_sets, result_on,
};
use crate::run::{RunDirectory, check_name, rename_run, unpack_recording};
use crate::screens::Screen;
use crate::shared::{self, Shared};

pub(super) fn open(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    if let Some(value) = runs.group().map(|group| group.value.clone()) {
        if !runs.expanded.remove(&value) {
            runs.expanded.insert(value);
        }
        runs.arrange(shared);
        return Vec::new();
    }
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

pub(super) fn mark(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    toggle_marks(runs, runs.under_marks(shared));
    let length = runs.shown.len();
    runs.cursor.go(1, length);
    under_cursor(runs, shared)
}

/// Marks these runs; unmarks them if all of them were marked.
pub(super) fn toggle_marks(runs: &mut Runs, paths: Vec<PathBuf>) {
    if paths.iter().all(|path| runs.marked.contains(path)) {
        paths.iter().for_each(|path| _ = runs.marked.remove(path));
    } else {
        runs.marked.extend(paths);
    }
}

/// Marks or unmarks all runs that the filter lets through.
pub(super) fn mark_all(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let entries = shared.runs.listing.entries();
    let seen = runs.shown.iter().flat_map(|row| match row {
        Row::Run(index) => vec![*index],
        Row::Group(index) => runs.groups[*index].entries.clone(),
    });
    let all = seen
        .filter_map(|index| Some(entries.get(index)?.path.clone()))
        .collect();
    toggle_marks(runs, all);
    Vec::new()
}

/// Lists the fields by which runs are grouped, those in which these runs differ with the number of groups.
pub(super) fn group_by(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let rows = || rows_of(&shared.runs.listing);
    let of_field = |by: &str| {
        let values: BTreeSet<String> = rows().flat_map(|row| group_values(row, by)).collect();
        (by.to_owned(), values.len())
    };
    let all = RunGroup {
        value: String::new(),
        runs: rows().collect(),
    };
    let different = all.different_keys();
    let of_key = |key: &crate::config::Key| {
        let found = different.iter().find(|(name, _)| name == key.name);
        (
            format!("config.{}", key.name),
            found.map_or(1, |(_, count)| *count),
        )
    };
    let mut fields: Vec<(String, usize)> = GROUPINGS
        .into_iter()
        .map(of_field)
        .chain(crate::config::KEYS.iter().map(of_key))
        .collect();
    // A field in which no two runs differ makes one group.
    fields.sort_by_key(|(_, count)| *count < 2);
    let now = runs.group_by.as_deref().unwrap_or("setup");
    let now = fields.iter().position(|(by, _)| by == now).unwrap_or(0) + 1;
    let entry = |(by, count): &(String, usize)| PickEntry {
        label: by.clone(),
        beside: match by.as_str() {
            "setup" => format!(
                "{} of runs that differ in their seed only",
                counted(*count, "group")
            ),
            _ => counted(*count, "group"),
        },
        ..PickEntry::default()
    };
    let none = PickEntry {
        label: NO_GROUPS.to_owned(),
        ..PickEntry::default()
    };
    let entries = std::iter::once(none)
        .chain(fields.iter().map(entry))
        .collect();
    let chosen = move |runs: &mut Runs, shared: &mut Shared, index: usize| {
        let by = index.checked_sub(1).and_then(|at| fields.get(at));
        regroup(runs, shared, by.map(|(by, _)| by.clone()))
    };
    shared.open_popup(Popup::Pick(Pick::new(
        "Group runs by",
        entries,
        now,
        chosen,
    )))
}

const NO_GROUPS: &str = "no groups";

fn regroup(runs: &mut Runs, shared: &mut Shared, by: Option<String>) -> Vec<Command> {
    runs.group_by = by;
    runs.expanded.clear();
    runs.cursor.index = 0;
    runs.arrange(shared);
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

pub(super) fn sort_by_column(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let sort = &mut runs.sort;
    let usual = || columns::usual_of(rows_of(&shared.runs.listing));
    let fields = shared.options.runs_columns.clone().unwrap_or_else(usual);
    let fields: Vec<String> = columns::columns(usize::MAX, &fields, "created", false)
        .into_iter()
        .map(|column| column.field)
        .filter(|field| field != columns::TREND)
        .collect();
    if fields.is_empty() {
        return Vec::new();
    }
    let now = fields
        .iter()
        .position(|field| *field == sort.field)
        .unwrap_or(0);
    let next = (now + 1) % fields.len();
    sort.descending = is_descending_by_default(&fields[next]);
    sort.field.clone_from(&fields[next]);
    runs.arrange(shared);
    Vec::new()
}

fn is_descending_by_default(field: &str) -> bool {
    ![
        "status", "run", "task", "model", "tags", "name", "alerts", "outcome",
    ]
    .contains(&field)
}

/// Sorts by the column whose title was clicked; a second click reverses the order.
pub(super) fn sort_by_title(runs: &mut Runs, shared: &mut Shared, field: &str) {
    let sort = &mut runs.sort;
    sort.descending = if sort.field == field {
        !sort.descending
    } else {
        is_descending_by_default(field)
    };
    field.clone_into(&mut sort.field);
    runs.arrange(shared);
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
