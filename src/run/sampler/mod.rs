//! The sample worker, and how it is asked: a model that stays loaded between two questions, or the worker of a live
//! run, answering between its steps.

mod backend;
mod client;
mod worker;

pub use backend::{SampleBackend, SamplerFile};
pub use client::{Sampling, SamplingRequest, sample};
pub use worker::{NextAction, SampleWorker};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One completion as it is answered: the `result` of one `part`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SampledCompletion {
    pub prompt_id: String,
    /// Which of the request's completions, from 0.
    pub sample: usize,
    pub text: String,
    /// The sampled tokens, the stop token included.
    pub token_ids: Vec<u32>,
    /// The log-probability of each under the distribution it was sampled from, nats.
    pub log_probs: Vec<f32>,
    /// Why it ended: `stop` or `length`.
    pub stop_reason: String,
    /// Its score, as `score --json` prints it: `reward`, `tier`, `errors`, ...
    pub score: Value,
    /// `base` or `trained`.
    pub target: String,
    /// Optimizer steps behind the model of a live run; None of a model that is not in training.
    pub step: Option<u64>,
}
