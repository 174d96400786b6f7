//! Tests: a run directory survives torn tails, second writers, newer programs and read-only folders, and says so in
//! sentences.

mod accepted_requests;
mod answers;
mod bad_input;
mod command;
mod control;
mod event_log;
pub(crate) mod finished;
mod history;
mod launch;
mod listing;
mod long_log;
mod outcome;
mod pull;
mod results;
mod rollouts;
mod server_folder;
mod slots;
mod tensorboard;
mod trash;
mod verbs;

use grpo_tui::facts::Target;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use grpo_tui::advantage::GroupSignal;
use grpo_tui::config::{BestBy, Layers};
use grpo_tui::run::events::{Checkpoint, Eval, Group, Recovered, Step};
use grpo_tui::run::{
    At, EvalSummary, Event, EventBody, EventWriter, NewRun, RolloutCompletion, RolloutGroup,
    RolloutWriter, RunDirectory, RunError, RunFolders, RunLock, RunReference, RunState, State,
    StateWriter, Status, read_step,
};

/// A folder in memory where there is one, so that thousands of fsyncs cost nothing.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn new_run(task: &str) -> NewRun {
    let resolved = Layers::default().resolve().unwrap();
    NewRun {
        job: grpo_tui::facts::Job::Train,
        name: String::new(),
        task: task.into(),
        task_origin: format!("tasks/{task}"),
        task_files: vec![
            ("task.toml".into(), b"name = \"x\"\n".to_vec()),
            ("prompts/train.jsonl".into(), b"{}\n".to_vec()),
        ],
        config: resolved.config,
        sources: resolved.sources,
        argv: vec!["grpo-tui".into(), "train".into(), task.into()],
        features: Vec::new(),
        model_digest: String::new(),
        mix: Vec::new(),
    }
}

fn create(root: &Path) -> RunDirectory {
    RunDirectory::create(&root.join("runs"), new_run("invoice")).unwrap()
}

/// A new run, and the folder that it is below.
fn created() -> (tempfile::TempDir, RunDirectory) {
    let folder = memory_folder();
    let run = create(folder.path());
    (folder, run)
}

fn step(step: u64, reward: f64) -> EventBody {
    Step {
        step,
        seconds: 0.5,
        metrics: BTreeMap::from([("reward".to_owned(), reward)]),
        ..Step::default()
    }
    .into()
}

fn group(step: u64, line: u64, signal: GroupSignal) -> EventBody {
    Group {
        task: String::new(),
        step,
        prompt_id: format!("p{line}"),
        rewards: vec![0.0, 1.0],
        signal,
        file: "rollouts/000100.jsonl".into(),
        line,
        ..Group::default()
    }
    .into()
}

