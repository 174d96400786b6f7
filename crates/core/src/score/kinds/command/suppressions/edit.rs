//! Text edits that preserve the positions of everything else.

use std::ops::Range;

/// Characters of a source hidden from the checker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// Character indices.
    pub(super) range: Range<usize>,
    /// Replaces each of them except line ends.
    fill: char,
}

impl Edit {
    /// Blanks code that is not needed.
    pub(super) fn blank(range: Range<usize>) -> Self {
        Self { range, fill: ' ' }
    }

    /// Changes a word into another.
    pub(super) fn cross_out(range: Range<usize>) -> Self {
        Self { range, fill: 'x' }
    }

    fn apply(&self, text: &mut [char]) -> bool {
        let mut has_changed = false;
        for letter in text.get_mut(self.range.clone()).unwrap_or_default() {
            if !matches!(letter, '\n' | '\r') && *letter != self.fill {
                *letter = self.fill;
                has_changed = true;
            }
        }
        has_changed
    }
}

/// Applies edits until `find` returns none: each may uncover another.
pub(super) fn apply_all(
    text: &mut [char],
    found: &mut Vec<Range<usize>>,
    find: impl Fn(&[char]) -> Vec<Edit>,
) {
    loop {
        let mut has_changed = false;
        for edit in find(text) {
            if edit.apply(text) {
                has_changed = true;
                found.push(edit.range);
            }
        }
        if !has_changed {
            return;
        }
    }
}
