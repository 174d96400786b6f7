//! Fits text to a width: truncated with a mark, or wrapped between words.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A text truncated to a width, with a mark. Control characters are removed.
pub fn fitted(text: &str, width: usize) -> String {
    let clean: String = text.chars().filter(|letter| !letter.is_control()).collect();
    if clean.width() <= width {
        return clean;
    }
    match width.checked_sub(1) {
        Some(width) => format!("{}…", start(&clean, width)),
        None => String::new(),
    }
}

/// As [`fitted`], without the beginning, since names differ at their ends.
pub fn fitted_end(text: &str, width: usize) -> String {
    let clean: String = text.chars().filter(|letter| !letter.is_control()).collect();
    let ends = clean.char_indices().map(|(at, _)| &clean[at..]);
    let end = |width: usize| ends.clone().find(|end| end.width() <= width);
    match width.checked_sub(1) {
        _ if clean.width() <= width => clean,
        Some(width) => format!("…{}", end(width).unwrap_or_default()),
        None => String::new(),
    }
}

/// The longest beginning of at most that many columns.
pub fn start(text: &str, width: usize) -> &str {
    &text[..fitting(text, width)]
}

pub fn padded(text: &str, width: usize, right: bool) -> String {
    let text = fitted(text, width);
    let blanks = " ".repeat(width.saturating_sub(text.width()));
    if right {
        format!("{blanks}{text}")
    } else {
        format!("{text}{blanks}")
    }
}

/// Removes control sequences from text of unknown origin.
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// Wraps a text into lines of at most that many columns, between words if possible; whitespace becomes one space.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word = word;
        while let Some(row) = rows.last_mut() {
            let room = width.saturating_sub(row.width() + usize::from(!row.is_empty()));
            if fitting(word, room) == word.len() {
                if !row.is_empty() {
                    row.push(' ');
                }
                row.push_str(word);
                break;
            }
            if !row.is_empty() {
                rows.push(String::new());
                continue;
            }
            // A word longer than a line.
            let end = Some(fitting(word, width))
                .filter(|end| *end > 0)
                .unwrap_or(word.len());
            row.push_str(&word[..end]);
            word = &word[end..];
            if word.is_empty() {
                break;
            }
            rows.push(String::new());
        }
    }
    rows
}

/// The length in bytes of the longest prefix that fits; does not read beyond it.
fn fitting(text: &str, width: usize) -> usize {
    let mut used = 0;
    let over = text.char_indices().find(|(_, letter)| {
        used += letter.width().unwrap_or(1);
        used > width
    });
    over.map_or(text.len(), |(at, _)| at)
}

pub fn wrapped_rows(line: &Line<'static>, columns: usize) -> usize {
    if line.width() <= columns.max(1) {
        1
    } else {
        wrapped_line(line.clone(), columns).len()
    }
}

/// Wraps a line into rows of at most that many columns, between words where possible, and keeps its styles.
pub fn wrapped_line(line: Line<'static>, columns: usize) -> Vec<Line<'static>> {
    let columns = columns.max(1);
    if line.width() <= columns {
        return vec![line];
    }
    let letters: Vec<(&str, Style)> = line
        .spans
        .iter()
        .flat_map(|span| {
            span.content
                .graphemes(true)
                .map(|letter| (letter, span.style))
        })
        .collect();
    let row = |from: usize, to: usize| {
        let mut spans: Vec<Span<'static>> = Vec::new();
        for (letter, style) in &letters[from..to] {
            match spans.last_mut() {
                Some(last) if last.style == *style => last.content.to_mut().push_str(letter),
                _ => spans.push(Span::styled((*letter).to_owned(), *style)),
            }
        }
        Line {
            spans,
            ..Line {
                style: line.style,
                alignment: line.alignment,
                spans: Vec::new(),
            }
        }
    };
    let is_blank = |at: usize| letters[at].0 == " ";
    let (mut rows, mut start, mut used, mut gap) = (Vec::new(), 0, 0, None);
    for at in 0..letters.len() {
        used += letters[at].0.width();
        if is_blank(at) {
            gap = Some(at)
                .filter(|_| (start..at).any(|before| !is_blank(before)))
                .or(gap);
        }
        if used <= columns || is_blank(at) {
            continue;
        }
        // A word that is longer than a row is broken.
        let (end, next) = gap.map_or((at, at), |gap| (gap, gap + 1));
        rows.push(row(start, end.max(start + 1)));
        start = next.max(start + 1);
        (used, gap) = (
            letters[start..=at.max(start)]
                .iter()
                .map(|(letter, _)| letter.width())
                .sum(),
            None,
        );
    }
    rows.push(row(start.min(letters.len()), letters.len()));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        let check = |text: &str, width, expected: &[&str]| {
            assert_eq!(wrapped(text, width), expected, "{text} {width}")
        };
        check("one two three", 8, &["one two", "three"]);
        check("one", 3, &["one"]);
        check("", 8, &[""]);
        check("abcdefghij k", 4, &["abcd", "efgh", "ij k"]);
        check("a abcdef", 4, &["a", "abcd", "ef"]);
        check("日本語", 4, &["日本", "語"]);
        check("日本", 1, &["日本"]);
    }

    #[test]
    fn a_line_keeps_its_styles_and_loses_one_blank_at_a_break() {
        let check = |text: &'static str, columns, expected: &[&str]| {
            let rows: Vec<String> = wrapped_line(Line::raw(text), columns)
                .iter()
                .map(Line::to_string)
                .collect();
            assert_eq!(rows, expected, "{text} {columns}");
        };
        check("one two three", 8, &["one two", "three"]);
        check("one two three", 7, &["one two", "three"]);
        check("  one two", 6, &["  one", "two"]);
        check("abcdefghij k", 4, &["abcd", "efgh", "ij k"]);
        check("ab cdefgh", 4, &["ab", "cdef", "gh"]);
        check("日本語日", 5, &["日本", "語日"]);
        check("", 3, &[""]);
        let line = Line::from(vec![
            Span::raw("one "),
            Span::styled("two", Style::new().bold()),
            Span::raw(" three"),
        ]);
        assert_eq!(wrapped_line(line, 6)[1].spans[0].style, Style::new().bold());
    }

    #[test]
    fn what_does_not_fit_leaves_a_mark() {
        let check = |text: &str, width, expected: &str| {
            assert_eq!(fitted(text, width), expected, "{text} {width}")
        };
        check("abc", 3, "abc");
        check("abcd", 3, "ab…");
        check("a\u{1b}b", 2, "ab");
        check("日本語", 5, "日本…");
        check("abc", 0, "");
        assert_eq!(fitted_end("日本語", 5), "…本語");
        assert_eq!(fitted_end("日本語", 4), "…語");
        assert_eq!(fitted_end("ab\u{1b}c", 3), "abc");
        assert_eq!(
            (padded("ab", 4, true), padded("ab", 4, false)),
            ("  ab".to_owned(), "ab  ".to_owned())
        );
        assert_eq!(
            (padded("日本語", 4, false), padded("x", 0, false)),
            ("日… ".to_owned(), String::new())
        );
    }
}
