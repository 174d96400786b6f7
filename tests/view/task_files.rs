//! Tests: the files of the open task on disk. A broken `task.toml` is shown and mended, every change is read again, and
//! `task.toml` is edited beside what defines answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use grpo_tui::view::Message;

use super::harness::Stage;

/// A stage at the first screen with a task in a folder, and that folder; `prepare` changes it before the start.
fn stage(prepare: impl FnOnce(&Path)) -> (Stage, PathBuf) {
    let mut stage = Stage::with(120, 36, |options| {
        let folder = options.here.join("tasks/invoice");
        crate::program::sample_task(&folder, [12, 4, 8]);
        prepare(&folder);
    });
    let folder = stage.folder.path().join("tasks/invoice");
    stage.keys("f1");
    (stage, folder)
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap()
}

fn change(folder: &Path, file: &str, from: &str, to: &str) {
    let text = read(folder, file);
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(folder.join(file), text.replacen(from, to, 1)).unwrap();
}

fn last_notice(stage: &Stage) -> &str {
    &stage.model.shared.notices.all().last().unwrap().text
}

#[test]
fn a_broken_task_is_shown_where_it_is_broken_and_mended_without_a_restart() {
    let (mut stage, folder) =
        stage(|folder| change(folder, "task.toml", "graded = false", "graded = maybe"));
    assert!(
        stage.model.shared.task.is_none() && last_notice(&stage).contains("task.toml line 16"),
        "{}",
        last_notice(&stage)
    );
    // Every screen says so, and two open the file.
    stage.keys("f5");
    assert!(
        stage.shows("preflight not checked: the task cannot be read"),
        "{}",
        stage.screen()
    );
    assert!(!stage.shows("checks passed"), "{}", stage.screen());
    for key in ["f3", "f4"] {
        stage.keys(key);
        assert!(
            stage.shows("task.toml line 16"),
            "{key}: {}",
            stage.screen()
        );
    }
    stage.keys("f3 e");
    assert!(
        stage
            .commands
            .last()
            .unwrap()
            .contains("tasks/invoice/task.toml\", line: 16"),
        "{:?}",
        stage.commands
    );
    stage.keys("f2");
    assert_eq!(stage.model.shared.draft.faults[0].line, 16);
    assert!(
        !stage.model.shared.draft.faults[0]
            .message
            .contains("task.toml"),
        "{:?}",
        stage.model.shared.draft.faults
    );
    assert!(
        stage.shows("▸ task.toml") && stage.shows("graded = maybe"),
        "{}",
        stage.screen()
    );
    // The same error is told once, another one again.
    let told = stage.model.shared.notices.total();
    stage.tick_after(1000);
    assert_eq!(stage.model.shared.notices.total(), told);
    change(&folder, "task.toml", "graded = maybe", "\ngraded = maybe");
    stage.tick_after(1000);
    assert_eq!(
        (
            stage.model.shared.notices.total(),
            stage.model.shared.draft.faults[0].line
        ),
        (told + 1, 17)
    );
    change(&folder, "task.toml", "graded = maybe", "graded = true");
    stage.tick_after(1000);
    assert_eq!(
        (stage.model.shared.task_error.as_ref(), last_notice(&stage)),
        (None, "task invoice opened")
    );
    assert!(
        stage.model.shared.draft.text.starts_with('{') && stage.shows("schema.json"),
        "{}",
        stage.screen()
    );
    // An open one is shown as well, and mended in the editor.
    change(&folder, "task.toml", "graded = true", "graded = \"true\"");
    stage.tick_after(1000);
    assert!(
        stage.shows("graded = \"true\"") && stage.model.shared.task.is_some(),
        "{}",
        stage.screen()
    );
    stage.keys("f5 L");
    assert!(
        stage.shows("task.toml line 17"),
        "a run reads the disk: {}",
        stage.screen()
    );
    stage
        .keys("esc f2 ] enter delete end backspace")
        .keys("ctrl-o");
    assert_eq!(
        read(&folder, "task.toml")
            .matches("graded = true\n")
            .count(),
        1,
        "{}",
        read(&folder, "task.toml")
    );
    assert_eq!(stage.model.shared.task_error, None);
    assert!(stage.model.shared.task.as_ref().unwrap().task.score.graded);
    assert!(
        stage.model.schema.typing && stage.shows("task.toml"),
        "the text stays under edit: {}",
        stage.screen()
    );
}

