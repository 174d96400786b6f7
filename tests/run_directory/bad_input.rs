//! Run directories that are older, newer, damaged, somebody else's or open to others.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use grpo_tui::files::seal_line;
use grpo_tui::run::{RunDirectory, RunError, RunState, Worker};

use super::command::runs_command;
use super::finished::{Made, made};
use super::{create, created, memory_folder};

/// Keys that an earlier release did not know have their defaults; what it wrote is kept.
#[test]
fn an_older_run_is_read() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(
        &root,
        &Made {
            set: &["seed=5", "keep_rollouts=300"],
            ..Made::default()
        },
    );
    let path = run.path().join("run.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let newer_keys = ["keep_rollouts", "threads"];
    let older: String = text
        .lines()
        .filter(|line| !newer_keys.iter().any(|key| line.starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&path, older.replacen("version = 1", "version = 0", 1)).unwrap();
    let opened = RunDirectory::open(run.path()).unwrap();
    let config = &opened.file().config;
    assert_eq!(
        (config.seed, config.keep_rollouts, config.threads),
        (5, 0, 0)
    );
    assert_eq!(
        opened.file().config_digest,
        run.file().config_digest,
        "what was written is not recomputed"
    );
    assert_eq!(runs_command(&root, &["show", run.id()]).0, 0);
    // A key that is wrong is still an error with its line.
    std::fs::write(&path, text.replacen("seed = 5", "seed = \"x\"", 1)).unwrap();
    let error = RunDirectory::open(run.path()).unwrap_err().to_string();
    assert!(
        error.contains("run.toml line ") && error.contains("invalid type"),
        "{error}"
    );
}

#[test]
fn a_corrupt_line_in_the_middle_is_skipped_and_counted() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(&root, &Made::default());
    let text = std::fs::read_to_string(run.events_path()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[20] = "\u{0}\u{0}\u{0}".into();
    lines[30].truncate(12);
    let mut newer = br#"{"v":1,"seq":41,"t":1,"kind":"hologram"}"#.to_vec();
    seal_line(&mut newer);
    lines[40] = String::from_utf8(newer).unwrap();
    std::fs::write(run.events_path(), lines.join("\n") + "\n").unwrap();
    let state = RunState::read(run.path()).unwrap();
    assert_eq!(
        (state.skipped, state.gaps, state.unknown, state.last_step),
        (2, 2, 1, 40)
    );
    let (_, text, _) = runs_command(&root, &["show", run.id()]);
    assert!(
        text.contains(
            "0 torn bytes dropped, 2 unreadable lines, 2 events missing, 1 event of a newer kind"
        ),
        "{text}"
    );
    let (_, text, _) = runs_command(&root, &["show", run.id(), "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["log"]["skipped_lines"], 2);
}

#[test]
fn a_run_whose_configuration_or_task_was_edited_is_not_computed() {
    let (_folder, run) = created();
    let begin =
        || Worker::begin(&RunDirectory::open(run.path()).unwrap(), Arc::default()).map(drop);
    begin().unwrap();
    for (name, from, to) in [
        ("run.toml", "\nseed = 0\n", "\nseed = 1\n"),
        ("task/task.toml", "name", "# edited\nname"),
        ("task/prompts/train.jsonl", "{", " {"),
    ] {
        let path = run.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = begin().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{} has changed since", path.display())),
            "{error}"
        );
        std::fs::write(&path, text).unwrap();
        begin().unwrap();
    }
}

#[test]
fn a_run_that_others_may_write_to_is_read_but_not_acted_in() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = create(folder.path());
    assert!(run.check_private().is_ok());
    std::fs::set_permissions(run.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
    let error = run.check_private().unwrap_err();
    assert!(
        matches!(error, RunError::Loose { mode: 0o770, .. })
            && error.to_string().contains("(mode 0770)"),
        "{error}"
    );
    let (code, text, _) = runs_command(&root, &["show", run.id()]);
    assert!(
        code == 0 && text.contains("warning") && text.contains("is writable by other users"),
        "{text}"
    );
    let (code, _, error) = runs_command(&root, &["remove", run.id(), "--yes"]);
    assert!(
        code == 1 && error.contains("is writable by other users") && run.path().exists(),
        "{error}"
    );
}

#[test]
#[cfg_attr(not(can_chown), ignore = "needs root, to give a folder away")]
fn a_run_of_another_user_is_read_but_not_acted_in() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = create(folder.path());
    std::os::unix::fs::chown(run.path(), Some(4242), None).unwrap();
    let error = run.check_private().unwrap_err().to_string();
    assert!(
        error.contains("belongs to user 4242, and you are user 0"),
        "{error}"
    );
    assert_eq!(runs_command(&root, &["remove", run.id(), "--yes"]).0, 1);
    assert_eq!(runs_command(&root, &["show", run.id()]).0, 0);
}
