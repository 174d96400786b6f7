//! The resolved configuration of a run: one typed field per key.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::format::hex;

use super::choices::{
    Advantage, BasePrecision, BestBy, KlEstimator, Method, OnCollapse, PolicyLoss, PromptSampling,
    Recompute, SamplingCorrection, Schedule, ThinkingEnd,
};
use super::value::StopCondition;

/// All of [`super::KEYS`]; written to `run.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TrainConfig {
    pub base_model: String,
    pub method: Method,
    pub teacher: String,
    pub distill_coef: f64,
    pub output_model_id: String,
    pub seed: u64,
    pub max_rows: usize,
    pub epochs: u64,
    pub max_steps: u64,
    pub sft_steps: u64,
    pub stop_when_solved: bool,
    pub stop_when: String,
    pub patience: u64,
    pub max_minutes: f64,
    pub completions_per_prompt: usize,
    pub prompt_groups_per_step: usize,
    pub prompt_sampling: PromptSampling,
    pub max_completion_tokens: usize,
    pub max_thinking_tokens: usize,
    pub thinking_end: ThinkingEnd,
    pub max_seq_len: usize,
    pub temperature: f64,
    pub weight_sync_interval: u64,
    pub router_replay: bool,
    pub policy_loss: PolicyLoss,
    pub sampling_correction: SamplingCorrection,
    pub dynamic_sampling: bool,
    pub guided: bool,
    pub on_collapse: OnCollapse,
    pub entropy_coef: f64,
    pub entropy_target: f64,
    pub overlong_masking: bool,
    pub advantage: Advantage,
    pub eps_clip: f64,
    pub eps_clip_high: f64,
    pub cispo_cap: f64,
    pub kl_beta: f64,
    pub kl_estimator: KlEstimator,
    pub kl_importance: bool,
    pub lora_rank: usize,
    pub lora_alpha: f64,
    pub lora_experts: bool,
    pub base_precision: BasePrecision,
    pub learning_rate: f64,
    pub learning_rate_schedule: Schedule,
    pub learning_rate_floor: f64,
    pub warmup_steps: u64,
    pub grad_clip_norm: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub weight_decay: f64,
    pub decay_norms_and_biases: bool,
    pub eval_every: u64,
    pub test_eval: bool,
    pub checkpoint_every: u64,
    pub keep_checkpoints: usize,
    pub keep_best_by: BestBy,
    pub keep_rollouts: u64,
    pub tokens_per_micro_batch: usize,
    pub recompute_activations: Recompute,
    pub draft_tokens: usize,
    pub gpu_memory_gib: usize,
    pub threads: usize,
    pub ranks: usize,
    pub max_invalid_expected: f64,
}

/// Limit of a think block, and how one still open there ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinkingBudget {
    /// Positive.
    pub max_tokens: usize,
    pub end: ThinkingEnd,
}

/// Default run length: a model of 135M parameters still learns values after 100 steps
/// (docs/measurements/real-weights.md).
pub const MIN_STEPS: u64 = 200;

/// Self-distillation: the base model, shown the row's `expected`.
pub const EXPECTED_TEACHER: &str = "expected";

impl TrainConfig {
    pub fn is_supervised(&self, step: u64) -> bool {
        match self.method {
            Method::Grpo | Method::Distill => false,
            Method::Sft => true,
            Method::SftGrpo => step <= self.sft_steps,
        }
    }

    pub fn learns_from_rewards(&self) -> bool {
        matches!(self.method, Method::Grpo | Method::SftGrpo)
    }

    /// Adaptive sampling needs rewards.
    pub fn is_adaptive(&self) -> bool {
        self.prompt_sampling == PromptSampling::Adaptive && self.learns_from_rewards()
    }

    pub fn is_guided(&self) -> bool {
        self.guided && self.learns_from_rewards()
    }

    pub fn is_distilled(&self) -> bool {
        self.distill_coef > 0.0
    }

    /// Whether the teacher is the base model, shown the row's expected answer.
    pub fn is_self_distilled(&self) -> bool {
        self.is_distilled() && self.teacher == EXPECTED_TEACHER
    }

    /// Whether a run keeps a frozen copy of its initial weights.
    pub fn keeps_base(&self) -> bool {
        self.lora_rank == 0 && (self.kl_beta > 0.0 || self.is_self_distilled())
    }

    /// Optimizer steps of the run for a training set of `rows` prompts: `max_steps`, else `epochs`
    /// rounded up (at least 1), else one epoch, at least [`MIN_STEPS`].
    pub fn total_steps(&self, rows: usize) -> u64 {
        self.steps_of_epochs(if self.max_rows > 0 {
            rows.min(self.max_rows)
        } else {
            rows
        } as u64)
    }

    /// As [`Self::total_steps`] with a given epoch size, which with several tasks may exceed
    /// `max_rows`.
    pub fn steps_of_epochs(&self, epoch_prompts: u64) -> u64 {
        if self.max_steps > 0 {
            return self.max_steps;
        }
        let visits = epoch_prompts * self.epochs.max(1);
        let steps = visits.div_ceil(self.prompt_groups_per_step.max(1) as u64);
        steps.max(if self.epochs == 0 { MIN_STEPS } else { 1 })
    }

    pub fn thinking_budget(&self) -> Option<ThinkingBudget> {
        let (max_tokens, end) = (self.max_thinking_tokens, self.thinking_end);
        (max_tokens > 0).then_some(ThinkingBudget { max_tokens, end })
    }

    pub fn stop_condition(&self) -> Option<StopCondition> {
        StopCondition::parse(&self.stop_when)
    }

    /// SHA-256 in hex over keys and values in alphabetical order, independent of their sources.
    pub fn digest(&self) -> String {
        let sorted: std::collections::BTreeMap<String, String> = self
            .values()
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        let mut hash = Sha256::new();
        for (name, value) in sorted {
            hash.update(format!("{name} = {value}\n"));
        }
        hex(&hash.finalize())
    }

    /// Names and values as `--set` takes them.
    pub fn texts(&self) -> impl Iterator<Item = (String, String)> {
        self.values().into_iter().map(|(name, value)| {
            let text = value.as_str().map(str::to_owned);
            (name, text.unwrap_or_else(|| value.to_string()))
        })
    }

    pub fn values(&self) -> Vec<(String, serde_json::Value)> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(fields)) => fields.into_iter().collect(),
            // A struct of plain fields always becomes an object.
            _ => Vec::new(),
        }
    }
}
