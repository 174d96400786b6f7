//! Reads JSON that may be incomplete or malformed: tokens with their positions, and the nesting of values.

use std::ops::Range;

use crate::style_role::Role;

/// Row and column of a text, in Unicode scalars from 0.
pub type Place = (usize, usize);

/// A token. None spans lines: a string without a closing quote ends with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its bytes in the line.
    pub bytes: Range<usize>,
    /// Its columns, in Unicode scalars from 0.
    pub columns: Range<usize>,
    /// [`Role::Bad`] if JSON has no such token.
    pub role: Role,
}

pub fn tokens(line: &str) -> impl Iterator<Item = Token> {
    let (mut at, mut column) = (0, 0);
    std::iter::from_fn(move || {
        let rest = line[at..].trim_start();
        let start = line.len() - rest.len();
        let first = rest.chars().next()?;
        let (length, role) = match first {
            '"' => {
                let length = string_length(rest);
                let is_key = rest[length..].trim_start().starts_with(':');
                (
                    length,
                    if is_key {
                        Role::JsonKey
                    } else {
                        Role::JsonString
                    },
                )
            }
            '{' | '}' | '[' | ']' | ',' | ':' => (1, Role::JsonPunctuation),
            _ => {
                let ends = |letter: char| letter.is_whitespace() || "{}[],:\"".contains(letter);
                let word = rest.split(ends).next().unwrap_or(rest);
                let role = match word {
                    "true" | "false" | "null" => Role::JsonWord,
                    _ if first == '-' || first.is_ascii_digit() => Role::JsonNumber,
                    _ => Role::Bad,
                };
                (word.len(), role)
            }
        };
        let first_column = column + line[at..start].chars().count();
        column = first_column + rest[..length].chars().count();
        at = start + length;
        Some(Token {
            bytes: start..at,
            columns: first_column..column,
            role,
        })
    })
}

/// Bytes of the string at the beginning of a text, its quotes included.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let closes = |byte: u8| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    };
    text.bytes()
        .skip(1)
        .position(closes)
        .map_or(text.len(), |position| position + 2)
}

/// The most lines searched for the matching bracket.
const MAX_BRACKET_LINES: usize = 5_000;

pub fn matching_bracket(lines: &[String], (row, column): Place) -> Option<[Place; 2]> {
    // Each with whether it opens.
    let brackets = |row: usize| -> Vec<(Place, bool)> {
        let line = lines.get(row).map_or("", String::as_str);
        let brackets = tokens(line)
            .filter(|token| matches!(&line[token.bytes.clone()], "{" | "[" | "}" | "]"));
        brackets
            .map(|token| {
                (
                    (row, token.columns.start),
                    matches!(&line[token.bytes], "{" | "["),
                )
            })
            .collect()
    };
    let here = brackets(row);
    let at = |column: usize| here.iter().find(|(place, _)| place.1 == column);
    let (start, opens) = *at(column).or_else(|| at(column.checked_sub(1)?))?;
    let mut depth = 0_i64;
    let is_match = |(_, other): &(Place, bool)| {
        depth += if *other == opens { 1 } else { -1 };
        depth == 0
    };
    let found = if opens {
        let rows = row..lines.len().min(row + MAX_BRACKET_LINES);
        rows.flat_map(brackets)
            .skip_while(|(place, _)| *place < start)
            .find(is_match)
    } else {
        let rows = (row.saturating_sub(MAX_BRACKET_LINES)..=row).rev();
        let backwards = rows.flat_map(|row| brackets(row).into_iter().rev());
        backwards
            .skip_while(|(place, _)| *place > start)
            .find(is_match)
    };
    found.map(|(place, _)| [start, place])
}

/// A value, or the position of a missing one, with its key if it is a member of an object.
#[derive(Debug)]
pub struct Node {
    pub parent: Option<usize>,
    pub key: Option<Name>,
    pub kind: Kind,
    pub start: Place,
    /// Just after its last character.
    pub end: Place,
}

#[derive(Debug, Clone)]
pub struct Name {
    pub text: String,
    pub start: Place,
    pub end: Place,
}

