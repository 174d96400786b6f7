//! Screen 1: the runs there are, and what can be done with them.

mod actions;
mod columns;
mod control;
mod detail;
mod draw;
mod export;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{KeyEvent, MouseButton, MouseEvent, MouseEventKind};

pub(super) use self::columns::state;
pub(super) use self::export::{told, written, written_path};
use super::{Change, ScreenDef};
use crate::report::{Entry, Filter, Listing, RunRow, order, unknown_field};
use crate::run::{DiskUse, Status, disk_use};
use crate::view::app::Model;
use crate::view::message::{Command, Work};
use crate::view::screens::Screen;
use crate::view::widgets::field::Field;
use crate::view::widgets::list_cursor::Cursor;

/// How often the runs are looked for while the screen is in front, milliseconds.
const LOOK_MS: u64 = 2_000;
/// How often the runs found so far are shown while many are read for the first time.
const PIECE: Duration = Duration::from_millis(150);

const LIST: &str = "runs";
const DETAIL: &str = "details";

/// The screen's own part of the model.
#[derive(Debug)]
pub struct Runs {
    listing: Listing,
    /// Whether all runs have been looked at once.
    listed: bool,
    /// When that was last begun.
    looked_ms: u64,
    /// Which entries of the listing are shown, in their order.
    shown: Vec<usize>,
    cursor: Cursor,
    /// The run under the cursor, so that it stays there when the list changes.
    under: Option<PathBuf>,
    marked: BTreeSet<PathBuf>,
    filter: Field,
    typing: bool,
    filter_error: Option<String>,
    sort: Sort,
    pane: &'static str,
    /// The first line of the details that is drawn.
    detail_top: usize,
    /// What the folder of the run under the cursor takes.
    disk: Option<(PathBuf, DiskUse)>,
    /// The recorded run that comes with the source, where it is found.
    demonstration: Option<PathBuf>,
}

/// In which order runs stand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sort {
    /// A field, `config.KEY`, or a metric.
    field: String,
    descending: bool,
    /// Metrics by their moving average.
    smoothed: bool,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            listing: Listing::default(),
            listed: false,
            looked_ms: 0,
            shown: Vec::new(),
            cursor: Cursor::default(),
            under: None,
            marked: BTreeSet::new(),
            filter: Field::default(),
            typing: false,
            filter_error: None,
            sort: Sort { field: "created".to_owned(), descending: true, smoothed: false },
            pane: LIST,
            detail_top: 0,
            disk: None,
            demonstration: None,
        }
    }
}

pub const PARTS: ScreenDef = ScreenDef {
    title: "Runs",
    help: "All runs. Filter (tiny valid>0.9 and tags:best), sort, open, compare, export.",
    panes: &[LIST, DETAIL],
    actions: actions::ACTIONS,
    pane: |model| model.runs.pane,
    focus: |model, pane| model.runs.pane = pane,
    is_typing: |model| model.runs.typing,
    takes_tab: |_| false,
    typed,
    pasted: |model, text| {
        if model.runs.typing {
            model.runs.filter.paste(text);
            model.runs.arrange();
        }
        under_cursor(model)
    },
    mouse,
    opens: |model, (column, row)| draw::row_at(model, column, row).is_some(),
    entered: look,
    changed: |model, change| match change {
        Change::Second if is_looked_at(model) && model.shared.now_ms.saturating_sub(model.runs.looked_ms) >= LOOK_MS => look(model),
        _ => Vec::new(),
    },
    draw: draw::draw,
};

impl Runs {
    /// The runs, oldest first; other screens choose among them.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The run under the cursor.
    fn entry(&self) -> Option<&Entry> {
        let at = self.cursor.at(self.shown.len())?;
        self.listing.entries().get(*self.shown.get(at)?)
    }

    fn row(&self) -> Option<&Arc<RunRow>> {
        self.entry().and_then(|entry| entry.row.as_ref().ok())
    }

    /// Marked runs that are still there, in the order of the list; without any, the one under the cursor.
    fn chosen(&self) -> Vec<PathBuf> {
        let marked: Vec<PathBuf> =
            self.listing.entries().iter().filter(|entry| self.marked.contains(&entry.path)).map(|entry| entry.path.clone()).collect();
        if marked.is_empty() { self.entry().map(|entry| entry.path.clone()).into_iter().collect() } else { marked }
    }

    fn rows(&self) -> impl Iterator<Item = &RunRow> + Clone {
        self.listing.entries().iter().filter_map(|entry| entry.row.as_deref().ok())
    }

    /// Filter and sort anew; the cursor stays on its run.
    fn arrange(&mut self) {
        let filter = match Filter::parse(self.filter.text()) {
            Ok(filter) => {
                self.filter_error = filter
                    .fields()
                    .iter()
                    .find_map(|name| unknown_field(name, self.rows(), false))
                    .filter(|_| self.rows().next().is_some());
                Some(filter)
            }
            Err(error) => {
                self.filter_error = Some(error.to_string());
                None
            }
        };
        // While a condition is being typed and cannot be read, the list stays as it was.
        let shown: Vec<usize> = match &filter {
            Some(filter) => {
                let fits = |entry: &Entry| entry.row.as_ref().map_or_else(|_| filter.matches_id(&entry.id()), |row| filter.matches(row));
                (0..self.listing.entries().len()).filter(|index| fits(&self.listing.entries()[*index])).collect()
            }
            None => self.shown.iter().copied().filter(|index| *index < self.listing.entries().len()).collect(),
        };
        let Sort { field, descending, smoothed } = &self.sort;
        let key = |index: usize| self.listing.entries()[index].row.as_ref().ok().and_then(|row| columns::sorted_by(row, field, *smoothed));
        let mut keyed: Vec<_> = shown.into_iter().map(|index| (key(index), index)).collect();
        keyed.sort_by(|a, b| order(a.0.clone(), b.0.clone(), *descending));
        self.shown = keyed.into_iter().map(|(_, index)| index).collect();
        let place = self.shown.iter().position(|index| Some(&self.listing.entries()[*index].path) == self.under.as_ref());
        self.cursor.index = place.unwrap_or(self.cursor.at(self.shown.len()).unwrap_or(0));
    }

