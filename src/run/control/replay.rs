//! Requests over the end of a worker: what was `set` is read back from the log.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::verb::Verb;
use crate::run::error::RunError;
use crate::run::events::EventBody;
use crate::run::reader::EventReader;

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
