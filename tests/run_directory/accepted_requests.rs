//! What a worker accepted is on the disk before it says so, and the next worker records it once.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use grpo_tui::run::{EventBody, EventReader, EventWriter, RunDirectory, Status, Verb};

use super::control::{ask_now, begin};
use super::created;

/// The `control` events of a run: verb and step.
fn recorded(run: &RunDirectory) -> Vec<(String, u64)> {
    let events = EventReader::new(&run.events_path()).read().unwrap().events;
    let control = |event: grpo_tui::run::Event| match event.body {
        EventBody::Control(control) => Some((control.verb.to_string(), control.step)),
        _ => None,
    };
    events.into_iter().filter_map(control).collect()
}

fn promises(run: &RunDirectory) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.path().join("control")).unwrap();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".accepted.json"))
        .collect();
    found.sort();
    found
}

#[test]
fn what_a_worker_accepted_the_next_one_records_once() {
    let (_folder, run) = created();
    let worker = begin(&run);
    let mut state = worker.state();
    state.status(Status::Running, 4, None).unwrap();
    assert!(worker.controls().compute_until(5));
    ask_now(&run, &Verb::set(["temperature=0.5"]).unwrap()).unwrap();
    ask_now(
        &run,
        &Verb::Annotate {
            text: "so far so good".to_owned(),
        },
    )
    .unwrap();
    ask_now(&run, &Verb::Stop { now: true }).unwrap();
    assert_eq!(promises(&run).len(), 3);
    for path in promises(&run) {
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    // The loop has recorded the first one, and dies before it can say so.
    let taken = worker.controls().drain();
    EventWriter::open(worker.lock())
        .unwrap()
        .append(taken[0].event(5))
        .unwrap();
    drop(worker);
    assert_eq!(
        promises(&run).len(),
        3,
        "a worker's death keeps its promises"
    );
    std::fs::write(run.path().join("control/000009-1-1.accepted.json"), "torn").unwrap();
    std::fs::write(run.path().join("control/left.request.json"), "{}").unwrap();
    drop(begin(&run));
    let expected =
        [("set", 5), ("annotate", 6), ("stop", 6)].map(|(verb, step)| (verb.to_owned(), step));
    assert_eq!(recorded(&run), expected);
    assert_eq!(
        std::fs::read_dir(run.path().join("control"))
            .unwrap()
            .count(),
        0
    );
    let notes = EventReader::new(&run.events_path()).read().unwrap().events;
    assert_eq!(
        notes
            .iter()
            .filter(|event| matches!(&event.body, EventBody::Note(note) if note.text == "so far so good"))
            .count(),
        1
    );
    drop(begin(&run));
    assert_eq!(recorded(&run).len(), 3);
}

#[test]
fn a_request_that_is_recorded_is_kept_no_longer() {
    let (_folder, run) = created();
    let worker = begin(&run);
    ask_now(&run, &Verb::Pause).unwrap();
    let taken = worker.controls().drain();
    worker.controls().recorded(&taken[0]);
    assert!(promises(&run).is_empty());
    ask_now(&run, &Verb::Stop { now: false }).unwrap();
    worker.end(Status::Interrupted, "stopped").unwrap();
    assert_eq!(recorded(&run), [("stop".to_owned(), 1)]);
}
