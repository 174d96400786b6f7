//! `dataset build` makes the same files everywhere, and the files of the repository are those.

use grpo_tui::dataset::{self, Builder};
use grpo_tui::task::PromptSet;

use crate::program::call_anywhere_in_process as call_anywhere;

fn command(arguments: &[&str]) -> (i32, String) {
    let output = call_anywhere(arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout) + &text(output.stderr),
    )
}

const INVOICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sample-data/invoice");

/// The sample tasks, and the file of their test set.
const SAMPLES: [(&str, &str); 6] = [
    ("invoice", "eval-large.jsonl"),
    ("sql", "test.jsonl"),
    ("tool-calls", "test.jsonl"),
    ("shell-lint", "test.jsonl"),
    ("py-functions", "test.jsonl"),
    ("assistant", "test.jsonl"),
];

#[test]
fn the_sample_files_are_what_the_generator_makes() {
    for (name, test) in SAMPLES {
        let task = super::sample(name);
        let builder = Builder::new(&task, &task.definition_files()).unwrap();
        let counts: Vec<(&str, u64)> = builder
            .sets
            .iter()
            .map(|set| (set.file.as_str(), set.rows))
            .collect();
        // Conversations take longer than answers.
        let (eval_rows, test_rows) = if name == "assistant" {
            (24, 100)
        } else {
            (50, 500)
        };
        assert_eq!(
            counts,
            [
                ("train.jsonl", 200),
                ("eval.jsonl", eval_rows),
                (test, test_rows)
            ]
        );
        for set in &builder.sets {
            let stored = task.read(&set.file).unwrap();
            let differs = format!(
                "{name}/{} differs: run `grpo-tui dataset build sample-data/{name}`",
                set.file
            );
            assert_eq!(
                builder.first_difference(set, stored.as_ref()).unwrap(),
                None,
                "{differs}"
            );
        }
    }
    let task = super::invoice();
    for (set, rows) in PromptSet::ALL.into_iter().zip([200, 50, 500]) {
        let loaded = dataset::load(&task, set).unwrap();
        assert_eq!(loaded.len(), rows);
        assert_eq!(loaded[0].id, format!("{}-001", set.name()));
        assert!(loaded.iter().all(
            |row| ["clean", "messy"].contains(&row.tags[0].as_str()) && row.expected.is_some()
        ));
    }
}

#[test]
fn build_writes_elsewhere_and_check_tells_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let (code, text) = command(&["dataset", "build", INVOICE, "--out", out]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("500 rows"), "{text}");
    assert_eq!(
        command(&["dataset", "build", INVOICE, "--out", out, "--check"]).0,
        0
    );
    let path = folder.path().join("eval.jsonl");
    let changed = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("eval-003", "eval-3", 1);
    std::fs::write(&path, changed).unwrap();
    let (code, text) = command(&["dataset", "build", INVOICE, "--out", out, "--check"]);
    assert_eq!(code, 1);
    assert!(
        text.contains("eval.jsonl line 3 differs from the generator's output")
            && text.contains("grpo-tui dataset build"),
        "{text}"
    );
    command(&["dataset", "build", INVOICE, "--out", out]);
    let more = std::fs::read_to_string(&path).unwrap() + "{}";
    std::fs::write(&path, more).unwrap();
    assert!(
        command(&["dataset", "build", INVOICE, "--out", out, "--check"])
            .1
            .contains("eval.jsonl line 51 differs")
    );
    std::fs::remove_file(&path).unwrap();
    let (code, text) = command(&["dataset", "build", INVOICE, "--out", out, "--check"]);
    assert!(code == 1 && text.contains("eval.jsonl"), "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_said_and_nothing_is_harmed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let (code, text) = command(&["dataset", "build", INVOICE, "--out", file.to_str().unwrap()]);
    assert!(code == 1 && text.contains("file"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let (_folder, task) = super::task_with(&[]);
    let error = Builder::new(&task, &task.definition_files())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("generator.toml: ") && error.contains("missing field `seed`"),
        "{error}"
    );
}
