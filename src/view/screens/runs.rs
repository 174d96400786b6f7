//! The runs screen: the list of runs, and actions on them.

pub mod actions;
mod columns;
mod detail;
mod draw;
mod export;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::report::{self, Entry, Listing, RunRow, order, unknown_field};
use crate::run::{DiskUse, disk_use};
use crate::view::message::{Command, ScreenState, Work};
use crate::view::shared::Shared;
use crate::view::widgets::filter::Filter;
use crate::view::widgets::list_cursor::Cursor;

const LIST: &str = "runs";
const DETAIL: &str = "details";

#[derive(Debug)]
pub struct Runs {
    /// Indices of the visible entries of the listing, sorted.
    shown: Vec<usize>,
    cursor: Cursor,
    /// The run under the cursor, so that it stays there when the list changes.
    under: Option<PathBuf>,
    marked: BTreeSet<PathBuf>,
    filter: Filter,
    /// The last filter that could be parsed: it stays while a condition is being typed.
    parsed: report::Filter,
    filter_error: Option<String>,
    sort: Sort,
    pane: &'static str,
    /// The first visible line of the details.
    detail_top: Cursor,
    /// Disk usage of the run under the cursor.
    disk: Option<(PathBuf, DiskUse)>,
}

/// The sort order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sort {
    /// A field, `config.KEY`, or a metric.
    field: String,
    descending: bool,
    /// Whether metrics are sorted by their moving average.
    smoothed: bool,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            shown: Vec::new(),
            cursor: Cursor::default(),
            under: None,
            marked: BTreeSet::new(),
            filter: Filter::default(),
            parsed: report::Filter::default(),
            filter_error: None,
            sort: Sort { field: "created".to_owned(), descending: true, smoothed: false },
            pane: LIST,
            detail_top: Cursor::default(),
            disk: None,
        }
    }
}

impl ScreenState for Runs {
    type Shared = Shared;
}

impl Runs {
    /// The run under the cursor.
    fn entry<'a>(&self, shared: &'a Shared) -> Option<&'a Entry> {
        let at = self.cursor.at(self.shown.len())?;
        shared.runs.listing.entries().get(*self.shown.get(at)?)
    }

    fn row<'a>(&self, shared: &'a Shared) -> Option<&'a Arc<RunRow>> {
        self.entry(shared).and_then(|entry| entry.row.as_ref().ok())
    }

    /// Marked runs that still exist, in the order of the list; without any, the one under the cursor.
    fn chosen(&self, shared: &Shared) -> Vec<PathBuf> {
        let marked =
            shared.runs.listing.entries().iter().map(|entry| &entry.path).filter(|path| self.marked.contains(*path));
        let marked: Vec<PathBuf> = marked.cloned().collect();
        if marked.is_empty() {
            self.entry(shared).map(|entry| entry.path.clone()).into_iter().collect()
        } else {
            marked
        }
    }

    /// Filters and sorts again; the cursor stays on its run.
    fn arrange(&mut self, shared: &Shared) {
        let (entries, rows) = (shared.runs.listing.entries(), || rows_of(&shared.runs.listing));
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
            entry.row.as_ref().map_or_else(|_| filter.matches_id(&entry.id()), |row| filter.matches(row))
        };
        let shown = (0..entries.len()).filter(|index| fits(&entries[*index]));
        let Sort { field, descending, smoothed } = &self.sort;
        let key =
            |index: usize| entries[index].row.as_ref().ok().and_then(|row| columns::sorted_by(row, field, *smoothed));
        let mut keyed: Vec<_> = shown.map(|index| (key(index), index)).collect();
        keyed.sort_by(|a, b| order(a.0.clone(), b.0.clone(), *descending));
        self.shown = keyed.into_iter().map(|(_, index)| index).collect();
        let place = self.shown.iter().position(|index| Some(&entries[*index].path) == self.under.as_ref());
        self.cursor.index = place.unwrap_or(self.cursor.at(self.shown.len()).unwrap_or(0));
    }
}

/// The readable runs.
fn rows_of(listing: &Listing) -> impl Iterator<Item = &RunRow> + Clone {
    listing.entries().iter().filter_map(|entry| entry.row.as_deref().ok())
}

/// After a cursor move: measures the folder of the run under it, unless that was done.
fn under_cursor(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let under = runs.entry(shared).map(|entry| entry.path.clone());
    if under != runs.under {
        runs.detail_top = Cursor::default();
        runs.under = under;
    }
    let measured = runs.disk.as_ref().map(|(path, _)| path);
    if measured == runs.under.as_ref() { Vec::new() } else { measure(runs) }
}

fn measure(runs: &Runs) -> Vec<Command> {
    match runs.under.clone() {
        Some(path) => vec![Work::latest(
            "runs.disk",
            move |_| (disk_use(&path), path),
            |runs: &mut Runs, _, (disk, path)| {
                // The cursor may have moved, or come back to a run that was measured.
                if runs.under.as_ref() == Some(&path) {
                    runs.disk = Some((path, disk));
                }
                Vec::new()
            },
        )],
        None => Vec::new(),
    }
}

/// Why there is no run for an action.
fn no_run(runs: &Runs, shared: &Shared) -> Option<String> {
    runs.entry(shared).is_none().then(|| "no run selected".to_owned())
}

/// The same, also if it cannot be read.
fn no_readable(runs: &Runs, shared: &Shared) -> Option<String> {
    let error = || {
        runs.entry(shared)
            .and_then(|entry| entry.row.as_ref().err())
            .map(|error| format!("cannot read this run: {error}"))
    };
    no_run(runs, shared).or_else(error)
}
