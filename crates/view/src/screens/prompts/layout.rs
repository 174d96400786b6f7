//! The layout of the prompts screen as a function of the terminal's size, for drawing and for the mouse.

use ratatui::layout::{Constraint, Layout, Margin, Rect};

use super::editing::EditTarget;
use super::{CHAT, EDITOR, FORM, HEALTH, Prompts, ROWS, table};
use crate::drafts::choice;
use crate::screen::Screen as _;
use crate::shared::Shared;
use crate::widgets::editor::Window;

/// The visible panes with their areas.
pub(super) fn areas(prompts: &Prompts, shared: &Shared, body: Rect) -> Vec<(&'static str, Rect)> {
    let focused = prompts.pane();
    if focused == FORM {
        return vec![(FORM, body)];
    }
    let body = choice::below(prompts, shared, body);
    let is_template = prompts.editing.as_ref().is_some_and(|editing| editing.what == EditTarget::Template);
    if is_template && body.height >= 12 {
        let side = match body.width < 100 || shared.zoomed {
            true => vec![],
            false => vec![Layout::horizontal([Constraint::Percentage(52), Constraint::Fill(1)]).areas::<2>(body)],
        };
        let right = side.first().map_or(body, |[_, right]| *right);
        let [editor, chat] = Layout::vertical([Constraint::Percentage(45), Constraint::Fill(1)]).areas(right);
        let rows = side.into_iter().map(|[rows, _]| (ROWS, rows));
        return rows.chain([(EDITOR, editor), (CHAT, chat)]).collect();
    }
    if shared.zoomed {
        return vec![(focused, body)];
    }
    if body.width < 100 {
        if focused == EDITOR || body.height < 12 {
            return vec![(focused, body)];
        }
        let other = if focused == ROWS { CHAT } else { focused };
        let [rows, below] = Layout::vertical([Constraint::Percentage(50), Constraint::Fill(1)]).areas(body);
        return vec![(ROWS, rows), (other, below)];
    }
    let [rows, side] = Layout::horizontal([Constraint::Percentage(52), Constraint::Fill(1)]).areas(body);
    if focused == EDITOR {
        return vec![(ROWS, rows), (EDITOR, side)];
    }
    let health = if side.height < 24 { 5 } else { 10 };
    let [chat, health] = match focused {
        HEALTH => Layout::vertical([Constraint::Percentage(30), Constraint::Fill(1)]).areas(side),
        _ => Layout::vertical([Constraint::Fill(1), Constraint::Length(health.min(side.height / 2))]).areas(side),
    };
    vec![(ROWS, rows), (CHAT, chat), (HEALTH, health)]
}

/// The pane at a terminal position.
pub(super) fn pane_at(prompts: &Prompts, shared: &Shared, column: u16, row: u16) -> Option<(&'static str, Rect)> {
    areas(prompts, shared, shared.body()).into_iter().find(|(_, area)| area.contains((column, row).into()))
}

/// Rows of the focused pane, for the page keys.
pub(super) fn page(prompts: &Prompts, shared: &Shared) -> usize {
    let focused = prompts.pane();
    let area = areas(prompts, shared, shared.body())
        .into_iter()
        .find(|(pane, _)| *pane == focused)
        .map_or(Rect::default(), |(_, area)| area);
    area.height.saturating_sub(3).max(1) as usize
}

/// Rows of the table that fit into its pane.
pub(super) fn table_rows(prompts: &Prompts, shared: &Shared, area: Rect) -> usize {
    area.height.saturating_sub(2 + table::heading_rows(prompts, shared)) as usize
}

/// The area of the editor inside its frame, and its window, while a text is edited.
pub(super) fn editor_window(prompts: &Prompts, shared: &Shared) -> Option<(Rect, Window)> {
    let (_, area) = areas(prompts, shared, shared.body()).into_iter().find(|(pane, _)| *pane == EDITOR)?;
    let inside = area.inner(Margin::new(1, 1));
    let editor = &prompts.editing.as_ref()?.editor;
    Some((inside, editor.window_in(inside, shared.wraps(editor))))
}
