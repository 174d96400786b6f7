//! Annotations of Java, Kotlin, Scala and Groovy that suppress warnings, found in tokens.

use std::ops::Range;

use super::edit::Edit;

const NAMES: [&str; 5] = [
    "Suppress",
    "SuppressFBWarnings",
    "SuppressLint",
    "SuppressWarnings",
    "nowarn",
];

pub(super) fn find(text: &[char]) -> Vec<Edit> {
    let mut edits = Vec::new();
    for has_nested_comments in [false, true] {
        edits.extend(annotations(&tokens(text, has_nested_comments)));
    }
    edits
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    Sign(char),
    Literal,
}

type Token = (Kind, Range<usize>);

fn annotations(tokens: &[Token]) -> Vec<Edit> {
    let sign = |at: usize| match tokens.get(at) {
        Some((Kind::Sign(sign), _)) => Some(*sign),
        _ => None,
    };
    let word = |at: usize| match tokens.get(at) {
        Some((Kind::Word(word), _)) => Some(word.as_str()),
        _ => None,
    };
    let mut edits = Vec::new();
    for (at, (_, range)) in tokens.iter().enumerate() {
        if !word(at).is_some_and(|word| NAMES.contains(&word)) {
            continue;
        }
        // `@java.lang.Suppress..`, `@file:Suppress`.
        let mut start = at;
        while start > 1 && matches!(sign(start - 1), Some('.' | ':')) && word(start - 2).is_some() {
            start -= 2;
        }
        let has_arguments = sign(at + 1) == Some('(');
        let end = if has_arguments {
            closing(tokens, at + 1)
        } else {
            at
        };
        let whole = |from: usize| tokens[from].1.start..tokens[end].1.end;
        if start > 0 && sign(start - 1) == Some('@') {
            edits.push(Edit::blank(whole(start - 1)));
        } else if has_arguments && sign(at - usize::from(at > 0)) == Some('[') {
            // `@[Suppress("x") Other]`; empty brackets are an error of the answer.
            edits.push(Edit::blank(whole(start)));
        } else if sign(at.wrapping_sub(1)) == Some('=') || word(at + 1) == Some("as") {
            // An alias.
            edits.push(Edit::cross_out(range.clone()));
        }
    }
    edits
}

fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, (kind, _)) in tokens.iter().enumerate().skip(open) {
        match kind {
            Kind::Sign('(') => depth += 1,
            Kind::Sign(')') if depth <= 1 => return at,
            Kind::Sign(')') => depth -= 1,
            _ => {}
        }
    }
    open
}

fn tokens(text: &[char], has_nested_comments: bool) -> Vec<Token> {
    let letters = unescaped(text);
    let letter = |at: usize| letters.get(at).map(|(letter, _)| *letter);
    let place = |at: usize| letters.get(at).map_or(text.len(), |(_, place)| *place);
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = letter(at) {
        let start = at;
        let kind = match (first, letter(at + 1)) {
            ('/', Some('/')) => {
                while letter(at).is_some_and(|letter| !matches!(letter, '\n' | '\r')) {
                    at += 1;
                }
                continue;
            }
            ('/', Some('*')) => {
                let mut depth = 0_usize;
                while letter(at).is_some() {
                    match (letter(at), letter(at + 1)) {
                        (Some('/'), Some('*')) if depth == 0 || has_nested_comments => {
                            (depth, at) = (depth + 1, at + 2);
                        }
                        (Some('*'), Some('/')) => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
                continue;
            }
            ('"' | '\'', _) => {
                let is_triple =
                    first == '"' && letter(at + 1) == Some('"') && letter(at + 2) == Some('"');
                at += if is_triple { 3 } else { 1 };
                while let Some(next) = letter(at) {
                    let closes = next == first
                        && (!is_triple
                            || (letter(at + 1) == Some('"') && letter(at + 2) == Some('"')));
                    if closes {
                        at += if is_triple { 3 } else { 1 };
                        break;
                    }
                    if next == '\n' && !is_triple {
                        break;
                    }
                    at += if next == '\\' { 2 } else { 1 };
                }
                Kind::Literal
            }
            _ if first.is_alphanumeric() || first == '_' => {
                while letter(at).is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                    at += 1;
                }
                Kind::Word(
                    letters[start..at]
                        .iter()
                        .map(|(letter, _)| letter)
                        .collect(),
                )
            }
            _ => {
                at += 1;
                if first.is_whitespace() || first.is_control() || first == '`' {
                    continue;
                }
                Kind::Sign(first)
            }
        };
        tokens.push((kind, place(start)..place(at)));
    }
    tokens
}

/// Characters after resolving Java's `\u0041`, each with its start.
fn unescaped(text: &[char]) -> Vec<(char, usize)> {
    let mut letters = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&letter) = text.get(at) {
        if letter == '\\' && text.get(at + 1) == Some(&'u') {
            let marks = text[at + 1..]
                .iter()
                .take_while(|next| **next == 'u')
                .count();
            let digits = text.get(at + 1 + marks..at + 5 + marks);
            let code = digits
                .map(String::from_iter)
                .and_then(|digits| u32::from_str_radix(&digits, 16).ok())
                .and_then(char::from_u32);
            if let Some(shown) = code {
                letters.push((shown, at));
                at += 5 + marks;
                continue;
            }
        }
        letters.push((letter, at));
        at += 1;
        if letter == '\\' && text.get(at) == Some(&'\\') {
            letters.push(('\\', at));
            at += 1;
        }
    }
    letters
}
