//! A popup over a screen, which takes all keys: help, list, question, confirmation, page of text.

mod blocked;
mod confirm;
mod help;
mod input;
mod palette;
mod pick;
mod text;
mod window;

pub use blocked::Refusal;
pub use confirm::Confirm;
pub use help::{Help, HelpRow};
pub use input::Ask;
pub use palette::{PaletteEntry, palette};
pub use pick::{Pick, PickEntry};
pub use text::Page;
pub use window::PopupOutcome;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent, MouseEventKind};
use ratatui::Frame;
use ratatui::layout::{Position, Rect, Size};

use super::pane::content::{Content, Place};
use super::pane::draw::draw;
use super::theme::Theme;
use super::widgets::list_cursor::Motion;

#[derive(Debug)]
pub enum Popup {
    Help(Help),
    Ask(Ask),
    Confirm(Confirm),
    Page(Page),
    Pick(Pick),
    Refusal(Refusal),
}

impl Popup {
    /// Handles a key, which may be one that moves; `size`: of the terminal.
    pub fn key(&mut self, event: KeyEvent, motion: Option<Motion>, size: Size) -> PopupOutcome {
        match self {
            Self::Help(Help { page }) | Self::Page(page) if motion.is_some() => {
                page.follow(motion, size)
            }
            Self::Pick(pick) if motion.is_some() => pick.follow(motion),
            Self::Help(help) => help.page.key(event, size),
            Self::Ask(ask) => ask.key(event),
            Self::Confirm(confirm) => confirm.key(event),
            Self::Page(page) => page.key(event, size),
            Self::Pick(pick) => pick.key(event),
            Self::Refusal(refusal) => refusal.key(event),
        }
    }

    pub fn paste(&mut self, text: &str) {
        match self {
            Self::Ask(ask) => ask.paste(text),
            Self::Pick(pick) => pick.paste(text),
            _ => {}
        }
    }

    /// The key that a click stands for: enter on a row of a list, to which it moves the cursor; an answer of a question.
    pub fn click(&mut self, theme: &Theme, size: Size, at: Position) -> Option<KeyEvent> {
        match self {
            Self::Pick(pick) => pick
                .click(theme, size, at)
                .then(|| KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)),
            Self::Confirm(confirm) => confirm.click(size, at),
            _ => None,
        }
    }

    pub fn wheel(&mut self, event: MouseEvent, size: Size) {
        let rows: isize = match event.kind {
            MouseEventKind::ScrollDown => 3,
            MouseEventKind::ScrollUp => -3,
            _ => return,
        };
        match self {
            Self::Help(help) => help.page.scroll(rows, size),
            Self::Page(page) => page.scroll(rows, size),
            Self::Pick(pick) => pick.go(rows.signum()),
            _ => {}
        }
    }

    pub fn hints(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Help(_) | Self::Page(_) => vec![("j", "scroll"), ("esc", "close")],
            Self::Ask(_) => vec![("enter", "accept"), ("esc", "cancel")],
            Self::Confirm(confirm) => confirm.answers().to_vec(),
            Self::Pick(_) => vec![("enter", "choose"), ("esc", "close")],
            Self::Refusal(_) => vec![("esc", "close")],
        }
    }

    pub fn pane<'a>(&'a self, theme: &'a Theme, area: Rect) -> (Place, Content<'a>) {
        match self {
            Self::Help(Help { page }) | Self::Page(page) => page.pane(area),
            Self::Ask(ask) => ask.pane(theme, area),
            Self::Confirm(confirm) => confirm.pane(theme, area),
            Self::Pick(pick) => pick.pane(theme, area),
            Self::Refusal(refusal) => refusal.pane(theme, area),
        }
    }

    pub fn draw(&self, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
        let (place, content) = self.pane(theme, area);
        draw(theme, frame, &place, true, content);
    }
}
