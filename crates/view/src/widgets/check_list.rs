//! The rows of a list in which things are switched on and off.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::list_cursor::Cursor;
use super::text_width::padded;
use crate::style_role::Role;
use crate::theme::Theme;

/// Columns of a label before what is beside it is moved on.
const LABEL: usize = 34;

#[derive(Debug)]
pub struct CheckRow {
    /// `None` if it is off; the place among those that are on, if that matters, else empty.
    pub on: Option<String>,
    pub label: String,
    pub beside: String,
}

/// The visible ones of `rows` lines, with the cursor; `nothing` takes the place of none.
pub fn lines(theme: &Theme, cursor: Cursor, rows: usize, all: &[CheckRow], nothing: &str) -> Vec<Line<'static>> {
    if all.is_empty() {
        return vec![Line::styled(format!("  {nothing}"), theme.style(Role::Faint))];
    }
    let widest = all.iter().map(|row| row.label.width()).max().unwrap_or(0).min(LABEL);
    let line = |(index, here): (usize, bool)| {
        let CheckRow { on, label, beside } = &all[index];
        let mark = if here { theme.glyph("▸", ">") } else { " " };
        let sign = match on.as_deref() {
            None => "[ ]".to_owned(),
            Some("") => "[x]".to_owned(),
            Some(place) => format!("[{place}]"),
        };
        let label = if label.width() < widest { padded(label, widest, false) } else { label.clone() };
        let line = Line::from(vec![
            Span::styled(format!("{mark} {sign} "), theme.style(Role::Accent)),
            Span::raw(label),
            Span::styled(format!("  {beside}"), theme.style(Role::Faint)),
        ]);
        if here { line.patch_style(theme.style(Role::Selected)) } else { line }
    };
    cursor.seen(rows, all.len()).map(line).collect()
}
