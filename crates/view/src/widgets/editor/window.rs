//! The editor's window: scrolling, the mouse, and positions of the text on the screen.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use super::wrap::{Part, ScreenRow, Window, gutter, parts, width};
use super::{Editor, Effect};

impl Editor {
    pub fn window_in(&self, area: Rect, wraps: bool) -> Window {
        let columns = (area.width as usize).saturating_sub(gutter(self.lines().len()));
        Window {
            rows: area.height as usize,
            columns,
            wraps,
        }
    }

    pub(super) fn parts(&self, row: usize, window: Window) -> Vec<Part> {
        parts(self.lines().get(row).map_or("", String::as_str), window)
    }

    /// The line of the screen with a position of the text, and its column there, before scrolling to the side.
    fn on_screen(&self, (row, column): (usize, usize), window: Window) -> (ScreenRow, usize) {
        let parts = self.parts(row, window);
        let index = parts
            .iter()
            .rposition(|part| part.columns.start <= column)
            .unwrap_or(0);
        let Some(part) = parts.get(index) else {
            return ((row, 0), 0);
        };
        let line = self.lines().get(row).map_or("", String::as_str);
        let before = line
            .chars()
            .take(column)
            .skip(part.columns.start)
            .map(width)
            .sum::<usize>();
        ((row, index), part.indent + before)
    }

    /// The position of the text nearest to a column of a line of the screen.
    fn at(&self, (row, index): ScreenRow, screen_column: usize, window: Window) -> (usize, usize) {
        let parts = self.parts(row, window);
        let Some(part) = parts.get(index) else {
            return (row, 0);
        };
        let line = self.lines().get(row).map_or("", String::as_str);
        let mut left = screen_column.saturating_sub(part.indent);
        let inside = line
            .chars()
            .take(part.columns.end)
            .skip(part.columns.start)
            .take_while(|letter| {
                let fits = width(*letter) <= left;
                left = left.saturating_sub(width(*letter));
                fits
            });
        let column = part.columns.start + inside.count();
        // The end of a part is the start of the next one.
        let is_last = index + 1 == parts.len();
        (
            row,
            if is_last || part.columns.is_empty() {
                column
            } else {
                column.min(part.columns.end - 1)
            },
        )
    }

    fn above(&self, (mut row, mut index): ScreenRow, mut by: usize, window: Window) -> ScreenRow {
        while by > index {
            let Some(before) = row.checked_sub(1) else {
                return (0, 0);
            };
            by -= index + 1;
            row = before;
            index = self.parts(row, window).len() - 1;
        }
        (row, index - by)
    }

    fn below(&self, (mut row, mut index): ScreenRow, mut by: usize, window: Window) -> ScreenRow {
        loop {
            let left = (self.parts(row, window).len() - 1).saturating_sub(index);
            if by <= left {
                return (row, index + by);
            }
            if row + 1 >= self.lines().len() {
                return (row, index + left);
            }
            by -= left + 1;
            (row, index) = (row + 1, 0);
        }
    }

    fn last_first(&self, window: Window) -> ScreenRow {
        let row = self.lines().len().saturating_sub(1);
        let last = (row, self.parts(row, window).len() - 1);
        self.above(last, window.rows.max(1) - 1, window)
    }

    /// The first line and column shown: the last ones, moved only as far as needed to show the cursor.
    pub(super) fn first(&self, window: Window) -> (ScreenRow, usize) {
        let (cursor, column) = self.on_screen(self.cursor(), window);
        let top = self.top.min(self.last_first(window));
        // A wider window has fewer lines for the row.
        let top = (top.0, top.1.min(self.parts(top.0, window).len() - 1));
        let top = if cursor < top {
            cursor
        } else {
            top.max(self.above(cursor, window.rows.max(1) - 1, window))
        };
        let columns = window.columns.saturating_sub(1).max(1);
        let left = self
            .left
            .min(column)
            .max((column + 1).saturating_sub(columns));
        (
            top,
            if window.wraps || column < columns {
                0
            } else {
                left
            },
        )
    }

    /// The column and row on the screen of a position of the text, for an area inside the frame; `None` if outside.
    pub fn screen_position(
        &self,
        place: (usize, usize),
        area: Rect,
        wraps: bool,
    ) -> Option<(u16, u16)> {
        let window = self.window_in(area, wraps);
        let (top, left) = self.first(window);
        let (at, column) = self.on_screen(place, window);
        let row = (0..window.rows).find(|row| self.below(top, *row, window) == at)?;
        let column = gutter(self.lines().len()) + column.checked_sub(left)?;
        Some((
            area.x + u16::try_from(column).ok()?,
            area.y + u16::try_from(row).ok()?,
        ))
    }

    pub fn top(&self) -> usize {
        self.top.0
    }

    pub fn follow(&mut self, window: Window) {
        (self.top, self.left) = self.first(window);
    }

