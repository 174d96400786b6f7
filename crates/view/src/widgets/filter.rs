//! The filter of a list: a text field above it that `/` opens.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::Line;

use super::field::Field;
use crate::style_role::Role;
use crate::theme::Theme;

pub trait TextField {
    /// Handles a key; returns whether the text changed.
    fn key(&mut self, event: KeyEvent) -> bool;
    fn paste(&mut self, text: &str);
}

impl TextField for Field {
    fn key(&mut self, event: KeyEvent) -> bool {
        self.key(event)
    }

    fn paste(&mut self, text: &str) {
        self.paste(text);
    }
}

impl TextField for Filter {
    fn key(&mut self, event: KeyEvent) -> bool {
        self.key(event)
    }

    fn paste(&mut self, text: &str) {
        self.paste(text);
    }
}

#[derive(Debug, Default, Clone)]
pub struct Filter {
    field: Field,
    pub is_typing: bool,
}

impl Filter {
    /// A filter with a text; the list has the keys.
    pub fn with(text: &str) -> Self {
        Self {
            field: Field::new(text),
            is_typing: false,
        }
    }

    pub fn text(&self) -> &str {
        self.field.text()
    }

    pub fn typed(&mut self) -> Option<&mut dyn TextField> {
        if self.is_typing { Some(self) } else { None }
    }

    pub fn is_shown(&self) -> bool {
        self.is_typing || !self.text().is_empty()
    }

    /// Handles a key; returns whether the text changed. Enter and the arrows return the keys to the list.
    pub fn key(&mut self, event: KeyEvent) -> bool {
        if matches!(event.code, KeyCode::Enter | KeyCode::Up | KeyCode::Down) {
            self.is_typing = false;
            return false;
        }
        self.field.key(event)
    }

    pub fn paste(&mut self, text: &str) -> bool {
        if self.is_typing {
            self.field.paste(text);
        }
        self.is_typing
    }

    pub fn line(&self, theme: &Theme, columns: usize) -> Line<'static> {
        let mut line = self
            .field
            .line(theme, columns.saturating_sub(2), self.is_typing);
        line.spans.insert(0, theme.span("/ ", Role::Key));
        line
    }
}
