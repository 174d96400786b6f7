//! The checks before START, of what is known: the prompt sets, and the forecast as far as it is valid for the form.

use super::Launch;
use crate::plan::preflight::{Facts, Preflight, Severity};
use crate::score::DataProblem;
use crate::view::shared::Shared;

/// The problems of the prompt sets, or why they cannot be read.
#[derive(Debug)]
pub struct DataChecks {
    pub found: Result<Vec<DataProblem>, String>,
    /// Whether a file of the task has changed since.
    pub is_old: bool,
}

/// Judges what is known of the run of the current form.
pub(super) fn judge(launch: &mut Launch, shared: &Shared) {
    let Some(resolved) = &launch.resolved else { return };
    let forecast = launch.forecast.as_ref().filter(|forecast| !forecast.is_stale(&launch.form));
    let signal = launch.signal.as_ref().filter(|signal| !signal.is_stale(&launch.form));
    let is_embedded = launch.origin.as_ref().is_some_and(|origin| origin.model.as_deref() == Some("tiny"));
    let note = shared.task.as_ref().filter(|_| is_embedded).and_then(|open| open.task.embedded_model_note());
    let found = launch.data.as_ref().map(|data| data.found.as_deref().map_err(String::as_str));
    let facts = Facts {
        data: found,
        embedded_model: note.map(|note| format!("{note} ({})", shared.key_of("launch.models"))),
        memory: forecast.map(|forecast| &forecast.value.memory),
        disk: forecast.and_then(|forecast| forecast.value.disk.as_ref()),
        signal: signal.map(|signal| &signal.value),
    };
    launch.preflight = Preflight::of(&resolved.config, &facts);
}

/// Before a finding, and the same in ASCII.
pub(super) fn mark_of(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Error => ("✗ ", "! "),
        Severity::Warning => ("▲ ", "! "),
    }
}
