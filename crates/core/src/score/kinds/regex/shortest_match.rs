//! A short text that a pattern matches.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Length limit; a pattern that needs more has no degenerate answer.
const MAX_CHARS: usize = 4_096;
/// Preferred characters of a degenerate answer.
const USUAL: [char; 5] = ['x', 'X', '0', ' ', '-'];

/// Built from minimal matches of the pattern's parts; `None` if long. Ignores word boundaries and
/// line ends, so may not match.
pub(super) fn shortest_match(pattern: &str) -> Option<String> {
    let mut text = String::new();
    add(&regex_syntax::parse(pattern).ok()?, &mut text).then_some(text)
}

fn add(part: &Hir, text: &mut String) -> bool {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            text.push_str(&String::from_utf8_lossy(&literal.0));
            text.len() <= MAX_CHARS
        }
        HirKind::Class(class) => {
            text.extend(letter(class));
            text.len() <= MAX_CHARS
        }
        HirKind::Repetition(repetition) => {
            // Optional parts are not repeated.
            let is_optional = repetition.sub.properties().minimum_len() == Some(0);
            let times = if is_optional { 0 } else { repetition.min };
            (0..times).all(|_| add(&repetition.sub, text))
        }
        HirKind::Capture(capture) => add(&capture.sub, text),
        HirKind::Concat(parts) => parts.iter().all(|part| add(part, text)),
        HirKind::Alternation(parts) => parts
            .iter()
            .min_by_key(|part| part.properties().minimum_len())
            .is_none_or(|part| add(part, text)),
    }
}

fn letter(class: &Class) -> Option<char> {
    let Class::Unicode(class) = class else {
        return None;
    };
    let holds = |letter: &char| {
        class
            .iter()
            .any(|range| (range.start()..=range.end()).contains(letter))
    };
    USUAL
        .into_iter()
        .find(holds)
        .or_else(|| class.iter().next().map(|range| range.start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_match_matches() {
        for (pattern, expected) in [
            (r"^(?<year>\d{4})-(?<month>\d{2})$", Some("0000-00")),
            ("(yes|no)", Some("no")),
            ("(?i)total: +[A-Z]{3}", Some("TOTAL: xxx")),
            (".+", Some("x")),
            ("a*", Some("")),
            ("(?:b?){3}c", Some("c")),
            ("[^x]", Some("X")),
            ("(?:abcdefgh){900}", None),
        ] {
            let found = shortest_match(pattern);
            assert_eq!(found.as_deref(), expected, "{pattern}");
            assert!(found.is_none_or(|text| {
                regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(&text))
            }));
        }
    }
}
