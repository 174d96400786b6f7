//! A frame as bytes for the terminal: the difference from the last one, as one synchronized update.

use std::convert::Infallible;

use crossterm::{cursor, queue, style, terminal};
use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};

use super::encode::encode;
use crate::app::Model;
use crate::draw::draw;

/// Synchronized update (mode 2026); terminals without it ignore these.
const BEGIN: &[u8] = b"\x1b[?2026h";
const END: &[u8] = b"\x1b[?2026l";

/// Draws the model and returns the bytes that turn the last frame into this one.
#[derive(Debug)]
pub(super) struct FrameRenderer {
    terminal: ratatui::Terminal<Bytes>,
}

impl FrameRenderer {
    pub(super) fn new() -> Self {
        let Ok(terminal) = ratatui::Terminal::new(Bytes::default());
        Self { terminal }
    }

    /// The bytes of the model's frame; empty if nothing has changed, or the terminal has no size.
    pub(super) fn draw(&mut self, model: &Model) -> Vec<u8> {
        let (columns, rows) = model.shared.size;
        if columns == 0 || rows == 0 {
            return Vec::new();
        }
        self.terminal.backend_mut().size = Size {
            width: columns,
            height: rows,
        };
        let Ok(_) = self.terminal.draw(|frame| draw(model, frame));
        let changed = std::mem::take(&mut self.terminal.backend_mut().bytes);
        if changed.is_empty() {
            changed
        } else {
            [BEGIN, &changed, END].concat()
        }
    }

    pub(super) fn forget(&mut self) {
        let Ok(()) = self.terminal.clear();
    }
}

/// A backend that writes into memory, and nothing if nothing changed.
#[derive(Debug, Default)]
struct Bytes {
    size: Size,
    bytes: Vec<u8>,
}

impl Backend for Bytes {
    type Error = Infallible;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(
        &mut self,
        content: I,
    ) -> Result<(), Infallible> {
        encode(content, self.size.width, &mut self.bytes);
        Ok(())
    }

    // The cursor is hidden while the view runs; fields draw their own.
    fn hide_cursor(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn show_cursor(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> Result<Position, Infallible> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, _position: P) -> Result<(), Infallible> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        let _ = queue!(
            self.bytes,
            style::ResetColor,
            terminal::Clear(terminal::ClearType::All),
            cursor::Hide
        );
        Ok(())
    }

    fn clear_region(&mut self, _region: ClearType) -> Result<(), Infallible> {
        self.clear()
    }

    fn size(&self) -> Result<Size, Infallible> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> Result<WindowSize, Infallible> {
        Ok(WindowSize {
            columns_rows: self.size,
            pixels: Size::ZERO,
        })
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::run::RunFolders;

    #[test]
    fn only_what_changed_is_written_and_nothing_without_room() {
        let here = std::path::PathBuf::from("/nowhere");
        let mut model = Model::new(Options::at(
            here.clone(),
            RunFolders::discover(Some(&here), &here),
            here,
        ));
        model.shared.size = (80, 24);
        let mut renderer = FrameRenderer::new();
        let first = renderer.draw(&model).len();
        assert!(first > 500, "{first} bytes");
        assert_eq!(renderer.draw(&model), b"");
        model.shared.say("something");
        let second = renderer.draw(&model);
        assert!(
            second.starts_with(BEGIN) && second.ends_with(END) && second.len() < first / 2,
            "{} of {first} bytes",
            second.len()
        );
        model.shared.size = (0, 0);
        assert_eq!(renderer.draw(&model), b"");
        model.shared.size = (80, 24);
        renderer.forget();
        assert!(renderer.draw(&model).len() > first / 2);
    }
}
