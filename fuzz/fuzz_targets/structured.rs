//! Any text as an answer in YAML and in XML: tiers and places keep their promises, in bounded time; what is read is
//! written and read again as the same.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use grpo_tui::dataset::{PromptRow, read_rows};
use grpo_tui::score::{Score, Scorer, Task, Tier};
use grpo_tui::text::THINK_MARKS;
use libfuzzer_sys::fuzz_target;

/// Longest text tried; the bound on time below belongs to it.
const MAX_BYTES: usize = 1 << 16;
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// All types, attributes, lists of lists, and a schema that contains itself.
const SCHEMA: &str = r##"{
  "type": "object",
  "properties": {
    "a": {"type": "string"}, "n": {"type": ["integer", "null"]}, "b": {"type": "boolean"}, "@i": {"type": "number"},
    "l": {"type": "array", "items": {"type": ["string", "number"]}}, "g": {"type": "array", "items": {"type": "array"}},
    "t": {"$ref": "#"}, "u": {"anyOf": [{"$ref": "#/properties/l"}, {"type": "null"}]}
  },
  "required": ["l"]
}"##;

static SCORER: LazyLock<Scorer> = LazyLock::new(|| {
    let task = Task::template("yaml-config")
        .unwrap()
        .with_definition_text(SCHEMA)
        .unwrap();
    Scorer::new(&task).unwrap()
});

static ROWS: LazyLock<Vec<PromptRow>> = LazyLock::new(|| {
    let row = |format: &str| {
        let line = format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}],"expected":{{"l":["a",1]}},"format":"{format}"}}"#
        );
        read_rows("row.jsonl", line.as_bytes())
            .next()
            .unwrap()
            .unwrap()
    };
    ["yaml", "xml"].map(row).into()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MAX_BYTES)]) else {
        return;
    };
    for row in ROWS.iter() {
        let began = Instant::now();
        let score = SCORER.score(text, Some(row));
        assert!(
            began.elapsed() < TIME_LIMIT,
            "{:?} for {} bytes",
            began.elapsed(),
            text.len()
        );
        keeps_promises(text, &score);
        assert_eq!(score, SCORER.score(text, Some(row)), "not deterministic");
        let written = serde_json::to_string(&score).unwrap();
        assert_eq!(
            score,
            serde_json::from_str(&written).unwrap(),
            "not as written: {written}"
        );
    }
    // What serde_json reads is a value that YAML says as well.
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text)
        && let Some(yaml) = SCORER.expected_completion(&value, Some(&ROWS[0]))
    {
        let row = PromptRow {
            expected: Some(value.clone()),
            ..ROWS[0].clone()
        };
        let score = SCORER.score(&yaml, Some(&row));
        let is_known =
            yaml.len() < 1024 && !score.is_error() && !text.contains('$') && !has_marks(text);
        assert!(
            !is_known || score.tier == Tier::Invalid || score.exact != Some(false),
            "{yaml}\n{:?}",
            score.errors
        );
    }
});

fn has_marks(text: &str) -> bool {
    THINK_MARKS
        .iter()
        .any(|marks| text.contains(marks.open) || text.contains(marks.end()))
}

fn keeps_promises(text: &str, score: &Score) {
    assert!(
        (0.0..=1.5).contains(&score.reward) && !score.is_error(),
        "{score:?}"
    );
    assert_eq!(
        score.tier == Tier::Valid,
        score.errors.is_empty(),
        "{score:?}"
    );
    assert!(
        score.tier != Tier::Valid || score.tolerant,
        "valid but not tolerant"
    );
    assert!(
        score.exact != Some(true) || score.tier == Tier::Valid,
        "exact but not valid"
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
