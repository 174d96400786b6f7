//! Benchmarks of this machine at a model's shape: random weights and prompts, stop tokens off,
//! plain GRPO.

mod command; // its arguments and what it prints
mod conversations; // rollouts of conversations with a slow tool
mod cpu;
mod gpu;
mod server;
mod timing; // peaks, medians

pub(crate) use command::{Arguments, run};
use cpu::measure_cpu;
use gpu::{GpuBench, ToolCalls, measure_gpu};
use server::{ServerLoad, measure_server};

use serde::Serialize;

use grpo_tui_core::config::{KlEstimator, PolicyLoss};
use grpo_tui_engine::kernels::philox::philox;
use grpo_tui_engine::rollout::{Request, Sampling};
use grpo_tui_engine::update::{LossSettings, PolicySettings};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measurement {
    /// `gemm`, `prefill`, `decode`, `train`, ...
    pub name: String,
    /// Lengths, in words.
    pub shape: String,
    /// Parallel sequences.
    pub batch: usize,
    /// NaN (null in JSON) if `missing` says why.
    pub value: f64,
    pub unit: String,
    /// Share of the measured matmul limit, by required multiplications; `None` if not applicable.
    pub of_limit: Option<f64>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl Measurement {
    /// Arguments in field order.
    fn new(
        name: &str,
        shape: &str,
        batch: usize,
        value: f64,
        unit: &str,
        of_limit: Option<f64>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            shape: shape.to_owned(),
            batch,
            value,
            unit: unit.to_owned(),
            of_limit,
            missing: None,
        }
    }

    fn missing(name: &str, shape: &str, batch: usize, why: &str) -> Self {
        Self {
            missing: Some(why.to_owned()),
            ..Self::new(name, shape, batch, f64::NAN, "", None)
        }
    }
}

/// `count` tokens below `vocabulary`, different per stream.
fn random_tokens(stream: usize, count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count)
        .map(|index| philox(1, [stream as u32, index as u32, 0, 0])[0] % vocabulary as u32)
        .collect()
}

/// `prompts` prompts of `prompt_tokens` tokens, `samples` completions each.
fn requests(
    prompts: usize,
    samples: usize,
    prompt_tokens: usize,
    vocabulary: usize,
) -> Vec<Request> {
    let prompt = |number| random_tokens(number, prompt_tokens, vocabulary);
    (0..prompts)
        .map(|number| Request::new(prompt(number), number as u32, 0, samples))
        .collect()
}

/// Every completion has `new_tokens` tokens.
fn sampling(new_tokens: usize) -> Sampling {
    Sampling {
        records_experts: true,
        ..Sampling::plain(1.0, new_tokens, 1)
    }
}

/// On-policy GRPO without KL.
fn policy_settings(
    new_tokens: usize,
    tokens_per_micro_batch: usize,
    recompute: bool,
) -> PolicySettings {
    let loss = LossSettings {
        policy_loss: PolicyLoss::Grpo,
        clip_low: 0.2,
        clip_high: 0.2,
        cispo_cap: 5.0,
        kl_beta: 0.0,
        kl_estimator: KlEstimator::K3,
        kl_importance: true,
        entropy_coef: 0.0,
        distill_coef: 0.0,
        corrects_sampling: false,
        max_completion_tokens: new_tokens,
    };
    PolicySettings {
        loss,
        temperature: 1.0,
        tokens_per_micro_batch,
        recompute,
    }
}
