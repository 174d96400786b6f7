//! The mouse: a click chooses a pane, a prompt or a cell of the matrix; the wheel moves what is under it.

use crossterm::event::{MouseEvent, MouseEventKind};
use ratatui::layout::{Margin, Position};

use super::{ANSWERS, PROMPTS, SUMMARY, actions, chooser, draw, go, prompts, summary};
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::widgets::list_cursor::Cursor;

/// Lines that the wheel turns.
const WHEEL: isize = 3;

pub(super) fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Command> {
    let by = match event.kind {
        MouseEventKind::ScrollDown => 1,
        MouseEventKind::ScrollUp => -1,
        MouseEventKind::Down(_) => return click(model, Position { x: event.column, y: event.row }),
        _ => return Vec::new(),
    };
    if model.eval.chooser.is_some() {
        chooser::go(model, by);
        return Vec::new();
    }
    let pane = draw::pane_at(model, Position { x: event.column, y: event.row }).map_or(model.eval.pane, |(pane, _)| pane);
    if pane == PROMPTS {
        go(model, by);
        return Vec::new();
    }
    let lines = draw::lines_of(model, pane);
    let top = if pane == ANSWERS { &mut model.eval.top } else { &mut model.eval.summary_top };
    let mut scroll = Cursor { index: *top };
    scroll.go(by * WHEEL, lines);
    *top = scroll.index;
    Vec::new()
}

/// Whether a double click opens what is under it.
pub(super) fn opens(model: &Model, (column, row): (u16, u16)) -> bool {
    match model.eval.chooser {
        Some(_) => chooser::row_at(model, draw::body(model), row).is_some(),
        None => draw::pane_at(model, (column, row).into()).is_some_and(|(pane, area)| pane == PROMPTS && row > area.y),
    }
}

fn click(model: &mut Model, place: Position) -> Vec<Command> {
    if model.eval.chooser.is_some() {
        chooser::click(model, draw::body(model), place.y);
        return Vec::new();
    }
    let (Some((pane, area)), Some(versus)) = (draw::pane_at(model, place), model.eval.versus().cloned()) else { return Vec::new() };
    if pane == SUMMARY {
        // The focus would give the short summary the whole screen, and take the cell away from under the pointer.
        if let Some(outcome) = summary::outcome_at(model, &versus, area, place) {
            return actions::only(model, Some(outcome));
        }
    }
    if pane == PROMPTS
        && let Some(index) = prompts::at(model, area.inner(Margin::new(1, 1)), place)
    {
        model.eval.cursor.index = index;
        model.eval.top = 0;
    }
    model.eval.pane = pane;
    Vec::new()
}
