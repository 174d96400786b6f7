//! Errors and warnings in a definition's text with positions, for an editor.

use crate::format::slip_of;
use crate::schema_keywords::{Draft, KEYWORDS, Keyword, KeywordValue};
use crate::score::json::{self, Kind, Places, Syntax, Value};
use crate::score::{ScoreError, Scorer, Task, Trust, meta_problems};
use crate::task::TaskError;

const MAX_FAULTS: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// 1-based.
    pub line: usize,
    /// 1-based, in Unicode scalars.
    pub column: usize,
    /// Unicode scalars on that line; at least 1.
    pub length: usize,
    /// Problem and remedy.
    pub message: String,
    /// Whether the schema is unusable; otherwise a warning.
    pub is_error: bool,
}

#[derive(Debug)]
pub struct Diagnosis {
    pub faults: Vec<Fault>,
    /// Or why there is none.
    pub scorer: Result<Scorer, String>,
    pub task: Option<Task>,
    /// The text is correct, but its command or judge is missing or not allowed.
    pub needs_command: bool,
    pub programs: Vec<Trust>,
}

/// Parses the text as the task's definition and compiles it.
pub fn diagnose(task: &Task, text: &str) -> Diagnosis {
    let mut found = if task.schema().is_some() {
        diagnose_schema(task, text)
    } else {
        diagnose_other(task, text)
    };
    if let Some(read) = &found.task {
        found.programs = Trust::for_task(read).unwrap_or_default();
    }
    found
}

/// First error of a definition that is not a schema.
fn diagnose_other(task: &Task, text: &str) -> Diagnosis {
    let mut faults = Vec::new();
    let mut needs_command = false;
    let with_text = task.with_definition_text(text);
    let scorer = match &with_text {
        Ok(task) => Scorer::new(task).map_err(|error| {
            faults.push(match &error {
                ScoreError::Schema {
                    label,
                    line,
                    column,
                    message,
                    ..
                }
                | ScoreError::Statement {
                    label,
                    line,
                    column,
                    message,
                } if *label == task.label(&task.definition_file) => {
                    let (line, column, message) = (*line, *column, message.clone());
                    Fault {
                        line,
                        column,
                        length: 1,
                        message,
                        is_error: true,
                    }
                }
                _ if error.is_of_command() => {
                    let keys = crate::score::score_keys(text)
                        .into_iter()
                        .flat_map(|(_, keys)| keys);
                    let offset = keys
                        .filter(|key| key.name == "command")
                        .find_map(|key| key.offset);
                    at(
                        text,
                        offset.unwrap_or(0),
                        offset.map_or(1, |_| text.len()),
                        error.to_string(),
                        true,
                    )
                }
                _ => at(text, 0, 1, error.to_string(), true),
            });
            needs_command = error.is_of_command();
            error.to_string()
        }),
        Err(error) => {
            faults.push(task_fault(&task.label(&task.definition_file), error, text));
            Err(error.to_string())
        }
    };
    Diagnosis {
        faults,
        scorer,
        task: with_text.ok(),
        needs_command,
        programs: Vec::new(),
    }
}

fn diagnose_schema(task: &Task, text: &str) -> Diagnosis {
    let mut faults = Vec::new();
    let document = match json::parse(text, 0) {
        Ok(document) => document,
        Err(error) => {
            let message = match error.reason {
                Syntax::Empty => "the schema is empty; `{}` accepts everything".to_owned(),
                Syntax::NoValue => "the text has no JSON value".to_owned(),
                reason => reason.to_string(),
            };
            let fault = at(text, error.offset, error.offset + 1, message, true);
            let sentence = format!(
                "line {} column {}: {}",
                fault.line, fault.column, fault.message
            );
            return Diagnosis {
                faults: vec![fault],
                scorer: Err(sentence),
                task: None,
                needs_command: false,
                programs: Vec::new(),
            };
        }
    };
    let root = &document.root;
    for duplicate in &document.duplicates {
        let message = format!(
            "duplicate key {:?} in this object: the last one counts",
            duplicate.key
        );
        faults.push(at(
            text,
            duplicate.offset,
            duplicate.offset + duplicate.key.len() + 2,
            message,
            false,
        ));
    }
    odd(text, root, Draft::D2020, &mut faults);
    let with_text = task.with_definition_text(text);
    let mut needs_command = false;
    let (scorer, task) = match with_text {
        Ok(task) => {
            let scorer = compile(&task, text, root, &mut faults);
            needs_command = scorer.as_ref().is_err_and(ScoreError::is_of_command);
            (scorer.map_err(|error| error.to_string()), Some(task))
        }
        Err(error) => {
            faults.push(task_fault(&task.label(&task.definition_file), &error, text));
            (Err(error.to_string()), None)
        }
    };
    faults.sort_by_key(|fault| (fault.line, fault.column, !fault.is_error));
    faults.dedup();
    faults.truncate(MAX_FAULTS);
    Diagnosis {
        faults,
        scorer,
        task,
        needs_command,
        programs: Vec::new(),
    }
}