    fn set_listing(&mut self, listing: Listing) {
        self.listing = listing;
        self.arrange();
    }
}

/// Look for runs, and read what is new of them, beside the view.
pub(super) fn look(model: &mut Model) -> Vec<Command> {
    if model.shared.is_busy("runs") {
        return Vec::new();
    }
    model.runs.looked_ms = model.shared.now_ms;
    let (places, before, here) = (model.shared.places.clone(), model.runs.listing.clone(), model.shared.options.here.clone());
    let first = !model.runs.listed;
    vec![Work::stream("runs", move |outlet| {
        let mut told = Instant::now();
        let listing = before.refreshed(&places, &mut |so_far| {
            if !first || told.elapsed() < PIECE {
                return true;
            }
            told = Instant::now();
            let so_far = so_far.clone();
            outlet.put(move |model| {
                model.runs.set_listing(so_far);
                Vec::new()
            })
        });
        let demonstration =
            here.ancestors().map(|folder| folder.join("sample-data/finished-run")).find(|run| run.join("run.toml").is_file());
        outlet.put(move |model| {
            model.runs.listed = true;
            model.runs.demonstration = demonstration;
            let news = listing.read > 0;
            model.runs.set_listing(listing);
            let mut commands = under_cursor(model);
            if news && commands.is_empty() {
                commands = measure(model);
            }
            commands.extend(show_live(model, first));
            commands
        });
    })]
}

/// Whether somebody sees what is found: the list, or the live screen that waits for a run.
fn is_looked_at(model: &Model) -> bool {
    model.shared.screen == Screen::Runs || (model.shared.screen == Screen::Live && model.shared.current.is_none())
}

/// Where no run was chosen yet, the newest one that is live is the current one; at the start, before any key, its screen opens.
fn show_live(model: &mut Model, is_start: bool) -> Vec<Command> {
    let is_live = |entry: &&Entry| entry.row.as_ref().is_ok_and(|row| !row.status.is_ended() && row.status != Status::Created);
    let newest = model.runs.listing.entries().iter().rev().find(is_live).map(|entry| (entry.path.clone(), entry.id()));
    let Some((path, id)) = newest.filter(|_| model.shared.current.is_none()) else { return Vec::new() };
    let mut commands = vec![Command::ShowRun(path)];
    if is_start && model.shared.keys == 0 && model.shared.screen == Screen::Runs {
        model.shared.say(format!("{id} is active: f1 lists all runs"));
        commands.extend(vec![Command::GoTo(Screen::Live)]);
    }
    commands
}

/// Another run may be under the cursor: measure its folder, unless that was done.
fn under_cursor(model: &mut Model) -> Vec<Command> {
    let under = model.runs.entry().map(|entry| entry.path.clone());
    if under != model.runs.under {
        model.runs.detail_top = 0;
        model.runs.under = under;
    }
    let measured = model.runs.disk.as_ref().map(|(path, _)| path);
    if measured == model.runs.under.as_ref() { Vec::new() } else { measure(model) }
}

fn measure(model: &Model) -> Vec<Command> {
    match model.runs.under.clone() {
        Some(path) => vec![Work::latest(
            "runs.disk",
            move |_| (disk_use(&path), path),
            |model, (disk, path)| {
                // The cursor may have gone on, or come back to a run that was measured.
                if model.runs.under.as_ref() == Some(&path) {
                    model.runs.disk = Some((path, disk));
                }
                Vec::new()
            },
        )],
        None => Vec::new(),
    }
}

fn typed(model: &mut Model, event: KeyEvent) -> Vec<Command> {
    use crossterm::event::KeyCode;
    if model.runs.typing {
        match event.code {
            KeyCode::Enter | KeyCode::Down => model.runs.typing = false,
            _ if model.runs.filter.key(event) => model.runs.arrange(),
            _ => {}
        }
        return under_cursor(model);
    }
    let page = draw::page_rows(model);
    if model.runs.pane == DETAIL {
        let mut top = Cursor { index: model.runs.detail_top };
        if top.key(event, page, draw::detail_rows(model)) {
            model.runs.detail_top = top.index;
        }
        return Vec::new();
    }
    let length = model.runs.shown.len();
    if model.runs.cursor.key(event, page, length) { under_cursor(model) } else { Vec::new() }
}

fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let length = model.runs.shown.len();
    match event.kind {
        MouseEventKind::ScrollDown => model.runs.cursor.go(1, length),
        MouseEventKind::ScrollUp => model.runs.cursor.go(-1, length),
        MouseEventKind::Down(MouseButton::Left) => match draw::row_at(model, event.column, event.row) {
            Some(row) => model.runs.cursor.index = row,
            None => {
                if let Some((field, smoothed)) = draw::title_at(model, event.column, event.row) {
                    actions::sort_by_title(model, &field, smoothed);
                }
                return Vec::new();
            }
        },
        _ => return Vec::new(),
    }
    model.runs.pane = LIST;
    under_cursor(model)
}
