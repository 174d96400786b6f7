//! What a policy is asked, and what it answers.

use super::prompts::Prompt;
use super::{Conversation, PolicyVersion};
use crate::rollout::{DecodeCounts, GpuFallback, Request, Sampling};
use crate::score::{Scorer, Task};

/// How a policy converses.
#[derive(Clone, Copy, Debug)]
pub struct ConverseSettings<'a> {
    /// By [`Prompt::task`].
    pub tasks: &'a [ScoredTask<'a>],
    pub version: PolicyVersion,
    pub sampling: &'a Sampling,
    /// Later turns are not asked.
    pub max_turns: usize,
}

impl<'a> ConverseSettings<'a> {
    /// Of whole conversations.
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

/// A task whose rows are answered, with its scorer.
#[derive(Clone, Copy, Debug)]
pub struct ScoredTask<'a> {
    pub task: &'a Task,
    pub scorer: &'a Scorer,
    /// The limit of a later turn's prompt; a conversation that would pass it ends.
    pub max_prompt_tokens: usize,
}

/// A prompt, and how its first turn is sampled.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub prompt: &'a Prompt,
    pub request: Request,
}

/// Conversations, and what they took.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Conversed {
    /// By question, then by sample.
    pub conversations: Vec<Vec<Conversation>>,
    pub counts: DecodeCounts,
    pub gpu_fallbacks: Vec<GpuFallback>,
    /// In decoding.
    pub rollout_seconds: f64,
    /// In scoring and rendering afterwards.
    pub score_seconds: f64,
}
