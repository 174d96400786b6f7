//! Opening a long run by its index gives what its whole log gives; following it gives every event once, whatever
//! happens to the file.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use grpo_tui::facts::StopReason;
use grpo_tui::files::seal_line;
use grpo_tui::run::events::{Group, Note, Recovered};
use grpo_tui::run::{Event, EventBody, EventReader, EventWriter, Follower, RunLock, RunState};

use super::long_log::write_steps;
use super::{created, step};
use crate::program::{call, json};

/// A follower that waits for nothing waits this long, and the test fails by what it then lacks.
const LONG: Duration = Duration::from_secs(300);

/// The state by the whole log, without an index.
fn folded(run: &Path) -> RunState {
    let mut state = RunState::default();
    state
        .follow(&mut EventReader::new(&run.join("events.jsonl")))
        .unwrap();
    state
}

#[test]
fn an_index_gives_what_the_whole_log_gives() {
    let (_folder, run) = created();
    let (log, index) = (run.events_path(), run.path().join("events.index"));
    let seq = write_steps(&log, 1, 100, 1);
    RunState::read(run.path()).unwrap();
    assert!(!index.exists(), "a short log needs none");

    let seq = write_steps(&log, 101, 1500, seq);
    let whole = folded(run.path());
    assert!(RunState::read(run.path()).unwrap() == whole);
    let first = std::fs::read(&index).unwrap();
    let log_bytes = std::fs::metadata(&log).unwrap().len();
    let (state, reader) = RunState::open(run.path()).unwrap();
    assert!(state == whole && reader.position().offset == log_bytes);

    // A tail behind the index is folded upon it; a long one makes a new index.
    let seq = write_steps(&log, 1501, 1510, seq);
    assert!(RunState::read(run.path()).unwrap() == folded(run.path()));
    assert!(
        std::fs::read(&index).unwrap() == first,
        "a short tail is not worth a new index"
    );
    write_steps(&log, 1511, 2500, seq);
    let whole = folded(run.path());
    assert!(RunState::read(run.path()).unwrap() == whole);
    let second = std::fs::read(&index).unwrap();
    assert!(second != first);

    // Damage of any kind costs time, never truth.
    let mut rng = 1usize;
    for length in [0, 23, 25, second.len() / 2, second.len() - 1] {
        std::fs::write(&index, &second[..length]).unwrap();
        assert!(
            RunState::read(run.path()).unwrap() == whole,
            "cut to {length}"
        );
        assert!(std::fs::read(&index).unwrap() == second, "made anew");
    }
    for _ in 0..4 {
        rng = rng
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut damaged = second.clone();
        damaged[rng % second.len()] ^= 0x20;
        std::fs::write(&index, &damaged).unwrap();
        assert!(
            RunState::read(run.path()).unwrap() == whole,
            "byte {}",
            rng % second.len()
        );
    }
    let other_version = [&b"grpo-tui events.index 0\n"[..], &second[24..]].concat();
    std::fs::write(&index, other_version).unwrap();
    assert!(RunState::read(run.path()).unwrap() == whole);
    assert!(std::fs::read_dir(run.path()).unwrap().all(|entry| {
        !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".tmp")
    }));

    // Another log of the same length under the same name is seen, and so is a shorter one.
    std::fs::write(&index, &second).unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replace("invoice-", "receipt-")).unwrap();
    assert!(RunState::read(run.path()).unwrap() == folded(run.path()));
    std::fs::write(&index, &second).unwrap();
    std::fs::write(&log, &text[..text.len() / 3]).unwrap();
    assert!(RunState::read(run.path()).unwrap() == folded(run.path()));
}

#[test]
fn an_index_never_lands_in_somebody_elses_run() {
    use std::os::unix::fs::symlink;
    let (folder, run) = created();
    write_steps(&run.events_path(), 1, 1000, 1);
    // A link in its place is neither read nor followed: the new index replaces it.
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "mine").unwrap();
    symlink(&secret, run.path().join("events.index")).unwrap();
    assert!(RunState::read(run.path()).unwrap() == folded(run.path()));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "mine");
}