#[test]
fn a_file_at_fault_beside_task_toml_is_named_and_opened() {
    let (mut stage, folder) =
        stage(|folder| std::fs::write(folder.join("schema.json"), "{\n\"type\": }").unwrap());
    stage.keys("f2");
    assert!(stage.shows("schema.json line 2"), "{}", stage.screen());
    stage.keys("e");
    assert!(
        stage
            .commands
            .last()
            .unwrap()
            .contains("schema.json\", line: 2"),
        "{:?}",
        stage.commands
    );
    std::fs::write(folder.join("schema.json"), "{}").unwrap();
    stage.send(Message::Edited(folder.join("schema.json")));
    assert_eq!(stage.model.shared.draft.text, "{}");
    // It is gone for a while.
    std::fs::rename(&folder, folder.with_extension("away")).unwrap();
    stage.tick_after(1000);
    assert!(stage.model.shared.task_error.is_some());
    let told = stage.model.shared.notices.total();
    stage.tick_after(1000);
    assert_eq!(
        stage.model.shared.notices.total(),
        told,
        "{}",
        last_notice(&stage)
    );
    std::fs::rename(folder.with_extension("away"), &folder).unwrap();
    stage.tick_after(1000);
    assert_eq!(stage.model.shared.task_error, None);
}

/// On whatever screen; a run would read them.
#[test]
fn every_file_of_the_task_is_read_again_once_it_changes() {
    let (mut stage, folder) = stage(|_| {});
    for (file, from, to) in [
        ("task.toml", "Answer with JSON only.", "Answer."),
        ("schema.json", "\"object\"", "\"object\" "),
        ("train.jsonl", "train-002", "train-two"),
        ("eval.jsonl", "eval-002", "eval-two"),
        ("completions.jsonl", "train-001", "train-003"),
    ] {
        let before = stage.model.shared.task.clone().unwrap();
        stage.tick_after(1000);
        assert!(
            Arc::ptr_eq(&before, stage.model.shared.task.as_ref().unwrap()),
            "{file}: nothing has changed"
        );
        change(&folder, file, from, to);
        stage.tick_after(1000);
        assert!(
            !Arc::ptr_eq(&before, stage.model.shared.task.as_ref().unwrap()),
            "{file}"
        );
        assert_eq!(
            last_notice(&stage),
            format!("{file} changed on disk: reading the task again")
        );
    }
    let open = stage.model.shared.task.as_ref().unwrap();
    assert!(open.row("train-two").is_some() && open.task.system.as_deref() == Some("Answer."));
    assert_eq!(stage.model.shared.draft.text, read(&folder, "schema.json"));
}

#[test]
fn task_toml_is_edited_beside_the_schema_and_scores_as_one_types() {
    let (mut stage, folder) = stage(|_| {});
    stage.keys("f2 f");
    assert!(
        stage.shows("▸ task.toml") && stage.shows("✓ compiles"),
        "{}",
        stage.screen()
    );
    let plain = stage.model.schema.effects.clone().unwrap();
    stage
        .keys("/")
        .types("graded = false")
        .keys("enter enter end ctrl-w")
        .types("true");
    assert!(
        stage.model.schema.effects.as_ref().unwrap().reward > plain.reward,
        "graded credit: {}",
        stage.screen()
    );
    // What is unsaved stays where it is, and is offered again.
    stage.keys("esc f");
    assert!(
        last_notice(&stage).contains("task.toml is unsaved"),
        "{}",
        last_notice(&stage)
    );
    stage.tick_after(1000);
    let (here, data) = (
        stage.folder.path().to_owned(),
        stage.folder.path().join("data"),
    );
    let mut next = Stage::with(120, 36, move |options| {
        (options.here, options.data) = (here, data)
    });
    next.keys("f2 t");
    assert!(
        next.model.shared.draft.text.contains("graded = true"),
        "{}",
        next.screen()
    );
    assert!(next.shows("task.toml (unsaved)"), "{}", next.screen());
    stage.keys("w");
    assert!(read(&folder, "task.toml").contains("graded = true"));
    assert!(
        stage.model.shared.task.as_ref().unwrap().task.score.graded
            && !stage.model.shared.draft.is_changed()
    );
    stage.keys("f u");
    assert_eq!(
        stage.model.shared.draft.text,
        read(&folder, "schema.json"),
        "undo does not lead into another file"
    );
    // A change of either file on disk while the other is shown loses nothing.
    stage.keys("enter").types(" ");
    change(&folder, "task.toml", "graded = true", "graded = maybe");
    stage.tick_after(1000);
    assert!(
        stage.model.shared.draft.text.starts_with(" {") && stage.model.shared.task_error.is_some()
    );
}

