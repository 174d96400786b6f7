//! Edits one value of a task's files, a row of a JSONL file or the system text in `task.toml`, and keeps every other
//! byte.

use serde_json::{Map, Value};

use crate::exact_json;
use crate::format::counted;
use crate::score::json::{self, Kind};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Replace(String),
    /// Insert a line after it.
    After(String),
    Delete,
}

/// Returns the file's text with one line (from 1) changed if that line still holds the row that was read. Line 0 is
/// before the first.
///
/// # Errors
/// The line is another one now.
pub fn change_line(
    text: &str,
    line: usize,
    row: Option<&Map<String, Value>>,
    change: &Change,
) -> Result<String, String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut out = String::with_capacity(text.len() + 1024);
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let Some(index) = line.checked_sub(1) else {
        if let Change::After(new) = change {
            out.push_str(new);
            out.push_str(end);
        }
        out.push_str(text);
        return Ok(out);
    };
    let there = lines.get(index).ok_or_else(|| {
        format!(
            "the file now has {}, not {line}: reloaded",
            counted(lines.len(), "line")
        )
    })?;
    let same = |row: &Map<String, Value>| is_same(without_mark(there, index), row);
    if row.is_some_and(|row| !same(row)) {
        return Err(format!(
            "line {line} changed on disk: reloaded, nothing written"
        ));
    }
    for (number, old) in lines.iter().enumerate() {
        let ending = &old[old.trim_end_matches(['\r', '\n']).len()..];
        match change {
            _ if number != index => out.push_str(old),
            Change::Delete => {}
            Change::Replace(new) => {
                let mark = if number == 0 && old.starts_with('\u{feff}') {
                    "\u{feff}"
                } else {
                    ""
                };
                out.extend([mark, new.as_str(), ending]);
            }
            Change::After(new) => {
                out.push_str(old);
                // A missing final newline is added for the new line, which then has none, as before.
                match ending.is_empty() {
                    true => out.extend([end, new.as_str()]),
                    false => out.extend([new.as_str(), ending]),
                }
            }
        }
    }
    Ok(out)
}

pub fn append_lines(text: &str, lines: &[String]) -> String {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(end);
    }
    for line in lines {
        out.extend([line.as_str(), end]);
    }
    out
}

fn without_mark(line: &str, index: usize) -> &str {
    if index == 0 {
        line.trim_start_matches('\u{feff}')
    } else {
        line
    }
}

pub fn line_of(text: &str, line: usize) -> Option<&str> {
    let index = line.checked_sub(1)?;
    text.split('\n')
        .nth(index)
        .map(|line| without_mark(line.trim_end_matches('\r'), index))
}

fn is_same(line: &str, row: &Map<String, Value>) -> bool {
    exact_json::parse(line).is_ok_and(|now| now.as_object() == Some(row))
}

/// Returns a JSON object's text with one member's value replaced, or the member added at the end. All other bytes stay.
///
/// # Errors
/// The text is not a JSON object.
pub fn set_member(object: &str, key: &str, value: &Value) -> Result<String, String> {
    let document = json::parse(object, 0).map_err(|error| error.reason.to_string())?;
    let Kind::Object(members) = &document.root.kind else {
        return Err("the line is not a JSON object".to_owned());
    };
    let (start, end, new) = match members.get(key) {
        Some(member) => (
            member.value.start,
            member.value.end,
            exact_json::write(value),
        ),
        None => {
            let comma = if members.members().is_empty() {
                ""
            } else {
                ","
            };
            let close = document.root.end - 1;
            (
                close,
                close,
                format!("{comma}{}:{}", Value::from(key), exact_json::write(value)),
            )
        }
    };
    Ok(format!("{}{new}{}", &object[..start], &object[end..]))
}

/// Returns `task.toml` with another system text; an empty one removes the key. Comments and layout stay.
pub fn set_system(task_toml: &str, system: &str) -> Result<String, String> {
    let mut document: toml_edit::DocumentMut = task_toml
        .parse()
        .map_err(|error: toml_edit::TomlError| error.to_string())?;
    if system.is_empty() {
        document.remove("system");
        return Ok(document.to_string());
    }
    let text = match system.contains('\n')
        && !system.contains(['\\', '\r'])
        && !system.contains("\"\"\"")
        && !system.ends_with('"')
    {
        // Multi-line for readability; TOML ignores a newline right after the opening quotes.
        true => format!("\"\"\"\n{system}\"\"\""),
        false => toml_edit::value(system).to_string().trim().to_owned(),
    };
    let value: toml_edit::Value = text
        .parse()
        .map_err(|error: toml_edit::TomlError| error.to_string())?;
    match document
        .get_mut("system")
        .and_then(toml_edit::Item::as_value_mut)
    {
        Some(old) => {
            let decor = old.decor().clone();
            *old = value;
            *old.decor_mut() = decor;
        }
        // A new top-level key goes before the first table.
        None => drop(document.insert("system", toml_edit::Item::Value(value))),
    }
    let out = document.to_string();
    let read: toml::Table = out
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    match read.get("system").and_then(toml::Value::as_str) == Some(system) {
        true => Ok(out),
        false => {
            Err("text contains control characters that TOML cannot store: remove them".to_owned())
        }
    }
}

