//! A page of text with a scroll position.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::window::{PopupOutcome, window};
use crate::view::style_role::Role;
use crate::view::theme::Theme;
use crate::view::widgets::text_width::wrapped_rows;

#[derive(Debug, Default)]
pub struct Page {
    title: String,
    lines: Vec<Line<'static>>,
    top: usize,
}

impl Page {
    pub fn new(title: impl Into<String>, lines: Vec<Line<'static>>) -> Self {
        Self { title: title.into(), lines, top: 0 }
    }

    /// Scrolls by rows, clamped to the ends.
    pub(super) fn scroll(&mut self, rows: i32) {
        let last = self.lines.len().saturating_sub(1);
        self.top = self.top.saturating_add_signed(rows as isize).min(last);
    }

    pub(super) fn key(&mut self, event: KeyEvent) -> PopupOutcome {
        match event.code {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => return PopupOutcome::Close,
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll(10),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::Home | KeyCode::Char('g') => self.top = 0,
            KeyCode::End | KeyCode::Char('G') => self.top = self.lines.len().saturating_sub(1),
            _ => {}
        }
        PopupOutcome::Stay
    }

    pub(super) fn draw(&self, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
        let widest = self
            .lines
            .iter()
            .map(Line::width)
            .max()
            .unwrap_or(0)
            .clamp(self.title.width(), self.title.width().max(120)) as u16;
        let columns = (widest + 4).min(area.width).saturating_sub(2) as usize;
        let rows = self.lines.iter().map(|line| wrapped_rows(line, columns)).sum::<usize>();
        let rows = rows.min(u16::MAX as usize - 2) as u16;
        let inside = window(theme, frame, area, &self.title, widest + 4, rows + 2);
        // Unwrapped text has a known end, past which it cannot be scrolled.
        let last = if inside.width >= widest {
            self.lines.len().saturating_sub(inside.height as usize)
        } else {
            self.lines.len()
        };
        let top = self.top.min(last).min(u16::MAX as usize);
        // The frame shows the position if there is more than fits.
        let (seen, all) = (inside.height as usize, self.lines.len());
        if all > seen && area.height > 2 {
            let percent = (top + seen).min(all) * 100 / all;
            let text = format!(" {percent}% ");
            let place = Rect {
                x: inside.right().saturating_sub(text.len() as u16),
                y: inside.bottom(),
                width: text.len() as u16,
                height: 1,
            };
            frame.render_widget(Line::styled(text, theme.style(Role::Faint)), place.intersection(frame.area()));
        }
        let text = Paragraph::new(Text::from(self.lines.clone())).wrap(Wrap { trim: false }).scroll((top as u16, 0));
        frame.render_widget(text, inside);
    }
}
