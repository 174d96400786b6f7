//! Tests in a row: `cases`, `tests`, or both.

use serde_json::Value;

use crate::dataset::PromptRow;
use crate::exact_json::{self, marked_number};
use crate::format::shortened;
use crate::json_number::Number;

/// Digits of an integer, as in `server.py`.
const MAX_DIGITS: usize = 4_300;
const MAX_SHOWN_CHARS: usize = 200;

#[derive(Debug)]
pub(super) struct Case<'r> {
    pub(super) test: CaseKind<'r>,
    /// Nothing of it is shown.
    pub(super) is_hidden: bool,
}

#[derive(Debug)]
pub(super) enum CaseKind<'r> {
    Call {
        entry: &'r str,
        arguments: &'r [Value],
        value: &'r Value,
    },
    Run {
        arguments: Vec<&'r str>,
        stdin: &'r str,
        stdout: &'r str,
    },
    /// Test code that must not raise. `entry`: the argument of its function `check`.
    Code {
        tests: &'r str,
        entry: Option<&'r str>,
        /// The row's `before`.
        before: &'r str,
    },
}

/// Cases of a row, hidden ones last: no other case can reveal what an answer leaves behind in them.
///
/// # Errors
/// A sentence about the row.
pub(super) fn cases(row: Option<&PromptRow>) -> Result<Vec<Case<'_>>, String> {
    let row = row.ok_or(
        "no row: tests are in the rows of the prompts, so a completion needs its `prompt_id`",
    )?;
    let field = |name: &str| row.fields.get(name).filter(|value| !value.is_null());
    let entry = match field("entry") {
        None => None,
        Some(Value::String(entry)) if is_name(entry) => Some(entry.as_str()),
        Some(other) => {
            return Err(format!(
                "`entry` is the name of a function, not {}",
                shown(other)
            ));
        }
    };
    let before = code_before(row)?;
    let mut found = Vec::new();
    match field("cases") {
        None => {}
        Some(Value::Array(all)) => {
            for (place, case) in all.iter().enumerate() {
                let case = read_case(case, entry)
                    .map_err(|why| format!("case {} of `cases` {why}", place + 1))?;
                found.push(case);
            }
        }
        Some(other) => return Err(format!("`cases` is a list, not {}", shown(other))),
    }
    match field("tests") {
        None => {}
        Some(Value::String(tests)) => {
            found.push(Case {
                test: CaseKind::Code {
                    tests,
                    entry,
                    before,
                },
                is_hidden: false,
            });
        }
        Some(other) => return Err(format!("`tests` is code in a string, not {}", shown(other))),
    }
    found.sort_by_key(|case| case.is_hidden);
    if found.is_empty() {
        return Err("the row has neither `cases` nor `tests`: give it one of them".to_owned());
    }
    Ok(found)
}

/// A row's code before the answer.
///
/// # Errors
/// A sentence about the row.
pub(super) fn code_before(row: &PromptRow) -> Result<&str, String> {
    match row.fields.get("before") {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(code)) => Ok(code),
        Some(other) => Err(format!(
            "`before` is code in a string, not {}",
            shown(other)
        )),
    }
}

fn longest_integer(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(longest_integer).max().unwrap_or(0),
        value if is_number(value) => {
            let text = exact_json::write(value);
            let is_integer = Number::new(&text).is_written_as_integer();
            text.trim_start_matches('-').len() * usize::from(is_integer)
        }
        Value::Object(members) => members.values().map(longest_integer).max().unwrap_or(0),
        _ => 0,
    }
}

