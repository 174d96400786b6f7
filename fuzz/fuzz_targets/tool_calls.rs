//! Any text as calls of functions: tiers and places keep their promises, in bounded time, in every form of a call.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use grpo_tui::dataset::{PromptRow, read_rows};
use grpo_tui::score::{Score, Scorer, Task, Tier};
use libfuzzer_sys::fuzz_target;

/// Longest text tried; the bound on time below belongs to it.
const MAX_BYTES: usize = 1 << 16;
const TIME_LIMIT: Duration = Duration::from_secs(3);

static SCORER: LazyLock<Scorer> =
    LazyLock::new(|| Scorer::new(&Task::template("tool-call").unwrap()).unwrap());

/// Tools with keywords that the template's lack, and what is expected.
static ROW: LazyLock<PromptRow> = LazyLock::new(|| {
    let line = r##"{"messages":[{"role":"user","content":"x"}],"expected":[{"name":"f","arguments":{"a":1,"b":["x"]}},{"name":"g","arguments":{}}],
        "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","required":["a"],
        "properties":{"a":{"type":"integer"},"b":{"type":"array","items":{"enum":["x","y"]}},"t":{"$ref":"#"}}}}},
        {"name":"g","parameters":{"anyOf":[{"required":["p"]},{"maxProperties":0}],"properties":{"p":{"type":"string","maxLength":3}}}}]}"##;
    read_rows("row.jsonl", line.replace('\n', " ").as_bytes())
        .next()
        .unwrap()
        .unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MAX_BYTES)]) else {
        return;
    };
    let began = Instant::now();
    let scores = [SCORER.score(text, None), SCORER.score(text, Some(&ROW))];
    assert!(
        began.elapsed() < TIME_LIMIT,
        "{:?} for {} bytes",
        began.elapsed(),
        text.len()
    );
    for score in &scores {
        keeps_promises(text, score);
        let written = serde_json::to_string(score).unwrap();
        assert_eq!(
            *score,
            serde_json::from_str(&written).unwrap(),
            "not as written: {written}"
        );
    }
    assert_eq!(
        scores[1],
        SCORER.score(text, Some(&ROW)),
        "not deterministic"
    );
    // The same value in a string is the same call.
    if scores[0].tier == Tier::Valid
        && let Ok(value) = serde_json::from_str::<serde_json::Value>(text)
        && let (Some(name), Some(arguments)) = (value.get("name"), value.get("arguments"))
        // Numbers that another parser would round stay out.
        && text.contains(&arguments.to_string())
    {
        let quoted = serde_json::json!({"tool_calls": [{"function": {"name": name, "arguments": arguments.to_string()}}]});
        assert_eq!(
            SCORER.score(&quoted.to_string(), None).tier,
            Tier::Valid,
            "{quoted}"
        );
    }
});

fn keeps_promises(text: &str, score: &Score) {
    assert!(
        (0.0..=1.5).contains(&score.reward) && !score.is_error(),
        "reward {}",
        score.reward
    );
    assert!(
        score.tier == Tier::Valid || !score.errors.is_empty(),
        "{score:?}"
    );
    assert_eq!(
        score.failure.is_some(),
        !score.errors.is_empty(),
        "{score:?}"
    );
    assert!(
        score.tier != Tier::Valid || score.tolerant,
        "valid but not tolerant"
    );
    assert!(
        score.exact != Some(true) || (score.tier == Tier::Valid && score.errors.is_empty()),
        "{score:?}"
    );
    assert!(
        score.tier != Tier::Unparsable || score.errors.len() == 1,
        "{score:?}"
    );
    for reason in &score.errors {
        let line = text.split('\n').nth(reason.line - 1);
        assert!(
            line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&reason.column)),
            "outside the text: {reason:?}"
        );
        assert!(
            !reason.message.is_empty() && reason.message.len() < 10_000,
            "{reason:?}"
        );
    }
}
