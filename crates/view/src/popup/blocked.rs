//! The reason why a text field cannot open. It swallows keys up to enter or escape, so that typing triggers no actions.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::window::{PopupOutcome, place, text_rows};
use crate::pane::content::{Content, Place};
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::list_cursor::Cursor;

/// The blocked action, and why.
#[derive(Debug)]
pub struct Refusal {
    title: &'static str,
    why: String,
}

impl Refusal {
    pub fn new(title: &'static str, why: String) -> Self {
        Self { title, why }
    }

    pub(super) fn key(&self, event: KeyEvent) -> PopupOutcome {
        if matches!(event.code, KeyCode::Esc | KeyCode::Enter) {
            PopupOutcome::Close
        } else {
            PopupOutcome::Stay
        }
    }

    pub(super) fn pane<'a>(&self, theme: &Theme, area: Rect) -> (Place, Content<'a>) {
        let columns = 64.min(area.width);
        let place = place(area, columns, text_rows(self.why.lines(), columns) + 4);
        let lines = vec![
            theme.line(self.why.clone(), Role::Bad),
            Line::default(),
            theme.line("Cannot type here now. Esc closes.", Role::Faint),
        ];
        (
            place,
            Content::titled(self.title).text(place.inside(), lines, Cursor::default()),
        )
    }
}
