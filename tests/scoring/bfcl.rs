//! Expected answers with alternatives, and *exact* under the rule `bfcl` against verdicts of the leaderboard's own
//! checker.

use grpo_tui::hub::find_model;
use grpo_tui::prompts::{prompt_text, reference_answer, tools_of};
use grpo_tui::score::{Scorer, Task};
use grpo_tui::text::Tokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{loaded, row_with};

const CALLS: &str =
    "name = \"sample\"\n[score]\nkind = \"tool_calls\"\norder = false\nnormalise = \"bfcl\"\n";
const ANSWERS: &str = "name = \"sample\"\nschema = \"schema.json\"\n[score.normalise]\nday = \"date\"\n\"*\" = \"casefold\"\n";

/// The cases are from `scripts/studies/bfcl-judge --golden`, which knows why a verdict may differ.
#[test]
fn exact_is_the_verdict_of_the_leaderboards_checker() {
    let (_, _, scorer) = loaded(&[("task.toml", CALLS)]).unwrap();
    let (mut cases, mut differ) = (0, 0);
    for line in include_str!("bfcl_golden.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let score = scorer.score(case["completion"].as_str().unwrap(), Some(&row_with(&case)));
        assert_eq!(
            json!(score.exact),
            case["exact"],
            "{line}\n{:?}",
            score.errors
        );
        let is_equal = case["bfcl"].as_bool().unwrap_or(false) == (score.exact == Some(true));
        assert_eq!(is_equal, case["differs"].is_null(), "{line}");
        (cases, differ) = (cases + 1, differ + usize::from(!is_equal));
    }
    assert!(
        cases > 30 && differ > 2,
        "{cases} cases, {differ} of which differ"
    );
}

#[test]
fn alternatives_and_missing_values_are_right_in_fields_and_arguments() {
    let schema = r#"{"type": "object"}"#;
    let (_, _, of_answers) = loaded(&[("task.toml", ANSWERS), ("schema.json", schema)]).unwrap();
    let (_, _, of_calls) = loaded(&[("task.toml", CALLS)]).unwrap();
    let call = |arguments: &Value| json!([{"name": "f", "arguments": arguments}]);
    let expected = json!({"unit": {"$any": ["km", "kilometers"]}, "deep": {"$optional": {"$any": [{"x": {"$optional": 1}}, [{"$any": [1, 2]}]]}}, "any": [1]});
    for (found, exact, fields) in [
        (json!({"unit": "km", "any": [1]}), true, "unit any"),
        (
            json!({"unit": "KILOMETERS", "any": [1], "deep": {}}),
            true,
            "unit deep any",
        ),
        (
            json!({"unit": "km", "any": [1], "deep": {"x": 1}}),
            true,
            "unit deep any",
        ),
        (
            json!({"unit": "km", "any": [1], "deep": [2]}),
            true,
            "unit deep any",
        ),
        (
            json!({"unit": "km", "any": [1], "deep": {"x": 2}}),
            false,
            "unit !deep any",
        ),
        (
            json!({"unit": "km", "any": [1], "deep": null}),
            false,
            "unit !deep any",
        ),
        (json!({"unit": "mi", "any": [1]}), false, "!unit any"),
        (json!({"unit": "km"}), false, "unit !any"),
        (
            json!({"unit": "km", "any": [1], "more": 1}),
            false,
            "unit any",
        ),
    ] {
        let tools = json!([{"name": "f", "parameters": {"additionalProperties": true}}]);
        let of_answer = of_answers.score(
            &found.to_string(),
            Some(&row_with(&json!({"expected": expected}))),
        );
        let with_calls = row_with(&json!({"expected": call(&expected), "tools": tools}));
        let of_call = of_calls.score(&call(&found).to_string(), Some(&with_calls));
        let shown = |fields: &grpo_tui::score::OrderedMap<bool>| {
            let named = fields
                .iter()
                .filter(|(name, _)| *name != "calls")
                .map(|(name, same)| {
                    format!(
                        "{}{}",
                        if *same { "" } else { "!" },
                        name.strip_prefix("f.").unwrap_or(name)
                    )
                });
            named.collect::<Vec<_>>().join(" ")
        };
        for score in [of_answer, of_call] {
            assert_eq!(
                (score.exact, shown(&score.fields.unwrap()).as_str()),
                (Some(exact), fields),
                "{found}"
            );
        }
    }
    // Whole answers to choose from: the fields are those of the nearest.
    let expected = json!({"$any": [{"day": "2024-03-11", "n": 1}, {"n": 2, "m": 3, "k": 4}]});
    let check = |found: Value, exact: bool, count: usize| {
        let score = of_answers.score(
            &found.to_string(),
            Some(&row_with(&json!({"expected": expected}))),
        );
        assert_eq!(
            (score.exact, score.fields.unwrap().len()),
            (Some(exact), count),
            "{found}"
        );
    };
    check(json!({"day": "11 March 2024", "n": 1}), true, 2);
    check(json!({"n": 2, "m": 3, "k": 0}), false, 3);
    check(json!({"n": 1}), false, 2);
}

