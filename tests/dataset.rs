//! Tests: prompt rows are read with their places, generated the same everywhere, and checked before they are trained
//! on.

mod build;
mod generator;
mod health;
mod import;
mod new_task;
mod parquet;
mod rows;

use std::path::Path;

use grpo_tui::score::Task;

/// A sample task of this repository.
fn sample(name: &str) -> Task {
    Task::load(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("sample-data")
            .join(name),
    )
    .unwrap()
}

fn invoice() -> Task {
    sample("invoice")
}

/// A task folder with the given files beside a `task.toml` and the sample's schema.
fn task_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Task) {
    let folder = tempfile::tempdir().unwrap();
    let toml = "name = \"t\"\ntitle = \"T\"\nschema = \"schema.json\"\n\n[prompts]\ntrain = \"train.jsonl\"\neval = \"eval.jsonl\"\nproof = \"proof.jsonl\"\n\
                generator = \"generator.toml\"\n\n[score]\nkind = \"json_schema\"\n";
    let schema =
        r#"{"type":"object","properties":{"amount":{"type":"number"}},"required":["amount"]}"#;
    let defaults = [
        ("task.toml", toml),
        ("schema.json", schema),
        ("train.jsonl", ""),
        ("eval.jsonl", ""),
        ("proof.jsonl", ""),
        ("generator.toml", ""),
    ];
    for (name, text) in defaults.iter().chain(files) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let task = Task::load(folder.path()).unwrap();
    (folder, task)
}
