//! Converts table cells to the types that a schema allows.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::records::clip;
use crate::exact_json::{self, marked_number};
use crate::task::referenced_part;

/// Depth limit for `$ref`, `anyOf` etc.
const MAX_DEPTH: usize = 8;

/// Parses a cell: JSON if the schema's types allow it, else a string. Empty text is null if
/// allowed, else no value. `is_typed`: the cell is a string in its file, and remains one if
/// allowed.
///
/// # Errors
/// A text of another type.
pub(super) fn value_of(
    text: &str,
    schema: &Value,
    root: &Value,
    is_typed: bool,
) -> Result<Option<Value>, String> {
    let types = types_of(schema, root, 0);
    let allows = |name: &str| types.is_empty() || types.contains(name);
    if is_typed && allows("string") {
        return Ok(Some(Value::from(text)));
    }
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(types.contains("null").then_some(Value::Null));
    }
    // Spreadsheets write TRUE.
    let text_of_flag = trimmed.to_ascii_lowercase();
    let parsed = match text_of_flag.as_str() {
        "true" | "false" => Some(Value::Bool(text_of_flag == "true")),
        _ => exact_json::parse(trimmed).ok(),
    };
    if let Some(value) = parsed
        .filter(|value| !types.is_empty() && types_of_value(value).iter().any(|name| allows(name)))
    {
        return Ok(Some(value));
    }
    match allows("string") {
        true => Ok(Some(Value::from(text))),
        false => {
            let kinds: Vec<String> = types.into_iter().map(with_article).collect();
            Err(format!("`{}` is not {}", clip(text), kinds.join(" or ")))
        }
    }
}

/// `an integer`, `null`
fn with_article(name: &str) -> String {
    match name {
        "null" => name.to_owned(),
        _ if name.starts_with(['a', 'i', 'o']) => format!("an {name}"),
        _ => format!("a {name}"),
    }
}

/// A field's schema; one that allows everything for an unknown field.
pub(super) fn property<'a>(schema: &'a Value, path: &[String]) -> &'a Value {
    static ANY: Value = Value::Bool(true);
    let step = |schema: &'a Value, key: &String| {
        schema.get("properties").and_then(|fields| fields.get(key))
    };
    path.iter().try_fold(schema, step).unwrap_or(&ANY)
}

/// Types allowed by a schema; empty: any. With several types text becomes a string only if nothing
/// else fits; with `string` alone, `007` is kept.
fn types_of<'a>(schema: &'a Value, root: &'a Value, depth: usize) -> BTreeSet<&'a str> {
    if depth > MAX_DEPTH {
        return BTreeSet::new();
    }
    let reference = schema.get("$ref").and_then(Value::as_str);
    if let Some(target) = reference.and_then(|reference| referenced_part(root, reference)) {
        return types_of(target, root, depth + 1);
    }
    let values = match (schema.get("type"), schema.get("enum"), schema.get("const")) {
        (Some(Value::String(name)), ..) => return BTreeSet::from([name.as_str()]),
        (Some(Value::Array(names)), ..) => return names.iter().filter_map(Value::as_str).collect(),
        (_, Some(Value::Array(values)), _) => values.iter().collect(),
        (.., Some(value)) => vec![value],
        _ => Vec::new(),
    };
    if !values.is_empty() {
        return values
            .into_iter()
            .filter_map(|value| types_of_value(value).first().copied())
            .collect();
    }
    let parts = ["anyOf", "oneOf"]
        .into_iter()
        .filter_map(|key| schema.get(key)?.as_array())
        .flatten();
    parts
        .flat_map(|part| types_of(part, root, depth + 1))
        .collect()
}

/// Why a typed value does not match the schema's types, with its path.
pub(super) fn type_problem(
    value: &Value,
    schema: &Value,
    root: &Value,
    path: &str,
) -> Option<String> {
    let types = types_of(schema, root, 0);
    let own = types_of_value(value);
    if !types.is_empty() && !own.iter().any(|name| types.contains(name)) {
        let kinds: Vec<String> = types.into_iter().map(with_article).collect();
        let value = clip(&exact_json::write(value));
        return Some(format!("`{path}`: {value} is not {}", kinds.join(" or ")));
    }
    // Forms of alternatives begin with $.
    let members = value
        .as_object()?
        .iter()
        .filter(|(key, _)| !key.starts_with('$'));
    members.into_iter().find_map(|(key, value)| {
        let is_form = value
            .as_object()
            .is_some_and(|members| members.keys().any(|key| key.starts_with('$')));
        let schema = schema.get("properties")?.get(key).filter(|_| !is_form)?;
        type_problem(value, schema, root, &format!("{path}.{key}"))
    })
}

