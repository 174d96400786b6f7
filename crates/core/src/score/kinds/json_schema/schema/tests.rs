//! Tests that validation takes steps and error bytes linear in completion size times schema size,
//! for adversarial schemas.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::score::Task;
use crate::score::definition::Grammar;

const DRAFTS: [&str; 4] = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
];

fn compile(mut schema: Json, draft: &str) -> Schema {
    schema["$schema"] = draft.into();
    let task = Task::embedded("invoice")
        .unwrap()
        .with_definition_text(&schema.to_string())
        .unwrap();
    let Some(Grammar::JsonSchema(files)) = task.grammar() else {
        panic!("{}", task.kind())
    };
    Schema::compile(&task, files).unwrap()
}

/// Validates and explains within the bound, without the allowance for small completions.
fn check(schema: &Schema, text: &str, valid: bool) -> Vec<Violation> {
    let document = json::parse(text, 0).unwrap();
    let root = &document.root;
    let most = STEPS_PER_PAIR * text.len() as u64 * schema.size;
    let mut budget = schema.budget(text.len());
    let before = budget.steps;
    let verdict = schema.is_valid(root, &mut budget);
    assert_eq!(verdict, Ok(valid), "{} bytes", text.len());
    assert!(
        before - budget.steps <= most,
        "{} steps to decide, of {most}",
        before - budget.steps
    );
    if valid {
        return Vec::new();
    }
    let mut budget = schema.error_budget(root);
    let found = schema.explain(text, root, &mut budget).unwrap();
    assert!(
        before - budget.steps <= most,
        "{} steps to explain, of {most}",
        before - budget.steps
    );
    let bytes = ERRORS_BYTES - budget.bytes;
    assert!(bytes <= 64 * most, "{bytes} bytes of errors, of {most}");
    assert!(!found.is_empty());
    found
}

/// Expressions: `operators` branches told apart by a constant, and a leaf.
fn expressions(combine: &str, operators: usize, definitions: &str) -> Json {
    let this = json!({"$ref": format!("#/{definitions}/e")});
    let operator = |number: usize| {
        let op = if definitions == "definitions" {
            json!({"enum": [format!("op{number}")]})
        } else {
            json!({"const": format!("op{number}")})
        };
        json!({"type": "object", "properties": {"op": op, "args": {"type": "array", "items": this}}, "required": ["op", "args"]})
    };
    let mut branches: Vec<Json> = (0..operators).map(operator).collect();
    branches.push(json!({"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"], "additionalProperties": false}));
    json!({"$ref": format!("#/{definitions}/e"), definitions: {"e": {combine: branches}}})
}

