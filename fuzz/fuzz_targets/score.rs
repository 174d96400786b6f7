//! Any text as a completion: rewards, tiers and places keep their promises, whatever a model writes.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use grpo_tui::dataset::{PromptRow, read_rows};
use grpo_tui::score::{FailureClass, PartValue, RewardPart, Score, Scorer, Task, Tier};
use grpo_tui::task::{Normalisation, Normalisations};
use grpo_tui::text::THINK_MARKS;
use libfuzzer_sys::fuzz_target;

/// Longest text tried; the bound on time below belongs to it.
const MAX_BYTES: usize = 1 << 16;
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// Keywords that the invoice schema does not have, with graded credit and formats asserted.
const RICH_SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "id": {"type": "string", "pattern": "^(?!x)[a-z]+(?:-[a-z]+)*$", "maxLength": 20},
    "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "minItems": 1, "maxItems": 5, "uniqueItems": true},
    "date": {"type": "string", "format": "date"},
    "kind": {"enum": ["a", "b", 1, null, {"x": 1.0}]},
    "either": {"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "number", "multipleOf": 0.5}, {"const": "all"}]},
    "tree": {"$ref": "#/$defs/tree"}
  },
  "required": ["id", "lines"],
  "patternProperties": {"^x-": {"type": ["string", "null"]}},
  "propertyNames": {"maxLength": 12},
  "dependentRequired": {"date": ["kind"]},
  "unevaluatedProperties": false,
  "$defs": {
    "line": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "exclusiveMaximum": 1e9}, "t": {"type": "string"}},
             "required": ["n"], "additionalProperties": false},
    "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}},
             "if": {"required": ["left"]}, "then": {"required": ["right"]}, "maxProperties": 3}
  }
}"##;

struct Judge {
    scorer: Scorer,
    row: PromptRow,
    /// The tier's value for valid, and the weights of all parts.
    highest_reward: f64,
}

impl Judge {
    fn new(task: &Task, row: PromptRow) -> Self {
        let weights: f64 = task.rewards.iter().map(|reward| reward.weight).sum();
        Self {
            scorer: Scorer::new(task).unwrap(),
            row,
            highest_reward: task.score.tiers.valid + weights,
        }
    }
}

static JUDGES: LazyLock<Vec<Judge>> = LazyLock::new(|| {
    let row = |expected: &str| {
        let line =
            format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"expected":{expected}}}"#);
        read_rows("row.jsonl", line.as_bytes())
            .next()
            .unwrap()
            .unwrap()
    };
    let invoice = Task::embedded("invoice").unwrap();
    let mut rich = invoice.clone();
    rich = rich.with_definition_text(RICH_SCHEMA).unwrap();
    rich.score.graded = true;
    rich.score.assert_formats = true;
    rich.score.tiers.valid = 0.6;
    rich.score.tiers.invalid = 0.25;
    rich.score.normalise = [
        (
            "id",
            vec![
                Normalisation::Casefold,
                Normalisation::Trim,
                Normalisation::Whitespace,
            ],
        ),
        ("date", vec![Normalisation::Date]),
        ("either", vec![Normalisation::Number]),
    ]
    .map(|(field, names)| (field.to_owned(), Normalisations(names)))
    .into();
    rich.rewards = [
        ("fields", 0.2, PartValue::Fields),
        ("exact", 0.1, PartValue::Exact),
        ("tolerant", 0.1, PartValue::Tolerant),
    ]
    .map(|(part, weight, value)| RewardPart {
        part: part.to_owned(),
        weight,
        after_valid: false,
        value,
    })
    .into();
    vec![
        Judge::new(
            &invoice,
            row(
                r#"{"vendor":"Gröner Books Oy","date":"2028-06-07","amount":58463.87,"currency":"CAD"}"#,
            ),
        ),
        Judge::new(
            &rich,
            row(
                r#"{"id":"a-b","lines":[{"n":1,"t":"x"}],"date":"2028-06-07","kind":"a","either":3}"#,
            ),
        ),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(MAX_BYTES)]) else {
        return;
    };
    for judge in JUDGES.iter() {
        let began = Instant::now();
        let plain = judge.scorer.score(text, None);
        let score = judge.scorer.score(text, Some(&judge.row));
        assert!(
            began.elapsed() < TIME_LIMIT,
            "{:?} for {} bytes",
            began.elapsed(),
            text.len()
        );
        keeps_promises(text, &plain, judge.highest_reward);
        keeps_promises(text, &score, judge.highest_reward);
        assert_eq!(
            (plain.tier, plain.tolerant, &plain.errors),
            (score.tier, score.tolerant, &score.errors),
            "the row changed the tier"
        );
        assert_eq!(
            score,
            judge.scorer.score(text, Some(&judge.row)),
            "not deterministic"
        );
        let written = serde_json::to_string(&score).unwrap();
        assert_eq!(
            score,
            serde_json::from_str(&written).unwrap(),
            "not as written: {written}"
        );
        agrees_with_another_parser(text, &score);
        fenced(judge, text, &score);
    }
});

fn keeps_promises(text: &str, score: &Score, highest_reward: f64) {
    assert!(
        (0.0..=highest_reward + 1e-9).contains(&score.reward),
        "reward {}",
        score.reward
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
        score.tier != Tier::Invalid || !score.tolerant,
        "invalid but tolerant"
    );
    assert!(
        score.exact != Some(true) || score.tier == Tier::Valid,
        "exact but not valid"
    );
    assert!(
        score.tier != Tier::Unparsable
            || (score.errors.len() == 1 && score.errors[0].schema_path.is_empty()),
        "{score:?}"
    );
    assert_eq!(
        score.failure.is_some(),
        score.tier != Tier::Valid || score.exact == Some(false),
        "{score:?}"
    );
    assert!(
        score.tier != Tier::Valid || matches!(score.failure, None | Some(FailureClass::WrongValue)),
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

/// Without think blocks, what we call JSON is what serde_json calls JSON, but for what we document as different.
fn agrees_with_another_parser(text: &str, score: &Score) {
    if has_think_end(text) {
        return;
    }
    let ours = score.tier != Tier::Unparsable;
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => assert!(ours, "serde_json reads it, we do not: {:?}", score.errors),
        Err(error) => {
            let message = error.to_string();
            let documented =
                message.contains("recursion limit") || message.contains("number out of range");
            assert!(!ours || documented, "we read it, serde_json says {message}");
        }
    }
}

fn has_think_end(text: &str) -> bool {
    THINK_MARKS.iter().any(|marks| text.contains(marks.end()))
}

fn fenced(judge: &Judge, text: &str, bare: &Score) {
    let fenced = judge.scorer.score(&format!("```json\n{text}\n```"), None);
    assert_eq!(fenced.tier, Tier::Unparsable, "a fence was accepted");
    if bare.tier == Tier::Valid && !text.contains("```") && !has_think_end(text) {
        assert!(fenced.tolerant, "valid, but not tolerated inside a fence");
        assert_eq!(fenced.failure, Some(FailureClass::Fence));
    }
}