/// One call may be right for several expected ones: what counts is whether all can be paired.
#[test]
fn calls_in_any_order_are_paired_as_well_as_can_be() {
    let (_, _, scorer) = loaded(&[("task.toml", CALLS)]).unwrap();
    let call = |value: Value| json!({"name": "f", "arguments": {"a": value}});
    let row = row_with(
        &json!({"tools": [{"name": "f", "parameters": {"properties": {"a": {}}}}],
        "expected": [call(json!({"$any": [1, 2, 3]})), call(json!({"$any": [1, 2]})), call(json!(1))]}),
    );
    for (values, exact) in [
        ([1, 2, 3], true),
        ([3, 1, 2], true),
        ([1, 1, 1], true),
        ([1, 3, 3], false),
        ([2, 2, 3], false),
    ] {
        let completion = json!(values.map(|value| call(json!(value)))).to_string();
        assert_eq!(
            scorer.score(&completion, Some(&row)).exact,
            Some(exact),
            "{completion}"
        );
    }
}

/// What is trained on, sampled for guided groups and shown as the answer is one value.
#[test]
fn an_expected_with_alternatives_gives_one_target() {
    let answers = loaded(&[("task.toml", ANSWERS), ("schema.json", "{}")]).unwrap();
    let calls = loaded(&[("task.toml", CALLS)]).unwrap();
    let target = |(_, task, scorer): &(TempDir, Task, Scorer), expected: Value| {
        let row = row_with(
            &json!({"tools": [{"name": "f", "parameters": {"additionalProperties": true}}], "expected": expected}),
        );
        let answer = reference_answer(task, scorer, &row).unwrap().unwrap();
        let score = scorer.score(&answer, Some(&row));
        assert_eq!(score.exact, Some(true), "{answer}: {:?}", score.errors);
        answer
    };
    assert_eq!(
        target(
            &answers,
            json!({"a": {"$any": [1, 2]}, "b": {"$optional": 3}, "c": {"$value": {"$any": [4]}}})
        ),
        r#"{"a": 1, "c": {"$any": [4]}}"#
    );
    assert_eq!(
        target(
            &calls,
            json!({"name": "f", "arguments": {"$any": {"$any": ["x", "y"]}, "b": {"$optional": {"$any": [3]}}}})
        ),
        "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"$any\": \"x\"}}\n</tool_call>"
    );
    // Malformed ones are named, not compared.
    for ((_, _, scorer), expected) in [
        (&answers, json!({"a": {"$any": []}})),
        (
            &calls,
            json!({"name": "f", "arguments": {"a": {"$any": []}}}),
        ),
    ] {
        let row = row_with(&json!({"expected": expected, "tools": [{"name": "f"}]}));
        let score = scorer.score("{}", Some(&row));
        assert!(
            score.is_error() && score.errors[0].message.contains("`$any` has no value"),
            "{:?}",
            score.errors
        );
    }
}

#[test]
fn one_normalisation_counts_for_all_fields() {
    for (toml, part) in [
        ("normalise = \"bfcl\"", None),
        ("normalise = [\"bfcl\", \"number\"]", None),
        ("normalise = { \"*\" = \"bfcl\" }", None),
        ("normalise = \"bfc\"", Some("did you mean `bfcl`?")),
        ("normalise = 7", Some("must be")),
    ] {
        let text = format!("name = \"sample\"\n[score]\nkind = \"tool_calls\"\n{toml}\n");
        match (loaded(&[("task.toml", text.as_str())]), part) {
            (Ok((_, _, scorer)), None) => {
                let tools = json!([{"name": "f", "parameters": {"properties": {"a": {}}}}]);
                let row = row_with(
                    &json!({"tools": tools, "expected": {"name": "f", "arguments": {"a": "San José, 'CA'"}}}),
                );
                let found =
                    json!({"name": "f", "arguments": {"a": "san_josé \"ca\"."}}).to_string();
                assert_eq!(scorer.score(&found, Some(&row)).exact, Some(true), "{toml}");
            }
            (Err(error), Some(part)) => assert!(error.contains(part), "{error}"),
            (found, _) => panic!("{toml}: {found:?}"),
        }
    }
}

/// A program that scores, such as the leaderboard's own checker, needs the prompt to have the tools, too.
#[test]
fn tools_of_a_row_are_rendered_where_a_program_scores() {
    let tools = json!([{"name": "f", "parameters": {}}]);
    let row = row_with(&json!({"tools": tools}));
    let tokenizer = Tokenizer::load(&find_model("tiny").unwrap()).unwrap();
    for (score, expected) in [
        (
            "kind = \"command\"\ncommand = [\"true\"]",
            Some(json!([{"type": "function", "function": tools[0]}])),
        ),
        ("kind = \"text\"", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("task.toml"),
            format!("name = \"sample\"\n[score]\n{score}\n"),
        )
        .unwrap();
        let task = Task::load(folder.path()).unwrap();
        assert_eq!(tools_of(&task, Some(&row)).unwrap(), expected);
        let text = prompt_text(&task, &tokenizer, &row).unwrap();
        assert_eq!(
            text.contains("\"name\": \"f\""),
            expected.is_some(),
            "{text}"
        );
    }
}