fn expression(depth: usize, operators: usize, leaf: &str) -> String {
    let open: String = (0..depth)
        .map(|level| format!(r#"{{"op":"op{}","args":["#, level % operators))
        .collect();
    format!("{open}{leaf}{}", "]}".repeat(depth))
}

fn arrays(combine: &str, branches: usize) -> Json {
    let branch =
        |number: usize| json!({"type": "array", "items": {"$ref": "#"}, "maxItems": 9 - number});
    json!({combine: (0..branches).map(branch).collect::<Vec<_>>()})
}

#[test]
fn recursive_alternatives_cost_what_their_size_is() {
    for draft in DRAFTS {
        let definitions = if draft.contains("draft-0") {
            "definitions"
        } else {
            "$defs"
        };
        for combine in ["oneOf", "anyOf"] {
            let schema = compile(expressions(combine, 2, definitions), draft);
            for depth in [1, 14, 16, 18, 20, 50, 100, 200] {
                check(&schema, &expression(depth, 2, r#"{"n":1}"#), true);
                for leaf in [
                    r#"{"n":"1"}"#,
                    "1",
                    r#"{"n":1,"m":1}"#,
                    r#"{"op":"op7","args":[]}"#,
                ] {
                    let found = check(&schema, &expression(depth, 2, leaf), false);
                    assert_eq!((found.len(), found[0].instance_path.as_str()), (1, ""));
                    assert_eq!(
                        found[0].schema_path,
                        format!("/{definitions}/e/{combine}"),
                        "{draft}"
                    );
                    assert!(found[0].message.ends_with(&format!(
                        "is not valid under any of the schemas listed in the '{combine}' keyword"
                    )));
                }
            }
        }
        let schema = compile(arrays("anyOf", 3), draft);
        for depth in [1, 20, 100, 500] {
            check(
                &schema,
                &format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
                true,
            );
            check(
                &schema,
                &format!("{}1{}", "[".repeat(depth), "]".repeat(depth)),
                false,
            );
        }
        let schema = compile(arrays("oneOf", 2), draft);
        for depth in [20, 100, 500] {
            check(
                &schema,
                &format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
                false,
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_bound_holds_for_all_of_these_families(operators in 1usize..12, depth in 0usize..220, width in 1usize..4, one in any::<bool>(), wrong in any::<bool>()) {
        let schema = compile(expressions(if one { "oneOf" } else { "anyOf" }, operators, "$defs"), DRAFTS[3]);
        let leaf = if wrong { "{}" } else { r#"{"n":1}"# };
        let leaves = vec![leaf; width].join(",");
        check(&schema, &expression(depth, operators, if depth == 0 { leaf } else { &leaves }), !wrong);
        // Below keys, next to faults.
        let mut record = expressions("oneOf", operators, "$defs");
        record["type"] = "object".into();
        record["properties"] = json!({"e": record["$ref"].take(), "k": {"type": "string"}});
        record["properties"]["e"] = json!({"$ref": record["properties"]["e"]});
        record["required"] = json!(["k", "z"]);
        record.as_object_mut().unwrap().shift_remove("$ref");
        let found = check(&compile(record, DRAFTS[3]), &format!(r#"{{"k":1,"e":{}}}"#, expression(depth, operators, leaf)), false);
        let places: Vec<&str> = found.iter().map(|violation| violation.schema_path.as_str()).collect();
        prop_assert_eq!(&places[..2], &["/required", "/properties/k/type"]);
        prop_assert_eq!(places.len(), 2 + usize::from(wrong));
    }
}

/// `d0` is two times `d1`, which is two times `d2`, and so on.
fn doubled(combine: &str, levels: usize, last: Json) -> Json {
    let next = |number: usize| json!({"$ref": format!("#/$defs/d{}", number + 1)});
    let level = |number: usize| {
        if number == levels {
            last.clone()
        } else {
            json!({combine: [next(number), next(number)]})
        }
    };
    let definitions: serde_json::Map<_, _> = (0..=levels)
        .map(|number| (format!("d{number}"), level(number)))
        .collect();
    json!({"$ref": "#/$defs/d0", "$defs": definitions})
}

#[test]
fn what_costs_more_is_ended_and_says_so() {
    let ended = |schema: Json, text: &str, reason: &str| {
        let schema = compile(schema, DRAFTS[3]);
        let document = json::parse(text, 0).unwrap();
        let verdict = schema.is_valid(&document.root, &mut schema.budget(text.len()));
        assert_ne!(verdict, Ok(true), "{text}");
        let message = schema
            .violations(text, &document.root, verdict)
            .unwrap_err()
            .message;
        assert!(message.contains(reason), "{message}");
    };
    for last in [
        json!({"type": "string"}),
        json!(true),
        json!(false),
        json!({}),
        json!({"minimum": 2}),
    ] {
        // 2 kB that require 2^60 checks of one number: all are made if all hold, or none.
        let (combine, levels) =
            if last == json!(false) || last["type"] == "string" || last["minimum"] == 2 {
                ("anyOf", 60)
            } else {
                ("allOf", 60)
            };
        ended(doubled(combine, levels, last), "1", "too many steps");
    }
    // Decided at once; the reasons are endless.
    let twice = json!({"properties": {"a": {"$ref": "#"}, "b": {"type": "string"}}});
    let deep = format!("{}1{}", r#"{"b":1,"a":"#.repeat(60), "}".repeat(60));
    ended(
        json!({"allOf": [twice, twice]}),
        &deep,
        "the schema does not accept this value; ",
    );
    ended(
        json!({"items": {"type": "string"}}),
        &format!("[{}1]", "1,".repeat(200_000)),
        "too many violations to list",
    );
}

#[test]
fn the_form_for_explanations_says_the_same() {
    // Properties evaluated by a branch, references into and out of branches, drafts without `if`.
    for (schema, text) in [
        (
            json!({"anyOf": [{"properties": {"a": {}}}], "oneOf": [{"properties": {"b": {}}}], "unevaluatedProperties": false}),
            r#"{"a":1,"b":2,"c":3}"#,
        ),
        (
            json!({"properties": {"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "y": {"$ref": "#/properties/x/anyOf/0"}}}),
            r#"{"x":1,"y":2}"#,
        ),
        (
            json!({"properties": {"x": {"anyOf": [{"$anchor": "text", "type": "string"}]}, "y": {"$ref": "#text"}}}),
            r#"{"x":1,"y":2}"#,
        ),
        (
            json!({"properties": {"x": {"anyOf": [{"properties": {"z": {"type": "string"}}}]}, "y": {"$ref": "#/properties/x/anyOf/0/properties/z"}}}),
            r#"{"x":{"z":1},"y":2}"#,
        ),
        (
            json!({"not": {"anyOf": [{"type": "number"}, {"const": {"minProperties": 0}}]}}),
            "1",
        ),
        (
            json!({"oneOf": [{"type": "number"}, {"type": "integer"}, {"not": {}}]}),
            "1",
        ),
        (
            json!({"if": {"anyOf": [{"type": "number"}]}, "then": {"oneOf": [{"maximum": 0}]}, "else": false}),
            "1",
        ),
        (
            json!({"items": [{"oneOf": [true, true]}], "contains": {"anyOf": [false]}}),
            "[1]",
        ),
    ] {
        for draft in DRAFTS {
            let modern = draft.contains("draft/");
            if (schema.to_string().contains("$anchor")
                || schema.to_string().contains("unevaluated"))
                && !modern
                || (["2020", "draft-04"]
                    .iter()
                    .any(|unlike| draft.contains(unlike))
                    && schema["items"].is_array())
            {
                continue;
            }
            let schema = compile(schema.clone(), draft);
            let document = json::parse(text, 0).unwrap();
            if schema.validator.is_valid(&document.root) {
                continue;
            }
            let messages = |validator: &Validator<Completion>| -> Vec<String> {
                validator
                    .iter_errors(&document.root)
                    .map(|error| format!("{:?}", violation(text, &document.root, &error)))
                    .collect()
            };
            let explained: Vec<String> = check(&schema, text, false)
                .iter()
                .map(|violation| format!("{violation:?}"))
                .collect();
            let mut plain = messages(&schema.validator);
            plain.sort();
            let mut explained = explained;
            explained.sort();
            assert_eq!(explained, plain, "{draft}");
        }
    }
}

/// Names of properties and definitions are no keywords, whatever they are.
#[test]
fn a_property_may_have_the_name_of_any_keyword() {
    for keyword in &crate::schema_keywords::KEYWORDS {
        let name = keyword.name;
        for (draft, definitions) in [(DRAFTS[1], "definitions"), (DRAFTS[3], "$defs")] {
            let inner = json!({
                "type": "object",
                "patternProperties": {"^a.b$": {"const": {"$ref": "x y"}}},
                "additionalProperties": {"type": "string", "format": "x-plate"},
            });
            let whole = json!({
                "properties": {name: {"$ref": format!("#/{definitions}/{name}")}},
                definitions: {name: inner},
            });
            let schema = compile(whole, draft);
            for (value, is_valid) in [
                (json!({"axb": {"$ref": "x y"}}), true),
                (json!({"axb": {"$ref": "x%20y"}}), false),
                (json!({"a\u{2028}b": {"$ref": "x y"}}), false),
                (json!({"c": "text"}), true),
                (json!(1), false),
            ] {
                let text = json!({name: value}).to_string();
                let document = json::parse(&text, 0).unwrap();
                let found = schema.is_valid(&document.root, &mut schema.budget(text.len()));
                assert_eq!(found, Ok(is_valid), "{name} {draft} {text}");
            }
            assert!(schema.unknown_formats().contains("x-plate"), "{name}");
        }
    }
}
