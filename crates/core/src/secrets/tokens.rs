//! Provider tokens: prefix, alphabet and length, from the providers' documented formats.

use std::ops::{Range, RangeInclusive};

use super::assignments::looks_random;
use super::{MAX_BYTES, is_placeholder};

/// A provider's keys, from its documented format.
struct Rule {
    name: &'static str,
    beginnings: &'static [&'static str],
    /// How many characters of `A-Za-z0-9_-` follow.
    rest: RangeInclusive<usize>,
}

const RULES: [Rule; 10] = [
    rule("AWS access key id", &["AKIA", "ASIA"], 16..=16),
    rule(
        "GitHub token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        36..=251,
    ),
    rule("GitLab token", &["glpat-"], 20..=320),
    rule("Google API key", &["AIza"], 35..=35),
    rule("Hugging Face token", &["hf_"], 34..=40),
    rule("NVIDIA key", &["nvapi-"], 60..=80),
    // OpenAI, Anthropic, OpenRouter, DeepSeek and others.
    rule("API key", &["sk-"], 32..=250),
    rule("PyPI token", &["pypi-AgE"], 50..=400),
    rule(
        "Slack token",
        &[
            "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xapp-",
        ],
        20..=250,
    ),
    rule("Stripe key", &["sk_live_", "rk_live_"], 24..=247),
];

const fn rule(
    name: &'static str,
    beginnings: &'static [&'static str],
    rest: RangeInclusive<usize>,
) -> Rule {
    Rule {
        name,
        beginnings,
        rest,
    }
}

/// The kinds of PEM blocks that hold a private key (RFC 7468, PKCS #1, SEC 1, OpenSSH, OpenPGP).
const PRIVATE_KEYS: [&str; 7] = ["", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP "];

pub(super) fn find(text: &str) -> Vec<(&'static str, Range<usize>)> {
    let keys = private_keys(text).map(|place| ("private key", place));
    let tokens = text
        .match_indices("eyJ")
        .filter_map(|(start, _)| web_token(text, start))
        .map(|place| ("JSON Web Token", place));
    let provided = RULES.iter().flat_map(|rule| {
        let found = rule.beginnings.iter().flat_map(|beginning| {
            text.match_indices(beginning)
                .filter_map(|(start, _)| key(text, start, beginning.len(), &rule.rest))
        });
        found.map(|place| (rule.name, place))
    });
    provided.chain(keys).chain(tokens).collect()
}

/// A provider's key. One whose end was cut off before a `…` is one too: what is left may be enough to use it.
fn key(
    text: &str,
    start: usize,
    beginning: usize,
    rest: &RangeInclusive<usize>,
) -> Option<Range<usize>> {
    let stands = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if text[..start]
        .bytes()
        .next_back()
        .as_ref()
        .is_some_and(stands)
    {
        return None;
    }
    let after = &text[start + beginning..];
    let length = after
        .bytes()
        .take(rest.end() + 1)
        .take_while(stands)
        .count();
    let was_cut = length < *rest.start() && after[length..].starts_with('…');
    let value = &after[..length];
    // Names in a program begin alike; their words are joined.
    let is_word = |test: fn(&u8) -> bool| value.bytes().all(|byte| test(&byte));
    let is_one_word = is_word(u8::is_ascii_alphanumeric)
        && value.len() >= 16
        && (!is_word(u8::is_ascii_alphabetic) || is_word(u8::is_ascii_uppercase));
    let is_key = (was_cut || rest.contains(&length))
        && (is_one_word || looks_random(value))
        && !is_placeholder(value);
    is_key.then_some(start..start + beginning + length)
}

/// From `-----BEGIN … PRIVATE KEY-----` to its end line, or to the end of the text.
fn private_keys(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("-----BEGIN ")
        .filter_map(|(start, begin)| {
            let rest = &text[start + begin.len()..];
            let kind = PRIVATE_KEYS.into_iter().find(|kind| {
                rest.strip_prefix(kind)
                    .is_some_and(|rest| rest.starts_with("PRIVATE KEY"))
            })?;
            let body = rest[kind.len() + "PRIVATE KEY".len()..]
                .trim_start_matches(" BLOCK")
                .strip_prefix("-----")?;
            // The line alone, without a body, is not a key.
            let letters = body
                .chars()
                .take(200)
                .filter(char::is_ascii_alphanumeric)
                .count();
            let near = &body[..body.floor_char_boundary(MAX_BYTES)];
            let end = near
                .find("-----END ")
                .map_or(text.len(), |end| text.len() - body.len() + end);
            (letters >= 32).then_some(start..end)
        })
}

/// `header.payload.signature` in base64url whose header names an algorithm (RFC 7519).
fn web_token(text: &str, start: usize) -> Option<Range<usize>> {
    if text[..start].ends_with(|letter: char| {
        letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
    }) {
        return None;
    }
    let length = text[start..]
        .bytes()
        .take(MAX_BYTES)
        .take_while(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        .count();
    let token = text[start..start + length].trim_end_matches('.');
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let header = decode(header)?;
    let whole = payload.starts_with("eyJ") && signature.len() >= 20 && parts.next().is_none();
    (whole && header.contains("\"alg\"")).then_some(start..start + token.len())
}

/// Base64url without padding, as text.
fn decode(text: &str) -> Option<String> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}
