//! The forecast before a start, from a `train --plan` subprocess, and whether it is still valid for the form; problems
//! of the prompt sets.

use serde::Deserialize;

use super::form::Form;
use crate::plan::preflight::Severity;
use crate::plan::{CompletionLengths, Disk, Memory, SignalReport, Time};
use crate::prompts::DataProblem;
use crate::subprocess::CancelToken;

/// The forecast of a run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Forecast {
    /// The device; empty if it does not fit.
    #[serde(default)]
    pub device: String,
    #[serde(default)]
    pub steps: u64,
    /// The model's weights.
    #[serde(default)]
    pub parameters: usize,
    /// Trainable parameters.
    #[serde(default)]
    pub trainable: usize,
    /// Bytes by part.
    pub memory: Memory,
    /// Seconds by part; none if it does not fit, or is for a Slurm partition.
    pub time: Option<Time>,
    /// Measured by the last such run in a Slurm partition.
    pub recorded_seconds_per_step: Option<f64>,
    /// Bytes on disk; none if it does not fit.
    pub disk: Option<Disk>,
    /// The shares of the base's informative groups, if groups were sampled.
    pub signal: Option<SignalReport>,
    /// None if it does not fit.
    pub completion_lengths: Option<CompletionLengths>,
    /// The reason if it does not fit.
    pub why: Option<String>,
}

/// A measurement, and the form that it is valid for.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastResult<T> {
    pub of: Form,
    pub value: T,
    /// Whether the task has changed since.
    pub is_old: bool,
}

/// The problems of the prompt sets, or why they cannot be read.
#[derive(Debug)]
pub struct DataChecks {
    pub found: Result<Vec<DataProblem>, String>,
    /// Whether a file of the task has changed since.
    pub is_old: bool,
}

/// A forecast in progress.
#[derive(Debug, Clone, Default)]
pub struct ForecastJob {
    pub cancel: CancelToken,
    /// The latest line of progress.
    pub progress: String,
    /// Start time, milliseconds since 1970.
    pub since_ms: u64,
    /// Whether groups are sampled too.
    pub samples: bool,
}

impl<T> ForecastResult<T> {
    /// Whether the form or the task has changed since.
    pub fn is_stale(&self, form: &Form) -> bool {
        self.is_old || !self.of.is_same_job(form)
    }
}

/// The mark of a finding, and its ASCII replacement.
pub(super) fn mark_of(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "✗ ",
        Severity::Warning => "▲ ",
    }
}
