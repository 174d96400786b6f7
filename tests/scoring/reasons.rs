//! Every reason with its pointer, line and column, and the kind of failure.

use grpo_tui::score::{FailureClass, Tier};

use super::{invoice, scorer_with};

/// Completion; message, pointer into it, pointer into the schema, line, column of the first reason; how many reasons.
fn check(completion: &str, expected: (&str, &str, &str, usize, usize), count: usize) {
    let score = invoice(completion);
    let first = &score.errors[0];
    let found = (
        first.message.as_str(),
        first.instance_path.as_str(),
        first.schema_path.as_str(),
        first.line,
        first.column,
    );
    assert_eq!(
        (found, score.errors.len()),
        (expected, count),
        "{completion}"
    );
}

#[test]
fn reasons_have_places() {
    check(
        r#"{"vendor":"a","date":"b","amount":"1","currency":"c"}"#,
        (
            "expected number, found string \"1\"",
            "/amount",
            "/properties/amount/type",
            1,
            35,
        ),
        1,
    );
    check(
        "{\n \"vendor\": \"é🦀\", \"date\": null,\n \"amount\": 1, \"currency\": \"c\"}",
        (
            "expected string, found null",
            "/date",
            "/properties/date/type",
            2,
            26,
        ),
        1,
    );
    check(
        "<think>é\n</think>\n [1]",
        ("expected object, found array [1]", "", "/type", 3, 2),
        1,
    );
    check(
        r#"{"vendor":"a","date":"b","amount":1}"#,
        ("missing key \"currency\"", "", "/required", 1, 1),
        1,
    );
    check(
        r#" {"vendor":"a","date":"b","x":0,"amount":1,"currency":"c","y":0}"#,
        (
            "keys not allowed: \"x\", \"y\"",
            "",
            "/additionalProperties",
            1,
            27,
        ),
        1,
    );
    check("{}", ("missing key \"vendor\"", "", "/required", 1, 1), 4);
    check(
        r#"{"vendor":1,"date":2,"amount":"x","currency":[]}"#,
        (
            "expected string, found number 1",
            "/vendor",
            "/properties/vendor/type",
            1,
            11,
        ),
        4,
    );
    check(
        "```json\n{}\n```",
        ("Markdown fence before the JSON value", "", "", 1, 1),
        1,
    );
    check("Sure! {}", ("text before the JSON value", "", "", 1, 1), 1);
    check(
        "{}\n\nDone é.",
        ("text after the JSON value", "", "", 3, 1),
        1,
    );
    check("I cannot.", ("no JSON value in the text", "", "", 1, 1), 1);
    check(
        "{\"vendor\": \"é",
        ("the text ends inside the JSON value", "", "", 1, 14),
        1,
    );
    check("{\"é\":1,}", ("trailing comma", "", "", 1, 7), 1);
    check("<think> hm {}", ("unclosed think block", "", "", 1, 1), 1);
    check(
        "<think>a</think>\n<think>b",
        ("unclosed think block", "", "", 2, 1),
        1,
    );
    check("", ("the completion is empty", "", "", 1, 1), 1);
}

