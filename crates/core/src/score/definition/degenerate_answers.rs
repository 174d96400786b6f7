//! Degenerate answers for a schema: minimal values that it allows.

use std::cell::Cell;
use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::exact_json::count_values;
use crate::task::referenced_part;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FillStyle {
    Nulls,
    /// Every property, with `""`, `0`, `false`, `[]`.
    Empty,
    /// Required properties only, with the smallest values that the constraints allow.
    Least,
}

/// Limit of nesting and references.
const MAX_DEPTH: usize = 16;
/// Limit of repetitions required by a minimum.
const MAX_REPEATED: u64 = 1_000;
/// Values beyond those of the schema: references and lists may multiply them at each level.
const MAX_VALUES: usize = 20_000;
/// Text of this length costs as much as a value, since keys, constants and `minLength` are repeated
/// too.
const BYTES_PER_VALUE: usize = 64;

/// Builds a value, which need not be valid: that is what the check tests.
pub(crate) fn answer(schema: &Value, habit: FillStyle) -> Value {
    fill(
        schema,
        schema,
        habit,
        0,
        &Cell::new(MAX_VALUES + 3 * count_values(schema)),
    )
}

fn spend(left: &Cell<usize>) -> bool {
    left.replace(left.get().saturating_sub(1)) > 0
}

fn take_bytes(left: &Cell<usize>, bytes: usize) {
    left.set(left.get().saturating_sub(bytes / BYTES_PER_VALUE));
}

fn fill(root: &Value, schema: &Value, habit: FillStyle, depth: usize, left: &Cell<usize>) -> Value {
    let Some(keywords) = schema
        .as_object()
        .filter(|_| depth < MAX_DEPTH && spend(left))
    else {
        return Value::Null;
    };
    let next = |inner: &Value| fill(root, inner, habit, depth + 1, left);
    let reference = keywords.get("$ref").and_then(Value::as_str);
    if let Some(target) = reference.and_then(|reference| referenced_part(root, reference)) {
        return next(target);
    }
    if habit == FillStyle::Least
        && let Some(value) = keywords.get("const").or_else(|| {
            keywords
                .get("enum")
                .and_then(Value::as_array)
                .and_then(|values| values.first())
        })
    {
        left.set(left.get().saturating_sub(count_values(value) - 1));
        take_bytes(left, value.to_string().len());
        return value.clone();
    }
    let types = keywords.get("type");
    if types.is_none()
        && !keywords.contains_key("properties")
        && let Some(part) = ["anyOf", "oneOf", "allOf"]
            .iter()
            .find_map(|keyword| keywords.get(*keyword)?.as_array()?.first())
    {
        return next(part);
    }
    match types
        .and_then(|types| {
            types
                .as_str()
                .or_else(|| types.as_array()?.first()?.as_str())
        })
        .unwrap_or("object")
    {
        "object" => object(keywords, habit, left, next),
        _ if habit == FillStyle::Nulls => Value::Null,
        "string" => {
            let length = at_least(keywords, "minLength", habit);
            take_bytes(left, length);
            Value::String("x".repeat(length))
        }
        "integer" | "number" => least_number(keywords, habit),
        "boolean" => json!(false),
        "array" => {
            let before = left.get();
            let item = keywords.get("items").map_or(Value::Null, next);
            // Free values (`true`, no `items`, too deep) use memory each time they are repeated.
            let each = (before - left.get()).max(1);
            let count = at_least(keywords, "minItems", habit).min(left.get() / each);
            left.set(left.get() - each * count);
            Value::Array(vec![item; count])
        }
        _ => Value::Null,
    }
}