fn compile(
    task: &Task,
    text: &str,
    root: &Value<'_>,
    faults: &mut Vec<Fault>,
) -> Result<Scorer, ScoreError> {
    let problems = task.schema().map(meta_problems).unwrap_or_default();
    for (pointer, message) in &problems {
        faults.push(at_pointer(text, root, pointer, message.clone()));
    }
    Scorer::new(task).inspect_err(|error| match error {
        ScoreError::Schema {
            pointer,
            message,
            label,
            ..
        } if problems.is_empty() && *label == task.label(&task.definition_file) => {
            faults.push(at_pointer(text, root, pointer, message.clone()));
        }
        ScoreError::Schema { .. } if !problems.is_empty() => {}
        _ => faults.push(at(text, 0, 1, error.to_string(), true)),
    })
}

fn task_fault(label: &str, error: &TaskError, text: &str) -> Fault {
    match error {
        TaskError::Place {
            label: of,
            line,
            column,
            message,
        } if of == label => Fault {
            line: *line,
            column: *column,
            length: 1,
            message: message.clone(),
            is_error: true,
        },
        _ => {
            // The edited text needs no name.
            let message = error.to_string();
            let own = message
                .strip_prefix(label)
                .and_then(|rest| rest.strip_prefix(": "));
            at(text, 0, 1, own.unwrap_or(&message).to_owned(), true)
        }
    }
}

/// Warns of misspelled keywords, keywords foreign to the draft, and required fields without a
/// description.
fn odd(text: &str, schema: &Value<'_>, draft: Draft, faults: &mut Vec<Fault>) {
    let Some(object) = schema.as_object() else {
        return;
    };
    let named = object
        .get("$schema")
        .and_then(|member| match &member.value.kind {
            Kind::String(address) => Draft::from_address(address),
            _ => None,
        });
    let draft = named.unwrap_or(draft);
    for member in object.members() {
        let (key, inner) = (member.key.as_ref(), &member.value);
        let mut warn = |message| {
            faults.push(at(
                text,
                member.key_start,
                member.key_start + key.len() + 2,
                message,
                false,
            ));
        };
        let Some(keyword) = Keyword::named(key) else {
            // Other keys are allowed and ignored.
            if let Some(near) = slip_of(key, KEYWORDS.iter().map(|keyword| keyword.name)) {
                warn(format!(
                    "`{key}` is not a keyword and has no effect; did you mean `{near}`?"
                ));
            }
            continue;
        };
        if keyword.since > draft && keyword.constrains(keyword.since) {
            warn(format!(
                "`{key}` has no effect: the schema is {draft}, which does not have it ({})",
                keyword.drafts()
            ));
        }
        match (keyword.holds, &inner.kind) {
            (KeywordValue::NamedSchemas | KeywordValue::Dependencies, Kind::Object(named)) => {
                named
                    .members()
                    .iter()
                    .for_each(|field| odd(text, &field.value, draft, faults));
            }
            (KeywordValue::SchemaOrList | KeywordValue::Schemas, Kind::Array(items)) => {
                items.iter().for_each(|item| odd(text, item, draft, faults));
            }
            (KeywordValue::SchemaOrList | KeywordValue::Schema, _) => {
                odd(text, inner, draft, faults)
            }
            _ => {}
        }
    }
    let described = |name: &str| {
        object
            .get("properties")
            .and_then(|member| member.value.as_object()?.get(name))
            .is_some()
    };
    let closed = object
        .get("additionalProperties")
        .is_some_and(|member| member.value.kind == Kind::Bool(false));
    let elsewhere = ["patternProperties", "$ref", "allOf", "anyOf", "oneOf"]
        .iter()
        .any(|key| object.get(key).is_some());
    let Some(Kind::Array(required)) = object.get("required").map(|member| &member.value.kind)
    else {
        return;
    };
    for item in required {
        let Kind::String(name) = &item.kind else {
            continue;
        };
        if !described(name) && !elsewhere && (closed || object.get("properties").is_some()) {
            let what = if closed {
                "no answer can be valid: it is required and not allowed"
            } else {
                "required, but `properties` does not describe it"
            };
            faults.push(at(
                text,
                item.start,
                item.end,
                format!("`{name}`: {what}"),
                false,
            ));
        }
    }
}

