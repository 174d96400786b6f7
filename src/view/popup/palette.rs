//! The palette: every action, found by a few of its letters; blocked ones say why.

use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Margin, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::window::{PopupOutcome, place, window};
use crate::view::action::ActionInfo;
use crate::view::fuzzy;
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::field::Field;

/// Rows below the list with details of the selected action.
const ABOUT_ROWS: u16 = 2;

/// Maximum width, and rows for so many actions, frame included.
const COLUMNS: u16 = 84;

fn box_rows(found: usize) -> u16 {
    (found as u16).saturating_add(6).clamp(10, 26)
}

#[derive(Debug, Clone)]
pub struct PaletteEntry {
    pub info: &'static ActionInfo,
    /// Whether its keys work where the focus is.
    pub is_here: bool,
    /// The title of its screen, if that is another one.
    pub screen: Option<&'static str>,
    /// Why it is blocked.
    pub blocked: Option<String>,
    pub key: String,
}

#[derive(Debug, Default)]
pub struct Palette {
    field: Field,
    cursor: usize,
}

impl Palette {
    pub(super) fn paste(&mut self, text: &str) {
        self.field.paste(text);
        self.cursor = 0;
    }

    /// Moves the cursor; it stops at the ends.
    pub(super) fn go(&mut self, rows: isize) {
        self.cursor = self.cursor.saturating_add_signed(rows);
    }

    pub(super) fn go_to(&mut self, row: usize) {
        self.cursor = row;
    }

    /// The row of the list at a column and row of the terminal.
    pub(super) fn row_at(&self, entries: &[PaletteEntry], size: (u16, u16), at: (u16, u16)) -> Option<usize> {
        let found = self.found(entries).len();
        let body = Rect { x: 0, y: 1, width: size.0, height: size.1.saturating_sub(2) };
        let inside = place(body, COLUMNS, box_rows(found)).inner(Margin::new(1, 1));
        let (rows, first) = self.seen(inside, found);
        let line =
            at.1.checked_sub(inside.y + 2)
                .map(usize::from)
                .filter(|line| *line < rows && inside.contains(at.into()))?;
        Some(first + line).filter(|row| *row < found)
    }

    /// How many rows of the list are visible, and which is the first of them.
    fn seen(&self, inside: Rect, found: usize) -> (usize, usize) {
        let rows = inside.height.saturating_sub(2 + ABOUT_ROWS) as usize;
        (rows, self.cursor.min(found.saturating_sub(1)).saturating_sub(rows.saturating_sub(1)))
    }

