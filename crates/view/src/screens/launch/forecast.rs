//! The forecast before a start, from a `train --plan` subprocess, and whether it is still valid for the form; problems
//! of the prompt sets.

use super::form::Form;
use crate::prompts::DataProblem;
use crate::subprocess::CancelToken;

/// A measurement, and the form that it is valid for.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastResult<T> {
    pub of: Form,
    pub value: T,
    pub is_old: bool,
}

/// The problems of the prompt sets, or why they cannot be read.
#[derive(Debug)]
pub struct DataChecks {
    pub found: Result<Vec<DataProblem>, String>,
    /// Whether a file of the task has changed since.
    pub is_old: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ForecastJob {
    pub cancel: CancelToken,
    pub progress: String,
    /// Start time, milliseconds since 1970.
    pub since_ms: u64,
    pub samples: bool,
}

impl<T> ForecastResult<T> {
    pub fn is_stale(&self, form: &Form) -> bool {
        self.is_old || !self.of.is_same_job(form)
    }
}
