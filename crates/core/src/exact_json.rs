//! JSON text to values and back without rounding: a number that `serde_json::Number` cannot hold is a marked text in
//! memory, and a number again where it is written.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

use crate::json_number::Number;

/// The only key of an object that represents a number.
const MARK: &str = "$exact number";
/// Shorter literals without an exponent are exact.
const MIN_LOSSY_LENGTH: usize = 16;

pub fn parse(text: &str) -> serde_json::Result<Value> {
    match mark(text) {
        Cow::Owned(marked) => serde_json::from_str(&marked).or_else(|_| serde_json::from_str(text)),
        Cow::Borrowed(text) => serde_json::from_str(text),
    }
}

/// The JSON text of a value on one line, marked numbers as they were read.
pub fn write(value: &impl Serialize) -> String {
    unmark(serde_json::to_string(value).unwrap_or_default())
}

/// A JSON text with marked numbers as they were read.
pub fn unmark(text: String) -> String {
    let (begin, end) = (format!("{{\"{MARK}\":\""), "\"}");
    if !text.contains(&begin) {
        return text;
    }
    let mut written = String::with_capacity(text.len());
    let mut rest = text.as_str();
    // Within a string the quotes would be escaped.
    while let Some((before, after)) = rest.split_once(&begin) {
        written.push_str(before);
        match after.split_once(end) {
            Some((number, after)) if is_number(number) => {
                written.push_str(number);
                rest = after;
            }
            _ => {
                written.push_str(&begin);
                rest = after;
            }
        }
    }
    written + rest
}

/// The number that a value represents, if it is a marked one.
pub fn marked_number(value: &Value) -> Option<Number<'_>> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    let text = members.get(MARK)?.as_str()?;
    is_number(text).then(|| Number::new(text))
}

pub fn number(literal: &str) -> Value {
    match is_number(literal) && is_lossy(literal) {
        true => json!({MARK: literal}),
        false => serde_json::from_str(literal).unwrap_or_default(),
    }
}

/// The text with a mark around each number that would be rounded.
pub fn mark(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let (mut marked, mut done, mut at) = (String::new(), 0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|byte| {
                        matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
                    })
                    .count();
                let literal = &text[at..at + length];
                if is_number(literal) && is_lossy(literal) {
                    marked.push_str(&text[done..at]);
                    marked.push_str(&format!("{{\"{MARK}\":\"{literal}\"}}"));
                    done = at + length;
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    marked.push_str(&text[done..]);
    Cow::Owned(marked)
}

/// The place after the quote that ends a string.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn is_lossy(literal: &str) -> bool {
    let number = Number::new(literal);
    if literal.len() < MIN_LOSSY_LENGTH && !literal.contains(['e', 'E']) {
        return false;
    }
    if number.is_written_as_integer() {
        return number.as_i64().is_none() && number.as_u64().is_none();
    }
    let float = literal.parse().ok().and_then(serde_json::Number::from_f64);
    float.is_none_or(|float| !number.equals_serde(&float))
}

fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent
            .is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// How many values a document has, itself among them.
pub(crate) fn count_values(document: &Value) -> usize {
    match document {
        Value::Array(items) => 1 + items.iter().map(count_values).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(count_values).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_were_read() {
        for (text, marks) in [
            ("20240101123456789012", 1),
            ("-123456789012345678901234567890", 1),
            ("0.1234567890123456789", 1),
            ("1.0000000000000000001", 1),
            ("1e400", 1),
            ("18446744073709551615", 0),
            ("-9223372036854775808", 0),
            ("0.30000000000000004", 0),
            (
                r#"{"a":[1,{"b":20240101123456789012}],"c":"20240101123456789012"}"#,
                1,
            ),
            (r#"["\"20240101123456789012",0.12345678901234567890]"#, 1),
            (r#"{"$exact number":"x"}"#, 0),
            (r#""{\"$exact number\":\"1\"}""#, 0),
        ] {
            let value = parse(text).unwrap();
            assert_eq!(write(&value), text);
            assert_eq!(
                mark(text).matches(MARK).count() - text.matches(MARK).count(),
                marks,
                "{text}"
            );
        }
        assert!(parse("[20240101123456789012").is_err());
        assert_eq!(parse("1.50").unwrap(), json!(1.5));
    }
}
