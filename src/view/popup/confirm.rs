//! A yes/no question, mostly a confirmation before something that cannot be undone.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::window::{PopupOutcome, window};
use crate::view::message::{Command, ScreenState, Update};
use crate::view::style_role::Role;
use crate::view::theme::Theme;

#[derive(Debug)]
pub struct Confirm {
    title: String,
    text: String,
    yes: String,
    then: Option<Update>,
    otherwise: Option<Update>,
}

impl Confirm {
    /// A question; `yes` is the verb of the yes, such as `stop the run`.
    pub fn new<X: ScreenState>(
        title: impl Into<String>,
        text: impl Into<String>,
        yes: impl Into<String>,
        then: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static,
    ) -> Self {
        Self { title: title.into(), text: text.into(), yes: yes.into(), then: Some(Update::new(then)), otherwise: None }
    }

    /// With an effect of a no.
    #[must_use]
    pub fn otherwise<X: ScreenState>(
        self,
        otherwise: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static,
    ) -> Self {
        Self { otherwise: Some(Update::new(otherwise)), ..self }
    }

    pub fn is_about(&self, title: &str) -> bool {
        self.title == title
    }

    pub(super) fn key(&mut self, event: KeyEvent) -> PopupOutcome {
        match event.code {
            KeyCode::Char('y' | 'Y') => self.then.take().map_or(PopupOutcome::Close, PopupOutcome::Update),
            KeyCode::Esc | KeyCode::Char('n' | 'N' | 'q') => {
                self.otherwise.take().map_or(PopupOutcome::Close, PopupOutcome::Update)
            }
            _ => PopupOutcome::Stay,
        }
    }

    pub(super) fn draw(&self, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
        let columns = 64.min(area.width);
        let rows =
            (self.text.chars().count() / columns.saturating_sub(6).max(1) as usize + self.text.lines().count()) as u16;
        let inside = window(theme, frame, area, &self.title, columns, rows + 5);
        let key = theme.style(Role::Key);
        let mut lines: Vec<Line<'_>> = self.text.lines().map(Line::from).collect();
        lines.push(Line::default());
        lines.push(Line::from(vec![
            Span::styled("y", key),
            Span::raw(format!(" {}   ", self.yes)),
            Span::styled("n", key),
            Span::raw(" cancel"),
        ]));
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), inside);
    }
}
