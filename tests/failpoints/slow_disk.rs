//! A disk that takes its time: training goes on while a checkpoint is written, nothing says that it is there before it
//! is, and who stops waits for it.

use std::path::Path;
use std::process::Command;

use grpo_tui::run::events::Checkpoint;
use grpo_tui::run::{Event, EventBody, EventReader, list_checkpoints};

use super::evidence;
use super::story::{Stage, log, signal};
use crate::program::until;
use grpo_tui::facts::{PhaseKind, SaveReason};

/// Every checkpoint takes two seconds longer, between its last file and its name.
fn slow(stage: &Stage, run: &Path) -> Command {
    let mut worker = stage.worker(run);
    worker.env("GRPO_TUI_FAULT_DELAY", "folder.filled:2000");
    worker
}

fn events(run: &Path) -> Vec<Event> {
    EventReader::new(&run.join("events.jsonl"))
        .read()
        .unwrap()
        .events
}

/// Those of the log, with their places there.
fn checkpoints(events: &[Event]) -> Vec<(usize, &Checkpoint)> {
    let found = events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| match &event.body {
            EventBody::Checkpoint(checkpoint) => Some((at, checkpoint)),
            _ => None,
        });
    found.collect()
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn training_goes_on_while_a_checkpoint_is_written() {
    let stage = Stage::new();
    let (_, expected) = stage.expected(&[]);
    let run = stage.create("slow", &[]);
    assert!(
        slow(&stage, &run).status().unwrap().success(),
        "{}",
        log(&run)
    );
    evidence::check_whole(&run, true);
    let differences = evidence::differences(&evidence::collect(&run, true), &expected);
    assert!(differences.is_empty(), "{differences:?}");
    let events = events(&run);
    for (at, checkpoint) in checkpoints(&events) {
        let (seconds, blocked) = (
            checkpoint.seconds.unwrap(),
            checkpoint.blocked_seconds.unwrap(),
        );
        assert!(
            seconds >= 2.0,
            "told of before it was there: {checkpoint:?}"
        );
        let begun = |event: &Event| matches!(&event.body, EventBody::Phase(phase) if phase.phase == PhaseKind::Rollout && phase.step > checkpoint.step);
        // The start has no weights that could be written beside the next step.
        if [SaveReason::Start, SaveReason::End].contains(&checkpoint.why) {
            assert_eq!(seconds, blocked);
        } else {
            assert!(
                blocked < seconds && events[..at].iter().any(begun),
                "the next step did not begin meanwhile: {checkpoint:?}"
            );
        }
    }
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn a_worker_that_dies_while_a_checkpoint_is_written_leaves_none() {
    let stage = Stage::new();
    let (_, expected) = stage.expected(&[]);
    let run = stage.create("killed", &[]);
    // The start has no optimizer's state.
    let mut worker = slow(&stage, &run)
        .env("GRPO_TUI_FAULT", "checkpoint.half=optimizer:1")
        .spawn()
        .unwrap();
    assert!(!worker.wait().unwrap().success());
    assert_eq!(list_checkpoints(&run).unwrap(), [0], "{}", log(&run));
    let events = events(&run);
    assert_eq!(
        checkpoints(&events)
            .iter()
            .map(|(_, checkpoint)| checkpoint.step)
            .collect::<Vec<_>>(),
        [0]
    );
    assert!(run.join("checkpoints/.step-000002.partial").exists());
    assert!(stage.live(&run, None).success(), "{}", log(&run));
    evidence::check_whole(&run, true);
    let differences = evidence::differences(&evidence::collect(&run, true), &expected);
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
fn a_stop_waits_for_its_checkpoint() {
    let stage = Stage::new();
    let run = stage.create("stopped", &["max_steps=5000"]);
    let mut worker = slow(&stage, &run).spawn().unwrap();
    until("the first step", || {
        assert!(worker.try_wait().unwrap().is_none(), "{}", log(&run));
        events(&run)
            .iter()
            .any(|event| matches!(&event.body, EventBody::Step(step) if step.step == 1))
    });
    signal(&worker, "TERM");
    assert_eq!(worker.wait().unwrap().code(), Some(130), "{}", log(&run));
    let events = events(&run);
    let (_, last) = *checkpoints(&events).last().unwrap();
    let steps = events
        .iter()
        .filter(|event| matches!(event.body, EventBody::Step(_)))
        .count() as u64;
    assert_eq!(
        (last.step, list_checkpoints(&run).unwrap().last()),
        (steps, Some(&steps))
    );
    assert!(matches!(events.last().unwrap().body, EventBody::End(_)));
}
