//! Tests: where results go, in what shape, and with which exit code.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::finished;
use crate::program::{
    SHORT, call, call_in_process, copy_tree, json, json_lines, program, sample_data, small_task,
    stderr, stdout,
};

/// The table is the result: it goes where `>` takes it; what is done with it next is said beside it.
#[test]
fn the_result_of_a_training_is_on_stdout() {
    let (folder, report) = finished();
    let id = report["run"].as_str().unwrap();
    let output = call_in_process(folder, &["train", "--resume", id, "--runs", "runs"]);
    let (text, said) = (stdout(&output), stderr(&output));
    let path = report["path"].as_str().unwrap();
    for expected in ["valid", "exact", "2 steps in ", path] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(
        said.contains("\nnext:\n  compare  grpo-tui runs compare ")
            && !said.contains("2 steps in "),
        "{said}"
    );
    assert!(
        ["serve", "export"].iter().all(|next| said.contains(next)) == (report["best_step"] != 0),
        "{said}"
    );
    let output = call_in_process(
        folder,
        &["train", "--resume", id, "--runs", "runs", "--json"],
    );
    assert_eq!(json(&output)["run"], id);
}

/// What `runs list` says of a run, `runs show` says in the same words.
#[test]
fn list_and_show_have_one_shape() {
    let (folder, report) = finished();
    let id = report["run"].as_str().unwrap();
    let listed = json_lines(&call_in_process(
        folder,
        &["runs", "--runs", "runs", "list", "--json"],
    ))
    .remove(0);
    let shown = json(&call_in_process(
        folder,
        &["runs", "--runs", "runs", "show", id, "--json"],
    ));
    for (key, value) in listed.as_object().unwrap() {
        assert_eq!(&shown[key], value, "{key}");
    }
    let place = tempfile::tempdir().unwrap();
    let (runs, run) = (
        place.path().join("runs"),
        place.path().join("runs/20261120-143041-invoice-6sx3dn"),
    );
    copy_tree(&sample_data("finished-run"), &run);
    let mut log = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let seq = log.lines().count() + 1;
    let alert = json!({"rule": "all_best", "level": "info", "step": 40, "sentence": "s", "suggestion": "d", "cleared": false});
    let mut event = json!({"v": 1, "seq": seq, "t": 1, "kind": "alert"});
    event
        .as_object_mut()
        .unwrap()
        .extend(alert.as_object().unwrap().clone());
    log += &format!("{event}\n");
    fs::write(run.join("events.jsonl"), log).unwrap();
    let command = |arguments: &[&str]| {
        call_in_process(
            folder,
            &[&["runs", "--runs", runs.to_str().unwrap()], arguments].concat(),
        )
    };
    let listed = json_lines(&command(&["list", "--json"])).remove(0);
    let shown = json(&command(&["show", run.to_str().unwrap(), "--json"]));
    assert_eq!(
        (&listed["alerts"], &shown["alerts"]),
        (&json!([alert]), &json!([alert]))
    );
}

/// 2 is for the command line; a fault of a file is 1, whatever the file.
#[test]
fn exit_codes_follow_one_rule() {
    let folder = tempfile::tempdir().unwrap();
    let toml = small_task(folder.path()).join("task.toml");
    let whole = fs::read_to_string(&toml).unwrap();
    let check = |text: &str, more: &[&str], expected: (i32, &str)| {
        fs::write(&toml, text).unwrap();
        let output = call(
            folder.path(),
            &[&["train", "task", "--runs", "runs"], more].concat(),
        );
        assert_eq!(
            output.status.code(),
            Some(expected.0),
            "{more:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(expected.1),
            "{more:?}: {}",
            stderr(&output)
        );
    };
    fs::write(folder.path().join("bad.toml"), "learnig_rate = 1e-3\n").unwrap();
    fs::write(folder.path().join("broken.toml"), "seed = = 1\n").unwrap();
    let misspelt = whole.replace("[train]\n", "[train]\nlearnig_rate = 1e-3\n");
    check(&misspelt, &[], (1, "unknown key `learnig_rate`"));
    check(
        &misspelt,
        &["--set", "learning_rate=1e-3"],
        (1, "unknown key `learnig_rate`"),
    );
    check("name = = 1\n", &[], (1, "task.toml"));
    check(
        &whole,
        &["--config", "bad.toml"],
        (1, "bad.toml line 1: unknown key `learnig_rate`"),
    );
    check(
        &whole,
        &["--config", "broken.toml"],
        (1, "broken.toml line 1"),
    );
    check(
        &whole,
        &["--config", "none.toml"],
        (2, "--config none.toml"),
    );
    check(
        &whole,
        &["--set", "learnig_rate=1e-3"],
        (2, "--set: unknown key `learnig_rate`"),
    );
    check(
        &whole,
        &["--set", "learning_rate=fast"],
        (2, "learning_rate"),
    );
    let help = stdout(&call(folder.path(), &["--help"]));
    let manual = stdout(&call(folder.path(), &["man"]));
    assert!(
        help.contains("Exit codes:\n    0  success") && help.contains("\n  130  interrupted"),
        "{help}"
    );
    assert!(
        manual.contains("EXIT STATUS") && manual.contains("wrong usage"),
        "{manual}"
    );
}

