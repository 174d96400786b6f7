//! The cursor of a list, moved by keys and the wheel, and the first visible row.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A cursor over rows; it may be past the end of a list that became shorter, until `at` clamps it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The row, from 0.
    pub index: usize,
}

impl Cursor {
    /// The row in a list of `length`; `None` if it is empty.
    pub fn at(self, length: usize) -> Option<usize> {
        length.checked_sub(1).map(|last| self.index.min(last))
    }

    /// Moves by rows, clamped to the ends.
    pub fn go(&mut self, rows: isize, length: usize) {
        let last = length.saturating_sub(1);
        self.index = self.index.min(last).saturating_add_signed(rows).min(last);
    }

    /// Handles a movement key: arrows, j k, page keys, g G, home and end. `page`: visible rows. Returns false for other
    /// keys.
    pub fn key(&mut self, event: KeyEvent, page: usize, length: usize) -> bool {
        if event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            return false;
        }
        let page = isize::try_from(page.saturating_sub(1).max(1)).unwrap_or(1);
        match event.code {
            KeyCode::Down | KeyCode::Char('j') => self.go(1, length),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1, length),
            KeyCode::PageDown => self.go(page, length),
            KeyCode::PageUp => self.go(-page, length),
            KeyCode::Home | KeyCode::Char('g') => self.index = 0,
            KeyCode::End | KeyCode::Char('G') => self.index = length.saturating_sub(1),
            _ => return false,
        }
        true
    }

    /// The first visible row of `rows`: the cursor is in the middle, except near the ends.
    pub fn first(self, rows: usize, length: usize) -> usize {
        let Some(at) = self.at(length) else { return 0 };
        at.saturating_sub(rows / 2).min(length.saturating_sub(rows))
    }

    /// The visible rows, each with whether the cursor is on it.
    pub fn seen(self, rows: usize, length: usize) -> impl Iterator<Item = (usize, bool)> {
        let (at, first) = (self.at(length), self.first(rows, length));
        (first..length.min(first + rows)).map(move |row| (row, at == Some(row)))
    }

    /// The row on a line of the list.
    pub fn row_at(self, line: usize, rows: usize, length: usize) -> Option<usize> {
        let row = self.first(rows, length) + line;
        (line < rows && row < length).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_chord::Chord;

    #[test]
    fn keys_move_the_cursor_within_the_list() {
        let check = |start, keys: &str, length, expected| {
            let mut cursor = Cursor { index: start };
            for key in keys.split_whitespace() {
                let chord = Chord::parse(key).unwrap();
                assert!(cursor.key(KeyEvent::new(chord.code, chord.modifiers), 10, length), "{key}");
            }
            assert_eq!(cursor.at(length), expected, "{keys}");
        };
        check(0, "j down", 5, Some(2));
        check(4, "j", 5, Some(4));
        check(9, "k", 5, Some(3));
        check(0, "pagedown", 100, Some(9));
        check(0, "G", 100, Some(99));
        check(50, "g", 100, Some(0));
        check(0, "j G k", 0, None);
        assert!(!Cursor::default().key(KeyEvent::new(KeyCode::Char('x'), KeyModifiers::NONE), 10, 5));
    }

    #[test]
    fn the_cursor_is_always_among_the_rows_drawn() {
        for length in 0..30_usize {
            for rows in 0..12 {
                for index in 0..35 {
                    let cursor = Cursor { index };
                    let first = cursor.first(rows, length);
                    assert!(first <= length.saturating_sub(rows), "{index} {rows} {length}");
                    assert!(
                        rows == 0 || cursor.at(length).is_none_or(|at| (first..first + rows).contains(&at)),
                        "{index} {rows} {length}"
                    );
                }
            }
        }
    }
}
