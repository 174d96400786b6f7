//! Questions to a policy, and results.

use super::prompts::Prompt;
use super::{Conversation, PolicyVersion};
use crate::rollout::{DecodeCounts, GpuFallback, Request, Sampling};
use crate::score::{Scorer, Task};

#[derive(Clone, Copy, Debug)]
pub struct ConverseSettings<'a> {
    /// Tasks indexed by [`Prompt::task`].
    pub tasks: &'a [ScoredTask<'a>],
    pub version: PolicyVersion,
    pub sampling: &'a Sampling,
    /// Later turns are skipped.
    pub max_turns: usize,
}

impl<'a> ConverseSettings<'a> {
    /// Settings of whole conversations.
    pub fn new(
        tasks: &'a [ScoredTask<'a>],
        version: PolicyVersion,
        sampling: &'a Sampling,
    ) -> Self {
        Self {
            tasks,
            version,
            sampling,
            max_turns: usize::MAX,
        }
    }
}

/// A task with its scorer.
#[derive(Clone, Copy, Debug)]
pub struct ScoredTask<'a> {
    pub task: &'a Task,
    pub scorer: &'a Scorer,
    /// Limit of a later turn's prompt; a conversation that would exceed it ends.
    pub max_prompt_tokens: usize,
}

/// A prompt, and sampling of its first turn.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub prompt: &'a Prompt,
    pub request: Request,
}

/// Conversations with timings.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Conversed {
    /// Conversations by question, then by sample.
    pub conversations: Vec<Vec<Conversation>>,
    pub counts: DecodeCounts,
    pub gpu_fallbacks: Vec<GpuFallback>,
    /// Decoding.
    pub rollout_seconds: f64,
    /// Scoring and rendering afterwards.
    pub score_seconds: f64,
}
