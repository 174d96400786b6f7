//! The forecast: this program's own `train --plan`, asked beside the view, and whether it still is about the form as it
//! stands.

use serde::Deserialize;

use super::form::Form;
use crate::plan::{Disk, Memory, SignalReport, Time};
use crate::view::subprocess::CancelToken;

/// What a run would take.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Forecast {
    /// Where it would run, in words; empty where it does not fit.
    #[serde(default)]
    pub device: String,
    #[serde(default)]
    pub steps: u64,
    /// The model's weights.
    #[serde(default)]
    pub parameters: usize,
    /// Those that are trained.
    #[serde(default)]
    pub trainable: usize,
    /// Bytes by part.
    pub memory: Memory,
    /// Seconds by part; none where it does not fit.
    pub time: Option<Time>,
    /// Bytes on disk; none where it does not fit.
    pub disk: Option<Disk>,
    /// Whether the base's groups are informative, where they were sampled.
    pub signal: Option<SignalReport>,
    /// What is wrong with the prompt sets.
    #[serde(default)]
    pub data_problems: Vec<String>,
    /// Why it does not fit, where it does not.
    pub why: Option<String>,
}

/// Something that was measured, and the form that it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastResult<T> {
    /// The form as it stood.
    pub of: Form,
    /// What was measured.
    pub value: T,
    /// Whether the task was changed since.
    pub is_old: bool,
}

/// A question that is being answered.
#[derive(Debug, Clone, Default)]
pub struct ForecastJob {
    /// Ends it.
    pub cancel: CancelToken,
    /// The latest that was said of how it goes.
    pub told: String,
    /// Since when, milliseconds since 1970.
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
