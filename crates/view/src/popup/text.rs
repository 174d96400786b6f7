//! A page of text with a scroll position.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::{Rect, Size};
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr;

use super::window::{PopupOutcome, body, place};
use crate::pane::content::{Content, Place};
use crate::widgets::list_cursor::{Cursor, Motion};
use crate::widgets::text_width::wrapped_rows;

#[derive(Debug, Default)]
pub struct Page {
    title: String,
    lines: Vec<Line<'static>>,
    top: Cursor,
}

impl Page {
    pub fn new(title: impl Into<String>, lines: Vec<Line<'static>>) -> Self {
        Self {
            title: title.into(),
            lines,
            top: Cursor::default(),
        }
    }

    pub(super) fn scroll(&mut self, rows: isize, size: Size) {
        let (_, length) = self.extent(size);
        self.top.go(rows, length);
    }

    fn extent(&self, size: Size) -> (usize, usize) {
        let (place, content) = self.pane(body(size));
        content.extent(place.inside())
    }

    pub(super) fn follow(&mut self, motion: Option<Motion>, size: Size) -> PopupOutcome {
        let (page, length) = self.extent(size);
        motion
            .into_iter()
            .for_each(|motion| self.top.follow(motion, page, length));
        PopupOutcome::Stay
    }

    /// The box that holds all lines, if they fit.
    pub(super) fn pane<'a>(&self, area: Rect) -> (Place, Content<'a>) {
        let widest = self.lines.iter().map(Line::width).max().unwrap_or(0);
        let widest = widest.clamp(self.title.width(), self.title.width().max(120)) as u16;
        let inner = (widest + 4).min(area.width).saturating_sub(2) as usize;
        let rows = self
            .lines
            .iter()
            .map(|line| wrapped_rows(line, inner))
            .sum::<usize>();
        let place = place(
            area,
            widest + 4,
            u16::try_from(rows + 2).unwrap_or(u16::MAX),
        );
        let content =
            Content::titled(self.title.clone()).text(place.inside(), self.lines.clone(), self.top);
        (place, content)
    }

    pub(super) fn key(&mut self, event: KeyEvent, size: Size) -> PopupOutcome {
        match event.code {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => return PopupOutcome::Close,
            KeyCode::Char(' ') => self.scroll(10, size),
            _ => {}
        }
        PopupOutcome::Stay
    }
}
