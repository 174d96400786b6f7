//! Going through a run: steps, groups, completions, lines of text, the cursor of the chart.

use crossterm::event::{MouseEvent, MouseEventKind};
use ratatui::layout::Margin;

use super::{CHART, COMPLETION, GROUPS, LOG, METRICS, curves, draw, group_rows, look};
use crate::view::app::Model;
use crate::view::message::Command;

/// Rows that the wheel turns.
const WHEEL: isize = 3;

/// Go by steps; past the latest the picture follows the run again.
pub(super) fn by_steps(model: &mut Model, by: i64) -> Vec<Command> {
    let Some(run) = model.shared.current_run() else { return Vec::new() };
    let last = model.live.last(run);
    let at = model.live.at(run).saturating_add_signed(by).clamp(1.min(last), last);
    to_step(model, (at < last).then_some(at))
}

/// Go to a step; `None` is the latest, and those that come.
pub(super) fn to_step(model: &mut Model, step: Option<u64>) -> Vec<Command> {
    model.live.step = step;
    model.live.completion_top = 0;
    if let Some(run) = model.shared.current_run() {
        let (last, at) = (model.live.last(run), model.live.at(run));
        model.live.view.hold(last, at);
    }
    look(model)
}

/// Go by groups.
pub(super) fn by_groups(model: &mut Model, by: isize) -> Vec<Command> {
    let count = groups(model).len();
    model.live.group.go(by, count);
    model.live.completion_top = 0;
    Vec::new()
}

/// Go by completions of the group.
pub(super) fn by_members(model: &mut Model, by: isize) -> Vec<Command> {
    let groups = groups(model);
    let row = model.live.group.at(groups.len()).and_then(|index| groups.get(index));
    model.live.member.go(by, row.map_or(0, |row| row.tiers.len()));
    model.live.completion_top = 0;
    Vec::new()
}

fn groups(model: &Model) -> Vec<group_rows::Row> {
    model.shared.current_run().map(|run| group_rows::of_step(model, model.live.at(run))).unwrap_or_default()
}

/// Scroll the completion.
pub(super) fn scroll_text(model: &mut Model, by: isize) -> Vec<Command> {
    let lines = super::completion::selected(model).map_or(0, |(_, completion, _)| completion.text.lines().count() + 20);
    model.live.completion_top = model.live.completion_top.saturating_add_signed(by).min(lines);
    Vec::new()
}

/// Scroll the log; up is back in time.
pub(super) fn scroll_log(model: &mut Model, by: isize) -> Vec<Command> {
    let most = model.shared.current_run().map_or(0, |run| run.log.len().saturating_sub(1));
    model.live.log_back = model.live.log_back.saturating_add_signed(-by).min(most);
    Vec::new()
}

/// The cursor of the chart, else the stretch of steps, left or right.
pub(super) fn sideways(model: &mut Model, by: i64) -> Vec<Command> {
    if model.live.view.cursor {
        return by_steps(model, by);
    }
    if let Some(run) = model.shared.current_run() {
        let last = model.live.last(run);
        model.live.view.pan(last, by > 0);
    }
    Vec::new()
}

/// Nearer or farther.
pub(super) fn zoom(model: &mut Model, nearer: bool) -> Vec<Command> {
    if let Some(run) = model.shared.current_run() {
        let (last, at) = (model.live.last(run), model.live.at(run));
        model.live.view.zoom(last, at, nearer);
    }
    Vec::new()
}

/// Let the picture stand still, or follow the run again.
pub(super) fn freeze(model: &mut Model) -> Vec<Command> {
    let last = model.shared.current_run().map(|run| run.history.last_step);
    model.live.frozen = if model.live.frozen.is_some() { None } else { last };
    match model.live.frozen {
        Some(step) => model.shared.say(format!("frozen at step {step}; the run continues")),
        None => model.shared.say("following the run"),
    }
    look(model)
}

/// The cursor of the chart to a step that was clicked.
fn to_click(model: &mut Model, step: Option<u64>) -> Vec<Command> {
    let Some(step) = step else { return Vec::new() };
    model.live.view.cursor = true;
    let at = model.shared.current_run().map_or(0, |run| model.live.at(run));
    by_steps(model, step as i64 - at as i64)
}

/// Whether a double click opens what is under it: a completion of the groups, a small chart.
pub(super) fn opens(model: &Model, (column, row): (u16, u16)) -> bool {
    let pane = model.shared.current_run().and_then(|run| draw::pane_at(model, run, column, row));
    pane.is_some_and(|(pane, _)| pane == GROUPS || pane == METRICS)
}

/// A click gives a pane the focus; among the groups it chooses one, in the chart that has the focus a step. The wheel moves what is under it.
pub(super) fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let Some(run) = model.shared.current_run() else { return Vec::new() };
    let Some((pane, area)) = draw::pane_at(model, run, event.column, event.row) else { return Vec::new() };
    let by = match event.kind {
        MouseEventKind::ScrollDown => WHEEL,
        MouseEventKind::ScrollUp => -WHEEL,
        MouseEventKind::Down(_) => {
            let inside = area.inner(Margin::new(1, 1));
            if pane == CHART && model.live.pane == CHART {
                return to_click(model, curves::step_at(model, run, inside, event.column));
            }
            model.live.pane = pane;
            if pane == GROUPS {
                let line = event.row.checked_sub(inside.y).map(usize::from);
                if let Some(index) = line.and_then(|line| super::groups::at_line(model, &groups(model), inside, line)) {
                    model.live.group.index = index;
                    model.live.completion_top = 0;
                }
            }
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    match pane {
        CHART => zoom(model, by < 0),
        GROUPS => by_groups(model, by.signum()),
        COMPLETION => scroll_text(model, by),
        LOG => scroll_log(model, by),
        _ => Vec::new(),
    }
}
