//! A worker whose folder is taken from under it stops, frees its device, says so where it can, and never writes under
//! the old path again; one that may not write says that too.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use grpo_tui::run::{Device, Liveness, Slot, State, Status, Verb, ask, queue_length};

use super::story::{Stage, log, slots};
use crate::program::until;

/// How a worker holds when its folder is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Holding {
    Waits,
    Paused,
}

fn status(run: &Path) -> Option<Status> {
    State::observe(run).map(|state| state.status)
}

/// A worker that waits for its device, which this process has, or that is paused on it.
fn holding(stage: &Stage, run: &Path, how: Holding) -> (Child, Option<Slot>) {
    let slots = slots(run);
    std::fs::create_dir(&slots).unwrap();
    std::fs::set_permissions(&slots, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let taken = (how == Holding::Waits).then(|| {
        Slot::wait(&slots, &[Device::Cpu], 1, |_| {
            std::ops::ControlFlow::Break(())
        })
        .unwrap()
        .unwrap()
    });
    let child = stage.worker(run).spawn().unwrap();
    until("a worker that hears", || status(run).is_some());
    let expected = if how == Holding::Waits {
        Status::Waiting
    } else {
        Status::Paused
    };
    if how == Holding::Paused {
        ask(run, &Verb::Pause, Duration::ZERO, &mut |_| {}).unwrap();
    }
    until("it holds", || status(run) == Some(expected));
    (child, taken)
}

/// Every file below a folder with what it holds.
fn all_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
        .into_iter()
        .flat_map(|path| {
            if path.is_dir() {
                all_of(&path)
            } else {
                vec![(path.clone(), std::fs::read(path).unwrap())]
            }
        })
        .collect()
}

/// Takes the folder away by `take`; what the worker then said, and where its folder is now.
fn lose(how: Holding, take: impl Fn(&Path, &Path)) -> (Stage, PathBuf, PathBuf, String) {
    let stage = Stage::new();
    let run = stage.create("run", &["max_completion_tokens=8", "max_steps=5000"]);
    let elsewhere = stage.folder.path().join("elsewhere");
    let (mut child, taken) = holding(&stage, &run, how);
    let before = log(&run).len();
    take(&run, &elsewhere);
    until("its end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", log(&run));
    assert_eq!(queue_length(&slots(&run), &Device::Cpu), 0);
    drop(taken);
    let device = Slot::wait(&slots(&run), &[Device::Cpu], 1, |_| {
        std::ops::ControlFlow::Break(())
    })
    .unwrap();
    assert!(device.is_some(), "the device is free");
    let messages = log(&run)[before..].to_owned();
    (stage, run, elsewhere, messages)
}

#[test]
fn a_worker_whose_folder_is_removed_or_moved_stops_and_leaves_the_old_path_alone() {
    for how in [Holding::Waits, Holding::Paused] {
        let (_stage, run, _, messages) = lose(how, |run, _| std::fs::remove_dir_all(run).unwrap());
        assert!(
            messages.contains("stops: its folder was removed") && !run.exists(),
            "{how:?}: {messages}"
        );

        let (_stage, run, elsewhere, messages) = lose(how, |run, elsewhere| {
            std::fs::rename(run, elsewhere).unwrap()
        });
        let expected = format!("its folder was moved to {}", elsewhere.display());
        assert!(
            messages.contains(&expected) && !run.exists(),
            "{how:?}: {messages}"
        );
        let state = State::observe(&elsewhere).unwrap();
        assert!(
            state.status == Status::Interrupted && state.cause.clone().unwrap().contains(&expected),
            "{how:?}: {state:?}"
        );
    }
}

#[test]
fn what_stands_in_the_place_of_a_lost_folder_is_not_touched() {
    let (_stage, run, elsewhere, messages) = lose(Holding::Paused, |run, elsewhere| {
        std::fs::rename(run, elsewhere).unwrap();
        std::fs::create_dir(run).unwrap();
        for name in ["lock", "state.json", "events.jsonl"] {
            std::fs::write(run.join(name), "another's").unwrap();
        }
    });
    assert!(messages.contains("was moved to"), "{messages}");
    let names: Vec<_> = all_of(&run)
        .into_iter()
        .map(|(path, bytes)| (path.file_name().unwrap().to_owned(), bytes))
        .collect();
    assert_eq!(
        names,
        ["events.jsonl", "lock", "state.json"].map(|name| (name.into(), b"another's".to_vec()))
    );
    assert_eq!(status(&elsewhere), Some(Status::Interrupted));
}

