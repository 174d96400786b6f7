//! Tests: prompt rows are read with their places, and checked before they are trained on.

mod health;
mod import;
mod new_task;
mod parquet;
mod propose;
mod row_schemas;
mod rows;

use grpo_tui::score::Task;

/// A task folder with the given files beside a `task.toml` and the sample's schema.
fn task_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Task) {
    let folder = tempfile::tempdir().unwrap();
    let toml = "name = \"t\"\ntitle = \"T\"\nschema = \"schema.json\"\n\n[prompts]\ntrain = \"train.jsonl\"\neval = \"eval.jsonl\"\nproof = \"proof.jsonl\"\n\n\
                [score]\nkind = \"json_schema\"\n";
    let schema =
        r#"{"type":"object","properties":{"amount":{"type":"number"}},"required":["amount"]}"#;
    let defaults = [
        ("task.toml", toml),
        ("schema.json", schema),
        ("train.jsonl", ""),
        ("eval.jsonl", ""),
        ("proof.jsonl", ""),
    ];
    for (name, text) in defaults.iter().chain(files) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let task = Task::load(folder.path()).unwrap();
    (folder, task)
}
