//! The palette: every action there is, found by a few of its letters; those that cannot be done now say why.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{Outcome, Then, window};
use crate::view::action::{self, Action, Place};
use crate::view::model::Model;
use crate::view::role::Role;
use crate::view::widgets::field::Field;
use crate::view::{fuzzy, update, workbench};

/// The palette.
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

    /// Moves the cursor; the list's ends hold it.
    pub(super) fn go(&mut self, rows: isize) {
        self.cursor = self.cursor.saturating_add_signed(rows);
    }

    fn found(&self, model: &Model) -> Vec<&'static Action> {
        let mut actions: Vec<&'static Action> = action::here(model);
        let nearby = actions.len();
        // What belongs to another screen is found too, and goes there first.
        actions.extend(action::all().filter(|action| matches!(action.place, Place::On(screen) if screen != model.screen)));
        if self.field.text().is_empty() {
            actions.truncate(nearby);
            return actions;
        }
        fuzzy::rank(self.field.text(), &actions, |action| format!("{} {}", action.title, action.id))
    }

    pub(super) fn key(&mut self, model: &mut Model, event: KeyEvent) -> Outcome {
        match event.code {
            KeyCode::Esc => return Outcome::Close,
            KeyCode::Down => self.go(1),
            KeyCode::Up => self.go(-1),
            KeyCode::PageDown => self.go(10),
            KeyCode::PageUp => self.go(-10),
            KeyCode::Enter => {
                let found = self.found(model);
                let Some(action) = found.get(self.cursor.min(found.len().saturating_sub(1))).copied() else { return Outcome::Stay };
                return Outcome::Then(Then::new(move |model| {
                    let mut commands = match action.place {
                        Place::On(screen) | Place::In(screen, _) if screen != model.screen => workbench::go_to(model, screen),
                        _ => Vec::new(),
                    };
                    commands.extend(update::perform(model, action));
                    commands
                }));
            }
            _ => {
                if self.field.key(event) {
                    self.cursor = 0;
                }
            }
        }
        let last = self.found(model).len().saturating_sub(1);
        self.cursor = self.cursor.min(last);
        Outcome::Stay
    }

    pub(super) fn draw(&self, model: &Model, frame: &mut Frame<'_>, area: Rect) {
        let found = self.found(model);
        let inside = window(model, frame, area, "Palette", 84, (found.len() as u16).saturating_add(4).clamp(8, 26));
        let theme = &model.theme;
        let mut lines = vec![self.field.line(theme, inside.width as usize, true), Line::default()];
        let rows = inside.height.saturating_sub(2) as usize;
        let first = self.cursor.saturating_sub(rows.saturating_sub(1));
        for (index, action) in found.iter().enumerate().skip(first).take(rows) {
            let why = (action.blocked)(model);
            let role = if why.is_some() { Role::Faint } else { Role::Text };
            let mark = if index == self.cursor { theme.glyph("▸", ">") } else { " " };
            let keys = model.keymap.shown(action);
            let mut spans = vec![
                Span::styled(format!("{mark} "), theme.style(Role::Accent)),
                Span::styled(format!("{:<46} ", action.title), theme.style(role)),
                Span::styled(format!("{keys:<10} "), theme.style(Role::Key)),
            ];
            spans.push(Span::styled(why.unwrap_or_else(|| action.id.to_owned()), theme.style(Role::Faint)));
            let line = Line::from(spans);
            lines.push(if index == self.cursor { line.style(theme.style(Role::Selected)) } else { line });
        }
        if found.is_empty() {
            lines.push(Line::styled("nothing is called that", theme.style(Role::Faint)));
        }
        frame.render_widget(Paragraph::new(lines), inside);
    }
}
