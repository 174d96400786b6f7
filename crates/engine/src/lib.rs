//! The engine of grpo-tui. Modules in data-flow order; a module uses only modules above it.

use grpo_tui_core::{
    advantage, confidence, config, dataset, environment, facts, files, format, hub, openai, plan,
    prompts, report, run, schema_keywords, score, statistics, task, text,
};

pub use grpo_tui_kernels as kernels; // fused operations with their backward: a separate crate, see its Cargo.toml
pub mod model; // tokens -> logits: the decoder, adapters, weights
pub mod ranks; // processes of one run
pub mod constraint; // a task's answers -> allowed next tokens
pub mod rollout; // prompts -> groups of completions
pub mod update; // one optimizer step: log-probs, losses, KL, AdamW
pub mod leaf_confidence; // answers -> confidence of their values
mod generation; // OpenAI requests -> queued prompts -> answers
mod gateway; // server for agents' conversations
pub mod policy; // prompts -> scored conversations
pub mod checkpoint; // atomic save and exact resume
pub mod eval; // evals on held-out prompts
pub mod train; // training loops
pub mod serve; // OpenAI-compatible server

#[cfg(test)]
use grpo_tui_core::sandbox::launch_if_asked;
#[cfg(test)]
#[path = "../../../tests/own_home.rs"]
mod own_home;
