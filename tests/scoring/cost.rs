//! Hostile completions and patterns cost little: unbounded, each of these would take hours or all memory, and this test
//! would not end.

use grpo_tui::score::{Scorer, Tier};

use super::scorer_with;

const SCHEMA: &str =
    r##"{"properties":{"next":{"$ref":"#"},"s":{"type":"string","maxLength":5}}}"##;

fn check(scorer: &Scorer, completion: &str, tier: Tier) {
    let score = scorer.score(completion, None);
    assert_eq!(score.tier, tier, "{:?}", score.errors.first());
    assert!(
        score
            .errors
            .iter()
            .all(|reason| reason.message.len() < 1_000)
    );
}

#[test]
fn hostile_texts_are_cheap() {
    let scorer = scorer_with(SCHEMA, "[score]\ngraded = true\n");
    let megabyte = 1 << 20;
    check(&scorer, &"[".repeat(megabyte), Tier::Unparsable);
    check(
        &scorer,
        &"{\"next\":".repeat(megabyte / 8),
        Tier::Unparsable,
    );
    check(&scorer, &"x[".repeat(megabyte / 2), Tier::Unparsable);
    check(
        &scorer,
        &format!("x{}", "[1,".repeat(megabyte / 3)),
        Tier::Unparsable,
    );
    check(&scorer, &"```".repeat(megabyte / 3), Tier::Unparsable);
    check(&scorer, &"```{".repeat(megabyte / 4), Tier::Unparsable);
    check(&scorer, &"<think>".repeat(megabyte / 7), Tier::Unparsable);
    check(&scorer, &"</think>".repeat(megabyte / 8), Tier::Unparsable);
    check(
        &scorer,
        &"{\"</think>".repeat(megabyte / 10),
        Tier::Unparsable,
    );
    check(
        &scorer,
        &"[\"</think>\",".repeat(megabyte / 12),
        Tier::Unparsable,
    );
    check(
        &scorer,
        &format!("{{\"s\":\"{}\"}}", "é".repeat(5 << 20)),
        Tier::Invalid,
    );
    check(
        &scorer,
        &format!("\"{}", "\\u0041".repeat(megabyte)),
        Tier::Unparsable,
    );
    check(
        &scorer,
        &format!("[{}1]", "1,".repeat(megabyte)),
        Tier::Valid,
    );
    check(&scorer, &format!("{}1", "9".repeat(megabyte)), Tier::Valid);
    check(&scorer, &format!("1e{}", "9".repeat(megabyte)), Tier::Valid);
    check(
        &scorer,
        &format!(
            "{{{}\"z\":1}}",
            (0..100_000)
                .map(|index| format!("\"k{index}\":{index},"))
                .collect::<String>()
        ),
        Tier::Valid,
    );
    check(
        &scorer,
        &format!("{{{}\"z\":1}}", "\"same\":1,".repeat(100_000)),
        Tier::Valid,
    );
}

#[test]
fn the_deepest_value_fits_the_stack_of_a_thread() {
    let scorer = scorer_with(SCHEMA, "");
    let deep = |levels: usize, inner: &str| {
        format!(
            "{}{inner}{}",
            "{\"next\":".repeat(levels),
            "}".repeat(levels)
        )
    };
    let scorer = &scorer;
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn_scoped(scope, move || {
                check(scorer, &deep(512, "1"), Tier::Valid);
                check(scorer, &deep(511, "{\"s\":1}"), Tier::Invalid);
                check(scorer, &deep(513, "1"), Tier::Unparsable);
            });
        worker.unwrap().join().unwrap();
    });
}

#[test]
fn backtracking_patterns_are_bounded() {
    for pattern in [
        "^(a+)+$",
        "^(?=(a+)+$).*b$",
        "^(a|aa)+(?!b)c$",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        "(?=x)x|^(?:a?){40}(?:a){40}(?<!b)$",
    ] {
        let schema = serde_json::json!({ "pattern": pattern }).to_string();
        check(
            &scorer_with(&schema, ""),
            &format!("\"{}!\"", "a".repeat(5_000)),
            Tier::Invalid,
        );
    }
}