    /// The entries that match the text; without a text, those available here.
    fn found<'a>(&self, entries: &'a [PaletteEntry]) -> Vec<&'a PaletteEntry> {
        let actions: Vec<&PaletteEntry> = entries.iter().collect();
        if self.field.text().is_empty() {
            return actions.into_iter().filter(|entry| entry.is_here).collect();
        }
        // An alias of an action ranks first, then letters of its title, then its id.
        let query = self.field.text().trim().to_lowercase();
        let mut found = actions.clone();
        found.retain(|entry| nearness(entry.info, &query).is_some());
        found.sort_by_key(|entry| nearness(entry.info, &query));
        let by_title = fuzzy::rank(self.field.text(), &actions, |entry| entry.info.title.to_owned());
        let by_id = fuzzy::rank(self.field.text(), &actions, |entry| format!("{} {}", entry.info.id, entry.info.title));
        for entry in by_title.into_iter().chain(by_id) {
            if !found.iter().any(|other| other.info.id == entry.info.id) {
                found.push(entry);
            }
        }
        // Of equal titles the screen's own action is enough; elsewhere, the first that is available.
        let preference = |entry: &PaletteEntry| (!entry.is_here, entry.blocked.is_some());
        let mut first: HashMap<&str, &PaletteEntry> = HashMap::new();
        for &entry in &found {
            let known = first.entry(entry.info.title).or_insert(entry);
            if preference(entry) < preference(known) {
                *known = entry;
            }
        }
        found.retain(|entry| first[entry.info.title].info.id == entry.info.id || entry.is_here);
        found
    }

    pub(super) fn key(&mut self, entries: &[PaletteEntry], event: KeyEvent) -> PopupOutcome {
        match event.code {
            KeyCode::Esc => return PopupOutcome::Close,
            KeyCode::Down => self.go(1),
            KeyCode::Up => self.go(-1),
            KeyCode::PageDown => self.go(10),
            KeyCode::PageUp => self.go(-10),
            KeyCode::Enter => {
                let found = self.found(entries);
                let chosen = found.get(self.cursor.min(found.len().saturating_sub(1)));
                return chosen.map_or(PopupOutcome::Stay, |entry| PopupOutcome::Perform(entry.info));
            }
            _ => {
                if self.field.key(event) {
                    self.cursor = 0;
                }
            }
        }
        let last = self.found(entries).len().saturating_sub(1);
        self.cursor = self.cursor.min(last);
        PopupOutcome::Stay
    }

    pub(super) fn draw(&self, entries: &[PaletteEntry], theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
        let found = self.found(entries);
        let inside = window(theme, frame, area, "Palette", COLUMNS, box_rows(found.len()));
        let columns = inside.width as usize;
        let cursor = self.cursor.min(found.len().saturating_sub(1));
        let (rows, first) = self.seen(inside, found.len());
        let mut lines = vec![self.field.line(theme, columns, true), Line::default()];
        for (index, entry) in found.iter().enumerate().skip(first).take(rows) {
            let line = self.row(theme, entry, index == cursor, columns);
            lines.push(if index == cursor { line.style(theme.style(Role::Selected)) } else { line });
        }
        if found.is_empty() {
            lines.push(Line::styled("no matching action", theme.style(Role::Faint)));
        }
        let [above, below] = Layout::vertical([Constraint::Fill(1), Constraint::Length(ABOUT_ROWS)]).areas(inside);
        frame.render_widget(Paragraph::new(lines), above);
        if let Some(entry) = found.get(cursor) {
            frame.render_widget(
                Paragraph::new(about(theme, entry, found.len(), cursor)).wrap(Wrap { trim: true }),
                below,
            );
        }
    }

    /// A row: the title with the matched letters highlighted, and the key at the right.
    fn row(&self, theme: &Theme, entry: &PaletteEntry, selected: bool, columns: usize) -> Line<'static> {
        let (action, blocked) = (entry.info, entry.blocked.is_some());
        let style = theme.style(if blocked { Role::Faint } else { Role::Text });
        let mark = if selected { theme.glyph("▸ ", "> ") } else { "  " };
        let keys = entry.key.clone();
        let after = if blocked { " (unavailable)" } else { "" };
        let room = columns.saturating_sub(mark.width() + keys.width() + after.width() + 2);
        let matched = fuzzy::letters(self.field.text(), action.title);
        let (mut spans, mut used) = (vec![Span::styled(mark, theme.style(Role::Accent))], 0);
        let whole = action.title.width() <= room;
        for (place, letter) in action.title.char_indices() {
            let width = letter.width().unwrap_or(0);
            if !whole && used + width >= room {
                spans.push(Span::styled(theme.glyph("…", "~"), style));
                used += 1;
                break;
            }
            used += width;
            let style = if matched.contains(&place) {
                theme.style(Role::Accent).add_modifier(Modifier::UNDERLINED)
            } else {
                style
            };
            spans.push(Span::styled(letter.to_string(), style));
        }
        spans.push(Span::styled(after, theme.style(Role::Faint)));
        spans.push(Span::raw(" ".repeat(room.saturating_sub(used) + 1)));
        spans.push(Span::styled(keys, theme.style(Role::Key)));
        Line::from(spans)
    }
}

/// The rank of a lower-case word as a name of an action: 0 for a whole name or its first word, then a prefix.
fn nearness(action: &ActionInfo, query: &str) -> Option<u8> {
    let title = action.title.to_lowercase();
    let names = || std::iter::once(title.as_str()).chain(action.aliases.iter().copied());
    let rest = || names().filter_map(|name| name.strip_prefix(query));
    match rest().any(|rest| !rest.starts_with(char::is_alphanumeric)) {
        true => Some(0),
        false => rest().next().map(|_| 1),
    }
}

/// Below the list: why the selected action is blocked, else where it works and its id.
fn about(theme: &Theme, entry: &PaletteEntry, found: usize, cursor: usize) -> Line<'static> {
    let count = format!("{}/{found}  ", cursor + 1);
    let (role, text) = match &entry.blocked {
        Some(why) => (Role::Warning, format!("unavailable: {why}")),
        None => {
            let place = entry.screen.map_or_else(String::new, |title| format!("on screen {title}, "));
            (Role::Faint, format!("{place}{}", entry.info.id))
        }
    };
    Line::from(vec![Span::styled(count, theme.style(Role::Faint)), Span::styled(text, theme.style(role))])
}
