//! The fields of a form over the prompts screen.

use crossterm::event::{KeyCode, KeyEvent};

use crate::style_role::Role;
use crate::widgets::field::Field;
use crate::widgets::filter::TextField;
use crate::widgets::list_cursor::Cursor;

#[derive(Debug)]
pub struct FormField {
    pub label: &'static str,
    /// The help shown while the field has the focus.
    pub help: &'static str,
    pub field: Field,
    /// Shown while the field is empty: the default, or what was guessed.
    pub guess: String,
}

impl FormField {
    /// Whether nothing was written into it.
    pub(super) fn is_empty(&self) -> bool {
        self.field.text().trim().is_empty()
    }

    pub(super) fn is_path(&self) -> bool {
        ["file", "data", "schema", "examples"].contains(&self.label)
    }
}

#[derive(Debug)]
pub struct Form {
    pub fields: Vec<FormField>,
    pub cursor: Cursor,
    pub preview: Vec<(Role, String)>,
    /// Why it cannot be submitted.
    pub problem: Option<String>,
    /// Whether something was typed or submitted: only then the problem is shown.
    pub is_tried: bool,
}

impl Form {
    pub(super) fn new(fields: &[(&'static str, &'static str)]) -> Self {
        let field = |(label, help): &(&'static str, &'static str)| FormField {
            label,
            help,
            field: Field::default(),
            guess: String::new(),
        };
        let fields = fields.iter().map(field).collect();
        Self {
            fields,
            cursor: Cursor::default(),
            preview: Vec::new(),
            problem: None,
            is_tried: false,
        }
    }

    pub(super) fn field(&mut self) -> Option<&mut dyn TextField> {
        Some(&mut self.fields.get_mut(self.cursor.index)?.field)
    }

    /// The path that Tab completes: the text of the field under the cursor.
    pub(super) fn path(&self) -> Option<&str> {
        let field = self.fields.get(self.cursor.index)?;
        (field.is_path() && !field.is_empty()).then(|| field.field.text().trim())
    }

    /// Moves the cursor, around at the ends; whether the key means that.
    pub(super) fn moves(&mut self, event: KeyEvent) -> bool {
        let last = self.fields.len().saturating_sub(1);
        match event.code {
            KeyCode::Down | KeyCode::Tab | KeyCode::Enter => self.next(),
            KeyCode::Up | KeyCode::BackTab => {
                self.cursor.index = self.cursor.index.checked_sub(1).unwrap_or(last);
            }
            _ => return false,
        }
        true
    }

    pub(super) fn next(&mut self) {
        self.cursor.index = (self.cursor.index + 1) % self.fields.len().max(1);
    }

    pub(super) fn text(&self, label: &str) -> &str {
        self.fields
            .iter()
            .find(|field| field.label == label)
            .map_or("", |field| field.field.text().trim())
    }

    pub(super) fn guess(&mut self, label: &str, guess: &str) {
        if let Some(field) = self.fields.iter_mut().find(|field| field.label == label) {
            guess.clone_into(&mut field.guess);
        }
    }
}
