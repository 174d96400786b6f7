//! What a policy says: conversations of one or more turns, each an answer with its score.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::advantage::{GroupSignal, group_signal, parts_differ};
use crate::dataset::PromptRow;
use crate::environment::{AgentRecord, AnsweredCall, ChainEnd, ToolChain, ToolStep};
use crate::facts::Target;
use crate::rollout::{Completion, StopReason};
use crate::run::SampledCompletion;
use crate::score::{PartWeights, Score};

/// The answers to a row: one, unless the row has several turns.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// Those that were reached; at least one.
    pub turns: Vec<Turn>,
}

/// One answer of a policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// `None` for the first turn, whose prompt is the row's own.
    pub prompt: Option<LaterPrompt>,
    /// `None` where the task has no tools.
    pub tools: Option<ToolTurn>,
    pub completion: Completion,
    pub text: String,
    pub score: Score,
    /// What training weighs it with; 0 elsewhere.
    pub advantage: f64,
}

/// An answer without its score.
pub(super) struct Answer<'e> {
    pub(super) completion: Completion,
    pub(super) text: String,
    /// As in [`Turn::tools`].
    pub(super) tools: Option<ToolTurn>,
    /// What it is scored against.
    pub(super) row: Cow<'e, PromptRow>,
}

impl Answer<'_> {
    /// One that ends a turn with tools or an agent.
    pub(super) fn after(
        turn: ToolTurn,
        completion: Completion,
        text: String,
        row: &PromptRow,
    ) -> Self {
        Self {
            row: Cow::Owned(turn.chain().scored_row(row)),
            completion,
            text,
            tools: Some(turn),
        }
    }
}

/// The prompt of a later turn, which contains the answers before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaterPrompt {
    /// The row's, with the number of the turn.
    pub id: String,
    /// Special tokens included.
    pub text: String,
    /// Not sent to other ranks: only the gradient needs them.
    #[serde(skip)]
    pub token_ids: Vec<u32>,
}

/// How a turn with tools came to its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToolTurn {
    pub steps: Vec<CallStep>,
    /// Those that the answer itself made, where a limit or a failure kept their replies from being read.
    pub last_calls: Vec<AnsweredCall>,
    /// Of the answer.
    #[serde(skip)]
    pub prompt: Vec<u32>,
    pub end: ChainEnd,
    /// What failed, where a tool did.
    pub failure: Option<String>,
    pub states: Map<String, Value>,
    /// What an agent asked, where one held the conversation: the steps are its requests but the last.
    pub agent: Option<Box<AgentRecord>>,
    /// That calls took; of an agent, its program.
    pub seconds: f64,
    /// Of each call, in the order of [`Self::calls`]; empty of an agent, which calls its tools itself.
    pub call_seconds: Vec<f64>,
}

/// A completion that calls tools, and what they replied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallStep {
    /// Not sent to other ranks: only the gradient needs it.
    #[serde(skip)]
    pub prompt: Vec<u32>,
    pub completion: Completion,
    pub text: String,
    pub calls: Vec<AnsweredCall>,
    /// Of the replies, with what the chat template writes around them.
    pub reply_tokens: usize,
}

impl ToolTurn {
    pub fn calls(&self) -> impl Iterator<Item = &AnsweredCall> {
        self.steps
            .iter()
            .flat_map(|step| &step.calls)
            .chain(&self.last_calls)
    }

    /// As it is recorded.
    pub fn chain(&self) -> ToolChain {
        let step = |step: &CallStep| ToolStep {
            text: step.text.clone(),
            tokens: step.completion.token_ids.len(),
            reply_tokens: step.reply_tokens,
            token_ids: step.completion.token_ids.clone(),
            log_probs: step.completion.log_probs.clone(),
            calls: step.calls.clone(),
        };
        ToolChain {
            steps: self.steps.iter().map(step).collect(),
            last_calls: self.last_calls.clone(),
            end: self.end,
            failure: self.failure.clone(),
            states: self.states.clone(),
            agent: self.agent.clone(),
        }
    }
}

impl Turn {
    /// A first turn.
    pub fn new(completion: Completion, text: String, score: Score) -> Self {
        Self {
            prompt: None,
            tools: None,
            completion,
            text,
            score,
            advantage: 0.0,
        }
    }

    /// All that was sampled, in order: completions that call tools, and the answer.
    pub fn completions(&self) -> impl Iterator<Item = &Completion> + Clone {
        let steps = self
            .tools
            .iter()
            .flat_map(|tools| &tools.steps)
            .map(|step| &step.completion);
        steps.chain(std::iter::once(&self.completion))
    }

    pub fn sampled_tokens(&self) -> usize {
        self.completions()
            .map(|completion| completion.token_ids.len())
            .sum()
    }

    /// The same completions, each with its prompt; `first`: the row's own.
    pub fn prompted<'t>(
        &'t self,
        first: &'t [u32],
    ) -> impl Iterator<Item = (&'t [u32], &'t Completion)> {
        let read = self
            .prompt
            .as_ref()
            .map_or(first, |prompt| &prompt.token_ids);
        let steps = self.tools.iter().flat_map(|tools| &tools.steps);
        let last = self.tools.as_ref().map_or(read, |tools| &tools.prompt);
        let all = steps
            .map(|step| (step.prompt.as_slice(), &step.completion))
            .chain([(last, &self.completion)]);
        // An agent that asks for nothing leaves an empty one.
        all.filter(|(_, completion)| !completion.token_ids.is_empty())
    }

    /// Whether it was sampled freely and has a reward.
    pub fn is_scored(&self) -> bool {
        self.completion.stop != StopReason::Guided && !self.score.is_error()
    }

    /// Whether it was sampled freely and earns the full reward.
    pub fn is_solved(&self) -> bool {
        self.is_scored() && self.score.is_max()
    }

    /// For files and answers, as one of the trained model.
    ///
    /// # Errors
    /// If its score cannot be written as JSON.
    pub fn into_sampled(
        self,
        prompt_id: &str,
        sample: usize,
    ) -> Result<SampledCompletion, serde_json::Error> {
        let (chain, call_seconds) = match self.tools {
            Some(tools) => (Some(tools.chain()), tools.call_seconds),
            None => (None, Vec::new()),
        };
        Ok(SampledCompletion {
            chain,
            call_seconds,
            prompt_id: prompt_id.to_owned(),
            sample,
            text: self.text,
            stop_reason: self.completion.stop,
            token_ids: self.completion.token_ids,
            log_probs: self.completion.log_probs,
            score: serde_json::to_value(&self.score)?,
            target: Target::Trained,
            step: None,
        })
    }
}

/// Whether the rewards of answers to one prompt differ, and if not, where they are. `weights`: of `per_part`, where each
/// part is judged by itself.
pub fn signal_of<'t>(
    turns: impl Iterator<Item = &'t Turn>,
    weights: Option<&PartWeights>,
) -> GroupSignal {
    let scores: Vec<&Score> = turns.map(|turn| &turn.score).collect();
    if weights.is_some_and(|weights| parts_differ(&scores, weights)) {
        return GroupSignal::Mixed;
    }
    let rewards: Vec<f64> = scores.iter().map(|score| score.reward).collect();
    let all_max = scores.iter().all(|score| score.is_max());
    let all_min = scores.iter().all(|score| score.is_min());
    group_signal(&rewards, all_max, all_min)
}
