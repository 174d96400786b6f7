//! Runs screen: the list of runs, and actions on them.

pub mod actions;
mod columns;
mod detail;
mod draw;
mod group_detail;
mod interaction;
mod list_actions;
mod pipeline;
mod removal;
mod tags;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::message::{Command, Work};
use crate::report::{
    self, Entry, Listing, RunGroup, RunRow, group_labels, group_values, order, unknown_field,
};
use crate::run::{DiskUse, Field, RunFolders, disk_use};
use crate::shared::Shared;
use crate::study::{SweepFolder, SweepTable};
use crate::widgets::filter::Filter;
use crate::widgets::list_cursor::Cursor;

const PIPELINE: &str = "pipeline";
const LIST: &str = "runs";
const DETAIL: &str = "details";
/// Replaces the details while columns are chosen; not in tab order.

#[derive(Debug)]
pub struct Runs {
    /// The visible rows, sorted.
    shown: Vec<Row>,
    filtered: usize,
    group_by: Option<String>,
    groups: Vec<Group>,
    expanded: BTreeSet<String>,
    cursor: Cursor,
    /// The entry under the cursor, to keep the cursor there when the list changes.
    under: Option<RunPosition>,
    /// The last opened run: the cursor moves to it once, when it is listed.
    opened: Option<PathBuf>,
    marked: BTreeSet<PathBuf>,
    filter: Filter,
    /// The last valid filter: stays active while a condition is being typed.
    parsed: report::Filter,
    filter_error: Option<String>,
    sort: Sort,
    pane: &'static str,
    stage: Cursor,
    /// First visible line of the details.
    detail_top: Cursor,
    disk: Option<(PathBuf, DiskUse)>,
    /// Tag and table of the sweep whose runs are the group under the cursor.
    sweep: Option<(String, SweepTable)>,
}

/// A row of the list: the index of a group, or of an entry of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Group(usize),
    Run(usize),
}

/// Runs with the same value of a field.
#[derive(Debug)]
struct Group {
    value: String,
    label: String,
    /// Indices into the listing.
    entries: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RunPosition {
    Group(String),
    Run(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Sort {
    /// A field, `config.KEY`, or a metric.
    field: String,
    descending: bool,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            shown: Vec::new(),
            filtered: 0,
            group_by: None,
            groups: Vec::new(),
            expanded: BTreeSet::new(),
            cursor: Cursor::default(),
            under: None,
            opened: None,
            marked: BTreeSet::new(),
            filter: Filter::default(),
            parsed: report::Filter::default(),
            filter_error: None,
            sort: Sort {
                field: "created".to_owned(),
                descending: true,
            },
            pane: LIST,
            stage: Cursor::default(),
            detail_top: Cursor::default(),
            disk: None,
            sweep: None,
        }
    }
}

impl Runs {
    /// Without runs, the pipeline replaces list and details.
    fn go_to_pane(&mut self, shared: &Shared, pane: &'static str) {
        let is_empty = shared.runs.listing.entries().is_empty() && shared.runs.listed;
        self.pane = if is_empty && [LIST, DETAIL].contains(&pane) {
            PIPELINE
        } else {
            pane
        };
    }

    fn row_under(&self) -> Option<Row> {
        self.shown.get(self.cursor.at(self.shown.len())?).copied()
    }