#[test]
fn created_private_whole_and_read_back() {
    let (folder, run) = created();
    let mode = |name: &str| {
        std::fs::metadata(run.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    for name in [
        "",
        "task",
        "task/prompts",
        "rollouts",
        "evals",
        "checkpoints",
    ] {
        assert_eq!(mode(name), 0o700, "{name}");
    }
    for name in [
        "run.toml",
        "events.jsonl",
        "task/task.toml",
        "task/prompts/train.jsonl",
    ] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let lock = RunLock::acquire(run.path()).unwrap();
    StateWriter::start(&lock).unwrap();
    assert_eq!((mode("lock"), mode("state.json")), (0o600, 0o600));
    let again = RunDirectory::open(run.path()).unwrap();
    assert_eq!(again.file(), run.file());
    assert_eq!(
        again.id(),
        run.path().file_name().unwrap().to_string_lossy()
    );
    assert!(run.id().contains("-invoice-"), "{}", run.id());
    assert_eq!(again.file().task_files["task.toml"].len(), 64);
    assert_eq!(again.file().config_digest, again.file().config.digest());
    let left = crate::program::names(&folder.path().join("runs"));
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn many_runs_of_one_second_have_different_ids() {
    let folder = memory_folder();
    let ids: std::collections::BTreeSet<String> = (0..20)
        .map(|_| create(folder.path()).id().to_owned())
        .collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn a_task_file_outside_its_folder_is_refused_and_nothing_is_left() {
    for name in ["../secret", "/etc/passwd", "a/../../b", ""] {
        let folder = memory_folder();
        let mut new = new_run("invoice");
        new.task_files.push((name.into(), Vec::new()));
        let error = RunDirectory::create(&folder.path().join("runs"), new)
            .unwrap_err()
            .to_string();
        assert!(error.contains("is outside the task's folder"), "{error}");
        assert_eq!(
            std::fs::read_dir(folder.path().join("runs"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn opening_refuses_with_a_sentence() {
    let folder = memory_folder();
    let missing = RunDirectory::open(&folder.path().join("nothing"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.ends_with("nothing is not a run directory: run.toml is missing; `grpo-tui runs list` lists the runs"),
        "{missing}"
    );

    let run = create(folder.path());
    let path = run.path().join("run.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("version = 1", "version = 7", 1)).unwrap();
    let newer = RunDirectory::open(run.path()).unwrap_err().to_string();
    assert!(
        newer.ends_with("run.toml has format version 7, newer than this program's 1; open it with a newer grpo-tui"),
        "{newer}"
    );

    std::fs::write(&path, "version = 1\nid = \n").unwrap();
    let broken = RunDirectory::open(run.path()).unwrap_err().to_string();
    assert!(broken.contains("run.toml line 2: "), "{broken}");
}

#[test]
fn a_second_worker_is_refused_and_told_by_whom() {
    let (_folder, run) = created();
    assert!(!RunLock::is_held(run.path()));
    let first = RunLock::acquire(run.path()).unwrap();
    assert!(RunLock::is_held(run.path()));
    let error = RunLock::acquire(run.path()).unwrap_err();
    let expected = format!("is in use by process {} on ", std::process::id());
    assert!(
        matches!(error, RunError::InUse { .. }) && error.to_string().contains(&expected),
        "{error}"
    );
    drop(first);
    assert!(!RunLock::is_held(run.path()));
    RunLock::acquire(run.path()).unwrap();
}

#[test]
fn a_worker_gone_without_a_last_word_is_interrupted() {
    let (_folder, run) = created();
    assert!(State::observe(run.path()).is_none());
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut writer = StateWriter::start(&lock).unwrap();
    writer.status(Status::Running, 3, None).unwrap();
    assert_eq!(State::observe(run.path()).unwrap().status, Status::Running);
    drop(lock);
    let gone = State::observe(run.path()).unwrap();
    assert_eq!((gone.status, gone.step), (Status::Interrupted, 3));
    assert!(gone.cause.unwrap().ends_with("died"));
    let lock = RunLock::acquire(run.path()).unwrap();
    StateWriter::start(&lock)
        .unwrap()
        .status(Status::Finished, 9, None)
        .unwrap();
    drop(lock);
    assert_eq!(State::observe(run.path()).unwrap().status, Status::Finished);
}

/// Folding a log in which steps were redone gives what the uninterrupted run would have given.
#[test]
fn redone_steps_count_once() {
    let fold = |bodies: Vec<EventBody>| {
        let mut state = RunState::default();
        for (index, body) in bodies.into_iter().enumerate() {
            state.fold(Event {
                seq: index as u64 + 1,
                time_ms: 1,
                body,
            });
        }
        state
    };
    let checkpoint = |step| {
        EventBody::from(Checkpoint {
            step,
            ..Checkpoint::default()
        })
    };
    let eval = |step, valid| {
        EventBody::from(Eval {
            step,
            set: "eval".into(),
            target: Target::Trained,
            summary: EvalSummary {
                n: 1,
                valid,
                ..EvalSummary::default()
            },
            ..Eval::default()
        })
    };
    let straight = fold(vec![
        group(1, 1, GroupSignal::Mixed),
        step(1, 0.1),
        checkpoint(1),
        group(2, 2, GroupSignal::AllMax),
        step(2, 0.2),
        eval(2, 0.5),
        group(3, 3, GroupSignal::AllEqual),
        step(3, 0.3),
    ]);
    let recovered = |step| {
        EventBody::from(Recovered {
            resumed_from: Some(step),
            ..Recovered::default()
        })
    };
    let redone = fold(vec![
        group(1, 1, GroupSignal::Mixed),
        step(1, 0.1),
        checkpoint(1),
        group(2, 2, GroupSignal::AllEqual),
        step(2, 0.9),
        eval(2, 0.9),
        checkpoint(2),
        group(3, 3, GroupSignal::Mixed),
        recovered(1),
        group(2, 2, GroupSignal::AllMax),
        step(2, 0.2),
        eval(2, 0.5),
        group(3, 3, GroupSignal::AllEqual),
        step(3, 0.3),
    ]);
    assert_eq!(straight, redone);
    assert_eq!(redone.metrics["reward"].values(), [0.1, 0.2, 0.3]);
    // Without the word of a recovery, the later event of the same kind and step still wins.
    let silent = fold(vec![
        group(1, 1, GroupSignal::Mixed),
        step(1, 0.9),
        group(1, 1, GroupSignal::AllMax),
        step(1, 0.1),
        eval(1, 0.1),
        eval(1, 0.2),
    ]);
    assert_eq!(silent.metrics["reward"].values(), [0.1]);
    assert_eq!(
        silent.groups[&1]
            .values()
            .map(|group| group.signal)
            .collect::<Vec<_>>(),
        [GroupSignal::AllMax]
    );
    assert_eq!(
        silent
            .latest_eval(&"eval".into(), Target::Trained)
            .unwrap()
            .summary
            .valid,
        0.2
    );
    // During the redo, nothing of the void steps shows.
    let during = fold(vec![step(1, 0.1), step(2, 0.2), step(3, 0.3), recovered(1)]);
    assert_eq!(
        (
            during.last_step,
            during.metrics["reward"].steps().collect::<Vec<_>>()
        ),
        (1, vec![1])
    );
}

fn rollout(step: u64, prompt: &str) -> RolloutGroup {
    let completion = RolloutCompletion {
        forced: 0..0,
        text: "{}".into(),
        token_ids: vec![1, 2],
        log_probs: vec![-0.5, -0.25],
        reward: Some(1.0),
        ..Default::default()
    };
    RolloutGroup {
        step,
        task: String::new(),
        prompt_id: prompt.into(),
        prompt: "p".into(),
        replaced: false,
        completions: vec![completion],
    }
}

#[test]
fn rollouts_of_redone_steps_are_dropped_exactly() {
    let (_folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut writer = RolloutWriter::resume(&lock, 0).unwrap();
    for step in 98..=102 {
        for prompt in ["a", "b"] {
            let place = writer.append(&rollout(step, prompt)).unwrap();
            assert_eq!(
                place.file,
                if step <= 100 {
                    "rollouts/000100.jsonl"
                } else {
                    "rollouts/000200.jsonl"
                }
            );
        }
    }
    assert!(writer.append(&rollout(50, "a")).is_err());
    drop(writer);
    assert_eq!(
        read_step(run.path(), 101).unwrap(),
        [rollout(101, "a"), rollout(101, "b")]
    );
    // A torn tail in the last file, then a resume after step 99.
    std::fs::OpenOptions::new()
        .append(true)
        .open(run.path().join("rollouts/000200.jsonl"))
        .unwrap()
        .write_all(b"{\"step\":102")
        .unwrap();
    let mut writer = RolloutWriter::resume(&lock, 99).unwrap();
    assert!(!run.path().join("rollouts/000200.jsonl").exists());
    assert_eq!(read_step(run.path(), 99).unwrap().len(), 2);
    assert!(read_step(run.path(), 100).unwrap().is_empty());
    let place = writer.append(&rollout(100, "c")).unwrap();
    assert_eq!(
        (place.file.as_str(), place.line),
        ("rollouts/000100.jsonl", 5)
    );
    // Resuming at a file's end keeps it whole; a torn line within it goes.
    drop(writer);
    std::fs::OpenOptions::new()
        .append(true)
        .open(run.path().join("rollouts/000100.jsonl"))
        .unwrap()
        .write_all(b"{\"step\":100,")
        .unwrap();
    let mut writer = RolloutWriter::resume(&lock, 100).unwrap();
    assert_eq!(writer.append(&rollout(101, "a")).unwrap().line, 1);
    assert_eq!(read_step(run.path(), 100).unwrap(), [rollout(100, "c")]);
}

#[test]
fn a_full_disk_names_the_file_and_what_to_do() {
    let (_folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let path = run.events_path();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let error = EventWriter::open(&lock)
        .and_then(|mut writer| writer.append(step(1, 1.0)))
        .unwrap_err();
    let expected = format!(
        "cannot write {}: No space left on device (os error 28); free some space, then try again",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
#[cfg_attr(can_write_anywhere, ignore = "root may write to a read-only folder")]
fn a_read_only_folder_is_named() {
    let folder = memory_folder();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    let runs = folder.path().join("runs");
    let error = RunDirectory::create(&runs, new_run("invoice"))
        .unwrap_err()
        .to_string();
    let reason =
        "Permission denied (os error 13); make it writable, or use another folder with --runs DIR";
    assert!(
        error.starts_with(&format!("cannot create {}: {reason}", runs.display())),
        "{error}"
    );
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn runs_are_found_by_what_people_write() {
    let folder = memory_folder();
    let (first, second) = (create(folder.path()), create(folder.path()));
    let run_folders = RunFolders::discover(Some(&folder.path().join("runs")), folder.path());
    assert_eq!(run_folders.find(first.id()).unwrap().id(), first.id());
    assert_eq!(
        run_folders
            .find(&first.path().display().to_string())
            .unwrap()
            .id(),
        first.id()
    );
    let last = second.id().rsplit('-').next().unwrap();
    assert_eq!(run_folders.find(last).unwrap().id(), second.id());
    assert!(matches!(
        run_folders.find("20"),
        Err(RunError::Ambiguous { .. })
    ));
    let missing = run_folders.find("zzz").unwrap_err().to_string();
    assert!(
        missing.starts_with("no run `zzz` in ")
            && missing.ends_with("`grpo-tui runs list` lists the runs"),
        "{missing}"
    );
    assert_eq!(run_folders.list().len(), 2);

    std::fs::create_dir(folder.path().join("tasks")).unwrap();
    let below = folder.path().join("tasks/x/deep");
    std::fs::create_dir_all(&below).unwrap();
    assert_eq!(
        RunFolders::discover(None, &below).for_new_runs(),
        folder.path().join("runs")
    );
}

#[test]
fn best_is_the_highest_valid_then_exact_then_latest_of_the_kept() {
    let (folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut writer = EventWriter::open(&lock).unwrap();
    let rates = [
        (0u64, 0.6, 0.6),
        (5, 0.8, 0.7),
        (10, 0.9, 0.5),
        (15, 0.9, 0.8),
        (20, 0.9, 0.8),
        (25, 0.95, 0.9),
    ];
    for (step, valid, exact) in rates {
        let target = if step == 0 { "base" } else { "trained" };
        let summary = EvalSummary {
            n: 50,
            valid,
            exact: Some(exact),
            ..EvalSummary::default()
        };
        writer
            .append(Eval {
                step,
                set: "eval".into(),
                target: Target::from_name(target).unwrap(),
                summary,
                ..Eval::default()
            })
            .unwrap();
    }
    let proof = EvalSummary {
        n: 500,
        valid: 1.0,
        ..EvalSummary::default()
    };
    writer
        .append(Eval {
            step: 5,
            set: "test".into(),
            target: Target::Trained,
            summary: proof,
            ..Eval::default()
        })
        .unwrap();
    for step in [5u64, 10, 15, 20] {
        let path = grpo_tui::run::checkpoint_path(run.path(), step);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(grpo_tui::run::CHECKPOINT_MARK), "{}").unwrap();
    }
    std::fs::create_dir(run.path().join("checkpoints/step-000025")).unwrap(); // without its mark: not whole
    let run_folders = RunFolders::discover(Some(run.path().parent().unwrap()), folder.path());
    let at = |text: &str| {
        run_folders
            .find_checkpoint(&RunReference::parse(&format!("{}{text}", run.id())))
            .map(|(_, step)| step)
    };
    assert_eq!(at("").unwrap(), 20);
    assert_eq!(at("@best").unwrap(), 20);
    assert_eq!(at("@last").unwrap(), 20);
    assert_eq!(at("@10").unwrap(), 10);
    let missing = at("@25").unwrap_err().to_string();
    assert!(
        missing.ends_with("has no checkpoint `25`; there are those of steps 5, 10, 15, 20"),
        "{missing}"
    );
    assert_eq!(
        RunState::read(run.path())
            .unwrap()
            .best_step_by(&[0, 5], BestBy::Valid),
        Some(5)
    );
    assert_eq!(
        grpo_tui::run::resolve_checkpoint(&run, At::Last).unwrap(),
        20
    );
}
