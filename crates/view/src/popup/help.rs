//! Help: the actions available here with their keys, nearest scope first.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::text::Page;
use crate::action::{ActionInfo, Scope};
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::wrapped;

/// The widest that help is: longer lines are hard to read.
const MAX_WIDTH: usize = 100;

#[derive(Debug)]
pub struct Help {
    pub(super) page: Page,
}

#[derive(Debug)]
pub struct HelpRow {
    pub info: &'static ActionInfo,
    pub keys: String,
    /// Why it is blocked.
    pub blocked: Option<String>,
}

impl Help {
    /// The help of a screen for a terminal of so many columns; `rows`: the actions, nearest scope first.
    pub fn new(theme: &Theme, columns: u16, title: &str, about: &str, rows: &[HelpRow]) -> Self {
        let columns = (columns as usize).saturating_sub(4).clamp(10, MAX_WIDTH);
        let mut lines: Vec<Line<'static>> = wrapped(about, columns)
            .into_iter()
            .map(Line::from)
            .collect();
        let widest = if columns < 60 { 9 } else { 16 };
        let of_keys = rows
            .iter()
            .map(|row| row.keys.width())
            .max()
            .unwrap_or(0)
            .min(widest);
        for group in groups(rows) {
            lines.push(Line::default());
            lines.push(theme.line(group.heading, Role::Title));
            for (why, rows) in by_reason(&group.rows) {
                if let Some(why) = why {
                    let text = wrapped(
                        &format!("unavailable: {why}"),
                        columns.saturating_sub(2).max(8),
                    );
                    lines.extend(
                        text.into_iter()
                            .map(|text| theme.line(format!("  {text}"), Role::Warning)),
                    );
                }
                let role = if why.is_none() {
                    Role::Text
                } else {
                    Role::Faint
                };
                lines.extend(
                    rows.iter()
                        .flat_map(|action| row(theme, action, role, of_keys, columns)),
                );
            }
        }
        lines.push(Line::default());
        let last = "Change keys in keys.toml (see `grpo-tui keys`). Mouse: click tabs, rows, column titles and hints, double-click to open, wheel to scroll.";
        lines.extend(
            wrapped(last, columns)
                .into_iter()
                .map(|text| theme.line(text, Role::Faint)),
        );
        Self {
            page: Page::new(format!("Help: {title}"), lines),
        }
    }
}

struct Group<'a> {
    heading: String,
    rows: Vec<&'a HelpRow>,
}

/// The actions under their headings, in the given order; navigation to the other screens last.
fn groups<'a>(rows: &'a [HelpRow]) -> Vec<Group<'a>> {
    let is_of_screens =
        |row: &&HelpRow| row.info.scope == Scope::Global && row.info.id.starts_with("screen.");
    let heading = |row: &HelpRow| match row.info.scope {
        Scope::Pane(_, pane) => format!("Pane: {pane}"),
        Scope::Screen(_) => "This screen".to_owned(),
        Scope::Global if is_of_screens(&row) => "Screens".to_owned(),
        Scope::Global => "Global".to_owned(),
        Scope::Movement => "Movement".to_owned(),
    };
    let mut found: Vec<Group<'a>> = Vec::new();
    let (last, first): (Vec<_>, Vec<_>) = rows.iter().partition(is_of_screens);
    for row in first.into_iter().chain(last) {
        let heading = heading(row);
        match found.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.rows.push(row),
            None => found.push(Group {
                heading,
                rows: vec![row],
            }),
        }
    }
    found
}

fn by_reason<'a>(rows: &[&'a HelpRow]) -> Vec<(Option<&'a str>, Vec<&'a HelpRow>)> {
    let mut found: Vec<(Option<&str>, Vec<&HelpRow>)> = vec![(None, Vec::new())];
    for row in rows {
        let why = row.blocked.as_deref();
        match found.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, rows)) => rows.push(row),
            None => found.push((why, vec![row])),
        }
    }
    found
}

/// One action: its keys and its title, wrapped if too long.
fn row(
    theme: &Theme,
    action: &HelpRow,
    role: Role,
    of_keys: usize,
    columns: usize,
) -> Vec<Line<'static>> {
    let indent = of_keys + 4;
    let mut lines = Vec::new();
    let keys_line = format!("  {:<of_keys$}  ", action.keys);
    // More keys than the column holds get a line of their own.
    let mut start = if action.keys.width() > of_keys {
        lines.push(theme.line(keys_line, Role::Key));
        Span::raw(" ".repeat(indent))
    } else {
        theme.span(keys_line, Role::Key)
    };
    for text in wrapped(action.info.title, columns.saturating_sub(indent).max(8)) {
        let begin = std::mem::replace(&mut start, Span::raw(" ".repeat(indent)));
        lines.push(Line::from(vec![begin, theme.span(text, role)]));
    }
    lines
}