/// The program dies as the second completion ends; the first is on stdout by then.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn sample_prints_what_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let arguments = [
        "sample",
        "task",
        "--model",
        "tiny",
        "--on",
        "eval",
        "--n",
        "1",
        "--threads",
        "1",
        "--json",
    ];
    let whole = json_lines(&call(folder.path(), &arguments));
    let places: Vec<&str> = whole
        .iter()
        .map(|line| line["prompt_id"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["eval-001", "eval-002", "eval-003", "eval-004"]);
    // All but one have ended: the first prompt's is among them, or the three that follow it wait for it.
    let cut = program(folder.path(), &arguments)
        .env("GRPO_TUI_FAULT", "sample.end:4")
        .output()
        .unwrap();
    let printed: Vec<Value> = String::from_utf8(cut.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(printed, whole[..printed.len()]);
    assert!(!cut.status.success() && printed.len() < 4, "{printed:?}");
    assert!(!printed.is_empty(), "nothing was printed before the end");
}

/// The small task with some of its sets left out of task.toml.
fn task_without(folder: &Path, sets: &[&str]) {
    let path = small_task(folder).join("task.toml");
    let text = fs::read_to_string(&path).unwrap();
    let named = |line: &str| {
        sets.iter()
            .any(|set| line.starts_with(&format!("{set} ")) || line.starts_with(&format!("{set}=")))
    };
    let others: Vec<&str> = text.lines().filter(|line| !named(line)).collect();
    fs::write(&path, others.join("\n")).unwrap();
}

#[test]
fn training_without_held_out_sets_says_what_it_cannot_show() {
    for (missing, set, n, note) in [
        (
            &["eval", "test"][..],
            "eval",
            0,
            "no held-out prompts: nothing was measured",
        ),
        (
            &["test"],
            "eval",
            4,
            "note: no test set: these prompts also chose the checkpoint",
        ),
        (
            &["eval"],
            "test",
            8,
            "note: no eval set to choose a checkpoint: this is the last one",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        task_without(folder.path(), missing);
        let train = |more: &[&str]| {
            call(
                folder.path(),
                &[
                    &["train", "task", "--runs", "runs", "--json"],
                    &SHORT[..],
                    more,
                ]
                .concat(),
            )
        };
        let output = train(&[]);
        let report = json(&output);
        assert_eq!(
            (&report["set"], &report["trained"]["n"], &report["steps"]),
            (&set.into(), &n.into(), &2.into()),
            "{missing:?}"
        );
        assert!(
            stderr(&output).contains(note),
            "{missing:?}: {}",
            stderr(&output)
        );
        let id = report["run"].as_str().unwrap();
        let again = stdout(&call_in_process(
            folder.path(),
            &["train", "--resume", id, "--runs", "runs"],
        ));
        assert_eq!(
            (again.contains("set, n = "), again.contains(note)),
            (n > 0, true),
            "{missing:?}: {again}"
        );
        if missing.contains(&"eval") {
            assert!(
                ["eval", "test"].contains(&set) && report["best_step"] == 2,
                "{report}"
            );
            for (goal, shown) in [
                ("stop_when=valid>=0.9", "stop_when = valid>=0.9"),
                ("patience=2", "patience = 2"),
            ] {
                let refused = train(&["--set", goal]);
                assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
                let expected = format!(
                    "error: {shown} needs an eval set, and task/task.toml has none: add `eval = \"FILE.jsonl\"` under [prompts]\n"
                );
                assert_eq!(stderr(&refused), expected);
            }
        }
    }
}