impl Name {
    pub fn contains(&self, place: Place) -> bool {
        (self.start..self.end).contains(&place)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    Text(String),
    /// A number, true, false, null, or an unknown word.
    Word(String),
    Missing,
}

/// A container that is not closed yet.
struct OpenContainer {
    node: usize,
    is_object: bool,
    /// The key whose value comes next, and whether its colon was read.
    key: Option<(Name, bool)>,
}

/// Reads the first value of a text with all values in it, containers before their contents. Tolerates missing commas,
/// colons, values and brackets.
pub fn read(lines: &[String]) -> Vec<Node> {
    let text_end = (
        lines.len().saturating_sub(1),
        lines.last().map_or(0, |line| line.chars().count()),
    );
    let of_line = |(row, line)| {
        tokens(line).map(move |token| (row, &line[token.bytes.clone()], token.columns))
    };
    let lines = lines.iter().map(String::as_str).enumerate();
    let mut tokens = lines.flat_map(of_line).peekable();
    let mut reader = Reader::default();
    while let Some((row, text, columns)) = tokens.next() {
        let (start, end) = ((row, columns.start), (row, columns.end));
        let is_string = text.starts_with('"');
        let has_colon = tokens.peek().is_some_and(|(_, next, _)| *next == ":");
        match (text, reader.open.last_mut()) {
            (
                ":",
                Some(OpenContainer {
                    key: Some((_, has_colon)),
                    ..
                }),
            ) => *has_colon = true,
            (":", _) => {}
            (",", _) => reader.end_member(),
            ("}" | "]", _) => reader.close(text == "}", start, end),
            (_, None) if !reader.nodes.is_empty() => {}
            (
                _,
                Some(OpenContainer {
                    is_object: true,
                    key,
                    ..
                }),
            ) if is_string && (has_colon || !matches!(key, Some((_, true)))) => {
                reader.end_member();
                if let Some(object) = reader.open.last_mut() {
                    object.key = Some((
                        Name {
                            text: unquoted(text),
                            start,
                            end,
                        },
                        false,
                    ));
                }
            }
            ("{" | "[", _) => {
                let is_object = text == "{";
                reader.add(
                    if is_object { Kind::Object } else { Kind::Array },
                    start,
                    text_end,
                );
                reader.open.push(OpenContainer {
                    node: reader.nodes.len() - 1,
                    is_object,
                    key: None,
                });
            }
            _ if is_string => reader.add(Kind::Text(unquoted(text)), start, end),
            _ => reader.add(Kind::Word(text.to_owned()), start, end),
        }
    }
    while !reader.open.is_empty() {
        reader.end_member();
        reader.open.pop();
    }
    reader.nodes
}

#[derive(Default)]
struct Reader {
    nodes: Vec<Node>,
    open: Vec<OpenContainer>,
}

impl Reader {
    fn add(&mut self, kind: Kind, start: Place, end: Place) {
        let parent = self.open.last().map(|open| open.node);
        let key = self
            .open
            .last_mut()
            .and_then(|open| open.key.take())
            .map(|(name, _)| name);
        self.nodes.push(Node {
            parent,
            key,
            kind,
            start,
            end,
        });
    }

    /// A key without a value becomes a member all the same.
    fn end_member(&mut self) {
        if let Some(OpenContainer {
            key: Some((name, _)),
            ..
        }) = self.open.last()
        {
            let end = name.end;
            self.add(Kind::Missing, end, end);
        }
    }

    /// Closes the nearest container of that kind, and those inside it.
    fn close(&mut self, is_object: bool, start: Place, end: Place) {
        let Some(depth) = self
            .open
            .iter()
            .rposition(|open| open.is_object == is_object)
        else {
            return;
        };
        while self.open.len() > depth {
            self.end_member();
            let Some(closed) = self.open.pop() else {
                return;
            };
            if let Some(node) = self.nodes.get_mut(closed.node) {
                node.end = if self.open.len() == depth { end } else { start };
            }
        }
    }
}

fn unquoted(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_apart() {
        let check = |line: &str, expected: &[(usize, usize, Role)]| {
            let found: Vec<(usize, usize, Role)> = tokens(line)
                .map(|token| (token.columns.start, token.columns.end, token.role))
                .collect();
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
            &[
                (0, 1, Role::JsonPunctuation),
                (1, 7, Role::JsonString),
                (7, 8, Role::JsonPunctuation),
            ],
        );
        check("\"open", &[(0, 5, Role::JsonString)]);
        check("\"open\\", &[(0, 6, Role::JsonString)]);
        check(
            "True null -1e5",
            &[
                (0, 4, Role::Bad),
                (5, 9, Role::JsonWord),
                (10, 14, Role::JsonNumber),
            ],
        );
        check("é\"ü\"", &[(0, 1, Role::Bad), (1, 4, Role::JsonString)]);
        check("", &[]);
    }

    #[test]
    fn brackets_find_their_other_half() {
        let lines: Vec<String> = ["{ \"a}\": [", "  1, {}", "] }"]
            .map(str::to_owned)
            .to_vec();
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
}
