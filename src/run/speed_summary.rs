//! How fast the completions of an eval were sampled, and what masks of a constraint took of it.

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;

/// Of a model on this machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpeedSummary {
    /// Sampling all completions, prefill included.
    pub seconds: f64,
    /// Completion tokens per second.
    pub tokens_per_second: f64,
    /// Of a constrained model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masks: Option<MaskCost>,
}

/// The masks of constrained completions, one a token.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MaskCost {
    /// That were computed.
    pub masks: u64,
    /// Summed over the threads that decode.
    pub seconds: f64,
    /// Of these, the seconds in which the model did not compute, at most.
    pub waited_seconds: f64,
}

impl SpeedSummary {
    pub fn of(records: &[EvalRecord], masks: Option<MaskCost>) -> Self {
        let seconds: f64 = records.iter().map(|record| record.seconds).sum();
        let tokens: usize = records.iter().filter_map(|record| record.tokens).sum();
        Self { seconds, tokens_per_second: tokens as f64 / seconds.max(f64::MIN_POSITIVE), masks }
    }
}

impl MaskCost {
    /// Of one mask, milliseconds.
    pub fn milliseconds(&self) -> f64 {
        1e3 * self.seconds / self.masks.max(1) as f64
    }

    /// The share of the masks' time that was waited for.
    pub fn waited(&self) -> f64 {
        if self.seconds > 0.0 { self.waited_seconds / self.seconds } else { 0.0 }
    }
}