    pub fn scroll(&mut self, by: isize, window: Window) {
        let (top, last) = (self.first(window).0, self.last_first(window));
        self.top = match by < 0 {
            true => self.above(top, by.unsigned_abs(), window),
            false => self.below(top, by.unsigned_abs(), window).min(last),
        };
        let (cursor, column) = self.on_screen(self.cursor(), window);
        let inside = cursor.clamp(
            self.top,
            self.below(self.top, window.rows.max(1) - 1, window),
        );
        if inside != cursor {
            let (row, column) = self.at(inside, column, window);
            self.go_to(row, column);
        }
    }

    /// Handles the mouse in an area inside the frame: a click moves the cursor, dragging selects and scrolls at the edges.
    pub fn pointer(&mut self, event: MouseEvent, area: Rect, wraps: bool) -> Effect {
        let window = self.window_in(area, wraps);
        match event.kind {
            MouseEventKind::Down(MouseButton::Left)
                if area.contains((event.column, event.row).into()) =>
            {
                self.area.cancel_selection();
            }
            MouseEventKind::Drag(MouseButton::Left) => {
                if !self.area.is_selecting() {
                    self.area.start_selection();
                }
                let by = isize::from(event.row >= area.bottom()) - isize::from(event.row < area.y);
                self.top = self.first(window).0;
                self.top = if by < 0 {
                    self.above(self.top, 1, window)
                } else {
                    self.below(self.top, by as usize, window)
                };
            }
            _ => return Effect::None,
        }
        let text = area.x as usize + gutter(self.lines().len());
        let row = (event.row.saturating_sub(area.y) as usize).min(window.rows.max(1) - 1);
        self.point(row, (event.column as usize).saturating_sub(text), window);
        Effect::Moved
    }

    pub(super) fn point(&mut self, row: usize, screen_column: usize, window: Window) {
        let (top, left) = self.first(window);
        let (row, column) = self.at(self.below(top, row, window), left + screen_column, window);
        self.jump(row, column);
    }

    /// The position that many screen lines below (or above) the cursor, in the column where the movement began.
    pub(super) fn vertical(&mut self, by: isize, window: Window) -> (usize, usize) {
        let cursor = self.cursor();
        let (place, column) = self.on_screen(cursor, window);
        let column = self
            .goal
            .filter(|(of, _)| *of == cursor)
            .map_or(column, |(_, column)| column);
        let place = match by < 0 {
            true => self.above(place, by.unsigned_abs(), window),
            false => self.below(place, by.unsigned_abs(), window),
        };
        let to = self.at(place, column, window);
        self.goal = Some((to, column));
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(columns: usize) -> Window {
        Window {
            rows: 3,
            columns,
            wraps: true,
        }
    }

    #[test]
    fn the_window_holds_the_cursor_and_moves_no_further_than_it_must() {
        let check = |top, cursor: (usize, usize), rows, wraps, expected: ScreenRow| {
            let mut editor = Editor::new(&"aaa bbb ccc\n".repeat(10), false);
            editor.go_to(cursor.0, cursor.1);
            editor.top = top;
            assert_eq!(
                editor
                    .first(Window {
                        rows,
                        columns: 5,
                        wraps
                    })
                    .0,
                expected,
                "{top:?} {cursor:?}"
            );
        };
        check((0, 0), (3, 0), 5, false, (0, 0));
        check((0, 0), (7, 0), 5, false, (3, 0));
        check((6, 0), (2, 0), 5, false, (2, 0));
        check((99, 0), (9, 0), 5, false, (6, 0));
        check((0, 0), (3, 0), 0, false, (3, 0));
        check((0, 0), (0, 8), 3, true, (0, 0));
        check((0, 0), (1, 0), 3, true, (0, 1));
        check((0, 2), (3, 9), 3, true, (3, 0));
        check((0, 2), (0, 5), 3, true, (0, 1));
        check((99, 0), (10, 0), 3, true, (9, 1));
    }

    #[test]
    fn every_column_is_found_again_where_it_is_shown() {
        let text = "  日本 one, two-and-three\n\ttab e\u{301} end \n\nx";
        for columns in 2..30 {
            let (editor, window) = (Editor::new(text, false), wrapped(columns));
            for (row, line) in editor.lines().iter().enumerate() {
                for column in 0..=line.chars().count() {
                    let (place, screen) = editor.on_screen((row, column), window);
                    let back = editor.at(place, screen, window);
                    // A combining mark has no column of its own.
                    let same = line.chars().nth(column) == Some('\u{301}') || back == (row, column);
                    assert!(
                        same,
                        "{columns}: {row} {column} at {place:?} {screen}, back {back:?}"
                    );
                    assert!(
                        screen < columns || columns < 3,
                        "{columns}: {row} {column} at {place:?} {screen}"
                    );
                }
            }
        }
    }
}
