//! The JSON Schema that a row brings for its own answer.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;
use serde_json::Value;

use super::row::{PromptRow, read_lines};
use crate::task::{PromptSet, TaskFiles};

/// Longest schema of a row as text, in bytes.
const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// How a row says that its column is something else.
const REMEDY: &str = "rename the column if it is something else";

/// Where a row says which schema it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SchemaSource {
    /// `schema`: a JSON Schema, its text, or a file of the task.
    Schema(Value),
    /// `response_format` in OpenAI's form.
    Format(Value),
}

/// A row's `schema`, else its `response_format`; `None` if it has the task's.
pub(crate) fn schema_source(row: &PromptRow) -> Option<SchemaSource> {
    let given = |key: &str| {
        row.fields
            .get(key)
            .filter(|value| !value.is_null())
            .cloned()
    };
    let format = || given("response_format").filter(|format| format["type"] != "text");
    let schema = given("schema").map(SchemaSource::Schema);
    schema.or_else(|| format().map(SchemaSource::Format))
}

/// The JSON Schema of a row that has its own.
///
/// # Errors
/// A sentence without a place.
pub fn row_schema(task: &TaskFiles, row: &PromptRow) -> Option<Result<Value, String>> {
    Some(read_schema(task, schema_source(row)?))
}

pub(crate) fn read_schema(task: &TaskFiles, source: SchemaSource) -> Result<Value, String> {
    let schema = match source {
        SchemaSource::Schema(Value::String(text)) => of_text(task, &text),
        SchemaSource::Schema(value) => Ok(value),
        SchemaSource::Format(format) => of_format(format),
    };
    schema.and_then(|schema| match schema {
        Value::Object(_) | Value::Bool(_) => within_limit(schema),
        other => Err(format!(
            "`schema` of the row must be a JSON Schema, its text, or a file of the task, not {}; {REMEDY}",
            crate::format::shortened(&other.to_string(), 60)
        )),
    })
}

/// The task's files that rows name as their schemas.
pub(crate) fn row_schema_files(task: &TaskFiles) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Line {
        schema: String,
    }
    let sets = PromptSet::ALL.into_iter();
    let opened = sets.filter_map(|set| task.open(task.set_file(set)?).ok());
    let lines = opened.flat_map(read_lines).filter_map(Result::ok);
    let named = lines.filter_map(|(_, line)| {
        let text = std::str::from_utf8(&line).ok()?;
        let is_likely = text.contains("\"schema\"");
        let name = is_likely.then(|| serde_json::from_str::<Line>(text).ok())??;
        let path = Path::new(&name.schema).components();
        let path = path.filter(|part| *part != Component::CurDir);
        Some(path.collect::<std::path::PathBuf>().to_str()?.to_owned())
    });
    let names: BTreeSet<String> = named.collect();
    let is_file = |name: &String| task.path(name).is_ok_and(|path| path.is_file());
    names.into_iter().filter(is_file).collect()
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

fn of_format(format: Value) -> Result<Value, String> {
    let kind = format
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let missing = || "`response_format` of the row has no `json_schema.schema`".to_owned();
    match kind {
        "json_object" => Ok(serde_json::json!({"type": "object"})),
        "json_schema" => format
            .pointer("/json_schema/schema")
            .cloned()
            .ok_or_else(missing),
        _ => Err(format!(
            "`response_format` of the row must be an object with `type` json_schema, json_object or text, not {}; {REMEDY}",
            crate::format::shortened(&format.to_string(), 60)
        )),
    }
}
