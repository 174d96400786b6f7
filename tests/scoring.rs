//! Tests: from a completion to its score; the reward is the product.

mod audit;
mod bfcl;
mod bfcl_multi_turn;
mod call_formats;
mod command_line;
mod code;
mod command_processes;
mod command_trust;
mod conformance;
mod cost;
mod grounded;
mod http_document;
mod http_request;
mod live_tools;
mod plain_text;
mod program_tests;
mod program_tests_attacks;
mod reasons;
mod rewards;
mod sandbox;
mod sql;
mod sql_settings;
mod structured;
mod tasks;
mod tool_calls;

use grpo_tui::dataset::{PromptRow, read_rows};
use grpo_tui::score::{Score, Scorer, Task};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A task's folder with this schema and these lines of `task.toml` after its head.
fn folder_with(schema: &str, lines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("task.toml"),
        format!("name = \"sample\"\nschema = \"schema.json\"\n{lines}"),
    )
    .unwrap();
    std::fs::write(folder.path().join("schema.json"), schema).unwrap();
    folder
}

fn scorer_with(schema: &str, lines: &str) -> Scorer {
    let folder = folder_with(schema, lines);
    Scorer::new(&Task::load(folder.path()).unwrap()).unwrap()
}

fn row(expected: &str) -> PromptRow {
    let expected = serde_json::from_str(expected).unwrap();
    PromptRow {
        id: "train-1".into(),
        messages: Vec::new(),
        expected: Some(expected),
        tags: Vec::new(),
        fields: Default::default(),
        line: 1,
    }
}

/// A folder with these files, its task and the scorer; a complaint without the folder's name.
fn loaded(files: &[(&str, &str)]) -> Result<(TempDir, Task, Scorer), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let plain = |complaint: String| complaint.replace(&format!("{}/", folder.path().display()), "");
    let task = Task::load(folder.path()).map_err(|error| plain(error.to_string()))?;
    let scorer = Scorer::new(&task).map_err(|error| plain(error.to_string()))?;
    Ok((folder, task, scorer))
}

/// A row that a file has, with these fields beside its prompt: `,"expected":1`.
fn row_of(fields: &str) -> PromptRow {
    let line = format!(r#"{{"messages":[{{"role":"user","content":"u"}}]{fields}}}"#);
    read_rows("train.jsonl", line.as_bytes())
        .next()
        .unwrap()
        .unwrap()
}

/// The same of an object's fields.
fn row_with(fields: &Value) -> PromptRow {
    let fields = fields
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!(",{}:{value}", json!(key)));
    row_of(&fields.collect::<String>())
}

/// Tier, failure, and each reason with its place.
fn shown(score: &Score) -> String {
    let failure = score
        .failure
        .map_or(String::new(), |class| format!(" [{}]", class.name()));
    let reasons = score
        .errors
        .iter()
        .map(|one| format!("; {}:{} {}", one.line, one.column, one.message));
    format!(
        "{}{failure}{}",
        score.tier.name(),
        reasons.collect::<String>()
    )
}

fn invoice(completion: &str) -> Score {
    Scorer::new(&Task::embedded("invoice").unwrap())
        .unwrap()
        .score(completion, None)
}