fn at_pointer(text: &str, root: &Value<'_>, pointer: &str, message: String) -> Fault {
    let value = root.pointer(pointer).unwrap_or(root);
    at(
        text,
        value.start,
        if matches!(value.kind, Kind::Object(_) | Kind::Array(_)) {
            value.start + 1
        } else {
            value.end
        },
        message,
        true,
    )
}

/// A fault between two byte offsets, clipped to its first line.
fn at(text: &str, start: usize, end: usize, message: String, is_error: bool) -> Fault {
    let start = start.min(text.len());
    let place = Places::new(text).locate(start);
    let rest = text.get(start..).unwrap_or("");
    let length = rest
        .char_indices()
        .take_while(|(index, letter)| *letter != '\n' && start + index < end)
        .count()
        .max(1);
    Fault {
        line: place.line,
        column: place.column,
        length,
        message,
        is_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(usize, usize, usize, bool, &str)]) {
        let task = Task::embedded("invoice").unwrap();
        let found = diagnose(&task, text);
        assert_eq!(
            found.faults.len(),
            expected.len(),
            "{text}: {:?}",
            found.faults
        );
        for (fault, (line, column, length, is_error, part)) in found.faults.iter().zip(expected) {
            assert_eq!(
                (fault.line, fault.column, fault.length, fault.is_error),
                (*line, *column, *length, *is_error),
                "{text}: {fault:?}"
            );
            assert!(
                fault.message.contains(part),
                "{text}: {:?} lacks {part:?}",
                fault.message
            );
        }
        assert_eq!(
            found.scorer.is_err(),
            expected.iter().any(|(_, _, _, is_error, _)| *is_error),
            "{text}"
        );
    }

    #[test]
    fn faults_stand_at_their_places() {
        check("{}", &[]);
        check("", &[(1, 1, 1, true, "empty")]);
        check(
            "{\n  \"type\": \"string\",\n}",
            &[(2, 19, 1, true, "trailing comma")],
        );
        check(
            "{\"type\": \"strnig\"}",
            &[(1, 10, 8, true, "\"strnig\" is not a type")],
        );
        check(
            "{\"minLength\": -1,\n \"type\": 3}",
            &[(1, 15, 2, true, "-1"), (2, 10, 1, true, "3")],
        );
        check(
            "{\"$ref\": \"#/$defs/none\"}",
            &[(1, 10, 14, true, "target not found")],
        );
        check(
            "{\"$ref\": \"#/$defs/A<B>\", \"$defs\": {\"A<B>\": {}}}",
            &[],
        );
        check(
            "{\"$ref\": \"#/$defs/A<B\"}",
            &[(1, 10, 13, true, "target not found: /$defs/A<B is not")],
        );
        check(
            "{\"allOf\": [{\"$ref\": \"http://h:x/\"}]}",
            &[(1, 21, 13, true, "not an address")],
        );
        check(
            "{\"type\": \"string\", \"type\": \"number\"}",
            &[(1, 20, 6, false, "duplicate key")],
        );
        check(
            "{\"requried\": [\"a\"]}",
            &[(1, 2, 10, false, "did you mean `required`")],
        );
        check("{\"properties\": {\"requried\": {}}}", &[]);
        let of_draft_7 = |rest: &str| {
            format!("{{\"$schema\": \"http://json-schema.org/draft-07/schema#\",\n{rest}}}")
        };
        let missing = |length| {
            (
                2,
                1,
                length,
                false,
                "the schema is draft 7, which does not have it (since 2019-09)",
            )
        };
        check(&of_draft_7("\"dependentRequired\": {}"), &[missing(19)]);
        check(
            &of_draft_7("\"$defs\": {}, \"deprecated\": true, \"if\": {}"),
            &[],
        );
        check(
            "{\"properties\": {\"a\": {}}, \"required\": [\"a\", \"b\"]}",
            &[(1, 45, 3, false, "does not describe it")],
        );
        check(
            "{\"additionalProperties\": false, \"required\": [\"b\"]}",
            &[(1, 46, 3, false, "no answer can be valid")],
        );
        check("[1]", &[(1, 1, 1, true, "a schema is an object")]);
    }

    #[test]
    fn the_embedded_task_is_in_order() {
        let task = Task::embedded("invoice").unwrap();
        check(&task.definition_text, &[]);
    }
}
