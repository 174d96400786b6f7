//! Where the panes of the prompts screen are, on terminals of every size.

use ratatui::layout::{Constraint, Layout, Rect};

use super::{CHAT, EDITOR, HEALTH, Prompts, ROWS, form};
use crate::drafts::choice;
use crate::pane::content::Place;
use crate::screen::Screen as _;
use crate::shared::Shared;

pub(super) fn places(prompts: &Prompts, shared: &Shared, body: Rect) -> Vec<Place> {
    let focused = prompts.pane();
    if let Some(form) = &prompts.form {
        return form::places(form, body);
    }
    if shared.no_task().is_some() {
        return vec![Place::new(focused, body)];
    }
    let (question, body) = choice::places(prompts, shared, body);
    let panes = areas(prompts, shared, body)
        .into_iter()
        .map(|(id, area)| Place::new(id, area));
    question.into_iter().chain(panes).collect()
}

fn areas(prompts: &Prompts, shared: &Shared, body: Rect) -> Vec<(&'static str, Rect)> {
    let focused = prompts.pane();
    if shared.zoomed {
        return vec![(focused, body)];
    }
    if body.width < 100 {
        if focused == EDITOR || body.height < 12 {
            return vec![(focused, body)];
        }
        let other = if focused == ROWS { CHAT } else { focused };
        let [rows, below] =
            Layout::vertical([Constraint::Percentage(50), Constraint::Fill(1)]).areas(body);
        return vec![(ROWS, rows), (other, below)];
    }
    let [rows, side] =
        Layout::horizontal([Constraint::Percentage(52), Constraint::Fill(1)]).areas(body);
    if focused == EDITOR {
        return vec![(ROWS, rows), (EDITOR, side)];
    }
    let health = if side.height < 24 { 5 } else { 10 };
    let [chat, health] = match focused {
        HEALTH => Layout::vertical([Constraint::Percentage(30), Constraint::Fill(1)]).areas(side),
        _ => Layout::vertical([
            Constraint::Fill(1),
            Constraint::Length(health.min(side.height / 2)),
        ])
        .areas(side),
    };
    vec![(ROWS, rows), (CHAT, chat), (HEALTH, health)]
}
