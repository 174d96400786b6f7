//! Columns of JSON Schemas, each of its row's answer, as benchmarks publish them.

use serde_json::Value;

use super::records::{Record, clip};
use super::survey::{Survey, cell};
use crate::exact_json;

/// The schema that a prompt shows, where another one judges the answer.
const SHOWN_SCHEMA: &str = "model_schema";
/// NeMo Gym's column of the answers' notation.
const NOTATION: &str = "schema_type";

/// The row's schema in a column, and the field that takes it; `None` if the cell is empty.
///
/// # Errors
/// A cell that is not a JSON Schema, or a row whose answers are not JSON.
pub(super) fn own_schema(record: &Record, name: &str) -> Result<Option<(String, Value)>, String> {
    let schema = match cell(record, name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => exact_json::parse(text).unwrap_or_default(),
        Some(other) => other.clone(),
    };
    let notation = record.fields.get(NOTATION).and_then(Value::as_str);
    if let Some(other) = notation.filter(|name| !name.eq_ignore_ascii_case("json")) {
        return Err(format!(
            "{NOTATION}: `{}`; a row's own schema judges JSON; leave these rows out",
            clip(other)
        ));
    }
    let field = match &schema {
        Value::Object(members) if members.contains_key("json_schema") => "response_format",
        Value::Object(_) => "schema",
        _ => {
            let found = cell(record, name).map(Value::to_string).unwrap_or_default();
            return Err(format!(
                "schema: column `{name}` has `{}`, which is not a JSON Schema",
                clip(&found)
            ));
        }
    };
    Ok(Some((field.to_owned(), schema)))
}

/// A prompt that asks for any answer by the schema in a column.
pub(super) fn prompt_of_schema(survey: &Survey, column: &str) -> String {
    let shown = match survey.has(SHOWN_SCHEMA) {
        true => SHOWN_SCHEMA,
        false => column,
    };
    format!(
        "Write a JSON value that this JSON Schema accepts:\n\n{{{{ {shown} if {shown} is string else {shown} | tojson }}}}"
    )
}

/// Whether the first values of a column are JSON Schemas, or their texts.
pub(super) fn has_schemas(records: &[Record], column: &str) -> bool {
    let mut cells = records
        .iter()
        .filter_map(|record| cell(record, column))
        .filter(|cell| !cell.is_null())
        .peekable();
    let is_schema = |cell: &Value| match cell {
        Value::String(text) => {
            serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object())
        }
        other => other.is_object(),
    };
    cells.peek().is_some() && cells.all(is_schema)
}
