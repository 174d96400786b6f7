//! A yes/no question, mostly a confirmation before something that cannot be undone.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Position, Rect, Size};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::window::{PopupOutcome, body, place, text_rows};
use crate::message::{Command, Part, Update};
use crate::pane::content::{Content, Place};
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::list_cursor::Cursor;

const COLUMNS: u16 = 64;
/// A text of more rows than this makes the box wider.
const MAX_NARROW_ROWS: u16 = 4;
/// The answers: `y delete   n cancel`.
const YES: &str = "y";
const NO: &str = "n";
const CANCEL: &str = "cancel";
const GAP: &str = "   ";

#[derive(Debug)]
pub struct Confirm {
    title: String,
    text: String,
    yes: String,
    then: Option<Update>,
    otherwise: Option<Update>,
}

impl Confirm {
    pub const MAX_COLUMNS: u16 = 100;

    /// A question; `yes` is the verb of the yes, such as `stop the run`.
    pub fn new<X: Part>(
        title: impl Into<String>,
        text: impl Into<String>,
        yes: impl Into<String>,
        then: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static,
    ) -> Self {
        Self {
            title: title.into(),
            text: text.into(),
            yes: yes.into(),
            then: Some(Update::new(then)),
            otherwise: None,
        }
    }

    /// Adds an effect for the answer no.
    #[must_use]
    pub fn otherwise<X: Part>(
        self,
        otherwise: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static,
    ) -> Self {
        Self {
            otherwise: Some(Update::new(otherwise)),
            ..self
        }
    }

    pub fn is_about(&self, title: &str) -> bool {
        self.title == title
    }

    pub(super) fn key(&mut self, event: KeyEvent) -> PopupOutcome {
        match event.code {
            KeyCode::Char('y' | 'Y') => self
                .then
                .take()
                .map_or(PopupOutcome::Close, PopupOutcome::Update),
            KeyCode::Esc | KeyCode::Char('n' | 'N' | 'q') => self
                .otherwise
                .take()
                .map_or(PopupOutcome::Close, PopupOutcome::Update),
            _ => PopupOutcome::Stay,
        }
    }

    pub(super) fn answers(&self) -> [(&'static str, &str); 2] {
        [(YES, &self.yes), (NO, CANCEL)]
    }

    /// The key that a click stands for: that of the answer under it.
    pub(super) fn click(&self, size: Size, at: Position) -> Option<KeyEvent> {
        let (columns, rows) = self.size(size.width);
        let inside = place(body(size), columns, rows).inside();
        let column =
            at.x.checked_sub(inside.x)
                .filter(|_| at.y + 1 == inside.bottom())? as usize;
        let yes = YES.len() + 1 + self.yes.width();
        let key = match column {
            _ if column < yes => YES,
            _ if (yes + GAP.len()..yes + GAP.len() + NO.len() + 1 + CANCEL.len())
                .contains(&column) =>
            {
                NO
            }
            _ => return None,
        };
        key.chars()
            .next()
            .map(|key| KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE))
    }

    /// Columns of the box, and its rows: the text, a gap, the answers, the frame.
    fn size(&self, width: u16) -> (u16, u16) {
        let rows = |columns: u16| text_rows(self.text.lines(), columns.min(width));
        let columns = match rows(COLUMNS) {
            ..=MAX_NARROW_ROWS => COLUMNS,
            _ => Self::MAX_COLUMNS,
        };
        (columns, rows(columns) + 4)
    }

    pub(super) fn pane<'a>(&self, theme: &Theme, area: Rect) -> (Place, Content<'a>) {
        let (columns, rows) = self.size(area.width);
        let place = place(area, columns, rows);
        let key = theme.style(Role::Key);
        let answers = Line::from(vec![
            Span::styled(YES, key),
            Span::raw(format!(" {}{GAP}", self.yes)),
            Span::styled(NO, key),
            Span::raw(format!(" {CANCEL}")),
        ]);
        let lines = self
            .text
            .lines()
            .map(|line| Line::from(line.to_owned()))
            .collect();
        // The answers stay visible where the text does not fit.
        let foot = vec![Line::default(), answers];
        let mut content = Content {
            foot,
            ..Content::titled(self.title.clone())
        };
        let [_, text, _] = content.parts(place.inside());
        content = content.text(text, lines, Cursor::default());
        (place, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_on_an_answer_is_its_key() {
        let confirm = Confirm::new("Delete", "x".repeat(70), "delete it", |_: &mut (), _| {
            Vec::new()
        });
        // 64 columns in the middle of 120; a word longer than a line.
        let (left, answers) = ((120 - 62) / 2, 1 + (34 - 6) / 3 + 4);
        let check = |column: u16, row: u16, expected: Option<char>| {
            let found = confirm
                .click((120, 36).into(), (column, row).into())
                .map(|event| event.code);
            assert_eq!(found, expected.map(KeyCode::Char), "{column} {row}");
        };
        check(left, answers, Some('y'));
        check(left + 10, answers, Some('y'));
        check(left + 12, answers, None);
        check(left + 14, answers, Some('n'));
        check(left + 21, answers, Some('n'));
        check(left + 22, answers, None);
        check(left, answers - 1, None);
        check(left - 1, answers, None);
    }
}
