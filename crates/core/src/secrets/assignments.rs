//! Random-looking values next to a name such as `api_key = "…"`, `"password": "…"`.

use std::ops::Range;

use super::{MAX_BYTES, is_placeholder};

/// Endings of names (lower case, without `_` and `-`) whose value is meant to be secret.
const NAMES: [&str; 10] = [
    "authorization",
    "secret",
    "token",
    "password",
    "passwd",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "credential",
];

const MIN_CHARS: usize = 16;

/// Entropy in bits per character: English words have about 3, random base64 of this length above
/// 3.5.
const MIN_ENTROPY: f64 = 3.5;

pub(super) fn find(text: &str) -> Vec<(&'static str, Range<usize>)> {
    text.match_indices(['=', ':'])
        .filter_map(|(sign, _)| assigned(text, sign))
        .map(|place| ("high-entropy assignment", place))
        .collect()
}

fn assigned(text: &str, sign: usize) -> Option<Range<usize>> {
    let name = text[..sign]
        .trim_end()
        .trim_end_matches(['"', '\'', '`', '\\']);
    let start = name
        .rfind(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-')))
        .map_or(0, |place| place + 1);
    // A boundary that is not an ASCII letter may be wider than a byte.
    let name: String = name
        .get(start..)
        .unwrap_or("")
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    if !NAMES.iter().any(|ending| name.ends_with(ending)) {
        return None;
    }
    let quotes = [' ', '\t', '"', '\'', '`', '\\'];
    let after = text[sign + 1..].trim_start_matches(quotes);
    // The scheme of an `Authorization` header.
    let value = ["Bearer ", "bearer ", "Basic ", "Token "]
        .into_iter()
        .find_map(|scheme| after.strip_prefix(scheme))
        .unwrap_or(after)
        .trim_start();
    let start = text.len() - value.len();
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=_-.~!#%^*".contains(byte);
    let length = value.bytes().take(MAX_BYTES).take_while(may_stand).count();
    let value = value[..length].trim_end_matches('.');
    (looks_random(value) && !is_placeholder(value)).then_some(start..start + value.len())
}

/// Long, with letters and digits, without a pattern.
pub(super) fn looks_random(value: &str) -> bool {
    let has = |test: fn(&u8) -> bool| value.as_bytes().iter().any(test);
    value.len() >= MIN_CHARS
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && entropy(value) >= MIN_ENTROPY
}

/// Shannon entropy in bits per byte.
fn entropy(value: &str) -> f64 {
    let mut counts = [0_u32; 256];
    value
        .bytes()
        .for_each(|byte| counts[usize::from(byte)] += 1);
    let total = value.len().max(1) as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) / total)
        .map(|share| -share * share.log2())
        .sum()
}
