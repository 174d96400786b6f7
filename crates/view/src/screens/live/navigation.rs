//! Navigation in a run: steps, groups, completions, lines of text, the cursor of the chart.

use crossterm::event::{MouseEvent, MouseEventKind};
use ratatui::layout::Margin;

use super::{CHANGES, CHART, COMPLETION, GROUPS, LOG, Live, METRICS, RESULT};
use super::{changes, curves, draw, failures, group_rows, log, rollouts};
use crate::message::Command;
use crate::shared::Shared;

/// Rows per step of the wheel.
const WHEEL: isize = 3;

/// Moves by steps; past the latest the view follows the run again.
pub(super) fn by_steps(live: &mut Live, shared: &mut Shared, by: i64) -> Vec<Command> {
    let Some(run) = shared.current_run() else { return Vec::new() };
    let last = live.last(run);
    let at = live.at(run).saturating_add_signed(by).clamp(1.min(last), last);
    to_step(live, shared, (at < last).then_some(at))
}

/// Goes to a step; `None` follows the latest.
pub(super) fn to_step(live: &mut Live, shared: &mut Shared, step: Option<u64>) -> Vec<Command> {
    (live.step, live.completion_top, live.is_browsing) = (step, 0, true);
    if let Some(run) = shared.current_run() {
        let (last, at) = (live.last(run), live.at(run));
        live.view.hold(last, at);
    }
    look(live, shared)
}

pub(super) fn by_groups(live: &mut Live, shared: &mut Shared, by: isize) -> Vec<Command> {
    let count = groups(live, shared).len();
    live.group.go(by, count);
    (live.completion_top, live.is_browsing) = (0, true);
    Vec::new()
}

/// Moves by completions of the group.
pub(super) fn by_members(live: &mut Live, shared: &mut Shared, by: isize) -> Vec<Command> {
    let groups = groups(live, shared);
    let row = live.group.at(groups.len()).and_then(|index| groups.get(index));
    live.member.go(by, row.map_or(0, |row| row.tiers.len()));
    (live.completion_top, live.is_browsing) = (0, true);
    Vec::new()
}

fn groups(live: &Live, shared: &Shared) -> Vec<group_rows::Row> {
    shared.current_run().map(|run| group_rows::rows_of_step(live, shared, live.at(run))).unwrap_or_default()
}

pub(super) fn scroll_text(live: &mut Live, shared: &mut Shared, by: isize) -> Vec<Command> {
    let lines =
        super::completion::selected(live, shared).map_or(0, |(_, completion, _)| completion.text.lines().count() + 20);
    live.completion_top = live.completion_top.saturating_add_signed(by).min(lines);
    Vec::new()
}

/// Moves the cursor of the chart, else the zoomed range, left or right.
pub(super) fn sideways(live: &mut Live, shared: &mut Shared, by: i64) -> Vec<Command> {
    if live.view.cursor {
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

/// Freezes the view, or follows the run again.
pub(super) fn freeze(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let last = shared.current_run().map(|run| run.history.last_step);
    live.frozen = if live.frozen.is_some() { None } else { last };
    match live.frozen {
        Some(step) => shared.say(format!("frozen at step {step}; the run continues")),
        None => shared.say("following the run"),
    }
    look(live, shared)
}

/// Moves the cursor of the chart to a clicked step.
fn to_click(live: &mut Live, shared: &mut Shared, step: Option<u64>) -> Vec<Command> {
    let Some(step) = step else { return Vec::new() };
    live.view.cursor = true;
    let at = shared.current_run().map_or(0, |run| live.at(run));
    by_steps(live, shared, step as i64 - at as i64)
}

/// Whether a double click acts as enter: on a completion of the groups, or a small chart.
pub(super) fn opens(live: &Live, shared: &Shared, (column, row): (u16, u16)) -> bool {
    let pane = shared.current_run().and_then(|run| draw::pane_at(live, shared, run, column, row));
    pane.is_some_and(|(pane, _)| [GROUPS, METRICS, CHANGES, RESULT].contains(&pane))
}

/// A click focuses a pane; among the groups it selects one, in the focused chart a step. The wheel moves what is under
/// it.
pub(super) fn mouse(live: &mut Live, shared: &mut Shared, event: MouseEvent) -> Vec<Command> {
    let Some(run) = shared.current_run() else { return Vec::new() };
    let Some((pane, area)) = draw::pane_at(live, shared, run, event.column, event.row) else { return Vec::new() };
    let by = match event.kind {
        MouseEventKind::ScrollDown => WHEEL,
        MouseEventKind::ScrollUp => -WHEEL,
        MouseEventKind::Down(_) => {
            let inside = area.inner(Margin::new(1, 1));
            if pane == CHART && live.pane == CHART {
                return to_click(live, shared, curves::step_at(live, shared, run, inside, event.column));
            }
            live.go_to_pane(pane);
            if pane == CHANGES {
                changes::click(live, shared, inside, event.row);
            }
            if pane == GROUPS {
                let line = event.row.checked_sub(inside.y).map(usize::from);
                if let Some(index) =
                    line.and_then(|line| super::groups::at_line(live, &groups(live, shared), inside, line))
                {
                    live.group.index = index;
                    (live.completion_top, live.is_browsing) = (0, true);
                }
            }
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    match pane {
        CHART => zoom(live, shared, by < 0),
        GROUPS => by_groups(live, shared, by.signum()),
        COMPLETION => scroll_text(live, shared, by),
        LOG => {
            log::scroll(live, shared, by);
            Vec::new()
        }
        CHANGES => {
            changes::go(live, shared, by.signum());
            Vec::new()
        }
        _ => Vec::new(),
    }
}

/// Requests missing data: the texts of the selected step.
pub(super) fn look(live: &mut Live, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current_run() else { return Vec::new() };
    let step = live.at(run);
    let mut commands = rollouts::load(live, shared, step);
    commands.extend(failures::load(live, shared));
    commands.extend(changes::load(live, shared));
    commands
}
