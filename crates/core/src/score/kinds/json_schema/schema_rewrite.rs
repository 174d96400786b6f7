//! The two compiled forms of a schema, equivalent but with different validation costs.
//!
//! The validator (jsonschema 0.60) collects nested errors of all branches of a failing `anyOf` or
//! `oneOf`, which doubles with each level of a recursive schema; no reason shows them. In the form
//! for explanations a branch is only asked whether it holds.

use jsonschema::Draft;
use serde_json::{Map, Value, json};

use crate::schema_keywords::{visit, visit_mut};
use crate::task::encode_reference;

pub(super) const DATA: [&str; 5] = ["const", "enum", "default", "examples", "dependentRequired"];

pub(super) const ADDRESSES: [&str; 4] = ["$ref", "$dynamicRef", "$id", "id"];

/// Keywords whose members are schemas under any key.
const NAMED: [&str; 6] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependencies",
];

/// Keywords whose schemas apply to the same value.
const SAME_VALUE: [&str; 8] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "dependentSchemas",
    "dependencies",
];

/// Always holds, but visits the value first: makes each visit of a combining schema a step of the
/// budget.
const STEP: &str = "minProperties";

pub(super) fn for_verdict(schema: &Value) -> Value {
    let mut schema = schema.clone();
    encode_references(&mut schema);
    rewrite(&mut schema, None);
    schema
}

pub(super) fn for_explanation(schema: &Value, draft: Draft) -> Value {
    let mut schema = schema.clone();
    encode_references(&mut schema);
    rewrite(
        &mut schema,
        Some(!matches!(draft, Draft::Draft4 | Draft::Draft6)),
    );
    schema
}

/// Encodes references and addresses as URIs, which the validator requires.
pub fn encode_references(schema: &mut Value) {
    visit_mut(schema, &mut |members| {
        for key in ADDRESSES {
            if let Some(Value::String(address)) = members.get_mut(key) {
                *address = encode_reference(address);
            }
        }
    });
}

/// Whether a reference leads into a branch, or by an anchor to an unknown place: its explanation
/// would be of the rewritten branch.
pub(super) fn refers_into_branch(schema: &Value) -> bool {
    let mut found = false;
    visit(schema, &(), &mut |members, ()| {
        if let Some(target) = members.get("$ref").and_then(Value::as_str) {
            let anchor = target
                .split_once('#')
                .is_some_and(|(_, fragment)| !fragment.is_empty() && !fragment.starts_with('/'));
            found |= anchor || target.contains("/anyOf/") || target.contains("/oneOf/");
        }
    });
    found
}

pub(super) fn as_written(schema: &Value) -> String {
    schema.to_string().replace(&format!(",\"{STEP}\":0"), "")
}

/// `explain`: for explanations, and whether the draft knows `if`.
fn rewrite(schema: &mut Value, explain: Option<bool>) {
    let members = match schema {
        Value::Object(members) => members,
        Value::Array(items) => return items.iter_mut().for_each(|item| rewrite(item, explain)),
        _ => return,
    };
    for (key, inner) in members.iter_mut() {
        match (key.as_str(), inner) {
            (key, _) if DATA.contains(&key) => {}
            (key, Value::Object(named)) if NAMED.contains(&key) => named
                .values_mut()
                .for_each(|schema| rewrite(schema, explain)),
            // Its branches are never explained, and its reason quotes the schema.
            ("not", inner) => rewrite(inner, None),
            ("anyOf" | "oneOf", Value::Array(branches)) => branches.iter_mut().for_each(|branch| {
                rewrite(branch, explain);
                if let Some(has_if) = explain {
                    ask_only(branch, has_if);
                }
            }),
            (_, inner) => rewrite(inner, explain),
        }
    }
    if members.keys().any(|key| SAME_VALUE.contains(&key.as_str())) {
        count_visits(members);
    }
}

fn count_visits(members: &mut Map<String, Value>) {
    members.entry(STEP).or_insert(json!(0));
}

/// Gives a branch one short reason. `if` passes on evaluated properties, needed by drafts with
/// `unevaluatedProperties`.
fn ask_only(branch: &mut Value, has_if: bool) {
    let whole = branch.take();
    *branch = if has_if {
        json!({STEP: 0, "if": whole, "else": false})
    } else {
        json!({STEP: 0, "not": {"not": whole}})
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_rewritten_and_data_is_not() {
        let schema = json!({
            "properties": {"anyOf": {"anyOf": [{"const": {"anyOf": [1]}}, true]}, "not": {"not": {"oneOf": [{}]}}},
            "dependentRequired": {"not": ["a"]},
            "enum": [{"if": 1}],
        });
        let verdict = json!({
            "properties": {
                "anyOf": {"anyOf": [{"const": {"anyOf": [1]}}, true], STEP: 0},
                "not": {"not": {"oneOf": [{}], STEP: 0}, STEP: 0}
            },
            "dependentRequired": {"not": ["a"]},
            "enum": [{"if": 1}],
        });
        assert_eq!(for_verdict(&schema), verdict);
        let branches = |left: Value, right: Value| {
            let mut whole = verdict.clone();
            whole["properties"]["anyOf"]["anyOf"] = json!([left, right]);
            whole
        };
        let constant = json!({"const": {"anyOf": [1]}});
        let conditional = |branch: Value| json!({STEP: 0, "if": branch, "else": false});
        assert_eq!(
            for_explanation(&schema, Draft::Draft7),
            branches(conditional(constant.clone()), conditional(json!(true)))
        );
        let denied = |branch: Value| json!({STEP: 0, "not": {"not": branch}});
        assert_eq!(
            for_explanation(&schema, Draft::Draft6),
            branches(denied(constant), denied(json!(true)))
        );
        assert_eq!(
            as_written(&verdict["properties"]["not"]),
            r#"{"not":{"oneOf":[{}]}}"#
        );
    }
}
