//! Formats JSON: two spaces per level, small values on one line, scalars and keys as written.

use super::parse::parse;
use super::value::{Kind, Value};

/// Values within this many columns stay on one line, unless nested.
const COLUMNS: usize = 80;

/// Formats a document.
///
/// # Errors
/// A sentence with line and column for invalid JSON, and for a duplicate key, since one of them
/// would be lost.
pub fn format(text: &str) -> Result<String, String> {
    let place = |offset| {
        let place = super::position::Places::new(text).locate(offset);
        format!("line {} column {}", place.line, place.column)
    };
    let document =
        parse(text, 0).map_err(|error| format!("{}: {}", place(error.offset), error.reason))?;
    if let Some(duplicate) = document.duplicates.first() {
        return Err(format!(
            "{}: duplicate key {:?}: one of them would be lost",
            place(duplicate.offset),
            duplicate.key
        ));
    }
    let mut out = String::new();
    write(text, &document.root, 0, true, &mut out);
    out.push('\n');
    Ok(out)
}

fn write(text: &str, value: &Value<'_>, level: usize, whole: bool, out: &mut String) {
    let column = out.len() - out.rfind('\n').map_or(0, |newline| newline + 1);
    if let Some(line) =
        one_line(text, value, 2).filter(|line| !whole && column + line.chars().count() <= COLUMNS)
    {
        return out.push_str(&line);
    }
    let blanks = |level: usize| "  ".repeat(level);
    match &value.kind {
        Kind::Array(items) if !items.is_empty() => {
            out.push_str("[\n");
            for (index, item) in items.iter().enumerate() {
                out.push_str(&blanks(level + 1));
                write(text, item, level + 1, false, out);
                out.push_str(if index + 1 < items.len() { ",\n" } else { "\n" });
            }
            out.push_str(&blanks(level));
            out.push(']');
        }
        Kind::Object(object) if !object.members().is_empty() => {
            out.push_str("{\n");
            for (index, member) in object.members().iter().enumerate() {
                out.push_str(&blanks(level + 1));
                out.push_str(key(text, member.key_start));
                out.push_str(": ");
                write(text, &member.value, level + 1, false, out);
                out.push_str(if index + 1 < object.members().len() {
                    ",\n"
                } else {
                    "\n"
                });
            }
            out.push_str(&blanks(level));
            out.push('}');
        }
        _ => out.push_str(&one_line(text, value, 1).unwrap_or_default()),
    }
}

/// The value on one line, if nested at most `depth` levels.
fn one_line(text: &str, value: &Value<'_>, depth: usize) -> Option<String> {
    match &value.kind {
        Kind::Array(items) if items.is_empty() => Some("[]".to_owned()),
        Kind::Object(object) if object.members().is_empty() => Some("{}".to_owned()),
        Kind::Array(_) | Kind::Object(_) if depth == 0 => None,
        Kind::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| one_line(text, item, depth - 1))
                .collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Kind::Object(object) => {
            let member = |member: &super::value::Member<'_>| {
                Some(format!(
                    "{}: {}",
                    key(text, member.key_start),
                    one_line(text, &member.value, depth.checked_sub(1)?)?
                ))
            };
            let members: Option<Vec<String>> = object.members().iter().map(member).collect();
            Some(format!("{{ {} }}", members?.join(", ")))
        }
        _ => Some(
            text.get(value.start..value.end)
                .unwrap_or_default()
                .to_owned(),
        ),
    }
}

/// Including quotes.
fn key(text: &str, start: usize) -> &str {
    let rest = text.get(start..).unwrap_or_default();
    let mut escaped = false;
    let end = rest
        .char_indices()
        .skip(1)
        .find(|(_, letter)| match (escaped, letter) {
            (true, _) => {
                escaped = false;
                false
            }
            (false, '\\') => {
                escaped = true;
                false
            }
            (false, letter) => *letter == '"',
        });
    rest.get(..end.map_or(rest.len(), |(end, _)| end + 1))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_one_and_nothing_is_lost() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = format(text);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
            if let Ok(found) = found {
                assert_eq!(
                    format(&found).as_deref(),
                    Ok(found.as_str()),
                    "twice is the same"
                );
            }
        };
        check(
            "{\"b\":1.50,\"a\":[]}",
            Ok("{\n  \"b\": 1.50,\n  \"a\": []\n}\n"),
        );
        check(
            "{\"a\":{\"type\":\"string\"},\"c\\\"d\":[\"x\",\"\\u00e9\"]}",
            Ok("{\n  \"a\": { \"type\": \"string\" },\n  \"c\\\"d\": [\"x\", \"\\u00e9\"]\n}\n"),
        );
        check(
            "[{\"a\":{\"b\":{\"c\":1}}}]",
            Ok("[\n  {\n    \"a\": { \"b\": { \"c\": 1 } }\n  }\n]\n"),
        );
        check("7", Ok("7\n"));
        check(
            "{\"a\":1,\n\"a\":2}",
            Err("line 2 column 1: duplicate key \"a\": one of them would be lost"),
        );
        check(
            "{",
            Err("line 1 column 2: the text ends inside the JSON value"),
        );
    }

    #[test]
    fn the_embedded_schema_is_laid_out_already() {
        let task = crate::score::task::Task::embedded("invoice").unwrap();
        assert_eq!(format(&task.definition_text).unwrap(), task.definition_text);
    }
}
