//! `per_part` and the soft limit of lengths against TRL's own code: tests/parity/per_part.json, by
//! scripts/golden/per_part.py.

use grpo_tui::advantage::step_advantages;
use grpo_tui::score::{PartWeights, Score, Scorer, Task};
use serde_json::{Value, json};

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string("tests/parity/per_part.json").unwrap()).unwrap()
}

/// A part without a value is not in the score; a score without any has no reward.
fn score(values: &[Option<f64>]) -> Score {
    let known = values
        .iter()
        .enumerate()
        .filter_map(|(part, value)| Some((name(part), json!((*value)?))));
    let parts: serde_json::Map<String, Value> = known.collect();
    let reward = values
        .iter()
        .flatten()
        .copied()
        .reduce(|sum, value| sum + value);
    serde_json::from_value(json!({
        "reward": reward, "tier": "valid", "tolerant": true, "warnings": [], "errors": [], "fields": null, "exact": null,
        "failure": null, "parts": parts,
    }))
    .unwrap()
}

fn name(part: usize) -> String {
    format!("part-{part}")
}

#[test]
fn advantages_of_parts_are_those_of_trl() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let read = |key: &str| case[key].clone();
        let weights: Vec<f64> = serde_json::from_value(read("weights")).unwrap();
        let groups: Vec<Vec<Vec<Option<f64>>>> = serde_json::from_value(read("groups")).unwrap();
        let expected: Vec<Vec<f64>> = serde_json::from_value(read("advantages")).unwrap();
        let weights = PartWeights(
            weights
                .into_iter()
                .enumerate()
                .map(|(part, weight)| (name(part), weight))
                .collect(),
        );
        let scores: Vec<Vec<Score>> = groups
            .iter()
            .map(|group| group.iter().map(|values| score(values)).collect())
            .collect();
        let found = step_advantages(
            &scores
                .iter()
                .map(|group| group.iter().collect())
                .collect::<Vec<_>>(),
            &weights,
        );
        for (found, expected) in found.concat().iter().zip(expected.concat()) {
            assert!(
                (found - expected).abs() < 1e-9,
                "{found}, expected {expected}: {case}"
            );
        }
        assert_eq!(found.concat().len(), expected.concat().len());
    }
}

#[test]
fn the_soft_limit_is_that_of_trl() {
    let overlong = &golden()["overlong"];
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "name = \"t\"\n[score]\nkind = \"text\"\n[[reward]]\npart = \"length\"\nweight = 2.0\nmax = {}\nbuffer = {}\n",
        overlong["max"], overlong["buffer"]
    );
    std::fs::write(folder.path().join("task.toml"), toml).unwrap();
    let scorer = Scorer::new(&Task::load(folder.path()).unwrap()).unwrap();
    let punished = overlong["lengths"]
        .as_array()
        .unwrap()
        .iter()
        .zip(overlong["punishment"].as_array().unwrap());
    for (length, punishment) in punished {
        let mut score = scorer.score("an answer", None);
        assert_eq!(
            (score.reward, score.parts.get("length")),
            (1.0, None),
            "unknown without a tokenizer"
        );
        scorer.add_length(&mut score, length.as_u64().unwrap() as usize);
        let expected = punishment.as_f64().unwrap() + 1.0;
        assert!(
            (score.parts.get("length").unwrap() - expected).abs() < 1e-12,
            "{length}"
        );
        assert!(
            (score.reward - 1.0 - 2.0 * expected).abs() < 1e-12,
            "{length}"
        );
    }
}
