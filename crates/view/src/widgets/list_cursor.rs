//! The cursor of a list: its movements, and the first visible row.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    Down,
    Up,
    PageDown,
    PageUp,
    First,
    Last,
}

/// A cursor over rows. It may be past the end of a list that became shorter; `at` clamps it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The row, from 0.
    pub index: usize,
}

impl Cursor {
    pub fn at(self, length: usize) -> Option<usize> {
        length.checked_sub(1).map(|last| self.index.min(last))
    }

    pub fn go(&mut self, rows: isize, length: usize) {
        let last = length.saturating_sub(1);
        self.index = self.index.min(last).saturating_add_signed(rows).min(last);
    }

    /// Applies a movement; `page` is the number of visible rows.
    pub fn follow(&mut self, motion: Motion, page: usize, length: usize) {
        let page = isize::try_from(page.saturating_sub(1).max(1)).unwrap_or(1);
        match motion {
            Motion::Down => self.go(1, length),
            Motion::Up => self.go(-1, length),
            Motion::PageDown => self.go(page, length),
            Motion::PageUp => self.go(-page, length),
            Motion::First => self.index = 0,
            Motion::Last => self.index = length.saturating_sub(1),
        }
    }

    /// The first visible row of `rows`: the cursor is in the middle, except near the ends.
    pub fn first(self, rows: usize, length: usize) -> usize {
        let Some(at) = self.at(length) else { return 0 };
        at.saturating_sub(rows / 2).min(length.saturating_sub(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movements_stay_within_the_list() {
        let check = |start, motions: &[Motion], length, expected| {
            let mut cursor = Cursor { index: start };
            motions
                .iter()
                .for_each(|motion| cursor.follow(*motion, 10, length));
            assert_eq!(cursor.at(length), expected, "{motions:?}");
        };
        check(0, &[Motion::Down, Motion::Down], 5, Some(2));
        check(4, &[Motion::Down], 5, Some(4));
        check(9, &[Motion::Up], 5, Some(3));
        check(0, &[Motion::PageDown], 100, Some(9));
        check(0, &[Motion::Last], 100, Some(99));
        check(50, &[Motion::First], 100, Some(0));
        check(0, &[Motion::Down, Motion::Last, Motion::Up], 0, None);
    }

    #[test]
    fn the_cursor_is_always_among_the_rows_drawn() {
        for length in 0..30_usize {
            for rows in 0..12 {
                for index in 0..35 {
                    let cursor = Cursor { index };
                    let first = cursor.first(rows, length);
                    assert!(
                        first <= length.saturating_sub(rows),
                        "{index} {rows} {length}"
                    );
                    assert!(
                        rows == 0
                            || cursor
                                .at(length)
                                .is_none_or(|at| (first..first + rows).contains(&at)),
                        "{index} {rows} {length}"
                    );
                }
            }
        }
    }
}
