//! Tests: `grpo-tui eval --confidence`.

use std::fs;

use serde_json::Value;

use super::finished;
use crate::program::{call, json, stderr};

/// What is chosen on the eval set is stated on the test set; another set holds nothing out.
#[test]
fn an_eval_says_how_sure_each_value_is() {
    let (folder, _) = finished();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("sure").display().to_string();
    let eval = |more: &[&str]| {
        let arguments = [
            "eval",
            "task",
            "--runs",
            "runs",
            "--model",
            "base=tiny",
            "--confidence",
        ];
        call(folder, &[&arguments[..], more].concat())
    };
    let document = json(&eval(&["--json", "--out", &path]));
    let summary = &document["targets"]["base"]["confidence"];
    let held_out = &summary["held_out"];
    assert_eq!(
        (&held_out["set"], &document["confidence"]),
        (&"eval".into(), &true.into())
    );
    assert!(summary["values"]["n"].as_u64().unwrap() > 8, "{summary}");
    let lines = |set: &str| {
        let file = format!("{path}/evals/step-000000-{set}-base.jsonl");
        let text = fs::read_to_string(file).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>()
    };
    assert_eq!((lines("test").len(), lines("eval").len()), (8, 4));
    for record in lines("test") {
        for leaf in record["confidence"]["leaves"].as_array().unwrap() {
            let is_known = leaf["confidence"].is_number();
            assert!(
                is_known || record["confidence"]["unknown"].is_string(),
                "{record}"
            );
            assert!(
                leaf["right"].is_boolean() && leaf.get("agreement").is_none(),
                "{record}"
            );
        }
    }
    // The folder says the same again.
    let compared = json(&call(folder, &["runs", "compare", &path, "--json"]));
    assert_eq!(compared["passes"][0]["summary"]["confidence"], *summary);
    let text = String::from_utf8(eval(&["--on", "eval", "--limit", "3"]).stdout).unwrap();
    assert!(
        text.contains("nothing is held out: only the eval set was evaluated"),
        "{text}"
    );
    let sampled = json(&eval(&[
        "--json",
        "--on",
        "eval",
        "--limit",
        "2",
        "--samples",
        "3",
        "--temperature",
        "1",
    ]));
    let summary = &sampled["targets"]["base"]["confidence"];
    assert!(summary["agreement"]["n"].as_u64().unwrap() > 0, "{summary}");
    for command in [["eval", "m=tiny-sql"], ["sample", "tiny-sql"]] {
        let [verb, model] = command;
        let refused = call(folder, &[verb, "sql", "--model", model, "--confidence"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(
            stderr(&refused).contains("--confidence: sql is of kind sql: only single answers of kind json_schema have confidences; leave it out"),
            "{}",
            stderr(&refused)
        );
    }
    let sample = ["sample", "task", "--model", "tiny", "--n", "1"];
    let sampled = call(folder, &[&sample[..], &["--confidence"]].concat());
    let text = String::from_utf8(sampled.stdout).unwrap();
    let values = text
        .lines()
        .filter(|line| line.starts_with("0.") || line.starts_with("1.00"));
    assert!(
        values.filter(|line| line.contains(" /vendor ")).count() == 1,
        "{text}"
    );
    let plain = json(&call(
        folder,
        &[
            "eval",
            "task",
            "--model",
            "base=tiny",
            "--limit",
            "1",
            "--json",
        ],
    ));
    assert!(
        plain["targets"]["base"].get("confidence").is_none() && plain.get("confidence").is_none()
    );
}
