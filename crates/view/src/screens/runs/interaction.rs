//! The runs screen as the rest of the view sees it.

use ratatui::layout::Rect;

use super::{DETAIL, LIST, PIPELINE, Runs, detail, draw, measure, pipeline, under_cursor};
use crate::message::{Change, Command};
use crate::pane::content::{Content, Place};
use crate::report::RunRow;
use crate::run::Status;
use crate::screen;
use crate::screens::Screen;
use crate::shared::Shared;
use crate::widgets::filter::TextField;
use crate::widgets::list_cursor::Cursor;

/// How often the runs are listed while the screen is in front, milliseconds.
const LOOK_MS: u64 = 2_000;

impl screen::Screen for Runs {
    fn pane(&self) -> &'static str {
        self.pane
    }

    fn focus(&mut self, shared: &mut Shared, pane: &'static str) {
        self.stop_typing();
        self.go_to_pane(shared, pane);
    }

    fn is_typing(&self) -> bool {
        self.filter.is_typing
    }

    fn stop_typing(&mut self) {
        self.filter.is_typing = false;
    }

    fn places(&self, shared: &Shared, area: Rect) -> Vec<Place> {
        draw::places(self, shared, area)
    }

    fn content<'a>(&'a self, shared: &'a Shared, place: &Place) -> Content<'a> {
        let inside = place.inside();
        match place.id {
            PIPELINE => pipeline::content(self, shared, inside.width),
            LIST => draw::list(self, shared, place),
            _ => detail::content(self, shared, inside),
        }
    }

    fn cursor(&mut self, pane: &str) -> Option<&mut Cursor> {
        match pane {
            PIPELINE => Some(&mut self.stage),
            LIST => Some(&mut self.cursor),
            DETAIL => Some(&mut self.detail_top),
            _ => None,
        }
    }

    fn moved(&mut self, shared: &mut Shared, pane: &str) -> Vec<Command> {
        self.opened = None;
        if pane == LIST {
            under_cursor(self, shared)
        } else {
            Vec::new()
        }
    }

    fn field(&mut self) -> Option<&mut dyn TextField> {
        self.filter.typed()
    }

    fn typed(&mut self, shared: &mut Shared) -> Vec<Command> {
        self.arrange(shared);
        under_cursor(self, shared)
    }

    fn on_change(&mut self, shared: &mut Shared, change: &Change) -> Vec<Command> {
        on_change(self, shared, change)
    }
}

fn on_change(runs: &mut Runs, shared: &mut Shared, change: &Change) -> Vec<Command> {
    match change {
        Change::Shown => shared.look_for_runs(),
        Change::Second
            if is_looked_at(shared)
                && shared.now_ms.saturating_sub(shared.runs.looked_ms) >= LOOK_MS =>
        {
            shared.look_for_runs()
        }
        Change::Runs { first, news } => {
            runs.arrange(shared);
            runs.go_to_pane(shared, runs.pane);
            if !shared.runs.listed {
                return Vec::new();
            }
            let mut commands = under_cursor(runs, shared);
            if *news && commands.is_empty() {
                commands = measure(runs);
            }
            commands.extend(show_live(shared, *first));
            commands
        }
        Change::CurrentRun => {
            runs.opened.clone_from(&shared.current);
            runs.arrange(shared);
            if runs.opened.is_none() {
                under_cursor(runs, shared)
            } else {
                Vec::new()
            }
        }
        _ => Vec::new(),
    }
}

/// Whether the list is visible, or the live screen waits for a run or shows one that waits for another.
fn is_looked_at(shared: &Shared) -> bool {
    let waits = || {
        let run = shared.current_run();
        run.is_none_or(|run| run.status() == Status::Waiting)
    };
    shared.screen == Screen::Runs || (shared.screen == Screen::Live && waits())
}

/// If no run is open yet, opens the newest that computes, else the newest active one; at the start, before any key, goes to its screen.
fn show_live(shared: &mut Shared, is_start: bool) -> Vec<Command> {
    let newest = |is: fn(&RunRow) -> bool| {
        let mut newest_first = shared.runs.listing.entries().iter().rev();
        newest_first.find(|entry| entry.row.as_ref().is_ok_and(|row| is(row)))
    };
    let newest = newest(RunRow::is_computing)
        .or_else(|| newest(RunRow::is_active))
        .map(|entry| (entry.path.clone(), entry.id()));
    let Some((path, id)) = newest.filter(|_| shared.current.is_none()) else {
        return Vec::new();
    };
    let mut commands = vec![Command::ShowRun(path)];
    if is_start && shared.keys == 0 && shared.screen == Screen::Runs {
        shared.say(format!(
            "{id} is active: {} lists all runs",
            shared.key_of("screen.runs")
        ));
        commands.push(Command::GoTo(Screen::Live));
    }
    commands
}