#[test]
fn a_worker_whose_log_or_lock_is_removed_stops_and_says_so_in_its_state() {
    for how in [Holding::Waits, Holding::Paused] {
        let (_stage, run, _, messages) = lose(how, |run, _| {
            std::fs::remove_file(run.join("events.jsonl")).unwrap()
        });
        assert!(
            messages.contains("its events.jsonl was removed") && !run.join("events.jsonl").exists(),
            "{how:?}: {messages}"
        );
        let state = State::observe(&run).unwrap();
        assert!(
            state.status == Status::Failed
                && state
                    .cause
                    .clone()
                    .unwrap()
                    .contains("events.jsonl was removed"),
            "{how:?}: {state:?}"
        );
    }
    let (_stage, run, _, messages) = lose(Holding::Waits, |run, _| {
        std::fs::remove_file(run.join("lock")).unwrap()
    });
    assert!(
        messages.contains("its lock file was removed") && !run.join("lock").exists(),
        "{messages}"
    );
}

#[test]
fn a_worker_in_the_background_has_the_programs_name() {
    let stage = Stage::new();
    let run = stage.create("run", &[]);
    let slots = slots(&run);
    std::fs::create_dir(&slots).unwrap();
    std::fs::set_permissions(&slots, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let _taken = Slot::wait(&slots, &[Device::Cpu], 1, |_| {
        std::ops::ControlFlow::Break(())
    })
    .unwrap()
    .unwrap();
    let output = stage
        .program(&run)
        .args(["runs", "resume", "--cpu", "--json"])
        .arg(&run)
        .output()
        .unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (document["run"].as_str(), document["path"].as_str()),
        (run.file_name().unwrap().to_str(), run.to_str())
    );
    let process = document["pid"].as_u64().unwrap();
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap(),
        "grpo-tui\n"
    );
    assert!(
        stage
            .program(&run)
            .args(["runs", "stop", "--wait", "60"])
            .arg(&run)
            .output()
            .unwrap()
            .status
            .success()
    );
}

/// The program where no file may grow beyond so many blocks of 512 bytes.
fn limited(stage: &Stage, run: &Path, blocks: u32) -> Command {
    let program = stage.program(run);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .stdin(Stdio::null());
    command.envs(
        program
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command
}

#[test]
fn a_limit_on_the_size_of_files_is_said_by_whoever_meets_it() {
    let stage = Stage::new();
    let run = stage.create("run", &[]);
    let output = limited(&stage, &run, 2)
        .args(["runs", "resume", "--cpu"])
        .arg(&run)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    until("its end", || !Liveness::for_run(&run).may_live());
    let state = State::observe(&run).unwrap();
    let cause = state.cause.unwrap();
    assert!(
        state.status == Status::Failed
            && cause.contains("File too large")
            && cause.contains("ulimit -f"),
        "{:?}: {cause}",
        state.status
    );
    // The worker writes its message after it has let go of the run.
    until("its message", || {
        let messages = std::fs::read_to_string(run.join("worker.log")).unwrap();
        messages.contains("error: ") && messages.contains("File too large")
    });
    // The log has whole lines only.
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    assert!(
        events.ends_with('\n')
            && events
                .lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{events}"
    );

    let runs = stage.folder.path().join("new");
    let output = limited(&stage, &run, 1)
        .args(["train", "invoice", "--detach", "--cpu", "--runs"])
        .arg(&runs)
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1)
            && messages.contains("File too large")
            && messages.contains("ulimit -f"),
        "{messages}"
    );
    assert_eq!(
        std::fs::read_dir(&runs).unwrap().count(),
        0,
        "nothing half-built is left"
    );
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn a_clock_beyond_the_year_9999_is_no_bug() {
    let stage = Stage::new();
    let run = stage.create("run", &[]);
    let runs = stage.folder.path().join("new");
    let far = 400_000_000_000_000_i64;
    let mut command = stage.program(&run);
    command
        .args([
            "train",
            "invoice",
            "--cpu",
            "--set",
            "max_steps=1",
            "--runs",
        ])
        .arg(&runs)
        .env("GRPO_TUI_FAULT_CLOCK", format!("1:{far}"));
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let named = || {
        std::fs::read_dir(&runs)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.join("state.json").exists())
    };
    until("a run", || {
        named().is_some() || child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let new = named().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(
        new.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("9999"),
        "{new:?}"
    );
    let shown = stage
        .program(&run)
        .args(["runs", "show"])
        .arg(&new)
        .output()
        .unwrap();
    assert!(
        shown.status.success(),
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
}
