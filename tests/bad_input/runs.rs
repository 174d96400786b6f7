//! Tests: runs that cannot be resumed or used as a model, and what stays of them.

use std::fs;
use std::path::{Path, PathBuf};

use grpo_tui::run::RunLock;

use super::{Truncated, assert_said, check, damage, snapshot};
use crate::command_line::finished;
use crate::program::{call, call_in_process, copy_tree, small_task, stderr};

/// A copy of the finished run in `folder/runs`, without its last word where `open`, so that a resume has something to
/// do.
fn copied_run(folder: &Path, open: bool) -> PathBuf {
    let (_, report) = finished();
    let from = Path::new(report["path"].as_str().unwrap());
    let run = folder.join("runs").join(from.file_name().unwrap());
    let _ = fs::remove_dir_all(&run);
    copy_tree(from, &run);
    if open {
        let path = run.join("events.jsonl");
        let events = fs::read_to_string(&path).unwrap();
        let without_end: String = events
            .split_inclusive('\n')
            .filter(|line| !line.contains("\"kind\":\"end\""))
            .collect();
        fs::write(&path, without_end).unwrap();
    }
    run
}

#[test]
fn a_run_that_cannot_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let resume = ["train", "--runs", "runs", "--resume", "short"];
    // Unknown.
    check(
        folder.path(),
        &["train", "--resume", "nonesuch"],
        1,
        &[
            "no run `nonesuch` in ",
            "grpo-tui/runs; `grpo-tui runs list` lists",
        ],
    );
    check(
        folder.path(),
        &["train", "--resume", "./nonesuch"],
        1,
        &["no run `./nonesuch`"],
    );
    check(
        folder.path(),
        &["train", "--resume", "short", "--set", "seed=1"],
        2,
        &["'--resume <RUN>' cannot be used with '--set"],
    );
    // Malformed.
    let run = copied_run(folder.path(), true);
    fs::write(run.join("run.toml"), "version = 1\nid =\n").unwrap();
    check(
        folder.path(),
        &["train", "--resume", run.to_str().unwrap()],
        1,
        &["run.toml line 2: "],
    );
    fs::remove_file(run.join("run.toml")).unwrap();
    check(
        folder.path(),
        &["train", "--resume", run.to_str().unwrap()],
        1,
        &["is not a run directory: run.toml is missing"],
    );
    // In use.
    let run = copied_run(folder.path(), true);
    let lock = RunLock::acquire(&run).unwrap();
    let holder = format!("is in use by process {} on ", std::process::id());
    check(
        folder.path(),
        &resume,
        1,
        &["the run ", &holder, "or stop it first"],
    );
    drop(lock);
    // Damaged, of an older program: what else is there stays, and the log only grows.
    let damaged = [
        ("trainer.json", 10, ""),
        (
            "model.safetensors",
            1000,
            "model.safetensors: incomplete safetensors file (",
        ),
        (
            "optimizer.safetensors",
            100_000,
            "optimizer.safetensors: incomplete safetensors file (",
        ),
    ];
    for (file, bytes, problem) in &damaged[1..] {
        let run = copied_run(folder.path(), true);
        let mark = run.join("checkpoints/step-000002/trainer.json");
        let mut state: serde_json::Value =
            serde_json::from_slice(&fs::read(&mark).unwrap()).unwrap();
        for name in ["files", "xxh3"] {
            state.as_object_mut().unwrap().remove(name).unwrap();
        }
        fs::write(&mark, state.to_string()).unwrap();
        damage(
            &run.join("checkpoints/step-000002").join(file),
            &Truncated(*bytes),
        );
        let before = snapshot(folder.path());
        let output = call(folder.path(), &resume);
        assert_said(
            &output,
            1,
            &[
                "checkpoints/step-000002/",
                problem,
                "remove this folder (resume then uses the one before)",
            ],
        );
        let mut after = snapshot(folder.path());
        for (path, bytes) in before {
            let now = after
                .remove(&path)
                .unwrap_or_else(|| panic!("{} is gone", path.display()));
            match path.file_name().unwrap().to_str().unwrap() {
                "state.json" | "lock" | "cpu.lock" | "cpu.queue" => {}
                "events.jsonl" => assert!(
                    now.unwrap().starts_with(&bytes.unwrap()),
                    "the log was rewritten"
                ),
                _ => assert!(now == bytes, "{} was changed", path.display()),
            }
        }
        after.retain(|path, _| {
            !path.starts_with(folder.path().join("slots")) && !path.ends_with("control")
        });
        assert!(after.is_empty(), "new: {:?}", after.keys());
    }
    // The remedy is true.
    fs::remove_dir_all(run.join("checkpoints/step-000002")).unwrap();
    let again = call(folder.path(), &resume);
    assert!(
        again.status.success() && stderr(&again).contains("resumed from step 0"),
        "{}",
        stderr(&again)
    );
    // One with digests is set aside by itself.
    for (file, bytes, _) in damaged {
        let run = copied_run(folder.path(), true);
        damage(
            &run.join("checkpoints/step-000002").join(file),
            &Truncated(bytes),
        );
        let named = format!("checkpoints/step-000002/{file}");
        let aside = "the checkpoint of step 2 is now checkpoints/step-000002.damaged";
        let output = call(folder.path(), &resume);
        let said = stderr(&output);
        assert!(
            output.status.success() && said.contains("resumed from step 0"),
            "{said}"
        );
        assert!(said.contains(&named) && said.contains(aside), "{said}");
        assert!(
            run.join("checkpoints/step-000002.damaged")
                .join(file)
                .exists()
        );
    }
}

#[test]
fn a_finished_run_is_shown_again_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_, report) = finished();
    copied_run(folder.path(), false);
    let before = snapshot(folder.path());
    let output = call_in_process(
        folder.path(),
        &["train", "--runs", "runs", "--resume", "short", "--json"],
    );
    assert!(
        output.status.success()
            && stderr(&output).contains("run is finished, nothing to do: to train further, "),
        "{}",
        stderr(&output)
    );
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in [
        "base",
        "trained",
        "mcnemar_p",
        "fixed",
        "broken",
        "steps",
        "best_step",
        "set",
    ] {
        assert_eq!(shown[key], report[key], "{key}");
    }
    assert!(snapshot(folder.path()) == before);
}

#[test]
fn a_run_without_the_checkpoint_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    small_task(folder.path());
    let run = copied_run(folder.path(), false);
    let eval = |model: &str, parts: &[&str]| {
        check(
            folder.path(),
            &["eval", "task", "--runs", "runs", "--model", model],
            1,
            parts,
        )
    };
    eval(
        "short@7",
        &["has no checkpoint `7`; there are those of steps 0, 2"],
    );
    eval(
        "nonesuch@best",
        &["no run `nonesuch` in runs; `grpo-tui runs list` lists"],
    );
    fs::write(run.join("checkpoints/step-000002/model.safetensors"), "").unwrap();
    eval(
        "short@2",
        &[
            "step-000002/model.safetensors: the file does not match its digest in trainer.json",
            "use another checkpoint (RUN@STEP)",
        ],
    );
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    eval("short", &["has no checkpoint `best`; it has none yet"]);
}