#[test]
fn long_values_are_quoted_in_part() {
    let score = invoice(&format!("{{\"vendor\":[{}1]}}", "1,".repeat(10_000)));
    assert!(score.errors.iter().all(|reason| reason.message.len() < 400));
    let many = format!("[{}]", vec!["\"x\""; 3_000].join(","));
    let score = scorer_with(r#"{"items":{"type":"number"}}"#, "").score(&many, None);
    assert_eq!(
        (score.errors.len(), score.warnings.as_slice()),
        (
            1_000,
            ["3000 violations in total; the first 1000 are listed".to_owned()].as_slice()
        )
    );
    assert_eq!(
        (
            score.errors[999].instance_path.as_str(),
            score.errors[999].column
        ),
        ("/999", 2 + 4 * 999)
    );
}

#[test]
fn duplicate_keys_are_a_warning() {
    let score =
        invoice("{\"vendor\":1,\n\"date\":\"b\",\"amount\":1,\"currency\":\"c\",\"vendor\":\"a\"}");
    assert_eq!(score.tier, Tier::Valid);
    assert_eq!(
        score.warnings,
        ["duplicate key \"vendor\" at line 2 column 38: the last one counts"]
    );
}

#[test]
fn failures_have_a_class_and_wrapped_answers_pass_tolerantly() {
    use FailureClass::*;
    const RIGHT: &str = r#"{"vendor":"a","date":"b","amount":1,"currency":"c"}"#;
    for (completion, failure, tolerant) in [
        (RIGHT.to_owned(), None, true),
        (format!("```json\n{RIGHT}\n```"), Some(Fence), true),
        (format!("```\n{RIGHT}```"), Some(Fence), true),
        (
            format!("Here you are:\n```json\n{RIGHT}\n```\nBye."),
            Some(Fence),
            true,
        ),
        (format!("{RIGHT}\n```"), Some(Fence), true),
        ("```json\n{}\n```".to_owned(), Some(Fence), false),
        (format!("Answer: {RIGHT}"), Some(Prose), true),
        (format!("As in [1], {{x}}: {RIGHT} ok?"), Some(Prose), true),
        (format!("{RIGHT} {RIGHT}"), Some(Prose), true),
        (
            format!("<think>x</think>Answer: {RIGHT}"),
            Some(Prose),
            true,
        ),
        (format!("<think>{RIGHT}"), Some(ThinkLeak), false),
        ("No idea.".to_owned(), Some(Prose), false),
        (RIGHT[..40].to_owned(), Some(Truncated), false),
        (RIGHT.replace('}', ",}"), Some(Syntax), false),
        (RIGHT.replace('1', "NaN"), Some(Syntax), false),
        (RIGHT.replace('1', "\"1\""), Some(WrongType), false),
        (
            RIGHT.replace("\"date\":\"b\",", ""),
            Some(MissingKey),
            false,
        ),
        (
            RIGHT.replace("\"date\":\"b\"", "\"dates\":\"b\""),
            Some(MissingKey),
            false,
        ),
        (RIGHT.replace('{', "{\"x\":1,"), Some(ExtraKey), false),
        (RIGHT.replace("\"a\"", "\"<think>\""), None, true),
        (
            format!("```\n{}\n```", RIGHT.replace("\"a\"", "\"<think>\"")),
            Some(Fence),
            true,
        ),
        // The word in a string ends no reasoning.
        (RIGHT.replace("\"a\"", "\"a</think>\""), None, true),
        (
            format!(
                "<think>x</think> {}",
                RIGHT.replace("\"a\"", "\"</think>\"")
            ),
            None,
            true,
        ),
        (
            format!(
                "x \"</think>{}\n",
                RIGHT.replace("\"a\"", "\"</think></think>\"")
            ),
            None,
            true,
        ),
        (format!("<think>{RIGHT}</think>{RIGHT}"), None, true),
        (format!("<think>{RIGHT}</think>No."), Some(Prose), false),
        (
            RIGHT.replace("\"a\"", "\"</think>\"").replace('1', "\"1\""),
            Some(WrongType),
            false,
        ),
        (String::new(), Some(Other), false),
    ] {
        let score = invoice(&completion);
        assert_eq!(
            (score.failure, score.tolerant),
            (failure, tolerant),
            "{completion}"
        );
    }
    // What was found comes first and is whole: a list of many values is not.
    let long = "first, ".repeat(9);
    for (schema, message) in [
        (
            r#"{"enum":["a"]}"#.to_owned(),
            "\"b\" is not in the enum [\"a\"]".to_owned(),
        ),
        (
            format!(r#"{{"enum":["a",{long:?},"c"]}}"#),
            "\"b\" is not in the enum [\"a\", ..]".to_owned(),
        ),
        (
            format!(r#"{{"enum":[{long:?},"c"]}}"#),
            format!("\"b\" is not in the enum [{long:?}, ..]"),
        ),
        (
            r#"{"const":"a"}"#.to_owned(),
            "\"b\" is not \"a\"".to_owned(),
        ),
    ] {
        let score = scorer_with(&schema, "").score("\"b\"", None);
        assert_eq!(
            (score.failure, score.errors[0].message.as_str()),
            (Some(Enum), message.as_str())
        );
    }
    let thinking_kept = scorer_with("{}", "[score]\nstrip_thinking = false\n");
    let score = thinking_kept.score("<think>x</think>{}", None);
    assert_eq!(
        (score.tier, score.failure, score.tolerant),
        (Tier::Unparsable, Some(ThinkLeak), true)
    );
}
