//! Requests over the end of a worker: what was `set` is read back from the log.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::verb::Verb;
use crate::run::error::RunError;
use crate::run::history::RunState;

/// Values by key, by the step from which they hold. Together with `run.toml` they are the effective configuration.
pub type Settings = BTreeMap<u64, BTreeMap<String, Value>>;

/// What was set in a run so far, by its `history`. Where a key was set several times for one step, the last one holds.
///
/// # Errors
/// [`RunError::Malformed`] naming the log, for a `set` that this program cannot take: leaving it out would change the run.
pub fn settings(run: &Path, history: &RunState) -> Result<Settings, RunError> {
    let mut settings = Settings::new();
    for control in history.controls.iter().filter(|control| control.verb == "set") {
        let malformed = |message| {
            let message = format!("step {}: {message}", control.step);
            RunError::Malformed { path: run.join("events.jsonl"), line: None, message }
        };
        if let Verb::Set { changes } = Verb::parse("set", &control.arguments.clone().into_iter().collect()).map_err(malformed)? {
            settings.entry(control.step).or_default().extend(changes);
        }
    }
    Ok(settings)
}
