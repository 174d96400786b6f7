//! The sample worker: loads a model once, answers as `grpo-tui sample` does, is found by a second asker, and goes when
//! a run wants its device.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use grpo_tui::run::{RunLock, State, Status};

use crate::program::{self, small_task, stdout, until};

/// The program with a home of its own; its sample workers stay so many seconds.
fn program(folder: &Path, idle: u32, arguments: &[&str]) -> Command {
    let mut command = program::program(folder, arguments);
    command.env("GRPO_TUI_SAMPLER_IDLE", idle.to_string());
    command
}

/// The only folder of a sample worker below `parent`.
fn worker_below(parent: &Path) -> PathBuf {
    let folders: Vec<PathBuf> = std::fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

fn ended(folder: &Path) -> Option<State> {
    State::observe(folder).filter(|state| state.status.is_ended() && !RunLock::is_held(folder))
}

const SAMPLE: [&str; 10] = ["sample", "task", "--prompt", "eval-002", "--n", "3", "--seed", "7", "--json", "--model"];

#[test]
fn it_answers_as_the_command_does_is_found_again_and_gives_way() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    small_task(folder);
    let direct = stdout(&program(folder, 600, &[&SAMPLE[..], &["tiny"]].concat()).output().unwrap());
    let run_sample =
        |idle: u32| stdout(&program(folder, idle, &[&SAMPLE[..], &["tiny", "--worker"]].concat()).output().unwrap());
    assert_eq!(run_sample(600), direct);
    let worker = worker_below(&folder.join("home/cache/grpo-tui/samplers"));
    let first = State::observe(&worker).unwrap();
    assert_eq!(first.status, Status::Running);
    assert!(first.cause.as_ref().unwrap().starts_with("serving tiny; exits after 10 minutes idle"), "{first:?}");
    // Two at once find the one that is there.
    std::thread::scope(|scope| {
        let others = [0; 2].map(|_| scope.spawn(|| run_sample(600)));
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), direct));
    });
    assert_eq!(State::observe(&worker).unwrap().pid, first.pid);
    // A question that cannot be answered is refused in words, and the worker stays.
    let output =
        program(folder, 600, &["sample", "task", "--model", "tiny", "--worker", "--n", "65"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("`n` must be a whole number from 1 to 64"), "{output:?}");
    // A run on the same device does not wait for long.
    let set =
        ["max_steps=1", "prompt_groups_per_step=2", "completions_per_prompt=2", "eval_every=0", "checkpoint_every=0"];
    let mut train = program(folder, 600, &["train", "task", "--model", "tiny", "--runs", "runs", "--name", "short"]);
    set.iter().for_each(|key| _ = train.args(["--set", key]));
    assert!(train.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    until("the worker's end", || ended(&worker).is_some());
    let last = ended(&worker).unwrap();
    assert_eq!((last.status, last.cause.as_deref()), (Status::Finished, Some("released CPU to a waiting run")));
    // The result of a run has its worker under the run, and `runs list` shows the run alone.
    let direct = stdout(&program(folder, 600, &[&SAMPLE[..], &["short", "--runs", "runs"]].concat()).output().unwrap());
    assert_eq!(
        stdout(
            &program(folder, 1, &[&SAMPLE[..], &["short", "--runs", "runs", "--worker"]].concat()).output().unwrap()
        ),
        direct
    );
    let run = worker_below(&folder.join("runs"));
    let worker = worker_below(&run.join("samplers"));
    assert!(worker.file_name().unwrap().to_string_lossy().starts_with("step-0000"));
    let listed = stdout(&program(folder, 1, &["runs", "list", "--runs", "runs", "--json"]).output().unwrap());
    assert_eq!(listed.lines().count(), 1, "{listed}");
    until("the idle worker's end", || ended(&worker).is_some());
    assert_eq!(ended(&worker).unwrap().cause.as_deref(), Some("idle for 1 s"));
}

#[test]
fn a_worker_that_was_killed_is_replaced_and_a_model_that_is_none_is_said_at_once() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    small_task(folder);
    let run_sample = || program(folder, 600, &[&SAMPLE[..], &["tiny", "--worker"]].concat()).output().unwrap();
    let first = stdout(&run_sample());
    let worker = worker_below(&folder.join("home/cache/grpo-tui/samplers"));
    let killed = State::observe(&worker).unwrap().pid;
    assert!(Command::new("kill").args(["-9", &killed.to_string()]).status().unwrap().success());
    until("the worker's death", || !RunLock::is_held(&worker));
    assert_eq!(stdout(&run_sample()), first);
    let second = State::observe(&worker).unwrap().pid;
    assert_ne!(second, killed);
    assert!(Command::new("kill").arg(second.to_string()).status().unwrap().success());
    until("the worker's end", || ended(&worker).is_some());
    assert_eq!(ended(&worker).unwrap().cause.as_deref(), Some("stopped at your request"));
    let output = program(folder, 600, &["sample", "task", "--model", "no-such-model", "--worker"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-model"), "{output:?}");
}