    fn entry<'a>(&self, shared: &'a Shared) -> Option<&'a Entry> {
        let Some(Row::Run(index)) = self.row_under() else {
            return None;
        };
        shared.runs.listing.entries().get(index)
    }

    /// The run under the cursor, and the step of its best checkpoint, else of its last.
    pub fn selected(&self, shared: &Shared) -> Option<(PathBuf, Option<u64>)> {
        let entry = self.entry(shared)?;
        let step = entry.row.as_ref().ok().and_then(|row| {
            let best = row.best.filter(|best| row.checkpoints.contains(best));
            best.or_else(|| row.checkpoints.last().copied())
        });
        Some((entry.path.clone(), step))
    }

    fn group(&self) -> Option<&Group> {
        let Some(Row::Group(index)) = self.row_under() else {
            return None;
        };
        self.groups.get(index)
    }

    fn row<'a>(&self, shared: &'a Shared) -> Option<&'a Arc<RunRow>> {
        self.entry(shared).and_then(|entry| entry.row.as_ref().ok())
    }

    fn under_marks(&self, shared: &Shared) -> Vec<PathBuf> {
        match self.row_under() {
            Some(Row::Run(_)) => self
                .entry(shared)
                .map(|entry| entry.path.clone())
                .into_iter()
                .collect(),
            Some(Row::Group(index)) => self.groups[index].paths(shared).cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Marked runs that still exist, in list order; if none, those under the cursor.
    fn chosen(&self, shared: &Shared) -> Vec<PathBuf> {
        let entries = shared.runs.listing.entries();
        let marked = entries
            .iter()
            .map(|entry| &entry.path)
            .filter(|path| self.marked.contains(*path));
        let marked: Vec<PathBuf> = marked.cloned().collect();
        if marked.is_empty() {
            self.under_marks(shared)
        } else {
            marked
        }
    }

    /// Filters, sorts and groups again; the cursor stays on its entry.
    fn arrange(&mut self, shared: &Shared) {
        let (entries, rows) = (shared.runs.listing.entries(), || {
            rows_of(&shared.runs.listing)
        });
        match report::Filter::parse(self.filter.text()) {
            Ok(filter) => {
                self.filter_error = filter
                    .fields()
                    .iter()
                    .find_map(|name| unknown_field(name, rows(), false))
                    .filter(|_| rows().next().is_some());
                self.parsed = filter;
            }
            Err(error) => self.filter_error = Some(error.to_string()),
        }
        let filter = &self.parsed;
        let fits = |entry: &Entry| {
            entry.row.as_ref().map_or_else(
                |_| filter.matches_id(&entry.id()),
                |row| filter.matches(row),
            )
        };
        let shown = (0..entries.len()).filter(|index| fits(&entries[*index]));
        let Sort { field, descending } = &self.sort;
        let key = |index: usize| {
            entries[index]
                .row
                .as_ref()
                .ok()
                .and_then(|row| columns::sorted_by(row, field))
        };
        let mut keyed: Vec<_> = shown.map(|index| (key(index), index)).collect();
        keyed.sort_by(|a, b| order(a.0.clone(), b.0.clone(), *descending));
        let sorted: Vec<usize> = keyed.into_iter().map(|(_, index)| index).collect();
        self.filtered = sorted.len();
        self.groups = self
            .group_by
            .as_deref()
            .map_or_else(Vec::new, |by| grouped(&sorted, by, &self.sort, shared));
        self.shown = match self.group_by {
            None => sorted.into_iter().map(Row::Run).collect(),
            Some(_) => {
                let runs = |group: &Group| {
                    let seen = self.expanded.contains(&group.value);
                    group
                        .entries
                        .iter()
                        .copied()
                        .filter(move |_| seen)
                        .map(Row::Run)
                        .collect::<Vec<_>>()
                };
                let rows = self.groups.iter().enumerate();
                rows.flat_map(|(index, group)| [vec![Row::Group(index)], runs(group)].concat())
                    .collect()
            }
        };
        let at = self.cursor.index;
        let opened = self.opened.clone().map(RunPosition::Run);
        if opened.is_some()
            && self
                .shown
                .iter()
                .any(|row| Some(self.under_row(*row, shared)) == opened)
        {
            (self.under, self.opened) = (opened, None);
        }
        let same = |row: Row| Some(self.under_row(row, shared)) == self.under;
        // When grouped by tag, a run may be in several groups.
        let places = (0..self.shown.len()).filter(|place| same(self.shown[*place]));
        let place = places.min_by_key(|place| place.abs_diff(at));
        self.cursor.index = place.unwrap_or(self.cursor.at(self.shown.len()).unwrap_or(0));
    }

    fn under_row(&self, row: Row, shared: &Shared) -> RunPosition {
        match row {
            Row::Group(index) => RunPosition::Group(self.groups[index].value.clone()),
            Row::Run(index) => RunPosition::Run(shared.runs.listing.entries()[index].path.clone()),
        }
    }
}

impl Group {
    fn paths<'a>(&self, shared: &'a Shared) -> impl Iterator<Item = &'a PathBuf> {
        let entries = shared.runs.listing.entries();
        self.entries
            .iter()
            .filter_map(|index| Some(&entries.get(*index)?.path))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn runs<'a>(&self, shared: &'a Shared) -> RunGroup<'a> {
        let entries = shared.runs.listing.entries();
        let runs = self
            .entries
            .iter()
            .filter_map(|index| entries.get(*index)?.row.as_deref().ok())
            .collect();
        RunGroup {
            value: self.value.clone(),
            runs,
        }
    }
}