fn read_case<'r>(case: &'r Value, entry: Option<&'r str>) -> Result<Case<'r>, String> {
    let members = case
        .as_object()
        .ok_or_else(|| format!("is an object such as {EXAMPLE}, not {}", shown(case)))?;
    let known = ["args", "hidden", "stdin", "stdout", "value"];
    if let Some(key) = members.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!(
            "has the unknown key {key:?}: it takes {}",
            known.join(", ")
        ));
    }
    let digits = longest_integer(case);
    if digits > MAX_DIGITS {
        return Err(format!(
            "has a whole number of {digits} digits: at most {MAX_DIGITS} are read, as Python does"
        ));
    }
    let is_hidden = match members.get("hidden") {
        None => false,
        Some(Value::Bool(hidden)) => *hidden,
        Some(other) => {
            return Err(format!(
                "has hidden = {}: it takes true or false",
                shown(other)
            ));
        }
    };
    let arguments: &[Value] = match members.get("args") {
        None => &[],
        Some(Value::Array(arguments)) => arguments,
        Some(other) => return Err(format!("has args = {}: it takes a list", shown(other))),
    };
    let text = |key: &str| match members.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(format!("has {key} = {}: it takes a string", shown(other))),
    };
    let (stdin, stdout) = (text("stdin")?, text("stdout")?);
    let test = match (members.get("value"), stdout) {
        (Some(_), _) if stdin.is_some() || stdout.is_some() => {
            return Err(
                "has a value, and stdin or stdout: a function has args and a value, a program stdin and stdout"
                    .to_owned(),
            );
        }
        (Some(value), None) => {
            let entry = entry
                .ok_or("has a value, but the row no `entry`: name the function that gives it")?;
            CaseKind::Call {
                entry,
                arguments,
                value,
            }
        }
        (_, Some(stdout)) => {
            let words = arguments
                .iter()
                .map(|argument| argument.as_str().filter(|word| !word.contains('\0')));
            let words: Option<Vec<&str>> = words.collect();
            let arguments =
                words.ok_or("has args that are not strings: a program takes strings")?;
            CaseKind::Run {
                arguments,
                stdin: stdin.unwrap_or_default(),
                stdout,
            }
        }
        (None, None) => {
            return Err(format!(
                "has neither stdout nor value: write for example {EXAMPLE}"
            ));
        }
    };
    Ok(Case { test, is_hidden })
}

const EXAMPLE: &str =
    "{\"args\": [2, 3], \"value\": 5} or {\"stdin\": \"2 3\\n\", \"stdout\": \"5\\n\"}";

impl Case<'_> {
    pub(super) fn question(&self) -> String {
        match &self.test {
            CaseKind::Call {
                entry, arguments, ..
            } => {
                let arguments: Vec<String> = arguments.iter().map(shown).collect();
                shortened(
                    &format!("{entry}({})", arguments.join(", ")),
                    MAX_SHOWN_CHARS,
                )
            }
            CaseKind::Run {
                arguments, stdin, ..
            } => {
                let words = (!arguments.is_empty()).then(|| format!("args {arguments:?}"));
                let input = (!stdin.is_empty()).then(|| format!("stdin {stdin:?}"));
                let asked: Vec<String> = words.into_iter().chain(input).collect();
                let asked = if asked.is_empty() {
                    "no input".to_owned()
                } else {
                    asked.join(", ")
                };
                shortened(&asked, MAX_SHOWN_CHARS)
            }
            CaseKind::Code { .. } => "the tests".to_owned(),
        }
    }
}

/// First difference of two outputs, ignoring trailing white space and empty lines at the end.
pub(super) fn output_difference(expected: &str, found: &str) -> Option<String> {
    let lines = |text: &str| -> Vec<String> {
        text.trim_end()
            .lines()
            .map(str::trim_end)
            .map(str::to_owned)
            .collect() //
    };
    let (expected, found) = (lines(expected), lines(found));
    let place = (0..expected.len().max(found.len()))
        .find(|place| expected.get(*place) != found.get(*place))?;
    let text = |lines: &[String]| {
        lines.get(place).map_or_else(
            || "no such line".to_owned(),
            |line| shortened(&format!("{line:?}"), MAX_SHOWN_CHARS),
        )
    };
    let line = if expected.len() > 1 || found.len() > 1 {
        format!("line {}: ", place + 1)
    } else {
        String::new()
    };
    Some(format!(
        "{line}expected {}, got {}",
        text(&expected),
        text(&found)
    ))
}