#[test]
#[cfg_attr(not(can_chown), ignore = "needs root, to give a folder away")]
fn the_index_of_a_run_of_another_user_lies_in_the_cache() {
    let (folder, run) = created();
    write_steps(&run.events_path(), 1, 1000, 1);
    std::os::unix::fs::chown(run.path(), Some(4242), None).unwrap();
    json(&call(
        folder.path(),
        &["runs", "show", "--json", run.path().to_str().unwrap()],
    ));
    assert!(!run.path().join("events.index").exists());
    assert_eq!(
        std::fs::read_dir(folder.path().join("home/cache/grpo-tui/indexes"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_follower_tells_every_event_once() {
    let (_folder, run) = created();
    let lock = RunLock::acquire(run.path()).unwrap();
    let mut writer = EventWriter::open(&lock).unwrap();
    writer.append(step(1, 0.1)).unwrap();
    let (mut state, mut follower) = Follower::open(run.path()).unwrap();
    assert_eq!(state.last_step, 1);
    assert!(follower.next(Duration::ZERO).unwrap().is_empty());

    let path = run.path().to_owned();
    let writing = std::thread::spawn(move || {
        for number in 2..=400 {
            writer.append(step(number, number as f64)).unwrap();
        }
        drop(lock);
        path
    });
    while state.last_step < 400 {
        state.apply(follower.next(LONG).unwrap());
    }
    let path = writing.join().unwrap();
    assert!(state == folded(&path));

    // A torn line waits until it is whole; a line that is no event and an unknown kind are counted.
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(path.join("events.jsonl"))
        .unwrap();
    let sealed = |line: &str| {
        let mut line = line.as_bytes().to_vec();
        seal_line(&mut line);
        line.push(b'\n');
        line
    };
    let unknown = sealed(r#"{"v":1,"seq":450,"t":1,"kind":"telepathy"}"#);
    let whole = sealed(r#"{"v":1,"seq":451,"t":1,"kind":"note","text":"whole"}"#);
    let (torn, rest) = whole.split_at(30);
    file.write_all(&[b"garbage\n", &unknown[..], torn].concat())
        .unwrap();
    let batch = follower.next(LONG).unwrap();
    assert_eq!(
        (batch.events.len(), batch.skipped.len(), batch.gaps),
        (1, 1, 49)
    );
    state.apply(batch);
    file.write_all(rest).unwrap();
    let batch = follower.next(LONG).unwrap();
    assert!(matches!(&batch.events[0].body, EventBody::Note(note) if note.text == "whole"));
    state.apply(batch);
    assert!(state == folded(&path));

    // Truncation and replacement start over.
    file.set_len(0).unwrap();
    let note = Event {
        seq: 1,
        time_ms: 1,
        body: Note {
            text: "anew".into(),
        }
        .into(),
    };
    file.write_all(&note.to_line().unwrap()).unwrap();
    let batch = follower.next(LONG).unwrap();
    assert!(batch.restarted);
    state.apply(batch);
    while state.notes.is_empty() {
        state.apply(follower.next(LONG).unwrap());
    }
    assert!(state == folded(&path));

    // A folder that vanishes is told once; when it is there again, everything is read anew.
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    assert!(follower.next(LONG).unwrap().gone);
    assert!(follower.next(Duration::ZERO).unwrap().is_empty());
    std::fs::rename(&aside, &path).unwrap();
    let notes = (1..=3).map(|seq| {
        Event {
            seq,
            ..note.clone()
        }
        .to_line()
        .unwrap()
    });
    std::fs::write(path.join("events.new"), notes.collect::<Vec<_>>().concat()).unwrap();
    std::fs::rename(path.join("events.new"), path.join("events.jsonl")).unwrap();
    let batch = follower.next(LONG).unwrap();
    assert!(batch.restarted && batch.events.len() == 3 && !batch.gone);
}

#[test]
fn a_prompt_has_the_solve_rate_of_its_latest_group_with_a_reward() {
    // (step, solved, rewards, guided), then what is known: (step, solved, scored).
    let check = |groups: &[(u64, Option<usize>, &[f64], usize)],
                 resumed_from,
                 expected: Option<(u64, usize, usize)>| {
        let mut state = RunState::default();
        let mut fold = |body: EventBody| {
            state.fold(Event {
                seq: 0,
                time_ms: 0,
                body,
            })
        };
        for (step, solved, rewards, guided) in groups {
            let stops = (0..rewards.len()).map(|at| {
                if at < rewards.len() - guided {
                    StopReason::Stop
                } else {
                    StopReason::Guided
                }
            });
            let stop_reasons = stops.collect();
            let (prompt_id, rewards) = ("p".to_owned(), rewards.to_vec());
            fold(
                Group {
                    step: *step,
                    prompt_id,
                    rewards,
                    stop_reasons,
                    solved: *solved,
                    ..Group::default()
                }
                .into(),
            );
        }
        fold(
            Recovered {
                resumed_from,
                ..Recovered::default()
            }
            .into(),
        );
        let found = state
            .solve_rates
            .get("p")
            .map(|found| (found.step, found.solved, found.scored));
        assert_eq!(found, expected, "{groups:?}");
    };
    check(
        &[(1, Some(2), &[1.0, 1.0, 0.0, 0.0], 0)],
        None,
        Some((1, 2, 4)),
    );
    check(
        &[(1, Some(2), &[1.0, 1.0], 0), (3, Some(0), &[0.0, 1.0], 1)],
        None,
        Some((3, 0, 1)),
    );
    check(&[(1, Some(1), &[1.0, f64::NAN], 0)], None, Some((1, 1, 1)));
    // A scorer that fails says nothing, nor does a program from before.
    check(
        &[
            (1, Some(2), &[1.0, 1.0], 0),
            (3, Some(0), &[f64::NAN; 2], 0),
        ],
        None,
        Some((1, 2, 2)),
    );
    check(&[(1, None, &[1.0, 1.0], 0)], None, None);
    // Of steps that are redone, nothing is known.
    check(&[(5, Some(2), &[1.0, 1.0], 0)], Some(5), Some((5, 2, 2)));
    check(&[(5, Some(2), &[1.0, 1.0], 0)], Some(4), None);
}

/// Eight viewers of one run, of which some come late and some go in the middle, see the same.
#[test]
fn eight_viewers_see_the_same() {
    let (_folder, run) = created();
    let path = run.path().to_owned();
    let viewers: Vec<_> = (0..8u64)
        .map(|number| {
            let path = path.clone();
            std::thread::spawn(move || {
                let (mut state, mut follower) = Follower::open(&path).unwrap();
                let enough = if number % 3 == 2 { 40 } else { 120 };
                while state.last_step < enough {
                    state.apply(follower.next(LONG).unwrap());
                }
                (enough == 120).then_some(state)
            })
        })
        .collect();
    write_steps(&run.events_path(), 1, 120, 1);
    let whole = folded(&path);
    for viewer in viewers {
        if let Some(seen) = viewer.join().unwrap() {
            assert_eq!((seen.last_step, seen.skipped, seen.gaps), (120, 0, 0));
            assert_eq!(seen.metrics, whole.metrics);
        }
    }
}

/// Keys that its release did not have are what it did, not what is the default since.
#[test]
fn a_run_of_an_earlier_release_has_its_settings() {
    let recorded = crate::program::sample_data("finished-run");
    let run = grpo_tui::run::RunDirectory::open(&recorded).unwrap();
    let config = &run.file().config;
    assert_eq!(config.prompt_sampling.name(), "uniform");
    assert_eq!(config.learning_rate_schedule.name(), "constant");
    assert_eq!(config.on_collapse.name(), "continue");
    assert!(!config.guided && !config.stop_when_solved && !config.router_replay);
}
