//! Runs screen: the list of runs, and actions on them.

pub mod actions;
mod columns;
mod detail;
mod draw;
mod interaction;
mod list_actions;
mod pipeline;
mod removal;
mod tags;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::message::{Command, Work};
use crate::report::{self, Entry, Listing, RunRow, order, unknown_field};
use crate::run::{DiskUse, disk_use};
use crate::shared::Shared;
use crate::widgets::filter::Filter;
use crate::widgets::list_cursor::Cursor;

const PIPELINE: &str = "pipeline";
const LIST: &str = "runs";
const DETAIL: &str = "details";

#[derive(Debug)]
pub struct Runs {
    /// Indices of the visible runs in the listing, sorted.
    shown: Vec<usize>,
    cursor: Cursor,
    /// The run under the cursor, to keep the cursor there when the list changes.
    under: Option<PathBuf>,
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

    fn entry<'a>(&self, shared: &'a Shared) -> Option<&'a Entry> {
        let index = *self.shown.get(self.cursor.at(self.shown.len())?)?;
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

    fn row<'a>(&self, shared: &'a Shared) -> Option<&'a Arc<RunRow>> {
        self.entry(shared).and_then(|entry| entry.row.as_ref().ok())
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
            let under = self.entry(shared).map(|entry| entry.path.clone());
            under.into_iter().collect()
        } else {
            marked
        }
    }

    /// Filters and sorts again; the cursor stays on its run.
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
        self.shown = keyed.into_iter().map(|(_, index)| index).collect();
        let place = |run: &PathBuf| {
            let mut shown = self.shown.iter();
            shown.position(|index| entries[*index].path == *run)
        };
        if let Some(opened) = self.opened.take_if(|opened| place(opened).is_some()) {
            self.under = Some(opened);
        }
        let place = self.under.as_ref().and_then(place);
        self.cursor.index = place.unwrap_or(self.cursor.at(self.shown.len()).unwrap_or(0));
    }
}

fn rows_of(listing: &Listing) -> impl Iterator<Item = &RunRow> + Clone {
    listing
        .entries()
        .iter()
        .filter_map(|entry| entry.row.as_deref().ok())
}

/// Measures the folder of the run under the cursor unless already done.
fn under_cursor(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let under = runs.entry(shared).map(|entry| entry.path.clone());
    if under != runs.under && (under.is_some() || runs.shown.is_empty()) {
        runs.detail_top = Cursor::default();
        runs.under = under;
    }
    let measured = runs.disk.as_ref().map(|(path, _)| path);
    if measured == runs.under.as_ref() {
        Vec::new()
    } else {
        measure(runs)
    }
}

fn measure(runs: &Runs) -> Vec<Command> {
    let Some(path) = runs.under.clone() else {
        return Vec::new();
    };
    vec![Work::latest(
        "runs.disk",
        move |_| (disk_use(&path), path),
        |runs: &mut Runs, _, (disk, path)| {
            // The cursor may have moved, or returned to a measured run.
            if runs.under.as_ref() == Some(&path) {
                runs.disk = Some((path, disk));
            }
            Vec::new()
        },
    )]
}

fn no_run(runs: &Runs, shared: &Shared) -> Option<String> {
    let none = runs.entry(shared).is_none();
    none.then(|| "no run selected".to_owned())
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
