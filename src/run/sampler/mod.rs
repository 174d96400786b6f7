//! The sample worker, which keeps a model loaded, and its clients.

mod backend;
mod client;
mod worker;

pub use backend::{SampleBackend, SamplerFile};
pub use client::{Sampling, SamplingRequest, sample};
pub use worker::{NextAction, SampleWorker};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One completion: the `result` of one `part`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SampledCompletion {
    pub prompt_id: String,
    /// From 0.
    pub sample: usize,
    pub text: String,
    /// The stop token included.
    pub token_ids: Vec<u32>,
    /// Under the sampling distribution, nats.
    pub log_probs: Vec<f32>,
    /// `stop` or `length`.
    pub stop_reason: String,
    /// As `score --json` prints it: `reward`, `tier`, `errors`, ...
    pub score: Value,
    /// `base` or `trained`.
    pub target: String,
    /// The step of an active run's weights; `None` for other models.
    pub step: Option<u64>,
}
