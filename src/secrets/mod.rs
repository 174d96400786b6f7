//! A deterministic scan for secrets: what would leave the machine, or be learnt by a model, and should not. Bounded in time, no network, no guess by a model.

mod assignments;
mod structured;
mod tokens;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// The longest run of characters that is looked at for one secret, in bytes: hostile text costs no more than its length times this.
const LONGEST_BYTES: usize = 8192;

/// A secret found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What it looks like, in words: `GitHub token`.
    pub rule: &'static str,
    /// Where, in bytes.
    pub place: Range<usize>,
    /// Its first four characters and its length: all that may be shown.
    pub masked: String,
}

/// The secrets of a text in order, none overlapping; of two that overlap the more specific rule wins.
pub fn scan(text: &str) -> Vec<Secret> {
    let mut found: BTreeMap<usize, Secret> = BTreeMap::new();
    for (rule, place) in tokens::find(text).into_iter().chain(structured::find(text)).chain(assignments::find(text)) {
        let before = found.range(..place.end).next_back();
        if before.is_none_or(|(_, other)| other.place.end <= place.start) {
            let masked = mask(&text[place.clone()]);
            found.insert(place.start, Secret { rule, place, masked });
        }
    }
    found.into_values().collect()
}

/// The text with every secret masked.
pub fn redact(text: &str) -> Cow<'_, str> {
    let secrets = scan(text);
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut end = 0;
    for secret in secrets {
        clean.push_str(&text[end..secret.place.start]);
        clean.push_str(&secret.masked);
        end = secret.place.end;
    }
    clean.push_str(&text[end..]);
    Cow::Owned(clean)
}

/// The first four characters (none of a secret shorter than twelve), then how many there are.
fn mask(secret: &str) -> String {
    let length = secret.chars().count();
    let shown: String = secret.chars().take(if length < 12 { 0 } else { 4 }).collect();
    format!("{shown}…({length} characters)")
}

/// Whether a value is a stand-in that people write in examples: repeated letters, `<password>`, `${PASSWORD}`, `EXAMPLE`.
fn is_placeholder(value: &str) -> bool {
    let mut letters: Vec<char> = value.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    let lower = value.to_ascii_lowercase();
    letters.len() < 4
        || value.starts_with(['<', '$', '{', '%', '['])
        || ["example", "placeholder", "changeme", "your_", "your-", "xxxx"].iter().any(|word| lower.contains(word))
        || ["password", "passwd", "secret", "token", "user", "pass", "none", "null"].contains(&lower.as_str())
}

#[cfg(test)]
mod tests;
