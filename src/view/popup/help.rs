//! Help: the actions available here with their keys, nearest scope first.

use crossterm::event::KeyEvent;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::text::Page;
use super::window::PopupOutcome;
use crate::view::action::{ActionInfo, Scope};
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::text_width::wrapped;

/// The widest that help is: longer lines are hard to read.
const WIDEST: usize = 100;

/// The help of the current screen.
#[derive(Debug)]
pub struct Help {
    pub(super) page: Page,
}

/// An action in the help.
#[derive(Debug)]
pub struct HelpRow {
    pub info: &'static ActionInfo,
    /// Its current keys.
    pub keys: String,
    /// Why it is blocked.
    pub blocked: Option<String>,
}

impl Help {
    /// The help of a screen for a terminal of so many columns; `rows`: the actions, nearest scope first.
    pub fn new(theme: &Theme, columns: u16, (title, about): (&str, &str), rows: &[HelpRow]) -> Self {
        let columns = (columns as usize).saturating_sub(4).clamp(10, WIDEST);
        let mut lines: Vec<Line<'static>> = wrapped(about, columns).into_iter().map(Line::from).collect();
        let widest = if columns < 60 { 9 } else { 16 };
        let of_keys = rows.iter().map(|row| row.keys.width()).max().unwrap_or(0).min(widest);
        for group in groups(rows) {
            lines.push(Line::default());
            lines.push(Line::styled(group.heading, theme.style(Role::Title)));
            let notes = by_reason(&group.rows);
            lines.extend(
                notes
                    .iter()
                    .flat_map(|(action, note)| row(theme, (action.info.title, note), &action.keys, of_keys, columns)),
            );
        }
        lines.push(Line::default());
        let last = "Change keys in keys.toml (see `grpo-tui keys`). Mouse: click tabs, rows and column titles, double-click to open, wheel to scroll.";
        lines.extend(wrapped(last, columns).into_iter().map(|text| Line::styled(text, theme.style(Role::Faint))));
        Self { page: Page::new(format!("Help: {title}"), lines) }
    }

    pub(super) fn key(&mut self, event: KeyEvent, size: (u16, u16)) -> PopupOutcome {
        self.page.key(event, size)
    }

    pub(super) fn draw(&self, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
        self.page.draw(theme, frame, area);
    }
}

struct Group<'a> {
    heading: String,
    rows: Vec<&'a HelpRow>,
}

/// The actions under their headings, in the given order; navigation to the other screens last.
fn groups<'a>(rows: &'a [HelpRow]) -> Vec<Group<'a>> {
    let heading = |action: &ActionInfo| match action.scope {
        Scope::Pane(_, pane) => format!("Pane: {pane}"),
        Scope::Screen(_) => "This screen".to_owned(),
        Scope::Global if action.id.starts_with("screen.") => "Screens".to_owned(),
        Scope::Global => "Global".to_owned(),
    };
    let mut found: Vec<Group<'a>> = Vec::new();
    for row in rows {
        let heading = heading(row.info);
        match found.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.rows.push(row),
            None => found.push(Group { heading, rows: vec![row] }),
        }
    }
    found.sort_by_key(|group| group.heading == "Screens");
    found
}

/// Available actions, then blocked ones; those with the same reason are grouped, with the reason at the first.
fn by_reason<'a>(rows: &[&'a HelpRow]) -> Vec<(&'a HelpRow, String)> {
    let mut reasons: Vec<Option<String>> = vec![None];
    let mut placed: Vec<(usize, &HelpRow)> = Vec::new();
    for row in rows {
        let why = row.blocked.clone();
        let place = reasons.iter().position(|reason| *reason == why).unwrap_or(reasons.len());
        if place == reasons.len() {
            reasons.push(why);
        }
        placed.push((place, row));
    }
    placed.sort_by_key(|(place, _)| *place);
    let mut before = 0;
    let note = |(place, row): (usize, &'a HelpRow)| {
        let note = match &reasons[place] {
            None => String::new(),
            Some(_) if place == before => "(unavailable, as above)".to_owned(),
            Some(why) => format!("(unavailable: {why})"),
        };
        before = place;
        (row, note)
    };
    placed.into_iter().map(note).collect()
}

/// One action: its keys, its title and why it is blocked, wrapped if too long.
fn row(theme: &Theme, (title, note): (&str, &str), keys: &str, of_keys: usize, columns: usize) -> Vec<Line<'static>> {
    let role = if note.is_empty() { Role::Text } else { Role::Faint };
    let indent = of_keys + 4;
    let mut lines = Vec::new();
    let keys_line = format!("  {keys:<of_keys$}  ");
    // More keys than the column holds get a line of their own.
    let mut start = if keys.width() > of_keys {
        lines.push(Line::styled(keys_line, theme.style(Role::Key)));
        Span::raw(" ".repeat(indent))
    } else {
        Span::styled(keys_line, theme.style(Role::Key))
    };
    for text in wrapped(title, columns.saturating_sub(indent).max(8)) {
        let begin = std::mem::replace(&mut start, Span::raw(" ".repeat(indent)));
        lines.push(Line::from(vec![begin, Span::styled(text, theme.style(role))]));
    }
    let warning = theme.style(Role::Warning);
    match lines.last_mut().filter(|line| line.width() + 1 + note.width() <= columns) {
        _ if note.is_empty() => {}
        Some(line) => line.push_span(Span::styled(format!(" {note}"), warning)),
        None => {
            let below = |text| Line::from(vec![Span::raw(" ".repeat(indent)), Span::styled(text, warning)]);
            lines.extend(wrapped(note, columns.saturating_sub(indent).max(8)).into_iter().map(below));
        }
    }
    lines
}
