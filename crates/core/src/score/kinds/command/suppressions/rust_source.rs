//! Rust attributes that change lint levels, found in tokens.

use std::ops::Range;

use super::edit::Edit;

/// `deny` and `forbid` only add findings.
const LEVELS: [&str; 3] = ["allow", "expect", "warn"];
/// Attributes that exempt code from other checkers.
const EXEMPTIONS: [&str; 2] = ["rustfmt", "rustfmt_skip"];

/// Nested `cfg_attr`s.
const MAX_DEPTH: usize = 128;

pub(super) fn find(text: &[char]) -> Vec<Edit> {
    readings(text)
        .iter()
        .flat_map(|tokens| attributes(tokens))
        .collect()
}

/// Whether a macro of the answer could create a lint attribute.
pub(crate) fn may_make_attributes(source: &str) -> bool {
    if !source.contains("macro") {
        return false;
    }
    let text: Vec<char> = source.chars().collect();
    readings(&text).iter().any(|tokens| {
        let has = |names: &[&str]| {
            tokens
                .iter()
                .any(|token| token.word().is_some_and(|word| names.contains(&word)))
        };
        has(&["macro_rules", "macro"]) && has(&LEVELS)
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    Sign(char),
    Literal,
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    range: Range<usize>,
}

impl Token {
    fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }
}

fn readings(text: &[char]) -> Vec<Vec<Token>> {
    let is_open = text
        .windows(3)
        .any(|three| matches!(three, ['c', 'r', '"' | '#']));
    let line_end = || text.iter().position(|letter| *letter == '\n');
    let line = text
        .starts_with(&['#', '!'])
        .then(|| line_end().unwrap_or(text.len()));
    let mut all = Vec::new();
    for start in [Some(0), line].into_iter().flatten() {
        all.push(tokens(text, start, true));
        if is_open {
            all.push(tokens(text, start, false));
        }
    }
    all
}

/// `has_c_strings`: whether `cr".."` is a raw string, as since edition 2021.
fn tokens(text: &[char], start: usize, has_c_strings: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = start;
    while let Some(&letter) = text.get(at) {
        let next = text.get(at + 1).copied();
        let start = at;
        if letter == '/' && next == Some('/') {
            at = position(text, at, |letter| letter == '\n');
            continue;
        }
        if letter == '/' && next == Some('*') {
            at = block_comment_end(text, at);
            continue;
        }
        let kind = if letter.is_alphanumeric() || letter == '_' {
            at = position(text, at, |letter| {
                !letter.is_alphanumeric() && letter != '_'
            });
            let word: String = text[start..at].iter().collect();
            let is_raw = matches!(word.as_str(), "r" | "br") || (has_c_strings && word == "cr");
            let hashes = text[at..].iter().take_while(|next| **next == '#').count();
            if is_raw && text.get(at + hashes) == Some(&'"') {
                at = raw_string_end(text, at + hashes + 1, hashes);
                Kind::Literal
            } else if word == "r"
                && hashes == 1
                && text
                    .get(at + 1)
                    .is_some_and(|next| next.is_alphabetic() || *next == '_')
            {
                let name = at + 1;
                at = position(text, name, |letter| {
                    !letter.is_alphanumeric() && letter != '_'
                });
                Kind::Word(text[name..at].iter().collect())
            } else {
                Kind::Word(word)
            }
        } else if letter == '"' {
            at = quoted_end(text, at, '"');
            Kind::Literal
        } else if letter == '\'' {
            at = char_or_lifetime_end(text, at);
            Kind::Literal
        } else {
            at += 1;
            if is_space(letter) {
                continue;
            }
            Kind::Sign(letter)
        };
        tokens.push(Token {
            kind,
            range: start..at,
        });
    }
    tokens
}

/// Rust's white space, including two direction marks.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{200e}' | '\u{200f}')
}

fn position(text: &[char], from: usize, ends: impl Fn(char) -> bool) -> usize {
    text[from..]
        .iter()
        .position(|letter| ends(*letter))
        .map_or(text.len(), |length| from + length)
}

