//! The prompt files of the repository are what the generators make, and a difference is named.

use grpo_tui_core::dataset;
use grpo_tui_core::score::Task;
use grpo_tui_core::task::PromptSet;

use super::{lab, sample};

#[test]
fn the_sample_files_are_what_the_generator_makes() {
    for name in [
        "invoice",
        "sql",
        "tool-calls",
        "shell-lint",
        "py-functions",
        "assistant",
    ] {
        let folder = sample(name);
        lab(&["prompts", folder.to_str().unwrap(), "--check"]).unwrap();
        let task = Task::load(&folder).unwrap();
        // Conversations take longer than answers.
        let rows = if name == "assistant" {
            [200, 24, 100]
        } else {
            [200, 50, 500]
        };
        for (set, rows) in PromptSet::ALL.into_iter().zip(rows) {
            let loaded = dataset::load(&task, set).unwrap();
            assert_eq!(loaded.len(), rows, "{name}");
            assert_eq!(loaded[0].id, format!("{}-001", set.name()));
        }
    }
}

#[test]
fn a_difference_is_named_and_written_over() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["task.toml", "schema.json", "generator.toml"] {
        std::fs::copy(sample("invoice").join(file), folder.path().join(file)).unwrap();
    }
    let task = folder.path().to_str().unwrap();
    lab(&["prompts", task]).unwrap();
    lab(&["prompts", task, "--check"]).unwrap();
    let path = folder.path().join("eval.jsonl");
    let right = std::fs::read_to_string(&path).unwrap();
    for changed in [
        right.replacen("eval-003", "eval-3", 1),
        right.clone() + "{}",
    ] {
        std::fs::write(&path, changed).unwrap();
        let error = lab(&["prompts", task, "--check"]).unwrap_err();
        assert!(error.contains("eval.jsonl differs"), "{error}");
    }
    lab(&["prompts", task]).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), right);
    std::fs::remove_file(folder.path().join("generator.toml")).unwrap();
    assert!(
        lab(&["prompts", task])
            .unwrap_err()
            .contains("generator.toml: ")
    );
}