/// Equality of JSON values; fractions within one part in 10^9, since order of computation varies.
pub(super) fn same(expected: &Value, found: &Value) -> bool {
    let marked = |value: &Value| marked_number(value).is_some();
    if (marked(expected) || marked(found)) && (is_number(expected) && is_number(found)) {
        return same_number(&exact_json::write(expected), &exact_json::write(found));
    }
    match (expected, found) {
        (Value::Number(one), Value::Number(other)) if one != other => {
            same_number(&one.to_string(), &other.to_string())
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .zip(found)
                    .all(|(one, other)| same(one, other))
        }
        (Value::Object(expected), Value::Object(found)) => {
            let is_same = |(key, value): (&String, &Value)| {
                found.get(key).is_some_and(|other| same(value, other))
            };
            expected.len() == found.len() && expected.iter().all(is_same)
        }
        _ => expected == found,
    }
}

fn is_number(value: &Value) -> bool {
    value.is_number() || marked_number(value).is_some()
}

/// Equality of number literals; exact where an integer is expected, or small.
fn same_number(expected: &str, found: &str) -> bool {
    let (expected, found) = (Number::new(expected), Number::new(found));
    let (Some(near), Some(other)) = (expected.as_f64(), found.as_f64()) else {
        return expected.equals(&found);
    };
    let is_exact = expected.is_written_as_integer() || near.abs() < 1e15 && other.abs() < 1e15;
    if expected.is_integer() && found.is_integer() && is_exact {
        return expected.equals(&found);
    }
    // A large float has no fraction: it equals an integer exactly or not at all.
    if found.is_written_as_integer() && near.abs() >= 1e15 {
        return expected.equals(&found) || Number::new(&format!("{near:.0}")).equals(&found);
    }
    (near - other).abs() <= 1e-9 * near.abs().max(other.abs())
}

pub(super) fn shown(value: &Value) -> String {
    shortened(&exact_json::write(value), MAX_SHOWN_CHARS)
}

fn is_name(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_alphabetic() || matches!(letter, '_' | '$');
    text.starts_with(is_letter)
        && text
            .chars()
            .all(|letter| is_letter(letter) || letter.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_as_many_digits_as_python_reads() {
        for (digits, is_read) in [(4_300, true), (4_301, false)] {
            let number = "9".repeat(digits);
            for members in [
                format!("\"args\": [[-{number}]], \"value\": 1"),
                format!("\"value\": [1.5, -{number}]"),
            ] {
                let case = exact_json::parse(&format!("{{{members}}}")).unwrap_or_default();
                let read = read_case(&case, Some("f")).map(drop);
                assert_eq!(read.is_ok(), is_read, "{digits}: {read:?}");
                let said = read.err().unwrap_or_default();
                let expected = if is_read {
                    ""
                } else {
                    "a whole number of 4301 digits"
                };
                assert!(said.contains(expected), "{said}");
            }
        }
    }

    #[test]
    fn whole_numbers_are_the_same_exactly_and_fractions_nearly() {
        for (expected, found, is_same) in [
            ("123456789012345678", "123456789100000000", false),
            ("123456789012345678", "123456789012345678", true),
            (
                "15511210043330985984000000",
                "15511210043330985984000001",
                false,
            ),
            (
                "15511210043330985984000000",
                "15511210043330985984000000",
                true,
            ),
            ("1e18", "1000000000000000001", false),
            ("1e18", "1000000000000000000", true),
            // 2.0 ** 60, as Python writes it, and 2 ** 60.
            ("1.152921504606847e18", "1152921504606846976", true),
            ("1.152921504606847e18", "1152921504606846977", false),
            ("1.152921504606847e18", "1.152921504606848e18", true),
            ("0.1", "0.10000000000000002", true),
            ("0.1", "0.1000001", false),
        ] {
            let [expected_value, found_value] =
                [expected, found].map(|text| exact_json::parse(text).unwrap_or_default());
            assert_eq!(
                same(&expected_value, &found_value),
                is_same,
                "{expected} {found}"
            );
        }
    }
}