/// Returns `task.toml` with the file of the task's samples. Comments and layout stay.
///
/// # Errors
/// The text is not TOML, or `prompts` is no table.
pub fn set_completions(task_toml: &str, file: &str) -> Result<String, String> {
    let mut document: toml_edit::DocumentMut = task_toml
        .parse()
        .map_err(|error: toml_edit::TomlError| error.to_string())?;
    let prompts = document.entry("prompts").or_insert(toml_edit::table());
    let table = prompts.as_table_like_mut();
    let table = table.ok_or("task.toml: `prompts` is no table: write [prompts]")?;
    table.insert("completions", toml_edit::value(file));
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_all_others_stay() {
        let lines = ["N".to_owned(), "M".to_owned()];
        for (text, expected) in [
            ("", "N\nM\n"),
            ("a\n", "a\nN\nM\n"),
            ("a\nb", "a\nb\nN\nM\n"),
            ("a\r\nb", "a\r\nb\r\nN\r\nM\r\n"),
        ] {
            assert_eq!(append_lines(text, &lines), expected, "{text:?}");
        }
    }

    #[test]
    fn a_task_without_samples_names_their_file() {
        let toml = "name = \"x\" # one\n\n[prompts] # two\ntrain = \"t.jsonl\"\n\n[score]\n";
        assert_eq!(
            set_completions(toml, "c.jsonl").unwrap(),
            toml.replace("t.jsonl\"\n", "t.jsonl\"\ncompletions = \"c.jsonl\"\n")
        );
        assert!(set_completions("prompts = 1\n", "c.jsonl").is_err());
    }

    #[test]
    fn one_line_changes_and_all_others_stay() {
        let check = |text: &str, line, change: Change, expected: &str| {
            assert_eq!(
                change_line(text, line, None, &change).unwrap(),
                expected,
                "{text:?} {line} {change:?}"
            );
        };
        let new = || "N".to_owned();
        check("a\nb\nc\n", 2, Change::Replace(new()), "a\nN\nc\n");
        check("a\r\nb\r\n", 2, Change::Replace(new()), "a\r\nN\r\n");
        check("a\nb", 2, Change::Replace(new()), "a\nN");
        check("a\nb", 2, Change::After(new()), "a\nb\nN");
        check("a\nb\n", 1, Change::After(new()), "a\nN\nb\n");
        check("a\r\nb\r\n", 1, Change::After(new()), "a\r\nN\r\nb\r\n");
        check("a\n\n b \n", 1, Change::Delete, "\n b \n");
        check("", 0, Change::After(new()), "N\n");
        check(
            "\u{feff}a\nb\n",
            1,
            Change::Replace(new()),
            "\u{feff}N\nb\n",
        );
        assert!(
            change_line("a\n", 3, None, &Change::Delete)
                .unwrap_err()
                .contains("has 1 line, not 3")
        );
    }

    #[test]
    fn a_line_that_became_another_row_is_not_touched() {
        let row: Map<String, Value> = serde_json::from_str("{\"a\":1}").unwrap();
        let check = |text: &str, ok: bool| {
            assert_eq!(
                change_line(text, 1, Some(&row), &Change::Delete).is_ok(),
                ok,
                "{text}"
            )
        };
        check("{ \"a\": 1 }\n", true);
        check("\u{feff}{ \"a\": 1 }\n", true);
        check("{\"a\":2}\n", false);
        check("nonsense\n", false);
    }

    #[test]
    fn a_member_is_set_and_the_rest_stays_as_written() {
        let check = |object: &str, key: &str, expected: &str| {
            assert_eq!(
                set_member(object, key, &serde_json::json!([1])).unwrap(),
                expected
            )
        };
        check("{\"a\": 1.50, \"b\" : 2 }", "a", "{\"a\": [1], \"b\" : 2 }");
        check("{\"a\": 1.50 }", "b", "{\"a\": 1.50 ,\"b\":[1]}");
        check("{}", "b", "{\"b\":[1]}");
        assert!(set_member("[]", "b", &Value::Null).is_err());
    }

    #[test]
    fn comments_survive_another_system_text() {
        let toml = "# one\nname = \"x\" # two\nsystem = \"old\"   # three\n\n[score] # four\nkind = \"json_schema\"\n";
        let check = |toml: &str, system: &str, expected: &str| {
            let found = set_system(toml, system).unwrap();
            assert_eq!(found, expected);
            let read = found.parse::<toml::Table>().unwrap();
            assert_eq!(
                read.get("system").and_then(toml::Value::as_str),
                Some(system).filter(|system| !system.is_empty())
            );
        };
        check(
            toml,
            "new \"one\"",
            &toml.replace("\"old\"", "'new \"one\"'"),
        );
        check(
            toml,
            "two\nlines",
            &toml.replace("\"old\"", "\"\"\"\ntwo\nlines\"\"\""),
        );
        check(
            "name = \"x\"\n[score]\n",
            "s",
            "name = \"x\"\nsystem = \"s\"\n[score]\n",
        );
        check(
            "name = \"x\"\nsystem = \"s\"\n[score]\n",
            "",
            "name = \"x\"\n[score]\n",
        );
        check(
            "name = \"x\"\n",
            "tab\tback\\slash\nand \"\"\" quotes",
            &set_system("name = \"x\"\n", "tab\tback\\slash\nand \"\"\" quotes").unwrap(),
        );
        assert!(set_system("name = ", "s").is_err());
    }
}
