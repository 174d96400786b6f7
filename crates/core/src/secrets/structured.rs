//! Secrets with a structure: private keys, JSON Web Tokens, passwords in connection strings,
//! `Authorization` headers, multipart tokens.

use std::ops::{Range, RangeInclusive};

use super::assignments::looks_random;
use super::{MAX_BYTES, is_placeholder};

/// PEM labels of private keys (RFC 7468, PKCS #1, SEC 1, OpenSSH, OpenPGP).
const PRIVATE_KEYS: [&str; 7] = ["", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP "];

pub(super) fn find(text: &str) -> Vec<(&'static str, Range<usize>)> {
    let keys = private_keys(text).map(|place| ("private key", place));
    let tokens = text
        .match_indices("eyJ")
        .filter_map(|(start, _)| web_token(text, start))
        .map(|place| ("JSON Web Token", place));
    let strings = text
        .match_indices("://")
        .filter_map(|(place, _)| password(text, place + 3))
        .map(|place| ("connection string password", place));
    keys.chain(tokens)
        .chain(strings)
        .chain(in_parts(text))
        .chain(authorizations(text))
        .collect()
}

/// Tokens of several parts without a fixed prefix: name, separator to search for, length and
/// alphabet of the part before it, lengths of the parts after it and their alphabet.
type MultipartToken = (
    &'static str,
    &'static str,
    (RangeInclusive<usize>, fn(&u8) -> bool),
    (&'static [RangeInclusive<usize>], fn(&u8) -> bool),
);

static PARTED: [MultipartToken; 4] = [
    (
        "Telegram bot token",
        ":A",
        (8..=10, u8::is_ascii_digit),
        (&[34..=34], is_url),
    ),
    (
        "Discord bot token",
        ".",
        (23..=28, is_url),
        (&[6..=7, 27..=40], is_url),
    ),
    (
        "Azure AD client secret",
        "Q~",
        (4..=4, |byte| is_url(byte) || matches!(byte, b'.' | b'~')),
        (&[31..=34], |byte| {
            is_url(byte) || matches!(byte, b'.' | b'~')
        }),
    ),
    (
        "Mailgun key",
        "-",
        (32..=32, u8::is_ascii_hexdigit),
        (&[8..=8, 8..=8], u8::is_ascii_hexdigit),
    ),
];

fn is_url(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Finds multipart tokens, whose parts are separated by the sign's first character.
fn in_parts(text: &str) -> Vec<(&'static str, Range<usize>)> {
    let bytes = text.as_bytes();
    let found = PARTED
        .iter()
        .flat_map(|(name, sign, (before, is_before), (behind, is_behind))| {
            text.match_indices(sign).filter_map(move |(at, _)| {
                let length = bytes[..at]
                    .iter()
                    .rev()
                    .take(before.end() + 1)
                    .take_while(|byte| is_before(byte))
                    .count();
                let start = at - before.contains(&length).then_some(length)?;
                let mut end = at + sign.len();
                for (place, lengths) in behind.iter().enumerate() {
                    end += usize::from(place > 0 && bytes.get(end) == sign.as_bytes().first());
                    let length = bytes
                        .get(end..)?
                        .iter()
                        .take(lengths.end() + 1)
                        .take_while(|byte| is_behind(byte))
                        .count();
                    end += lengths.contains(&length).then_some(length)?;
                }
                let has = |test: fn(&u8) -> bool| bytes[start..end].iter().any(test);
                // Names with dots are not tokens: Discord's begin with a number of 17 to 20 digits
                // in base64.
                let is_number = || {
                    decode(&text[start..at])
                        .is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_digit()))
                };
                let is_token = has(u8::is_ascii_digit)
                    && has(u8::is_ascii_alphabetic)
                    && (*sign != "." || is_number());
                (is_token && !is_placeholder(&text[start..end])).then_some((*name, start..end))
            })
        });
    found.collect()
}

/// Finds credentials after the scheme of an `Authorization` header, except placeholders; and
/// random-looking ones after `Bearer` anywhere.
fn authorizations(text: &str) -> Vec<(&'static str, Range<usize>)> {
    let lower = text.to_ascii_lowercase();
    let of = |scheme: &'static str| lower.match_indices(scheme).map(move |(at, _)| (scheme, at));
    let found = ["bearer ", "basic ", "token ", "apikey "]
        .into_iter()
        .flat_map(of)
        .filter_map(|(scheme, at)| {
            let named = lower[..at].trim_end_matches([' ', '\t', '"', '\'', ':', '=', '\\']);
            let is_header = named.ends_with("authorization")
                && lower[named.len()..at].contains([':', '=', '"', '\'']);
            let after = text[at + scheme.len()..].trim_start_matches(' ');
            let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
            let value = after[..after.bytes().take(MAX_BYTES).take_while(may_stand).count()]
                .trim_end_matches('.');
            let is_secret = if is_header {
                value.len() >= 8
            } else {
                scheme == "bearer " && looks_random(value)
            };
            let start = text.len() - after.len();
            (is_secret && !is_placeholder(value))
                .then_some(("Authorization header", start..start + value.len()))
        });
    found.collect()
}

/// Finds keys from `-----BEGIN … PRIVATE KEY-----` to the end line, or the end of the text.
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

/// Decodes base64url without padding to text.
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

/// The password in `scheme://user:password@host`; `start` is after the `//`.
fn password(text: &str, start: usize) -> Option<Range<usize>> {
    let rest = &text[start..];
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/?\"'`<>".contains(byte);
    let limit = rest
        .bytes()
        .take(512)
        .position(|byte| ends(&byte))
        .or((rest.len() < 512).then_some(rest.len()))?;
    let authority = &rest[..limit];
    let at = authority.rfind('@')?;
    let colon = authority[..at].find(':')?;
    let value = &authority[colon + 1..at];
    let scheme = text[..start - 3].ends_with(|letter: char| letter.is_ascii_alphanumeric());
    (scheme && value.len() >= 4 && authority.len() > at + 1 && !is_placeholder(value))
        .then_some(start + colon + 1..start + at)
}
