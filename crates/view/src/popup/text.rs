//! A page of text with a scroll position.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Wrap};
use unicode_width::UnicodeWidthStr;

use super::window::{PopupOutcome, inside, window};
use crate::style_role::Role;
use crate::theme::Theme;
use crate::widgets::text_width::wrapped_rows;

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

    /// Scrolls by rows, clamped to the ends. `size`: of the terminal.
    pub(super) fn scroll(&mut self, rows: isize, size: (u16, u16)) {
        let (columns, wanted) = self.size(size.0);
        let seen = inside(size, columns, wanted).height as usize;
        let last = (wanted as usize).saturating_sub(2).saturating_sub(seen);
        self.top = self.top.saturating_add_signed(rows).min(last);
    }

    /// Columns and rows of the box that holds all lines, on a terminal of this width.
    fn size(&self, width: u16) -> (u16, u16) {
        let widest = self.lines.iter().map(Line::width).max().unwrap_or(0);
        let widest = widest.clamp(self.title.width(), self.title.width().max(120)) as u16;
        let inner = (widest + 4).min(width).saturating_sub(2) as usize;
        let rows = self.lines.iter().map(|line| wrapped_rows(line, inner)).sum::<usize>();
        (widest + 4, rows.min(u16::MAX as usize - 2) as u16 + 2)
    }

    pub(super) fn key(&mut self, event: KeyEvent, size: (u16, u16)) -> PopupOutcome {
        match event.code {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => return PopupOutcome::Close,
            KeyCode::Down | KeyCode::Char('j') => self.scroll(1, size),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(-1, size),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll(10, size),
            KeyCode::PageUp => self.scroll(-10, size),
            KeyCode::Home | KeyCode::Char('g') => self.top = 0,
            KeyCode::End | KeyCode::Char('G') => self.scroll(isize::MAX, size),
            _ => {}
        }
        PopupOutcome::Stay
    }

    pub(super) fn draw(&self, theme: &Theme, frame: &mut Frame<'_>, area: Rect) {
        let (columns, rows) = self.size(area.width);
        let inside = window(theme, frame, area, &self.title, columns, rows);
        let (seen, all) = (inside.height as usize, rows as usize - 2);
        let top = self.top.min(all.saturating_sub(seen));
        // The frame shows the position if there is more than fits.
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
