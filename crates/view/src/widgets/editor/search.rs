//! Searches lines for a text.

use std::ops::Range;

/// The columns of a text in a line, in Unicode scalars; case-sensitive only if the text has an uppercase letter. Takes
/// linear time.
pub(super) fn matches(line: &str, query: &str) -> Vec<Range<usize>> {
    // A scalar has 1 to 4 bytes. A long text is not folded for each short line.
    if query.is_empty() || query.len() > 4 * line.len() {
        return Vec::new();
    }
    if query.chars().any(char::is_uppercase) {
        return columns_of(line, query);
    }
    columns_of(&folded(line), &folded(query))
}

/// The text in lower case. Letters with a longer lower-case form stay, so that columns do.
fn folded(text: &str) -> String {
    let lower = |letter: char| {
        let mut lower = letter.to_lowercase();
        lower
            .next()
            .filter(|_| lower.next().is_none())
            .unwrap_or(letter)
    };
    text.chars().map(lower).collect()
}

fn columns_of(line: &str, query: &str) -> Vec<Range<usize>> {
    let length = query.chars().count();
    let (mut column, mut counted) = (0, 0);
    let range = |(at, _): (usize, &str)| {
        column += line[counted..at].chars().count();
        counted = at;
        column..column + length
    };
    line.match_indices(query).map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_minds_capitals_only_where_asked_to() {
        let check = |line: &str, query: &str, expected: &[(usize, usize)]| {
            let ranges: Vec<(usize, usize)> = matches(line, query)
                .into_iter()
                .map(|range| (range.start, range.end))
                .collect();
            assert_eq!(ranges, expected, "{line} {query}");
        };
        check("aXax", "ax", &[(0, 2), (2, 4)]);
        check("aXax", "aX", &[(0, 2)]);
        check("üü", "Ü", &[]);
        check("aaa", "aa", &[(0, 2)]);
        check("abc", "", &[]);
        check("日本x日X", "x", &[(2, 3), (4, 5)]);
    }
}
