//! Soft wrap: the lines of the screen for a row of the text.

use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use crate::secrets::visible_letter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub rows: usize,
    pub columns: usize,
    /// Whether long lines continue on the next line of the screen.
    pub wraps: bool,
}

/// The columns before the text: line number, mark, space.
pub(super) fn gutter(lines: usize) -> usize {
    lines.max(1).to_string().len().max(2) + 3
}

/// A row of the text, and the index of one of its screen lines.
pub(super) type ScreenRow = (usize, usize);

/// The part of a row on one screen line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Columns of the text, in scalars.
    pub columns: Range<usize>,
    /// Blanks before it: continuation lines keep the row's indentation.
    pub indent: usize,
}

/// The lines of the screen for a row of the text; at least one.
pub(super) fn parts(line: &str, window: Window) -> Vec<Part> {
    let count = line.chars().count();
    if !window.wraps {
        return vec![Part {
            columns: 0..count,
            indent: 0,
        }];
    }
    // The last column is reserved for the cursor at the end of the text.
    let room = window.columns.saturating_sub(1).max(1);
    let blanks: usize = line
        .chars()
        .take_while(|letter| letter.is_whitespace())
        .map(width)
        .sum();
    let hanging = blanks.min(room / 3);
    let letters: Vec<char> = line.chars().collect();
    let mut parts = Vec::new();
    let (mut start, mut used, mut after_blank) = (0, 0, 0);
    let mut indent = 0;
    for (at, letter) in letters.iter().enumerate() {
        // A blank may take the cursor's column, so that no line begins with one.
        let is_blank = letter.is_whitespace();
        while at > start && indent + used + if is_blank { 0 } else { width(*letter) } > room {
            let end = if after_blank > start && !is_blank {
                after_blank
            } else {
                at
            };
            parts.push(Part {
                columns: start..end,
                indent,
            });
            (start, indent) = (end, hanging);
            used = letters
                .get(end..at)
                .unwrap_or_default()
                .iter()
                .copied()
                .map(width)
                .sum();
        }
        used += width(*letter);
        if is_blank {
            after_blank = at + 1;
        }
    }
    let is_over = indent + used > room && count > start;
    parts.push(Part {
        columns: start..count,
        indent,
    });
    if is_over && letters.last().is_some_and(|letter| letter.is_whitespace()) {
        parts.push(Part {
            columns: count..count,
            indent: hanging,
        });
    }
    parts
}

/// Columns of a character; control characters take one.
pub(super) fn width(letter: char) -> usize {
    match letter {
        '\t' => 2,
        letter => visible_letter(letter).width().unwrap_or(1),
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
    fn lines_wrap_at_blanks_and_inside_long_words() {
        let check = |line: &str, columns, expected: &[(&str, usize)]| {
            let found: Vec<(String, usize)> = parts(line, wrapped(columns))
                .into_iter()
                .map(|part| {
                    (
                        line.chars()
                            .take(part.columns.end)
                            .skip(part.columns.start)
                            .collect(),
                        part.indent,
                    )
                })
                .collect();
            let expected: Vec<(String, usize)> = expected
                .iter()
                .map(|(text, at)| ((*text).to_owned(), *at))
                .collect();
            assert_eq!(found, expected, "{line:?} in {columns}");
        };
        check("", 10, &[("", 0)]);
        check("one two", 10, &[("one two", 0)]);
        check("one two three", 10, &[("one two ", 0), ("three", 0)]);
        check("abcdefghij", 5, &[("abcd", 0), ("efgh", 0), ("ij", 0)]);
        check(
            "one abcdefghij",
            7,
            &[("one ", 0), ("abcdef", 0), ("ghij", 0)],
        );
        check("  one two three", 10, &[("  one two ", 0), ("three", 2)]);
        check("      one two", 10, &[("      one ", 0), ("two", 3)]);
        check("日本語日本", 6, &[("日本", 0), ("語日", 0), ("本", 0)]);
        check("日本", 2, &[("日", 0), ("本", 0)]);
        check("one two", 4, &[("one ", 0), ("two", 0)]);
        check("one  two", 4, &[("one ", 0), (" ", 0), ("two", 0)]);
        // The cursor after a blank at the window's edge has a line of its own.
        check("one ", 4, &[("one ", 0), ("", 0)]);
        check(
            "e\u{301}e\u{301}e\u{301}",
            3,
            &[("e\u{301}e\u{301}", 0), ("e\u{301}", 0)],
        );
    }
}