#[test]
fn task_toml_of_the_embedded_task_is_saved_into_a_copy() {
    let mut stage = Stage::new(120, 36);
    stage.keys("f2 f enter").types("# mine\n").keys("esc w");
    let copy = stage.folder.path().join("data/tasks/invoice");
    assert!(read(&copy, "task.toml").starts_with("# mine\nname"));
    assert_eq!(
        read(&copy, "schema.json"),
        std::fs::read_to_string("sample-data/invoice/schema.json").unwrap()
    );
    assert!(
        stage.shows("▸ task.toml") && !stage.model.shared.draft.is_changed(),
        "{}",
        stage.screen()
    );
}

#[test]
fn what_an_older_text_accepted_is_not_said_of_one_that_does_not_compile() {
    let mut stage = Stage::new(120, 36);
    stage.keys("f2 r");
    assert_eq!(
        last_notice(&stage),
        "nothing to list: schema accepts all 750 expected answers"
    );
    stage.keys("enter").types("x").keys("esc r");
    assert_eq!(
        last_notice(&stage),
        "expected answers are not checked: schema does not compile"
    );
}

/// What is written or pasted on Scores outlives the session: with its prompt, after the samples that are there.
#[test]
fn completions_written_on_scores_are_saved_as_samples() {
    let (mut stage, folder) = stage(|folder| {
        let first = read(folder, "train.jsonl")
            .lines()
            .next()
            .unwrap()
            .to_owned();
        // The id is in two sets.
        let eval = read(folder, "eval.jsonl") + &first + "\n";
        std::fs::write(folder.join("eval.jsonl"), eval).unwrap();
        let samples = read(folder, "completions.jsonl");
        std::fs::write(folder.join("completions.jsonl"), samples.trim_end()).unwrap();
    });
    let before = read(&folder, "completions.jsonl");
    stage.keys("f4 ctrl-o");
    assert!(
        stage.shows("nothing to save: paste a completion"),
        "{}",
        stage.screen()
    );
    stage.keys("a").types("{\"vendor\": \"A\"}").keys("esc");
    stage.model.scores.written[0].prompt_id = None;
    stage.send(Message::Paste("line 1\r\nline 2".to_owned()));
    stage.model.scores.written[1].prompt_id = Some("train-001".to_owned());
    stage.keys("a").types("three").keys("ctrl-o");
    let left: Vec<_> = stage.model.scores.written.iter().collect();
    assert!(left.is_empty(), "{left:?}");
    let after = read(&folder, "completions.jsonl");
    let added: Vec<&str> = after
        .strip_prefix(&before)
        .unwrap()
        .trim()
        .lines()
        .collect();
    assert_eq!(
        added[..2],
        [
            r#"{"completion":"{\"vendor\": \"A\"}"}"#,
            r#"{"prompt_id":"train-001","set":"train","completion":"line 1\nline 2"}"#,
        ]
    );
    assert!(added[2].ends_with(r#""completion":"three"}"#), "{added:?}");
    let said = format!(
        "3 completions saved as task samples: {}",
        folder.join("completions.jsonl").display()
    );
    assert_eq!(last_notice(&stage), said);
    let count = after.lines().count();
    assert!(
        stage.shows(&format!("completions {count}, task samples")) && stage.shows("three"),
        "{}",
        stage.screen()
    );
}

#[test]
fn a_task_without_samples_gets_a_file_of_them() {
    let (mut stage, folder) = stage(|folder| {
        change(
            folder,
            "task.toml",
            "completions = \"completions.jsonl\"\n",
            "",
        );
        std::fs::remove_file(folder.join("completions.jsonl")).unwrap();
    });
    stage.keys("f4 a").types("{}").keys("ctrl-o");
    assert_eq!(
        read(&folder, "completions.jsonl"),
        "{\"completion\":\"{}\"}\n"
    );
    let toml = read(&folder, "task.toml");
    assert!(
        toml.contains("completions = \"completions.jsonl\"\n"),
        "{toml}"
    );
    assert!(
        stage.shows("completions 1, task samples"),
        "{}",
        stage.screen()
    );
}
