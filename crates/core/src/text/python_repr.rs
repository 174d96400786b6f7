//! Python's `str` and `repr` of numbers, texts, lists and mappings.

use minijinja::Value;
use minijinja::value::ValueKind;

/// Deeper values are truncated; the engine refuses to assign them.
const MAX_DEPTH: usize = 200;

/// `str(value)`: text as it is, else [`repr`].
pub(super) fn python_str(value: &Value) -> String {
    if value.is_undefined() {
        return String::new();
    }
    value
        .as_str()
        .map_or_else(|| python_repr(value), str::to_owned)
}

pub(super) fn python_repr(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

/// Whether it is a result of `namespace()`.
pub(super) fn is_namespace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("Namespace"))
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let items = |value: &Value| value.try_iter().into_iter().flatten();
    match value.kind() {
        _ if depth > MAX_DEPTH => text.push_str("..."),
        ValueKind::Undefined => text.push_str("Undefined"),
        ValueKind::Number if !value.is_integer() => {
            let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            text.push_str(&python_float(number));
        }
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), text),
        ValueKind::Seq => {
            let (open, close) = match value.is_tuple() {
                true if value.len() == Some(1) => ("(", ",)"),
                true => ("(", ")"),
                false => ("[", "]"),
            };
            text.push_str(open);
            for (index, item) in items(value).enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write(&item, depth + 1, text);
            }
            text.push_str(close);
        }
        ValueKind::Map if !is_namespace(value) => {
            text.push('{');
            for (index, key) in items(value).enumerate() {
                text.push_str(if index > 0 { ", " } else { "" });
                write(&key, depth + 1, text);
                text.push_str(": ");
                write(&value.get_item(&key).unwrap_or_default(), depth + 1, text);
            }
            text.push('}');
        }
        _ => text.push_str(&value.to_string()),
    }
}

/// Single quotes unless the text has only those; escapes unprintable characters.
fn quoted(content: &str, text: &mut String) {
    let quote = if content.contains('\'') && !content.contains('"') {
        '"'
    } else {
        '\''
    };
    text.push(quote);
    for character in content.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            _ if character == quote => text.extend(['\\', quote]),
            _ if is_printable(character) => text.push(character),
            _ => text.push_str(&match u32::from(character) {
                code @ ..=0xff => format!("\\x{code:02x}"),
                code @ ..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    text.push(quote);
}

/// As `str.isprintable`: no control, format, private, surrogate or unassigned character, and no
/// separator but the space. The standard library's escapes use the same categories; after the first
/// character they leave combining marks.
fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        ..'\u{a0}' => false,
        _ => {
            let text: String = ['a', character].into_iter().collect();
            text.escape_debug().nth(1) == Some(character)
        }
    }
}

/// `repr` of a float: shortest digits, two-digit exponent below 1e-4 and from 1e16 on.
pub(super) fn python_float(number: f64) -> String {
    if !number.is_finite() {
        let name = if number.is_nan() { "nan" } else { "inf" };
        return format!("{}{name}", if number < 0.0 { "-" } else { "" });
    }
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let shortest = format!("{number:e}");
    match shortest.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, size) = exponent
                .strip_prefix('-')
                .map_or(('+', exponent), |size| ('-', size));
            format!("{digits}e{sign}{size:0>2}")
        }
        None => shortest,
    }
}
