//! Help: what can be done here and by which key, from the table of actions, nearest things first.

use crossterm::event::KeyEvent;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::{Outcome, Page};
use crate::view::action::{self, Action, Place};
use crate::view::model::Model;
use crate::view::role::Role;
use crate::view::screens;

/// The widest that help is: longer lines are hard to read.
const WIDEST: usize = 100;

/// The help of the screen in front.
#[derive(Debug)]
pub struct Help {
    pub(super) page: Page,
}

impl Help {
    /// The help as things stand.
    pub fn new(model: &Model) -> Self {
        let columns = (model.size.0 as usize).saturating_sub(4).clamp(10, WIDEST);
        let screen = screens::of(model.screen);
        let mut lines: Vec<Line<'static>> = wrapped(screen.help, columns).into_iter().map(Line::from).collect();
        let rows: Vec<(&'static Action, String)> = action::here(model).into_iter().map(|action| (action, keys(model, action))).collect();
        let widest = if columns < 60 { 9 } else { 16 };
        let of_keys = rows.iter().map(|(_, keys)| keys.width()).max().unwrap_or(0).min(widest);
        for group in groups(&rows) {
            lines.push(Line::default());
            lines.push(Line::styled(group.heading, model.theme.style(Role::Title)));
            for (why, rows) in by_reason(model, &group.rows) {
                if let Some(why) = &why {
                    let text = wrapped(&format!("not now: {why}"), columns.saturating_sub(2));
                    lines.extend(text.into_iter().map(|text| Line::styled(format!("  {text}"), model.theme.style(Role::Warning))));
                }
                let role = if why.is_some() { Role::Faint } else { Role::Text };
                lines.extend(rows.iter().flat_map(|(action, keys)| row(model, (action.title, role), keys, of_keys, columns)));
            }
        }
        lines.push(Line::default());
        let last = "Keys are changed in keys.toml (`grpo-tui keys`); the mouse clicks tabs and rows, its wheel scrolls.";
        lines.extend(wrapped(last, columns).into_iter().map(|text| Line::styled(text, model.theme.style(Role::Faint))));
        Self { page: Page::new(format!("Help: {}", screen.title), lines) }
    }

    pub(super) fn key(&mut self, event: KeyEvent) -> Outcome {
        self.page.key(event)
    }

    pub(super) fn draw(&self, model: &Model, frame: &mut Frame<'_>, area: Rect) {
        self.page.draw(model, frame, area);
    }
}

struct Group<'a> {
    heading: String,
    rows: Vec<&'a (&'static Action, String)>,
}

/// The actions under their headings, in the order in which they come; the way to the other screens last.
fn groups<'a>(rows: &'a [(&'static Action, String)]) -> Vec<Group<'a>> {
    let heading = |action: &Action| match action.place {
        Place::In(_, pane) => format!("In the pane {pane}"),
        Place::On(_) => "On this screen".to_owned(),
        Place::Everywhere if action.id.starts_with("screen.") => "Screens".to_owned(),
        Place::Everywhere => "Everywhere".to_owned(),
    };
    let mut found: Vec<Group<'a>> = Vec::new();
    for row in rows {
        let heading = heading(row.0);
        match found.iter_mut().find(|group| group.heading == heading) {
            Some(group) => group.rows.push(row),
            None => found.push(Group { heading, rows: vec![row] }),
        }
    }
    found.sort_by_key(|group| group.heading == "Screens");
    found
}

fn keys(model: &Model, action: &Action) -> String {
    model.keymap.keys(action).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What can be done now, then what cannot, under its reason.
#[expect(clippy::type_complexity, reason = "read once, just above")]
fn by_reason<'a>(model: &Model, rows: &[&'a (&'static Action, String)]) -> Vec<(Option<String>, Vec<&'a (&'static Action, String)>)> {
    let mut found: Vec<(Option<String>, Vec<_>)> = vec![(None, Vec::new())];
    for row in rows {
        let why = (row.0.blocked)(model);
        match found.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, of_reason)) => of_reason.push(*row),
            None => found.push((why, vec![*row])),
        }
    }
    found
}

/// One action: its keys and its title, which goes on below itself where it is too long.
fn row(model: &Model, (title, role): (&str, Role), keys: &str, of_keys: usize, columns: usize) -> Vec<Line<'static>> {
    let theme = &model.theme;
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
    lines
}

/// A text in lines of at most so many columns, broken at blanks.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().filter(|line| line.is_empty() || line.width() + 1 + word.width() <= columns);
        match last {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
