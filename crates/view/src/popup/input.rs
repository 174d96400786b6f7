//! A question that is answered by one line of text.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::window::{PopupOutcome, place};
use crate::message::{Command, Part, Update};
use crate::pane::content::{Content, Place};
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::field::Field;
use crate::widgets::text_width::wrapped;

const COLUMNS: u16 = 72;

/// Validates an answer: what is wrong with it, or `None`.
type Check = Box<dyn Fn(&str) -> Option<String> + Send>;
type Answer = Box<dyn FnOnce(String) -> Update + Send>;

pub struct Ask {
    title: String,
    label: String,
    field: Field,
    check: Check,
    /// Whether something was typed or submitted: only then an invalid text is an error.
    is_tried: bool,
    then: Option<Answer>,
}

impl Ask {
    /// Asks for a line of text; the initial `text` is selected, so typing replaces it.
    pub fn new<X: Part>(
        title: impl Into<String>,
        label: impl Into<String>,
        text: &str,
        then: impl FnOnce(&mut X, &mut X::Shared, String) -> Vec<Command> + Send + 'static,
    ) -> Self {
        let then = |text| {
            Update::new(move |screen: &mut X, shared: &mut X::Shared| then(screen, shared, text))
        };
        Self {
            title: title.into(),
            label: label.into(),
            field: Field::selected(text),
            check: Box::new(|_| None),
            is_tried: false,
            then: Some(Box::new(then)),
        }
    }

    /// Checks the answer while it is typed; an invalid one cannot be submitted.
    #[must_use]
    pub fn checked(self, check: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        Self {
            check: Box::new(check),
            ..self
        }
    }

    pub(super) fn key(&mut self, event: KeyEvent) -> PopupOutcome {
        match event.code {
            KeyCode::Esc => return PopupOutcome::Close,
            KeyCode::Enter if (self.check)(self.field.text()).is_none() => {
                let (then, text) = (self.then.take(), self.field.text().to_owned());
                return then.map_or(PopupOutcome::Close, |then| PopupOutcome::Update(then(text)));
            }
            KeyCode::Enter => self.is_tried = true,
            _ => self.is_tried |= self.field.key(event),
        }
        PopupOutcome::Stay
    }

    pub(super) fn paste(&mut self, text: &str) {
        self.field.paste(text);
        self.is_tried = true;
    }

    pub(super) fn pane<'a>(&self, theme: &Theme, area: Rect) -> (Place, Content<'a>) {
        let wrong = (self.check)(self.field.text()).filter(|_| self.is_tried);
        let (below, role) = match &wrong {
            Some(wrong) => (wrong.as_str(), Role::Bad),
            None => ("enter accept, esc cancel", Role::Faint),
        };
        let columns = usize::from(COLUMNS.min(area.width).saturating_sub(2));
        let label = wrapped(&self.label, columns).into_iter().map(Line::from);
        let below = wrapped(below, columns)
            .into_iter()
            .map(|line| theme.line(line, role));
        let field = [self.field.line(theme, columns, true), Line::default()];
        let lines: Vec<Line<'static>> = label.chain(field).chain(below).collect();
        let rows = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
        (
            place(area, COLUMNS, rows.max(7)),
            Content::titled(self.title.clone()).fixed(lines),
        )
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Ask")
            .field("title", &self.title)
            .field("field", &self.field)
            .finish_non_exhaustive()
    }
}
