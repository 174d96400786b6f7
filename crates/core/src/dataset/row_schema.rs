//! The JSON Schema that a row brings for its own answer.

use serde_json::Value;

use super::row::PromptRow;
use crate::task::TaskFiles;

/// Longest schema of a row as text, in bytes.
const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// How a row says that its column is something else.
const REMEDY: &str = "rename the column if it is something else";

/// A row's `schema` (a JSON Schema, its text, or a file of the task), else that of its
/// `response_format` in OpenAI's form; `None` if it has neither.
///
/// # Errors
/// A sentence without a place.
pub fn row_schema(task: &TaskFiles, row: &PromptRow) -> Option<Result<Value, String>> {
    let given = |key: &str| row.fields.value(key).filter(|value| !value.is_null());
    let schema = match given("schema") {
        Some(Value::String(text)) => of_text(task, &text),
        Some(value) => Ok(value),
        None => of_format(given("response_format")?)?,
    };
    let checked = schema.and_then(|schema| match schema {
        Value::Object(_) | Value::Bool(_) => within_limit(schema),
        other => Err(format!(
            "`schema` of the row must be a JSON Schema, its text, or a file of the task, not {}; {REMEDY}",
            crate::format::shortened(&other.to_string(), 60)
        )),
    });
    Some(checked)
}

fn within_limit(schema: Value) -> Result<Value, String> {
    let bytes = schema.to_string().len();
    if bytes <= MAX_SCHEMA_BYTES {
        return Ok(schema);
    }
    Err(format!(
        "`schema` of the row has {bytes} bytes; at most {MAX_SCHEMA_BYTES} are read"
    ))
}

fn of_text(task: &TaskFiles, text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| format!("`schema` of the row is not JSON: {error}; {REMEDY}"));
    }
    let bytes = task.read(text).map_err(|_| {
        let shown = crate::format::shortened(text, 60);
        format!("`schema` of the row, {shown:?}, is neither a JSON Schema nor a readable file of the task; {REMEDY}")
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("`schema` of the row, {}: {error}", task.label(text)))
}

fn of_format(format: Value) -> Option<Result<Value, String>> {
    let kind = format
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let missing = || "`response_format` of the row has no `json_schema.schema`".to_owned();
    match kind {
        "text" => None,
        "json_object" => Some(Ok(serde_json::json!({"type": "object"}))),
        "json_schema" => Some(
            format
                .pointer("/json_schema/schema")
                .cloned()
                .ok_or_else(missing),
        ),
        _ => Some(Err(format!(
            "`response_format` of the row must be an object with `type` json_schema, json_object or text, not {}; {REMEDY}",
            crate::format::shortened(&format.to_string(), 60)
        ))),
    }
}