fn block_comment_end(text: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn raw_string_end(text: &[char], start: usize, hashes: usize) -> usize {
    let mut at = start;
    while at < text.len() {
        let closes = text[at] == '"'
            && text[at + 1..]
                .iter()
                .take(hashes)
                .filter(|next| **next == '#')
                .count()
                == hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    at
}

fn quoted_end(text: &[char], start: usize, close: char) -> usize {
    let mut at = start + 1;
    while let Some(&letter) = text.get(at) {
        at += if letter == '\\' { 2 } else { 1 };
        if letter == close {
            break;
        }
    }
    at.min(text.len())
}

/// `'a'` is a character, `'a` a lifetime.
fn char_or_lifetime_end(text: &[char], start: usize) -> usize {
    match (text.get(start + 1), text.get(start + 2)) {
        (Some('\\'), _) => quoted_end(text, start, '\''),
        (Some(_), Some('\'')) => start + 3,
        (Some(first), _) if first.is_alphanumeric() || *first == '_' => {
            position(text, start + 1, |letter| {
                !letter.is_alphanumeric() && letter != '_'
            })
        }
        _ => start + 1,
    }
}

/// Edits to attributes, each `# [ .. ]` or `# ! [ .. ]`.
fn attributes(tokens: &[Token]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let closings = closings(tokens, '[', ']');
    for (start, token) in tokens.iter().enumerate() {
        if !token.is('#') {
            continue;
        }
        let open = start + 1 + usize::from(tokens.get(start + 1).is_some_and(|next| next.is('!')));
        let Some(close) = closings.get(open).copied().flatten() else {
            continue;
        };
        let whole = Edit::blank(token.range.start..tokens[close].range.end);
        let mut parts = Vec::new();
        match left_of(&tokens[open + 1..close], &mut parts, 0) {
            0 if !parts.is_empty() => edits.push(whole),
            _ => edits.extend(parts),
        }
    }
    edits
}

/// Adds edits to one attribute (the inside of its brackets); returns how many attributes remain in
/// it.
fn left_of(attribute: &[Token], edits: &mut Vec<Edit>, depth: usize) -> usize {
    let (Some(first), Some(last)) = (attribute.first(), attribute.last()) else {
        return 1;
    };
    let word = first.word().unwrap_or_default();
    // rustc rejects deeper ones.
    if LEVELS.contains(&word) || EXEMPTIONS.contains(&word) || depth > MAX_DEPTH {
        edits.push(Edit::blank(first.range.start..last.range.end));
        return 0;
    }
    let Some(close) = (word == "cfg_attr")
        .then(|| closings(attribute, '(', ')').get(1).copied().flatten())
        .flatten()
    else {
        return 1;
    };
    let mut left = 0;
    let inside = &attribute[2..close];
    let commas = top_commas(inside);
    for (index, &comma) in commas.iter().enumerate() {
        let end = commas.get(index + 1).copied().unwrap_or(inside.len());
        let part = &inside[comma + 1..end];
        if part.is_empty() {
            continue;
        }
        match left_of(part, edits, depth + 1) {
            // Including the following comma.
            0 => {
                if let Some(comma) = inside.get(end) {
                    edits.push(Edit::blank(comma.range.clone()));
                }
            }
            some => left += some,
        }
    }
    left
}

fn top_commas(tokens: &[Token]) -> Vec<usize> {
    let mut depth = 0_i64;
    let mut commas = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => depth -= 1,
            Kind::Sign(',') if depth == 0 => commas.push(at),
            _ => {}
        }
    }
    commas
}

fn closings(tokens: &[Token], begin: char, end: char) -> Vec<Option<usize>> {
    let mut closings = vec![None; tokens.len()];
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.is(begin) {
            open.push(at);
        } else if token.is(end)
            && let Some(start) = open.pop()
        {
            closings[start] = Some(at);
        }
    }
    closings
}
