//! Requests over the end of a worker: what was `set` is read back from the log, and what could not be recorded any more is recorded by the next worker.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::controls::Accepted;
use super::verb::Verb;
use crate::run::durable::replace_file;
use crate::run::error::RunError;
use crate::run::events::{Control, EventBody};
use crate::run::lock::RunLock;
use crate::run::reader::EventReader;
use crate::run::writer::EventWriter;

/// Holds accepted requests of a worker that was ended over its loop's head, which alone could have written them to the log.
const UNRECORDED: &str = "unrecorded.json";

/// Values by key, by the step from which they hold. Together with `run.toml` they are the effective configuration.
pub type Settings = BTreeMap<u64, BTreeMap<String, Value>>;

/// What was set in a run so far. Where a key was set several times for one step, the last one holds.
///
/// # Errors
/// [`RunError`] naming the log; and [`RunError::Malformed`] for a `set` that this program cannot take, since leaving it out would change the run.
pub fn settings(run: &Path) -> Result<Settings, RunError> {
    let path = run.join("events.jsonl");
    let mut settings = Settings::new();
    for event in EventReader::new(&path).read()?.events {
        let EventBody::Control(control) = event.body else { continue };
        if control.verb != "set" {
            continue;
        }
        let malformed =
            |message| RunError::Malformed { path: path.clone(), line: None, message: format!("event {}: {message}", event.seq) };
        if let Verb::Set { changes } = Verb::parse("set", &control.arguments.into_iter().collect()).map_err(malformed)? {
            settings.entry(control.step).or_default().extend(changes);
        }
    }
    Ok(settings)
}

/// Leave requests for the next worker to record. `step`: the one from which they would have taken effect.
pub(super) fn leave_unrecorded(run: &Path, left: &[Accepted], step: u64) -> Result<(), RunError> {
    if left.is_empty() {
        return Ok(());
    }
    let path = run.join(UNRECORDED);
    let events: Vec<Control> = left.iter().map(|accepted| accepted.event(step)).collect();
    let malformed = |error: serde_json::Error| RunError::Malformed { path: path.clone(), line: None, message: error.to_string() };
    replace_file(&path, &serde_json::to_vec(&events).map_err(malformed)?)
}

/// Record what an earlier worker left.
///
/// # Errors
/// [`RunError`] naming the file that could not be read or written.
pub(in crate::run) fn record_left_over(lock: &RunLock) -> Result<(), RunError> {
    let path = lock.run().join(UNRECORDED);
    let Ok(text) = std::fs::read(&path) else { return Ok(()) };
    // What cannot be understood was torn by a failing disk, and says nothing.
    let events: Vec<Control> = serde_json::from_slice(&text).unwrap_or_default();
    let mut log = EventWriter::open(lock)?;
    for event in events {
        log.append(event)?;
    }
    std::fs::remove_file(&path).map_err(RunError::io("remove", &path))
}
