//! What a worker accepted is on the disk before it says so, and the next worker records it once; sockets of the dead are cleared away.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use grpo_tui::run::{EventBody, EventReader, EventWriter, RunDirectory, Status, Verb};

use super::control::{ask_now, begin, socket_of, sockets};
use super::{create, memory_folder};

/// The `control` events of a run: verb and step.
fn recorded(run: &RunDirectory) -> Vec<(String, u64)> {
    let events = EventReader::new(&run.events_path()).read().unwrap().events;
    let control = |event: grpo_tui::run::Event| match event.body {
        EventBody::Control(control) => Some((control.verb, control.step)),
        _ => None,
    };
    events.into_iter().filter_map(control).collect()
}

fn promises(run: &RunDirectory) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.path().join("control")).unwrap();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.to_string_lossy().ends_with(".accepted.json")).collect();
    found.sort();
    found
}

#[test]
fn what_a_worker_accepted_the_next_one_records_once() {
    let folder = memory_folder();
    let run = create(folder.path());
    let worker = begin(&run, vec![sockets(folder.path())]);
    let mut state = worker.state();
    state.status(Status::Running, 4, None).unwrap();
    assert!(worker.controls().compute_until(5));
    ask_now(&run, &Verb::set(["temperature=0.5"]).unwrap()).unwrap();
    ask_now(&run, &Verb::Annotate { text: "so far so good".to_owned() }).unwrap();
    ask_now(&run, &Verb::Stop { now: true }).unwrap();
    assert_eq!(promises(&run).len(), 3);
    for path in promises(&run) {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // The loop has recorded the first one, and dies before it can say so.
    let taken = worker.controls().take();
    EventWriter::open(worker.lock()).unwrap().append(taken[0].event(5)).unwrap();
    drop(worker);
    assert_eq!(promises(&run).len(), 3, "a worker's death keeps its promises");
    std::fs::write(run.path().join("control/000009-1-1.accepted.json"), "torn").unwrap();
    std::fs::write(run.path().join("control/left.request.json"), "{}").unwrap();
    drop(begin(&run, Vec::new()));
    let expected = [("set", 5), ("annotate", 6), ("stop", 6)].map(|(verb, step)| (verb.to_owned(), step));
    assert_eq!(recorded(&run), expected);
    assert_eq!(std::fs::read_dir(run.path().join("control")).unwrap().count(), 0);
    let notes = EventReader::new(&run.events_path()).read().unwrap().events;
    assert_eq!(notes.iter().filter(|event| matches!(&event.body, EventBody::Note(note) if note.text == "so far so good")).count(), 1);
    drop(begin(&run, Vec::new()));
    assert_eq!(recorded(&run).len(), 3);
}

#[test]
fn a_request_that_is_recorded_is_kept_no_longer_and_one_that_cannot_be_kept_is_refused() {
    let folder = memory_folder();
    let run = create(folder.path());
    let worker = begin(&run, vec![sockets(folder.path())]);
    ask_now(&run, &Verb::Pause).unwrap();
    let taken = worker.controls().take();
    worker.controls().recorded(&taken[0]);
    assert!(promises(&run).is_empty());
    // Without its folder nothing can be promised, but a run can still be stopped.
    std::fs::remove_dir_all(run.path().join("control")).unwrap();
    let refused = ask_now(&run, &Verb::set(["temperature=0.5"]).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("not accepted: cannot be written to disk"), "{refused}");
    ask_now(&run, &Verb::Stop { now: false }).unwrap();
    worker.end(Status::Interrupted, "stopped").unwrap();
    assert_eq!(recorded(&run), [("stop".to_owned(), 1)]);
}

#[test]
fn sockets_of_the_dead_are_removed() {
    let folder = memory_folder();
    let sockets = sockets(folder.path());
    let old = |name: &str| {
        let path = sockets.join(name);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let long_ago = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: long_ago, last_modification: long_ago };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        path
    };
    let dead = old("dead.sock");
    let just_bound = sockets.join("new.sock");
    drop(std::os::unix::net::UnixListener::bind(&just_bound).unwrap());
    let other = sockets.join("no-socket.sock");
    std::fs::write(&other, "").unwrap();
    let run = create(folder.path());
    let worker = begin(&run, vec![sockets.clone()]);
    assert!(!dead.exists() && just_bound.exists() && other.exists() && socket_of(&run).exists());
    old("dead-too.sock");
    assert_eq!(grpo_tui::run::remove_dead_sockets(&[sockets.clone(), folder.path().join("none")]), 1);
    assert!(socket_of(&run).exists());
    // A folder that others may look into is none of ours.
    old("left.sock");
    std::fs::set_permissions(&sockets, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(grpo_tui::run::remove_dead_sockets(std::slice::from_ref(&sockets)), 0);
    drop(worker);
}
