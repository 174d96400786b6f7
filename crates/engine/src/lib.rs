//! The engine of grpo-tui. The modules, in the order in which data flows; a module uses only modules above it.

use grpo_tui_core::openai;
use grpo_tui_core::{
    advantage, config, dataset, environment, facts, files, format, hub, plan, prompts, report, run,
    schema_keywords, score, statistics, task, text,
};
use grpo_tui_core::{api_client, http, secrets};

pub use grpo_tui_kernels as kernels; // fused operations with their backward, one per file: a crate, see its Cargo.toml
pub mod model; // tokens -> logits: the decoder, adapters, weights
pub mod ranks; // processes that compute one run together
pub mod constraint; // what a task takes as an answer -> the tokens that may come next
pub mod rollout; // prompts -> groups of completions
pub mod update; // one optimizer step: log-probs, losses, KL, AdamW
mod generation; // a request of OpenAI's APIs -> prompts for the queue -> its answer
mod gateway; // the conversations that agents hold: a server for their programs
pub mod policy; // a model that converses: prompts -> conversations with scores
pub mod checkpoint; // atomic save and exact resume
pub mod eval; // targets on held-out prompts
pub mod train; // the loops
pub mod serve; // OpenAI-compatible server of a model
pub mod bench; // the speed of a machine

#[cfg(test)]
use grpo_tui_core::sandbox::launch_if_asked;
#[cfg(test)]
#[path = "../../../tests/own_home.rs"]
mod own_home;
