//! Hostile completions and patterns cost little: the bound is far above what they take and far below what they would take unbounded.

use std::time::{Duration, Instant};

use grpo_tui::score::{Scorer, Tier};

use super::scorer_with;

const SCHEMA: &str = r##"{"properties":{"next":{"$ref":"#"},"s":{"type":"string","maxLength":5}}}"##;

fn check(scorer: &Scorer, completion: &str, tier: Tier) {
    let start = Instant::now();
    let score = scorer.score(completion, None);
    let taken = start.elapsed();
    assert_eq!(score.tier, tier, "{:?}", score.errors.first());
    assert!(taken < Duration::from_secs(5), "{:?} took {taken:?}", completion.chars().take(30).collect::<String>());
    assert!(score.errors.iter().all(|reason| reason.message.len() < 1_000));
}

#[test]
fn hostile_texts_are_cheap() {
    let scorer = scorer_with(SCHEMA, "[score]\ngraded = true\n");
    let megabyte = 1 << 20;
    check(&scorer, &"[".repeat(megabyte), Tier::Unparsable);
    check(&scorer, &"{\"next\":".repeat(megabyte / 8), Tier::Unparsable);
    check(&scorer, &"x[".repeat(megabyte / 2), Tier::Unparsable);
    check(&scorer, &format!("x{}", "[1,".repeat(megabyte / 3)), Tier::Unparsable);
    check(&scorer, &"```".repeat(megabyte / 3), Tier::Unparsable);
    check(&scorer, &"```{".repeat(megabyte / 4), Tier::Unparsable);
    check(&scorer, &"<think>".repeat(megabyte / 7), Tier::Unparsable);
    check(&scorer, &"</think>".repeat(megabyte / 8), Tier::Unparsable);
    check(&scorer, &format!("{{\"s\":\"{}\"}}", "é".repeat(5 << 20)), Tier::Invalid);
    check(&scorer, &format!("\"{}", "\\u0041".repeat(megabyte)), Tier::Unparsable);
    check(&scorer, &format!("[{}1]", "1,".repeat(megabyte)), Tier::Valid);
    check(&scorer, &format!("{}1", "9".repeat(megabyte)), Tier::Valid);
    check(&scorer, &format!("1e{}", "9".repeat(megabyte)), Tier::Valid);
    check(&scorer, &format!("{{{}\"z\":1}}", (0..100_000).map(|index| format!("\"k{index}\":{index},")).collect::<String>()), Tier::Valid);
    check(&scorer, &format!("{{{}\"z\":1}}", "\"same\":1,".repeat(100_000)), Tier::Valid);
}

#[test]
fn the_deepest_value_fits_the_stack_of_a_thread() {
    let scorer = scorer_with(SCHEMA, "");
    let deep = |levels: usize, inner: &str| format!("{}{inner}{}", "{\"next\":".repeat(levels), "}".repeat(levels));
    let scorer = &scorer;
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, move || {
            check(scorer, &deep(512, "1"), Tier::Valid);
            check(scorer, &deep(511, "{\"s\":1}"), Tier::Invalid);
            check(scorer, &deep(513, "1"), Tier::Unparsable);
        });
        worker.unwrap().join().unwrap();
    });
}

#[test]
fn backtracking_patterns_are_bounded() {
    for pattern in ["^(a+)+$", "^(?=(a+)+$).*b$", "^(a|aa)+(?!b)c$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(?=x)x|^(?:a?){40}(?:a){40}(?<!b)$"] {
        let schema = serde_json::json!({ "pattern": pattern }).to_string();
        check(&scorer_with(&schema, ""), &format!("\"{}!\"", "a".repeat(5_000)), Tier::Invalid);
    }
}

/// Found by fuzzing: the validator panics where such a pattern stands below a pattern of keys.
#[test]
fn a_pattern_below_a_pattern_of_keys_is_bounded() {
    let schema = r#"{"type":"object","patternProperties":{"^\\p{L}":{"pattern":"(?=x)(x+x+)+:amey\\1"}},"additionalProperties":{"anyOf":[{"minLength":2}]}}"#;
    let text = format!(r#"{{"aaaaaaaaaaacaaaa!":"xxxxxxx[{}"}}"#, "x".repeat(17));
    let score = scorer_with(schema, "").score(&text, None);
    assert_eq!(score.tier, Tier::Invalid);
    assert!(score.errors.iter().any(|error| error.message.contains("too many steps")), "{:?}", score.errors);
}

#[test]
fn unique_items_are_found_in_one_pass() {
    let scorer = scorer_with(r#"{"uniqueItems":true}"#, "");
    let many: Vec<String> = (0..100_000).map(|index| index.to_string()).collect();
    check(&scorer, &format!("[{}]", many.join(",")), Tier::Valid);
    check(&scorer, &format!("[{},7.0]", many.join(",")), Tier::Invalid);
}