fn types_of_value(value: &Value) -> &'static [&'static str] {
    if let Some(number) = marked_number(value) {
        return match number.is_integer() {
            true => &["integer", "number"],
            false => &["number"],
        };
    }
    match value {
        Value::Null => &["null"],
        Value::Bool(_) => &["boolean"],
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => {
            &["integer", "number"]
        }
        Value::Number(_) => &["number"],
        Value::String(_) => &["string"],
        Value::Array(_) => &["array"],
        Value::Object(_) => &["object"],
    }
}

/// Puts a value where a path of members leads; an error if something is there.
pub(super) fn insert(answer: &mut Value, path: &[String], value: Value) -> Result<(), ()> {
    let mut place = answer;
    for key in path {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        place = place
            .as_object_mut()
            .ok_or(())?
            .entry(key.clone())
            .or_insert(Value::Null);
    }
    match place.is_null() {
        true => *place = value,
        false => return Err(()),
    }
    Ok(())
}

/// Tags of a cell: a list, or names between commas.
pub(super) fn tags_of(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(tags) => tags.iter().flat_map(tags_of).collect(),
        Value::String(text) => text
            .split(',')
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
            .map(Value::from)
            .collect(),
        other => vec![other.to_string().into()],
    }
}

/// Types that fit all texts of a column so far, narrowest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColumnType {
    fits: [bool; TYPES.len()],
    has_text: bool,
}

/// A code such as 007 is not a JSON number.
const TYPES: [&str; 5] = ["boolean", "integer", "number", "array", "object"];

impl Default for ColumnType {
    fn default() -> Self {
        Self {
            fits: [true; TYPES.len()],
            has_text: false,
        }
    }
}

impl ColumnType {
    pub(super) fn add(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        self.has_text = true;
        for (fits, name) in self.fits.iter_mut().zip(TYPES).filter(|(fits, _)| **fits) {
            *fits = value_of(text, &json!({"type": name}), &Value::Null, false).is_ok();
        }
    }

    pub(super) fn schema(self) -> Value {
        let narrowest = TYPES
            .into_iter()
            .zip(self.fits)
            .find(|(_, fits)| *fits && self.has_text);
        json!({"type": narrowest.map_or("string", |(name, _)| name)})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_schema_allows() {
        let check = |text: &str, schema: Value, expected: Result<Option<Value>, &str>| {
            let root = json!({"$defs": {"money": {"type": "number"}}});
            assert_eq!(
                value_of(text, &schema, &root, false),
                expected.map_err(str::to_owned),
                "{text} {schema}"
            );
        };
        check("12.50", json!({"type": "number"}), Ok(Some(json!(12.5))));
        check("12", json!({"type": "string"}), Ok(Some(json!("12"))));
        check(
            "12,50",
            json!({"type": "number"}),
            Err("`12,50` is not a number"),
        );
        check(
            "1.5",
            json!({"type": "integer"}),
            Err("`1.5` is not an integer"),
        );
        check("7", json!({"$ref": "#/$defs/money"}), Ok(Some(json!(7))));
        check("TRUE", json!({"type": "boolean"}), Ok(Some(json!(true))));
        check(
            "maybe",
            json!({"type": ["boolean", "null"]}),
            Err("`maybe` is not a boolean or null"),
        );
        check(
            "",
            json!({"type": ["string", "null"]}),
            Ok(Some(Value::Null)),
        );
        check(" ", json!({"type": "string"}), Ok(None));
        check("[1, 2]", json!({"type": "array"}), Ok(Some(json!([1, 2]))));
        check(
            "open",
            json!({"enum": ["open", "closed"]}),
            Ok(Some(json!("open"))),
        );
        check("3", json!({"enum": [1, 2, 3]}), Ok(Some(json!(3))));
        check(
            "x",
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            Ok(Some(json!("x"))),
        );
        check(" kept ", json!({}), Ok(Some(json!(" kept "))));
    }

    #[test]
    fn a_column_has_the_narrowest_type_of_its_cells() {
        let check = |cells: &[&str], expected: &str| {
            let mut column = ColumnType::default();
            cells.iter().for_each(|text| column.add(text));
            assert_eq!(column.schema(), json!({"type": expected}), "{cells:?}");
        };
        check(&["1", "", "2"], "integer");
        check(&["1", "2.5"], "number");
        check(&["007", "1"], "string");
        check(&["true", "FALSE"], "boolean");
        check(&["[\"a\"]", "[]"], "array");
        check(&["1", "x"], "string");
        check(&["", ""], "string");
    }
}