/// Found by fuzzing: the validator panics where such a pattern stands below a pattern of keys.
#[test]
fn a_pattern_below_a_pattern_of_keys_is_bounded() {
    let schema = r#"{"type":"object","patternProperties":{"^\\p{L}":{"pattern":"(?=x)(x+x+)+:amey\\1"}},"additionalProperties":{"anyOf":[{"minLength":2}]}}"#;
    let text = format!(r#"{{"aaaaaaaaaaacaaaa!":"xxxxxxx[{}"}}"#, "x".repeat(17));
    let score = scorer_with(schema, "").score(&text, None);
    assert_eq!(score.tier, Tier::Invalid);
    assert!(
        score
            .errors
            .iter()
            .any(|error| error.message.contains("too many steps")),
        "{:?}",
        score.errors
    );
}

#[test]
fn unique_items_are_found_in_one_pass() {
    let scorer = scorer_with(r#"{"uniqueItems":true}"#, "");
    let many: Vec<String> = (0..100_000).map(|index| index.to_string()).collect();
    check(&scorer, &format!("[{}]", many.join(",")), Tier::Valid);
    check(&scorer, &format!("[{},7.0]", many.join(",")), Tier::Invalid);
}

/// An invalid leaf below so many operators took 0.2 GB at depth 14 and over 12 GB at depth 20.
#[test]
fn an_invalid_leaf_deep_in_an_expression_is_cheap() {
    let operator = |op: &str| {
        format!(
            r##"{{"properties":{{"op":{{"const":"{op}"}},"args":{{"type":"array","items":{{"$ref":"#"}}}}}},"required":["op","args"]}}"##
        )
    };
    let leaf =
        r#"{"properties":{"n":{"type":"number"}},"required":["n"],"additionalProperties":false}"#;
    for combine in ["oneOf", "anyOf"] {
        let schema = format!(
            r#"{{"type":"object","{combine}":[{},{},{leaf}]}}"#,
            operator("add"),
            operator("mul")
        );
        let scorer = scorer_with(&schema, "[score]\ngraded = true\n");
        for depth in [14, 20, 200] {
            let expression = |leaf: &str| {
                format!(
                    "{}{leaf}{}",
                    r#"{"op":"add","args":["#.repeat(depth),
                    "]}".repeat(depth)
                )
            };
            check(&scorer, &expression(r#"{"n":1}"#), Tier::Valid);
            check(&scorer, &expression(r#"{"n":"1"}"#), Tier::Invalid);
            check(
                &scorer,
                &format!("Here: {}", expression("{}")),
                Tier::Unparsable,
            );
            // The one constraint that fails is the alternative; `type` is met at every depth.
            assert_eq!(
                scorer
                    .score(&expression(r#"{"n":"1"}"#), None)
                    .parts
                    .get("graded"),
                Some(&0.5)
            );
        }
    }
    let arrays = scorer_with(
        r##"{"anyOf":[{"type":"array","items":{"$ref":"#"}},{"type":"array","items":{"$ref":"#"},"minItems":2},{"type":"array","maxItems":1,"items":{"$ref":"#"}}]}"##,
        "",
    );
    check(
        &arrays,
        &format!("{}1{}", "[".repeat(20), "]".repeat(20)),
        Tier::Invalid,
    );
}

/// Found by hand: a schema of 2 kB that asks for more checks than anybody can make is a slow `no`, not the end of the
/// run.
#[test]
fn a_validation_without_end_is_ended_and_earns_no_credit() {
    let definition = |number: usize| {
        format!(
            r##""d{number}":{{"allOf":[{{"$ref":"#/$defs/d{0}"}},{{"$ref":"#/$defs/d{0}"}}]}}"##,
            number + 1
        )
    };
    let definitions: Vec<String> = (0..40).map(definition).collect();
    let schema = format!(
        r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d40":{{"type":"string"}}}}}}"##,
        definitions.join(",")
    );
    let scorer = scorer_with(&schema, "[score]\ngraded = true\n");
    check(&scorer, "\"a\"", Tier::Invalid);
    let score = scorer.score("\"a\"", None);
    assert!(
        score.errors[0]
            .message
            .contains("too many steps, so it counts as not valid"),
        "{:?}",
        score.errors
    );
    assert_eq!((score.reward, score.parts.get("graded")), (0.5, Some(&0.0)));
    check(
        &scorer,
        &format!("so: {}", "[] ".repeat(20_000)),
        Tier::Unparsable,
    );
}

#[test]
fn patterns_that_look_around_are_bounded_on_long_strings() {
    for pattern in [
        "(?<=a)b", "(?<=a*)b", "(?<!x)y", "a*(?=b)", "(a*)\\1b", "(?=.*b)a",
    ] {
        let schema =
            serde_json::json!({"properties": {"s": {"pattern": pattern}, "t": {"pattern": "^a+$"}}}).to_string();
        let scorer = scorer_with(&schema, "");
        let long = "a".repeat(60_000);
        check(
            &scorer,
            &format!(r#"{{"s":"{long}","t":"{long}"}}"#),
            Tier::Invalid,
        );
        check(
            &scorer,
            &format!(r#"{{"t":"{long}","s":"aab y"}}"#),
            Tier::Valid,
        );
    }
    let keys = scorer_with(r#"{"patternProperties":{"(?<=a*)b":true}}"#, "");
    check(
        &keys,
        &format!(r#"{{"{}":1}}"#, "a".repeat(60_000)),
        Tier::Invalid,
    );
    check(&keys, r#"{"aaab":1}"#, Tier::Valid);
}
