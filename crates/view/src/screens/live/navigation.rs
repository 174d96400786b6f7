//! Navigation in a run: steps, groups, completions, lines of text, the cursor of the chart.

use crossterm::event::{MouseEvent, MouseEventKind};

use super::{
    CHART, LOG, Live, METRICS, PROMPT, charts, curves, failures, group_rows, log, rollouts,
};
use crate::message::Command;
use crate::pane::content::Hit;
use crate::shared::Shared;
use crate::widgets::list_cursor::{Cursor, Motion};

/// Events of a page of the log.
const PAGE: isize = 10;
/// Rows per step of the wheel.
const WHEEL: isize = 3;

/// Moves by steps; past the latest the view follows the run again.
pub(super) fn by_steps(live: &mut Live, shared: &mut Shared, by: i64) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    let last = live.last(run);
    let at = live
        .at(run)
        .saturating_add_signed(by)
        .clamp(1.min(last), last);
    to_step(live, shared, (at < last).then_some(at))
}

/// Goes to a step; `None` follows the latest.
pub(super) fn to_step(live: &mut Live, shared: &mut Shared, step: Option<u64>) -> Vec<Command> {
    (live.step, live.completion_top, live.is_browsing) = (step, Cursor::default(), true);
    if let Some(run) = shared.current_run() {
        let (last, at) = (live.last(run), live.at(run));
        live.view.hold(last, at);
    }
    look(live, shared)
}

/// Up and down turn charts and groups; the log is scrolled, up is back in time.
pub(super) fn on_motion(
    live: &mut Live,
    shared: &mut Shared,
    pane: &str,
    motion: Motion,
) -> Option<Vec<Command>> {
    let by = match motion {
        Motion::Down => 1,
        Motion::Up => -1,
        Motion::PageDown => PAGE,
        Motion::PageUp => -PAGE,
        Motion::First => -isize::MAX,
        Motion::Last => isize::MAX,
    };
    let is_line = by.abs() == 1;
    match pane {
        LOG => Some(log::scroll(live, shared, by)),
        CHART if is_line => Some(charts::turn_large(live, shared, by)),
        METRICS if is_line => Some(charts::turn_small(live, shared, by)),
        PROMPT if is_line => Some(by_groups(live, shared, by)),
        _ => None,
    }
}

fn by_groups(live: &mut Live, shared: &mut Shared, by: isize) -> Vec<Command> {
    let count = groups(live, shared).len();
    live.group.go(by, count);
    (live.completion_top, live.is_browsing) = (Cursor::default(), true);
    Vec::new()
}

/// Moves by completions of the group.
pub(super) fn by_members(live: &mut Live, shared: &mut Shared, by: isize) -> Vec<Command> {
    let groups = groups(live, shared);
    let row = live
        .group
        .at(groups.len())
        .and_then(|index| groups.get(index));
    live.member.go(by, row.map_or(0, |row| row.tiers.len()));
    (live.completion_top, live.is_browsing) = (Cursor::default(), true);
    Vec::new()
}

fn groups(live: &Live, shared: &Shared) -> Vec<group_rows::Row> {
    shared
        .current_run()
        .map(|run| group_rows::rows_of_step(live, shared, live.at(run)))
        .unwrap_or_default()
}

/// Moves the zoomed range left or right; by steps where all are shown.
pub(super) fn sideways(live: &mut Live, shared: &mut Shared, by: i64) -> Vec<Command> {
    if live.view.width.is_none() {
        return by_steps(live, shared, by);
    }
    if let Some(run) = shared.current_run() {
        let last = live.last(run);
        live.view.pan(last, by > 0);
    }
    Vec::new()
}

/// Zooms in or out.
pub(super) fn zoom(live: &mut Live, shared: &mut Shared, nearer: bool) -> Vec<Command> {
    if let Some(run) = shared.current_run() {
        let (last, at) = (live.last(run), live.at(run));
        live.view.zoom(last, at, nearer);
    }
    Vec::new()
}

/// Moves the cursor of the chart to a clicked step.
fn to_click(live: &mut Live, shared: &mut Shared, step: Option<u64>) -> Vec<Command> {
    let Some(step) = step else { return Vec::new() };
    let at = shared.current_run().map_or(0, |run| live.at(run));
    by_steps(live, shared, step as i64 - at as i64)
}

/// In the focused chart a click selects a step; the wheel zooms the chart, and moves through the log.
pub(super) fn pointed(
    live: &mut Live,
    shared: &mut Shared,
    hit: &Hit,
    event: MouseEvent,
) -> Option<Vec<Command>> {
    let by = match event.kind {
        MouseEventKind::ScrollDown => WHEEL,
        MouseEventKind::ScrollUp => -WHEEL,
        MouseEventKind::Down(_) if hit.place.id == CHART && live.pane == CHART => {
            let run = shared.current_run()?;
            let step = curves::step_at(live, shared, run, hit.place.inside(), event.column);
            return Some(to_click(live, shared, step));
        }
        _ => return None,
    };
    match hit.place.id {
        CHART => Some(zoom(live, shared, by < 0)),
        LOG => Some(log::scroll(live, shared, by)),
        _ => None,
    }
}

/// Requests missing data: the texts of the selected step.
pub(super) fn look(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    let step = live.at(run);
    let mut commands = rollouts::load(live, shared, step);
    commands.extend(failures::load(live, shared));
    commands
}