/// Groups entries, ordered by the mean of the sort field if numeric, else by their first runs.
fn grouped(sorted: &[usize], by: &str, sort: &Sort, shared: &Shared) -> Vec<Group> {
    let entries = shared.runs.listing.entries();
    let mut groups: Vec<Group> = Vec::new();
    for &index in sorted {
        let values = entries[index].row.as_ref().map_or_else(
            |_| vec!["unreadable".to_owned()],
            |row| group_values(row, by),
        );
        for value in values {
            match groups.iter_mut().find(|group| group.value == value) {
                Some(group) => group.entries.push(index),
                None => groups.push(Group {
                    label: value.clone(),
                    value,
                    entries: vec![index],
                }),
            }
        }
    }
    let mean = |group: &Group| {
        group
            .runs(shared)
            .mean(&sort.field, false)
            .map(|found| Field::Number(found.mean))
    };
    let mut keyed: Vec<_> = groups
        .into_iter()
        .map(|group| (mean(&group), group))
        .collect();
    keyed.sort_by(|a, b| order(a.0.clone(), b.0.clone(), sort.descending));
    let mut groups: Vec<Group> = keyed.into_iter().map(|(_, group)| group).collect();
    let labels = group_labels(
        &groups
            .iter()
            .map(|group| group.runs(shared))
            .collect::<Vec<_>>(),
        by,
    );
    groups
        .iter_mut()
        .zip(labels)
        .for_each(|(group, label)| group.label = label);
    groups
}

fn rows_of(listing: &Listing) -> impl Iterator<Item = &RunRow> + Clone {
    listing
        .entries()
        .iter()
        .filter_map(|entry| entry.row.as_deref().ok())
}

/// Measures the folder of the run under the cursor unless already done, or reads the sweep of the
/// group.
fn under_cursor(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let under = runs.row_under().map(|row| runs.under_row(row, shared));
    if under != runs.under && (under.is_some() || runs.shown.is_empty()) {
        runs.detail_top = Cursor::default();
        runs.under = under;
    }
    let measured = runs
        .disk
        .as_ref()
        .map(|(path, _)| RunPosition::Run(path.clone()));
    if measured == runs.under {
        Vec::new()
    } else {
        measure(runs, shared)
    }
}

fn measure(runs: &Runs, shared: &Shared) -> Vec<Command> {
    match runs.under.clone() {
        Some(RunPosition::Run(path)) => vec![Work::latest(
            "runs.disk",
            move |_| (disk_use(&path), path),
            |runs: &mut Runs, _, (disk, path)| {
                // The cursor may have moved, or returned to a measured run.
                if runs.under.as_ref() == Some(&RunPosition::Run(path.clone())) {
                    runs.disk = Some((path, disk));
                }
                Vec::new()
            },
        )],
        Some(RunPosition::Group(tag)) if runs.group_by.as_deref() == Some("tags") => {
            vec![read_sweep(tag, shared.options.run_folders.clone())]
        }
        _ => Vec::new(),
    }
}

fn read_sweep(tag: String, places: RunFolders) -> Command {
    let table = move || {
        let table = SweepFolder::find(&places, &tag)
            .ok()
            .map(|(folder, sweep)| SweepTable::for_sweep(&folder, sweep));
        table.map(|table| (tag, table))
    };
    Work::latest(
        "runs.sweep",
        move |_| table(),
        |runs: &mut Runs, _, table| {
            runs.sweep = table;
            Vec::new()
        },
    )
}

fn no_run(runs: &Runs, shared: &Shared) -> Option<String> {
    match () {
        () if runs.entry(shared).is_some() => None,
        () if runs.group().is_some() => Some(format!(
            "a group is selected, not a run: {} shows its runs",
            shared.key_of("runs.open")
        )),
        () => Some("no run selected".to_owned()),
    }
}

/// Why there is no run for an action that also accepts an unreadable one.
fn no_readable(runs: &Runs, shared: &Shared) -> Option<String> {
    let error = || {
        runs.entry(shared)
            .and_then(|entry| entry.row.as_ref().err())
            .map(|error| format!("cannot read this run: {error}"))
    };
    no_run(runs, shared).or_else(error)
}

/// Why there are no runs for an action on marked runs, or those under the cursor.
fn none_chosen(runs: &Runs, shared: &Shared) -> Option<String> {
    let chosen = runs.chosen(shared);
    if chosen.is_empty() {
        return no_run(runs, shared);
    }
    let entries = shared
        .runs
        .listing
        .entries()
        .iter()
        .filter(|entry| chosen.contains(&entry.path));
    let (readable, broken): (Vec<&Entry>, Vec<&Entry>) =
        entries.partition(|entry| entry.row.is_ok());
    let first = broken.first().and_then(|entry| entry.row.as_ref().err());
    first
        .filter(|_| readable.is_empty())
        .map(|error| format!("cannot read this run: {error}"))
}
