//! Tests: from a completion to its score; the reward is the product.

mod audit;
mod bfcl;
mod command_line;
mod code;
mod command_processes;
mod command_trust;
mod conformance;
mod cost;
mod http_document;
mod http_request;
mod plain_text;
mod reasons;
mod rewards;
mod sql;
mod tasks;
mod tool_calls;

use grpo_tui::dataset::PromptRow;
use grpo_tui::score::{Score, Scorer};
use grpo_tui::task::Task;
use tempfile::TempDir;

/// A task's folder with this schema and these lines of `task.toml` after its head.
fn folder_with(schema: &str, lines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("task.toml"), format!("name = \"sample\"\nschema = \"schema.json\"\n{lines}"))
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
        fields: serde_json::Map::new(),
        line: 1,
    }
}

fn invoice(completion: &str) -> Score {
    Scorer::new(&Task::embedded("invoice").unwrap()).unwrap().score(completion, None)
}
