//! A list of check boxes.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::list_cursor::Cursor;
use super::text_width::padded;
use crate::pane::content::{Content, List};
use crate::style_role::Role;
use crate::theme::Theme;

/// The widest label with which the second column is aligned.
const LABEL: usize = 34;

#[derive(Debug)]
pub struct CheckRow {
    /// `None` if unchecked; else the position among the checked rows, or empty if their order does not matter.
    pub on: Option<String>,
    pub label: String,
    pub beside: String,
}

pub fn content<'a>(
    theme: &'a Theme,
    title: String,
    cursor: Cursor,
    rows: Vec<CheckRow>,
    nothing: &str,
) -> Content<'a> {
    let widest = rows
        .iter()
        .map(|row| row.label.width())
        .max()
        .unwrap_or(0)
        .min(LABEL);
    let length = rows.len();
    let line = move |index: usize| {
        let CheckRow { on, label, beside } = &rows[index];
        let sign = match on.as_deref() {
            None => "[ ]".to_owned(),
            Some("") => "[x]".to_owned(),
            Some(place) => format!("[{place}]"),
        };
        let label = if label.width() < widest {
            padded(label, widest, false)
        } else {
            label.clone()
        };
        Line::from(vec![
            theme.span(format!(" {sign} "), Role::Accent),
            Span::raw(label),
            theme.span(format!("  {beside}"), Role::Faint),
        ])
    };
    let empty = vec![theme.line(format!("  {nothing}"), Role::Faint)];
    Content {
        empty,
        ..Content::titled(title).list(List::new(length, cursor, line))
    }
}