fn object(
    keywords: &Map<String, Value>,
    habit: FillStyle,
    left: &Cell<usize>,
    next: impl Fn(&Value) -> Value,
) -> Value {
    let required: HashSet<&str> = keywords
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut members = Map::new();
    for (key, schema) in keywords
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if (habit != FillStyle::Least || required.contains(key.as_str())) && spend(left) {
            take_bytes(left, key.len());
            members.insert(
                key.clone(),
                if habit == FillStyle::Nulls {
                    Value::Null
                } else {
                    next(schema)
                },
            );
        }
    }
    for key in keywords
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .take_while(|_| spend(left))
    {
        take_bytes(left, key.len());
        members.entry(key).or_insert(Value::Null);
    }
    Value::Object(members)
}

fn at_least(keywords: &Map<String, Value>, keyword: &str, habit: FillStyle) -> usize {
    let least = keywords
        .get(keyword)
        .and_then(Value::as_u64)
        .filter(|_| habit == FillStyle::Least)
        .unwrap_or(0);
    usize::try_from(least.min(MAX_REPEATED)).unwrap_or(0)
}

fn least_number(keywords: &Map<String, Value>, habit: FillStyle) -> Value {
    let bound = |keyword: &str| {
        keywords
            .get(keyword)
            .filter(|value| value.is_number() && habit == FillStyle::Least)
    };
    match (
        bound("minimum"),
        bound("exclusiveMinimum").and_then(Value::as_f64),
    ) {
        (Some(minimum), None) if minimum.as_f64() > Some(0.0) => minimum.clone(),
        (_, Some(minimum)) if minimum >= 0.0 => json!(minimum + 1.0),
        _ => json!(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values and bytes of the answer are within the schema's budget: its own values once, plus
    /// repetitions.
    #[track_caller]
    fn check(schema: &Value) -> Value {
        let made = answer(schema, FillStyle::Least);
        let (budget, own) = (
            MAX_VALUES + 3 * count_values(schema),
            schema.to_string().len(),
        );
        let (values, bytes) = (count_values(&made), made.to_string().len());
        assert!(values <= budget, "{values} values of {budget}");
        assert!(bytes <= own + 2 * BYTES_PER_VALUE * budget, "{bytes} bytes");
        made
    }

    #[test]
    fn repetitions_stay_within_the_budget() {
        let list =
            |least: u64, items: Value| json!({"type": "array", "minItems": least, "items": items});
        // Items that cost nothing: missing, `true`, or beyond the depth limit.
        check(&list(
            1_000,
            list(18, json!({"type": "array", "minItems": 1000})),
        ));
        check(&list(1_000, list(1_000, json!(true))));
        check(&(0..20).fold(json!({}), |inner, _| list(1_000, inner)));
        check(
            &json!({"$defs": {"a": list(1_000, json!({"$ref": "#/$defs/a"}))}, "$ref": "#/$defs/a"}),
        );
        // Items that cost more memory than values.
        check(&list(1_000, list(1_000, json!({"const": vec![0; 1_000]}))));
        check(&list(
            1_000,
            list(1_000, json!({"enum": ["x".repeat(100_000)]})),
        ));
        check(&list(
            1_000,
            list(1_000, json!({"type": "string", "minLength": 1000})),
        ));
        let (key, empty) = ("k".repeat(100_000), json!({}));
        check(&list(1_000, list(1_000, json!({"required": [key]}))));
        check(&list(
            1_000,
            list(
                1_000,
                json!({"required": [key], "properties": {key.as_str(): empty}}),
            ),
        ));
    }

    #[test]
    fn a_minimum_within_the_budget_is_met() {
        assert_eq!(
            check(&json!({"type": "array", "minItems": 1000})),
            json!(vec![Value::Null; 1_000])
        );
        assert_eq!(
            check(&json!({"type": "array", "minItems": 3, "items": {"const": [1, 2]}})),
            json!(vec![[1, 2]; 3])
        );
        let name = json!({"type": "string", "minLength": 200});
        let list = json!({"type": "array", "minItems": 1000, "items": {"required": ["name"], "properties": {"name": name}}});
        assert_eq!(
            check(&list),
            json!(vec![json!({"name": "x".repeat(200)}); 1_000])
        );
    }
}
