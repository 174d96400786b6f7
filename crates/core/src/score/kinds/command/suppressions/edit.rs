//! Changes of a text that keep the places of everything else.

use std::ops::Range;

/// Characters of a source that the checker does not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// Character indices.
    pub(super) range: Range<usize>,
    /// What replaces each of them; line ends stay.
    fill: char,
}

impl Edit {
    /// Leaves out what the program can do without.
    pub(super) fn blank(range: Range<usize>) -> Self {
        Self { range, fill: ' ' }
    }

    /// Makes another word of one.
    pub(super) fn cross_out(range: Range<usize>) -> Self {
        Self { range, fill: 'x' }
    }

    /// Returns whether the text changed.
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

/// Applies what `find` finds until it finds nothing more: what is left out may uncover the next.
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
