//! Tokens of one line of JSON: none spans lines, so each line is read alone.

use std::ops::Range;

use crate::style_role::Role;

/// A token's columns, in Unicode scalars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// From 0, in scalars.
    pub columns: Range<usize>,
    pub role: Role,
}

/// The tokens of a line, without whitespace. Text that is not JSON gets a token of its own, and reading continues.
pub fn tokens(line: &str) -> Vec<Token> {
    let letters: Vec<char> = line.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(letter) = letters.get(at).copied() {
        let start = at;
        let role = match letter {
            '"' => {
                at = after_string(&letters, at);
                let next = letters.iter().skip(at).find(|letter| !letter.is_whitespace());
                if next == Some(&':') { Role::JsonKey } else { Role::JsonString }
            }
            '{' | '}' | '[' | ']' | ',' | ':' => {
                at += 1;
                Role::JsonPunctuation
            }
            letter if letter.is_whitespace() => {
                at += 1;
                continue;
            }
            letter => {
                let ends = |letter: &char| letter.is_whitespace() || "{}[],:\"".contains(*letter);
                at = letters.iter().skip(start).position(ends).map_or(letters.len(), |length| start + length);
                let word: String = letters.get(start..at).unwrap_or_default().iter().collect();
                match word.as_str() {
                    "true" | "false" | "null" => Role::JsonWord,
                    _ if letter == '-' || letter.is_ascii_digit() => Role::JsonNumber,
                    _ => Role::Bad,
                }
            }
        };
        found.push(Token { columns: start..at, role });
    }
    found
}

/// The end of the string that starts at a column; the line's end if it is not closed.
fn after_string(letters: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(letter) = letters.get(at) {
        match letter {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    letters.len()
}

/// The most lines searched for the matching bracket.
const REACH: usize = 5_000;

/// Rows and columns of the bracket under or before the cursor and of its match.
pub fn matching_bracket(lines: &[String], (row, column): (usize, usize)) -> Option<[(usize, usize); 2]> {
    let brackets = |row: usize| -> Vec<(usize, char)> {
        let Some(line) = lines.get(row) else { return Vec::new() };
        let letters: Vec<char> = line.chars().collect();
        let single = tokens(line).into_iter().filter(|token| token.role == Role::JsonPunctuation);
        single
            .filter_map(|token| Some((token.columns.start, *letters.get(token.columns.start)?)))
            .filter(|(_, letter)| "{}[]".contains(*letter))
            .collect()
    };
    let here = brackets(row);
    let at = |place: usize| here.iter().find(|(column, _)| *column == place);
    let (start, letter) = *at(column).or_else(|| at(column.checked_sub(1)?))?;
    let forward = matches!(letter, '{' | '[');
    let mut depth = 0_i64;
    let mut step = |letter: char| {
        depth += if matches!(letter, '{' | '[') == forward { 1 } else { -1 };
        depth == 0
    };
    if forward {
        for other in row..lines.len().min(row + REACH) {
            let from = if other == row { start } else { 0 };
            if let Some((column, _)) =
                brackets(other).into_iter().filter(|(column, _)| *column >= from).find(|(_, letter)| step(*letter))
            {
                return Some([(row, start), (other, column)]);
            }
        }
        return None;
    }
    for other in (row.saturating_sub(REACH)..=row).rev() {
        let to = if other == row { start } else { usize::MAX };
        if let Some((column, _)) =
            brackets(other).into_iter().rev().filter(|(column, _)| *column <= to).find(|(_, letter)| step(*letter))
        {
            return Some([(row, start), (other, column)]);
        }
    }
    None
}

/// The columns of a text in a line, in scalars; case-sensitive only if the text contains an uppercase letter. Takes time
/// in proportion to both.
pub(super) fn matches(line: &str, query: &str) -> Vec<Range<usize>> {
    if query.is_empty() {
        return Vec::new();
    }
    if query.chars().any(char::is_uppercase) {
        return columns_of(line, query);
    }
    columns_of(&folded(line), &folded(query))
}

/// The text in lower case, letter by letter: a letter that becomes several stays.
fn folded(text: &str) -> String {
    let lower = |letter: char| {
        let mut lower = letter.to_lowercase();
        lower.next().filter(|_| lower.next().is_none()).unwrap_or(letter)
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
    fn a_line_is_told_apart() {
        let check = |line: &str, expected: &[(usize, usize, Role)]| {
            let found: Vec<(usize, usize, Role)> =
                tokens(line).into_iter().map(|token| (token.columns.start, token.columns.end, token.role)).collect();
            assert_eq!(found, expected, "{line}");
        };
        check(
            "  \"a\" : 1,",
            &[
                (2, 5, Role::JsonKey),
                (6, 7, Role::JsonPunctuation),
                (8, 9, Role::JsonNumber),
                (9, 10, Role::JsonPunctuation),
            ],
        );
        check(
            "[\"a\\\"b\"]",
            &[(0, 1, Role::JsonPunctuation), (1, 7, Role::JsonString), (7, 8, Role::JsonPunctuation)],
        );
        check("\"open", &[(0, 5, Role::JsonString)]);
        check("\"open\\", &[(0, 6, Role::JsonString)]);
        check("True null -1e5", &[(0, 4, Role::Bad), (5, 9, Role::JsonWord), (10, 14, Role::JsonNumber)]);
        check("é\"ü\"", &[(0, 1, Role::Bad), (1, 4, Role::JsonString)]);
        check("", &[]);
    }

    #[test]
    fn brackets_find_their_other_half() {
        let lines: Vec<String> = ["{ \"a}\": [", "  1, {}", "] }"].map(str::to_owned).to_vec();
        let check = |cursor, expected: Option<[(usize, usize); 2]>| {
            assert_eq!(matching_bracket(&lines, cursor), expected, "{cursor:?}")
        };
        check((0, 0), Some([(0, 0), (2, 2)]));
        check((2, 3), Some([(2, 2), (0, 0)]));
        check((0, 8), Some([(0, 8), (2, 0)]));
        check((2, 0), Some([(2, 0), (0, 8)]));
        check((1, 6), Some([(1, 6), (1, 5)]));
        check((0, 4), None);
        check((9, 9), None);
    }

    #[test]
    fn search_minds_capitals_only_where_asked_to() {
        let check = |line: &str, query: &str, expected: &[(usize, usize)]| {
            let ranges: Vec<(usize, usize)> =
                matches(line, query).into_iter().map(|range| (range.start, range.end)).collect();
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
