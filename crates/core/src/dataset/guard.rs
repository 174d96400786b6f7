//! Guard prompts: what a model should still know after training. `{"messages": [...], "completion":
//! "..."}` is a prompt with its answer, `{"text": "..."}` plain text.

use std::io::Cursor;

use serde_json::Value;

use super::error::DatasetError;
use super::row::{OnMalformed, parse, read_lines};
use crate::task::TaskFiles;
use crate::text::Message;

#[derive(Clone, Debug, PartialEq)]
pub struct GuardRow {
    pub id: String,
    /// Empty for plain text.
    pub messages: Vec<Message>,
    /// The answer, or the text.
    pub reference: String,
    /// 1-based.
    pub line: usize,
}

pub fn guard_rows(task: &TaskFiles) -> Result<Vec<GuardRow>, DatasetError> {
    guard_rows_with(task, &mut Err)
}

/// [`guard_rows`] with another policy for malformed lines.
pub fn guard_rows_with(
    task: &TaskFiles,
    malformed: OnMalformed<'_>,
) -> Result<Vec<GuardRow>, DatasetError> {
    let Some(file) = &task.prompts.guard else {
        return Ok(Vec::new());
    };
    let label = task.label(file);
    let bytes = task.read(file)?;
    let (mut rows, mut is_empty) = (Vec::new(), true);
    for line in read_lines(Cursor::new(&bytes)) {
        is_empty = false;
        match line.and_then(|(line, bytes)| row(&bytes, line).map_err(|problem| (line, problem))) {
            Ok(row) => rows.push(row),
            Err((line, problem)) => malformed(DatasetError::Line {
                label: label.clone(),
                line,
                problem,
            })?,
        }
    }
    if is_empty {
        Err(DatasetError::Empty { label })
    } else {
        Ok(rows)
    }
}

fn row(bytes: &[u8], line: usize) -> Result<GuardRow, String> {
    const FORM: &str =
        "write {\"messages\": [...], \"completion\": \"...\"}, or {\"text\": \"...\"}";
    let text_of = |fields: &serde_json::Map<String, Value>, key: &str| {
        let text = fields
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.trim().is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| format!("`{key}` is not a text, or is empty; {FORM}"))
    };
    if let Ok(Value::Object(fields)) = serde_json::from_slice(bytes)
        && fields.contains_key("text")
        && !fields.contains_key("messages")
    {
        let id = fields
            .get("id")
            .and_then(Value::as_str)
            .map_or_else(|| format!("guard-{line}"), str::to_owned);
        return Ok(GuardRow {
            id,
            messages: Vec::new(),
            reference: text_of(&fields, "text")?,
            line,
        });
    }
    let row = parse(bytes, line, "guard")?;
    if row.turn_count() > 1 {
        return Err(format!("`turns`: a guard prompt has one answer; {FORM}"));
    }
    let reference = text_of(row.fields.other(), "completion")?;
    Ok(GuardRow {
        id: row.id,
        messages: row.messages,
        reference,
        line,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_an_answer_or_a_text() {
        let check = |line: &str, expected: Result<(&str, usize, &str), &str>| {
            let found = row(line.as_bytes(), 7);
            match (&found, expected) {
                (Ok(row), Ok((id, turns, reference))) => {
                    assert_eq!(
                        (row.id.as_str(), row.messages.len(), row.reference.as_str()),
                        (id, turns, reference)
                    );
                }
                (Err(problem), Err(part)) => assert!(problem.contains(part), "{problem}"),
                _ => panic!("{line}: {found:?}"),
            }
        };
        let prompt = r#""messages": [{"role": "user", "content": "2 + 2?"}]"#;
        check(
            &format!("{{\"id\": \"a\", {prompt}, \"completion\": \"4\"}}"),
            Ok(("a", 1, "4")),
        );
        check(
            r#"{"text": "The cat sat."}"#,
            Ok(("guard-7", 0, "The cat sat.")),
        );
        check(
            &format!("{{{prompt}}}"),
            Err("`completion` is not a text, or is empty; write {"),
        );
        check(r#"{"text": " "}"#, Err("`text` is not a text, or is empty"));
        check(
            &format!("{{{prompt}, \"completion\": \"4\", \"turns\": [{{{prompt}}}]}}"),
            Err("one answer"),
        );
        check("[1]", Err("expected an object"));
    }
}
