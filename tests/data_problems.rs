//! What makes a training teach or prove less than it seems is said before it starts: prompts in two sets, expected
//! answers that the schema refuses.
#![cfg(feature = "engine")]

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::program::{SHORT, call, call_in_process, small_task, stderr};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn train(folder: &Path, more: &[&str]) -> Output {
    call(
        folder,
        &[&["train", "task", "--runs", "runs"], &SHORT[..], more].concat(),
    )
}

/// Breaks the expected answer of the first rows of a set.
fn spoil(task: &Path, file: &str, rows: usize) {
    let text = fs::read_to_string(task.join(file)).unwrap();
    let spoilt = |(index, line): (usize, &str)| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        if index < rows {
            row["expected"]["amount"] = "much".into();
        }
        format!("{row}\n")
    };
    fs::write(
        task.join(file),
        text.lines().enumerate().map(spoilt).collect::<String>(),
    )
    .unwrap();
}

#[test]
fn prompts_of_two_sets_and_wrong_answers_are_said_before_and_after_a_training() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    fs::copy(task.join("eval.jsonl"), task.join("eval-large.jsonl")).unwrap();
    spoil(&task, "train.jsonl", 3);
    let overlap = "task/eval-large.jsonl: 4 of 4 prompts are also in task/eval.jsonl, first line 1 (there line 1): data leak; keep each prompt in one set";
    let refused = "task/train.jsonl: 3 of 12 expected answers are invalid: wrong type 3; first on line 1: /amount expected number";
    let checked = call_in_process(folder.path(), &["task", "check", "task"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        stdout(&checked).contains(overlap) && stdout(&checked).contains(refused),
        "{}",
        stdout(&checked)
    );
    // More than a twentieth: nothing starts, and nothing is left.
    let output = train(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let advice = "correct the rows or the schema\n  to start anyway: --ignore-preflight-errors";
    assert!(
        stderr(&output).contains(refused) && stderr(&output).contains(advice),
        "{}",
        stderr(&output)
    );
    assert!(!folder.path().join("runs").exists());
    let ignored = train(
        folder.path(),
        &["--ignore-preflight-errors", "--set", "max_steps=1"],
    );
    assert!(
        ignored.status.success()
            && stderr(&ignored).contains(&format!("warning: ignored: {refused}"))
    );
    let output = train(folder.path(), &["--set", "max_invalid_expected=0.25"]);
    let messages = stderr(&output);
    assert!(output.status.success(), "{messages}");
    for problem in [overlap, refused] {
        let warning = messages
            .find(&format!("warning: {problem}"))
            .unwrap_or_else(|| panic!("{problem} is missing in {messages}"));
        assert!(
            warning < messages.find("step").unwrap(),
            "before the first step: {messages}"
        );
    }
    assert!(
        stdout(&output).contains("note: ")
            && stdout(&output).contains("4 of 4 prompts are also in"),
        "beside the result: {}",
        stdout(&output)
    );
}

#[test]
fn sets_that_training_can_do_without_are_no_problem() {
    let folder = tempfile::tempdir().unwrap();
    let task = small_task(folder.path());
    let text = fs::read_to_string(task.join("task.toml")).unwrap();
    let without = |keys: &[&str]| {
        let lines = text
            .lines()
            .filter(|line| !keys.iter().any(|key| line.starts_with(&format!("{key} ="))));
        fs::write(
            task.join("task.toml"),
            lines.map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
        call_in_process(folder.path(), &["task", "check", "task"])
    };
    let output = without(&["test"]);
    assert!(
        output.status.success()
            && stdout(&output).contains("warning: task/task.toml: no `test` under [prompts]"),
        "{}",
        stdout(&output)
    );
    let output = without(&["test", "eval"]);
    assert!(
        output.status.success() && stdout(&output).contains("no `eval` under [prompts]"),
        "{}",
        stdout(&output)
    );
    let output = without(&["train"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output)
            .contains("error: task/task.toml: no `train` under [prompts]: training needs it"),
        "{}",
        stdout(&output)
    );
    let output = without(&["train", "eval"]);
    let text = stdout(&output);
    assert!(
        output.status.success()
            && text.contains("no `train` under [prompts]: the task serves evals alone"),
        "{text}"
    );
}

#[test]
fn a_schema_that_refuses_every_answer_is_not_asked_about_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // Looked at 2 to the power of 39 times.
    let level = |number: usize| {
        let next = serde_json::json!({"$ref": format!("#/$defs/{}", number + 1)});
        (
            number.to_string(),
            serde_json::json!({"allOf": [next, next]}),
        )
    };
    let mut levels: serde_json::Map<_, _> = (0..39).map(level).collect();
    levels.insert("39".to_owned(), serde_json::json!({"type": "object"}));
    let schema = serde_json::json!({"$defs": levels, "$ref": "#/$defs/0"});
    fs::write(here.join("schema.json"), schema.to_string()).unwrap();
    let toml = "name = \"t\"\nschema = \"schema.json\"\n[prompts]\ntrain = \"train.jsonl\"\n";
    fs::write(here.join("task.toml"), toml).unwrap();
    let row = |number: usize| {
        serde_json::json!({"messages": [{"role": "user", "content": number.to_string()}], "expected": {}}).to_string()
    };
    fs::write(
        here.join("train.jsonl"),
        (0..5_000)
            .map(|number| row(number) + "\n")
            .collect::<String>(),
    )
    .unwrap();
    let checked = stdout(&call_in_process(here, &["task", "check", "."]));
    assert!(
        checked.contains("expected answers looked at, of 5000, are invalid: other 64"),
        "{checked}"
    );
}

/// Fields that different rows have: labels are rows, not those of one field.
#[test]
fn labels_that_can_be_read_are_counted_by_row() {
    let names = "Acme Bolt Cord Dyne Ezra Fynn Gray Hale Iris Jade";
    let rows = ["a", "b", "c"].into_iter().flat_map(|field| {
        let row = move |(index, name): (usize, &str)| {
            let said = if index < 4 { "nobody" } else { name };
            serde_json::json!({
                "messages": [{"role": "user", "content": format!("{field} {said} {index}")}],
                "expected": {field: name},
            })
        };
        names.split(' ').enumerate().map(row)
    });
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let lines: String = rows.map(|row| format!("{row}\n")).collect();
    let text = serde_json::json!({"type": "string"});
    let schema =
        serde_json::json!({"type": "object", "properties": {"a": text, "b": text, "c": text}});
    let toml = "name = \"t\"\nschema = \"s.json\"\n[prompts]\ntrain = \"t.jsonl\"\n[score]\nkind = \"json_schema\"\n";
    for (name, content) in [
        ("t.jsonl", lines),
        ("s.json", schema.to_string()),
        ("task.toml", toml.to_owned()),
    ] {
        fs::write(here.join(name), content).unwrap();
    }
    let checked = stdout(&call_in_process(here, &["task", "check", "."]));
    assert!(
        checked.contains("18 of these 30 labels can be read from their prompts"),
        "{checked}"
    );
}
