//! The `runs` command tells what the files say.

use std::path::Path;

use grpo_tui::run::events::{End, Eval, Run};
use grpo_tui::run::{EvalSummary, EventWriter, RunDirectory, RunLock, StateWriter, Status};

use super::{create, memory_folder, new_run, step};
use crate::program::{call_anywhere_in_process as call_anywhere, ended, lines};
use grpo_tui::facts::Target;

/// What `grpo-tui runs` prints, with its exit code.
pub(super) fn runs_command(root: &Path, arguments: &[&str]) -> (i32, String, String) {
    ended(call_anywhere(
        &[&["runs"], arguments, &["--runs", root.to_str().unwrap()]].concat(),
    ))
}

#[test]
fn the_runs_command_tells_what_the_files_say() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let (code, text, error) = runs_command(&root, &["list", "--json"]);
    let missing = format!(
        "--runs {}: there is no such folder; leave --runs out for the workspace's own",
        root.display()
    );
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, document, error),
        (
            2,
            serde_json::json!({"error": missing, "code": 2}),
            format!("error: {missing}\n")
        )
    );
    std::fs::create_dir(&root).unwrap();
    let (code, text, _) = runs_command(&root, &["list"]);
    assert_eq!(
        (code, text),
        (
            0,
            format!(
                "no runs in {}: start one with `grpo-tui train TASK`\n",
                root.display()
            )
        )
    );

    let run = create(folder.path());
    {
        let lock = RunLock::acquire(run.path()).unwrap();
        let mut state = StateWriter::start(&lock).unwrap();
        let mut writer = EventWriter::open(&lock).unwrap();
        writer
            .append(Run {
                id: run.id().into(),
                job: grpo_tui::facts::Job::Train,
                total_steps: 5,
                ..Run::default()
            })
            .unwrap();
        writer.append(step(1, 0.25)).unwrap();
        writer.append(step(2, f64::NAN)).unwrap();
        let summary = EvalSummary {
            n: 50,
            valid: 0.82,
            exact: Some(0.8),
            parse: 0.9,
            valid_interval: [0.692, 0.902],
            ..EvalSummary::default()
        };
        writer
            .append(Eval {
                step: 2,
                set: "eval".into(),
                target: Target::Trained,
                summary,
                ..Eval::default()
            })
            .unwrap();
        state.status(Status::Running, 2, None).unwrap();
    }
    let broken = root.join("20200101-000000-broken-aaaaaa");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("run.toml"), "version = 99\n").unwrap();

    let (code, text, _) = runs_command(&root, &["list", "--json"]);
    let rows = lines(&text);
    assert_eq!((code, rows.len()), (0, 2));
    assert!(
        rows[0]["error"]
            .as_str()
            .unwrap()
            .contains("format version 99"),
        "{text}"
    );
    assert_eq!(
        (
            rows[1]["status"].as_str(),
            rows[1]["step"].as_u64(),
            rows[1]["valid"].as_f64()
        ),
        (Some("interrupted"), Some(2), Some(0.82))
    );

    let (code, text, _) = runs_command(&root, &["show", run.id()]);
    assert_eq!(code, 0);
    for expected in [
        "state        interrupted: ",
        "steps        2 of 5",
        ") died",
        "grpo-tui train --resume",
        "trained  50  82.0% [69.2, 90.2]",
        "checkpoints  none",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let (_, text, _) = runs_command(&root, &["show", run.id(), "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (
            document["config"]["lora_rank"].as_u64(),
            document["sources"]["lora_rank"].as_str()
        ),
        (Some(16), Some("default"))
    );
    assert_eq!(document["evals"][0]["summary"]["n"], 50);

    assert_eq!(
        runs_command(&root, &["export", run.id(), "--csv"]).1,
        "step,reward,seconds\n1,0.25,0.5\n2,,0.5\n"
    );

    let mut other = new_run("invoice");
    other.config.learning_rate = 0.5;
    let other = RunDirectory::create(&root, other).unwrap();
    let (code, text, _) = runs_command(&root, &["compare", run.id(), other.id(), "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &document["config"]),
        (0, &serde_json::json!({"learning_rate": [4e-5, 0.5]}))
    );

    let (code, text, error) = runs_command(&root, &["show", "nothing"]);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.starts_with("error: no run `nothing` in "), "{error}");
}

/// `runs attach`, which must come to an end by itself.
fn attached(root: &Path, run: &RunDirectory) -> (i32, String) {
    let (code, text, _) = runs_command(root, &["attach", run.id()]);
    (code, text)
}

#[test]
fn attaching_to_a_run_that_nobody_computes_ends_with_its_state() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let end = |status| End {
        status,
        cause: "because".into(),
        step: 1,
        seconds: 1.0,
    };
    type Write = fn(&Path);
    let spoilt: [Write; 4] = [
        |run| std::fs::write(run.join("state.json"), "{").unwrap(),
        |run| std::fs::remove_file(run.join("state.json")).unwrap(),
        |run| {
            std::fs::write(
                run.join("state.json"),
                "{\"version\": 1, \"status\": \"dancing\"}",
            )
            .unwrap()
        },
        |run| std::fs::write(run.join("state.json"), "\u{0}".repeat(400)).unwrap(),
    ];
    for (number, spoil) in spoilt.into_iter().enumerate() {
        for (word, code, expected) in [
            (Some(Status::Finished), 0, "finished: because"),
            (Some(Status::Failed), 1, "failed: because"),
            (
                None,
                130,
                "interrupted: the worker died, and its state.json is missing or unreadable",
            ),
        ] {
            let run = create(folder.path());
            {
                let lock = RunLock::acquire(run.path()).unwrap();
                StateWriter::start(&lock).unwrap();
                let mut writer = EventWriter::open(&lock).unwrap();
                // The end of an earlier worker is not this one's.
                writer.append(end(Status::Interrupted)).unwrap();
                writer
                    .append(Run {
                        id: run.id().into(),
                        job: grpo_tui::facts::Job::Train,
                        total_steps: 5,
                        ..Run::default()
                    })
                    .unwrap();
                writer.append(step(1, 0.25)).unwrap();
                word.into_iter()
                    .for_each(|word| _ = writer.append(end(word)).unwrap());
            }
            spoil(run.path());
            let (found, text) = attached(&root, &run);
            assert!(
                found == code && text.trim_end().ends_with(expected),
                "{number} {word:?}: {found}\n{text}"
            );
            let (_, text, _) = runs_command(&root, &["show", run.id()]);
            assert!(text.contains(expected.split(':').next().unwrap()), "{text}");
        }
    }
    let (code, text) = attached(&root, &create(folder.path()));
    assert!(
        code == 130
            && text.contains("created: no worker yet: start one with grpo-tui train --resume "),
        "{code}\n{text}"
    );
}
