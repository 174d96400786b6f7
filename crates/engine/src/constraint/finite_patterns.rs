//! Rewrites `patternProperties` that match few keys as `properties`. The compiler otherwise allows
//! a key twice, or none if all matches are listed elsewhere.

use std::collections::BTreeSet;

use regex_syntax::hir::{Class, Hir, HirKind, Look};
use serde_json::{Map, Value, json};

use super::literals::written_pattern;
use super::overlap::{entries, required};

/// Keys of one pattern that become properties, and listed keys of a pattern.
const MAX_KEYS: usize = 64;
const MAX_LISTED_KEYS: usize = 1_000;

/// Moves patterns with few keys to `properties`. If keys are counted, only those whose keys are all
/// listed, as the compiler does not count optional keys.
pub(super) fn name_keys(members: &mut Map<String, Value>) {
    let Some(Value::Object(patterns)) = members.remove("patternProperties") else {
        return;
    };
    let is_counted = ["minProperties", "maxProperties"]
        .iter()
        .any(|keyword| members.contains_key(*keyword));
    let listed: BTreeSet<String> = entries(members, "properties")
        .map(|(name, _)| name.as_str())
        .chain(required(members))
        .map(str::to_owned)
        .collect();
    let (mut named, mut rest) = (Vec::new(), Map::new());
    for (pattern, schema) in patterns {
        let keys = keys_of(&pattern)
            .filter(|keys| keys.is_subset(&listed) || (!is_counted && keys.len() <= MAX_KEYS));
        match keys {
            Some(keys) => named.extend(keys.into_iter().map(|key| (key, schema.clone()))),
            None => drop(rest.insert(pattern, schema)),
        }
    }
    if !rest.is_empty() {
        members.insert("patternProperties".to_owned(), rest.into());
    }
    if named.is_empty() {
        return;
    }
    if let Value::Object(properties) = members.entry("properties").or_insert_with(|| json!({})) {
        for (key, schema) in named {
            let own = properties.get(&key).cloned();
            let both = own.map_or_else(|| schema.clone(), |own| json!({"allOf": [own, schema]}));
            properties.insert(key, both);
        }
    }
}

/// Texts that contain a match, if few.
fn keys_of(pattern: &str) -> Option<BTreeSet<String>> {
    let written = written_pattern(pattern).ok()?;
    let words = words(&regex_syntax::parse(&written).ok()?)?;
    let is_whole = |word: &Word| word.begins && word.ends;
    let is_finite = words.iter().all(is_whole);
    is_finite.then(|| words.into_iter().map(|word| word.text).collect())
}

/// A text matched by a part of a pattern.
#[derive(Clone, Debug, Default)]
struct Word {
    text: String,
    /// Whether it is anchored at the key's beginning, and end.
    begins: bool,
    ends: bool,
}

/// Matches of a part of a pattern; `None` if many, or with look-around.
fn words(hir: &Hir) -> Option<Vec<Word>> {
    let text = |text: String| Word {
        text,
        ..Word::default()
    };
    let found = match hir.kind() {
        HirKind::Empty => vec![Word::default()],
        HirKind::Literal(literal) => vec![text(String::from_utf8(literal.0.to_vec()).ok()?)],
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.iter().map(|range| range.len()).sum();
            let letters = class.iter().flat_map(|range| range.start()..=range.end());
            (count <= MAX_LISTED_KEYS)
                .then(|| letters.map(|letter| text(letter.into())).collect())?
        }
        HirKind::Class(Class::Bytes(_)) => return None,
        HirKind::Look(Look::Start) => vec![Word {
            begins: true,
            ..Word::default()
        }],
        HirKind::Look(Look::End) => vec![Word {
            ends: true,
            ..Word::default()
        }],
        HirKind::Look(_) => return None,
        HirKind::Capture(group) => words(&group.sub)?,
        HirKind::Alternation(parts) => {
            let parts: Option<Vec<Vec<Word>>> = parts.iter().map(words).collect();
            parts?.concat()
        }
        HirKind::Concat(parts) => {
            let first = Some(vec![Word::default()]);
            parts
                .iter()
                .fold(first, |before, part| joined(&before?, &words(part)?))?
        }
        HirKind::Repetition(repeated) => {
            let part = words(&repeated.sub)?;
            let most = usize::try_from(repeated.max?)
                .ok()
                .filter(|most| *most <= MAX_KEYS)?;
            let (mut power, mut found) = (vec![Word::default()], Vec::new());
            for count in 0..=most {
                if count >= repeated.min as usize {
                    found.extend(power.clone());
                }
                power = joined(&power, &part)?;
            }
            found
        }
    };
    (found.len() <= MAX_LISTED_KEYS).then_some(found)
}

/// Concatenations, except those excluded by anchors.
fn joined(before: &[Word], after: &[Word]) -> Option<Vec<Word>> {
    if before.len().saturating_mul(after.len()) > MAX_LISTED_KEYS {
        return None;
    }
    let mut found = Vec::new();
    for first in before {
        for second in after {
            if (first.ends && !second.text.is_empty()) || (second.begins && !first.text.is_empty())
            {
                continue;
            }
            found.push(Word {
                text: format!("{}{}", first.text, second.text),
                begins: first.begins || second.begins,
                ends: first.ends || second.ends,
            });
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_a_few_keys_are_told() {
        for (pattern, keys) in [
            ("^score$", Some("score")),
            ("^(a|b)$", Some("a b")),
            ("^a$|^b$", Some("a b")),
            ("^(?:a|b)?c{1,2}$", Some("ac acc bc bcc c cc")),
            ("^x_[0-2]$", Some("x_0 x_1 x_2")),
            ("^x\\d$", Some("x0 x1 x2 x3 x4 x5 x6 x7 x8 x9")),
            ("a^b", Some("")),
            ("score", None),
            ("^score", None),
            ("score$", None),
            ("^a$|b", None),
            ("^a+$", None),
            ("^[^a]$", None),
            ("", None),
        ] {
            let found = keys_of(pattern).map(|keys| keys.into_iter().collect::<Vec<_>>().join(" "));
            assert_eq!(found.as_deref(), keys, "{pattern}");
        }
    }
}
