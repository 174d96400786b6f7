//! A disk that fills holds the run where it is, in a state that says so, and the run then comes to what it would have
//! come to with room.

use std::path::Path;
use std::time::Duration;

use grpo_tui::run::{EventBody, RunDirectory, State, Status, Verb, ask};
use grpo_tui::train::Ended;

use super::small_task::{create, fingerprint, whole, work, work_asked};
use crate::program::{lines, names, until};
use crate::small_disk::SmallDisk;
use grpo_tui::facts::PhaseKind;

const LONG: Duration = Duration::from_secs(120);
const SET: [&str; 2] = ["eval_every=2", "max_steps=4"];

/// A disk of 24 MB; the field that is dropped last is its folder.
fn small_disk() -> (tempfile::TempDir, SmallDisk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path(), "size=24m,mode=700");
    (folder, disk)
}

/// Frees the disk where its test has failed: a run that is held would never end, and the test would hang instead of
/// failing.
struct FreedOnPanic<'a>(&'a SmallDisk);

impl Drop for FreedOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.free();
        }
    }
}

fn never(_: &EventBody) -> bool {
    false
}

/// Until the run is held, then its state.
fn wait_until_paused(run: &Path) -> State {
    let state = || State::observe(run).filter(|state| state.status == Status::Paused);
    until("the run is paused", || state().is_some());
    state().unwrap()
}

/// Works on a run whose disk is filled at the first event that `at` picks; `meanwhile` runs once the run is held.
fn filled(
    disk: &SmallDisk,
    run: &RunDirectory,
    leave: u64,
    at: impl Fn(&EventBody) -> bool,
    meanwhile: impl FnOnce(State) + Send,
) -> Ended {
    std::thread::scope(|scope| {
        let (filled, full) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let _freed = FreedOnPanic(disk);
            if full.recv().is_ok() {
                meanwhile(wait_until_paused(run.path()));
            }
        });
        let mut filled = Some(filled);
        work_asked(run, |event, _| {
            if at(event)
                && let Some(filled) = filled.take()
            {
                disk.fill(leave);
                filled.send(()).unwrap();
            }
        })
        .unwrap()
    })
}

#[test]
#[cfg_attr(not(can_mount), ignore = "needs root, to mount a small file system")]
fn a_full_disk_holds_a_run_wherever_it_is() {
    let (folder, disk) = small_disk();
    let expected = fingerprint(&whole(&SET));
    let phase = |name: &'static str, step: u64| move |event: &EventBody| matches!(event, EventBody::Phase(found) if found.phase.name() == name && found.step == step);
    let group = |event: &EventBody| matches!(event, EventBody::Group(group) if group.step == 3);
    type At = Box<dyn Fn(&EventBody) -> bool>;
    let places: [(&str, At); 5] = [
        ("before the first step", Box::new(phase("eval", 0))),
        ("rollout", Box::new(phase("update", 3))),
        ("event", Box::new(group)),
        ("eval", Box::new(phase("eval", 4))),
        ("checkpoint", Box::new(phase("checkpoint", 4))),
    ];
    for (name, at) in places {
        let parent = folder.path().join("run");
        let run = create(&parent, &SET);
        let seen = std::sync::Mutex::new(String::new());
        let ended = filled(&disk, &run, 0, &at, |state| {
            seen.lock()
                .unwrap()
                .clone_from(&state.cause.unwrap().sentence);
            disk.free().unwrap();
        });
        let cause = seen.into_inner().unwrap();
        println!("{name}: {cause}");
        for part in [
            "the disk is full: ",
            " needs ",
            " are free on the disk of ",
            "grpo-tui runs resume",
        ] {
            assert!(cause.contains(part), "{name}: {cause:?} lacks {part:?}");
        }
        assert!(matches!(ended, Ended::Finished(_)), "{name}: {ended:?}");
        assert!(
            fingerprint(&run) == expected,
            "{name}: the run came to something else"
        );
        let left = names(run.path());
        assert!(
            !left
                .iter()
                .any(|file| file == "reserve" || file.ends_with(".tmp")),
            "{left:?}"
        );
        let events = lines(&std::fs::read_to_string(run.events_path()).unwrap());
        let numbers: Vec<u64> = events
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect();
        assert!(
            numbers.iter().copied().eq(1..=numbers.len() as u64),
            "{name}: {numbers:?}"
        );
        std::fs::remove_dir_all(&parent).unwrap();
    }
}

#[test]
#[cfg_attr(not(can_mount), ignore = "needs root, to mount a small file system")]
fn a_run_that_will_not_fit_is_held_before_its_checkpoint_and_goes_on_when_told() {
    let (folder, disk) = small_disk();
    let run = create(
        &folder.path().join("run"),
        &[&SET[..], &["max_steps=16", "keep_checkpoints=0"]].concat(),
    );
    let before = |event: &EventBody| matches!(event, EventBody::Phase(phase) if phase.phase == PhaseKind::Checkpoint && phase.step == 2);
    // Checkpoints of 0.5 MB are to come for steps 2, 4, … 16. Room for one more checkpoint, and not for all that the
    // rest of the run leaves.
    let seen = std::sync::Mutex::new(String::new());
    let (path, cause) = (run.path().to_owned(), &seen);
    let ended = filled(&disk, &run, 2_600_000, before, |state| {
        cause
            .lock()
            .unwrap()
            .clone_from(&state.cause.unwrap().sentence);
        let answered = ask(&path, &Verb::Resume, LONG, &mut |_| {}).unwrap();
        assert_eq!(answered.text, "resumes");
        // Whatever is held afterwards finds room.
        disk.free().unwrap();
    });
    let cause = seen.into_inner().unwrap();
    println!("{cause}");
    assert!(
        cause.starts_with("the disk is full: the rest of the run needs "),
        "{cause}"
    );
    assert!(matches!(ended, Ended::Finished(_)), "{ended:?}");
}

#[test]
#[cfg_attr(not(can_mount), ignore = "needs root, to mount a small file system")]
fn a_run_that_is_stopped_while_its_disk_is_full_says_so_and_can_be_resumed() {
    let (folder, disk) = small_disk();
    let expected = fingerprint(&whole(&SET));
    let run = create(&folder.path().join("run"), &SET);
    let path = run.path().to_owned();
    let at = |event: &EventBody| matches!(event, EventBody::Phase(phase) if phase.phase == PhaseKind::Update && phase.step == 3);
    let ended = filled(&disk, &run, 0, at, |_| {
        ask(&path, &Verb::Stop { now: false }, LONG, &mut |_| {}).unwrap();
    });
    assert!(
        matches!(&ended, Ended::CutShort { resumes_from: Some(2), cause } if cause.contains("waiting for disk space")),
        "{ended:?}"
    );
    let state = State::observe(run.path()).unwrap();
    assert_eq!(state.status, Status::Interrupted, "{state:?}");
    disk.free().unwrap();
    assert!(matches!(work(&run, never).unwrap(), Ended::Finished(_)));
    assert!(fingerprint(&run) == expected);
}
