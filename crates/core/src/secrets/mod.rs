//! Checks untrusted text before it is shown or used in training: a deterministic scan for secrets,
//! bounded in time, without network or model; and terminal control characters.

mod assignments;
mod control_chars;
mod tokens;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

pub use control_chars::{is_control, visible, visible_json, visible_letter, visible_lines};

/// The longest run of bytes examined for one secret; bounds the cost of hostile text by its length
/// times this.
const MAX_BYTES: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Shown to users: `GitHub token`.
    pub rule: &'static str,
    pub place: Range<usize>,
    /// First four characters and the length: all that may be shown.
    pub masked: String,
}

/// Finds secrets in order, without overlaps; the more specific rule wins.
pub fn scan(text: &str) -> Vec<Secret> {
    let mut found: BTreeMap<usize, Secret> = BTreeMap::new();
    for (rule, place) in tokens::find(text)
        .into_iter()
        .chain(assignments::find(text))
    {
        let before = found.range(..place.end).next_back();
        if before.is_none_or(|(_, other)| other.place.end <= place.start) {
            let masked = mask(&text[place.clone()]);
            found.insert(
                place.start,
                Secret {
                    rule,
                    place,
                    masked,
                },
            );
        }
    }
    found.into_values().collect()
}

/// Masks every secret and returns their number. Mask before truncating: half a secret is not found
/// and may suffice.
pub fn redact(text: &str) -> (Cow<'_, str>, usize) {
    masked(text, &scan(text), 0)
}

/// Masks secrets in all texts of a document, field names included, and returns their number.
/// `"password": "…"` is read as one text.
pub fn redact_json(value: &mut Value) -> usize {
    match value {
        Value::String(text) => replace(text, ""),
        Value::Array(values) => values.iter_mut().map(redact_json).sum(),
        Value::Object(fields) => {
            let named = std::mem::take(fields)
                .into_iter()
                .map(|(mut name, mut value)| {
                    let found = match &mut value {
                        Value::String(text) => replace(text, &format!("{name}: ")),
                        value => redact_json(value),
                    };
                    let found = found + replace(&mut name, "");
                    (found, name, value)
                });
            let mut count = 0;
            for (found, name, value) in named {
                count += found;
                // Two names may be equal once masked.
                let more = (2..).map(|copy| format!("{name} ({copy})"));
                let name = std::iter::once(name.clone())
                    .chain(more)
                    .find(|name| !fields.contains_key(name))
                    .unwrap_or(name);
                fields.insert(name, value);
            }
            count
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Masks the secrets of `text`, found with `before` in front of it.
fn replace(text: &mut String, before: &str) -> usize {
    let whole = format!("{before}{text}");
    let mut secrets = scan(&whole);
    secrets.retain(|secret| secret.place.start >= before.len());
    let (clean, count) = masked(&whole, &secrets, before.len());
    if count > 0 {
        *text = clean.into_owned();
    }
    count
}

fn masked<'t>(text: &'t str, secrets: &[Secret], from: usize) -> (Cow<'t, str>, usize) {
    if secrets.is_empty() {
        return (Cow::Borrowed(&text[from..]), 0);
    }
    let mut clean = String::with_capacity(text.len());
    let mut end = from;
    for secret in secrets {
        clean.push_str(&text[end..secret.place.start]);
        clean.push_str(&secret.masked);
        end = secret.place.end;
    }
    clean.push_str(&text[end..]);
    (Cow::Owned(clean), secrets.len())
}

/// The first four characters (none if shorter than twelve) and the length.
fn mask(secret: &str) -> String {
    let length = secret.chars().count();
    let shown: String = secret
        .chars()
        .take(if length < 12 { 0 } else { 4 })
        .collect();
    format!("{shown}…({length} characters)")
}

/// Whether a value is a placeholder of examples: repeated letters, `<password>`, `${PASSWORD}`,
/// `EXAMPLE`.
fn is_placeholder(value: &str) -> bool {
    let mut letters: Vec<char> = value.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    let lower = value.to_ascii_lowercase();
    letters.len() < 4
        || value.starts_with(['<', '$', '{', '%', '['])
        || [
            "example",
            "placeholder",
            "changeme",
            "your_",
            "your-",
            "xxxx",
        ]
        .iter()
        .any(|word| lower.contains(word))
        || [
            "password", "passwd", "secret", "token", "user", "pass", "none", "null",
        ]
        .contains(&lower.as_str())
}

#[cfg(test)]
mod tests;
