//! Conversations of a policy: one or more turns, each an answer with its score.

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

/// A conversation about a row: one turn, unless the row has several.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// Turns reached; not empty.
    pub turns: Vec<Turn>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// `None` for the first turn, which uses the row's prompt.
    pub prompt: Option<LaterPrompt>,
    /// `None` without tools.
    pub tools: Option<ToolTurn>,
    pub completion: Completion,
    pub text: String,
    pub score: Score,
    /// Set for training; 0 elsewhere.
    pub advantage: f64,
}

/// An answer before scoring.
pub(super) struct Answer<'e> {
    pub(super) completion: Completion,
    pub(super) text: String,
    /// Turn as in [`Turn::tools`].
    pub(super) tools: Option<ToolTurn>,
    /// Row for scoring.
    pub(super) row: Cow<'e, PromptRow>,
}

impl Answer<'_> {
    /// An answer of a turn with tools or an agent.
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

/// Prompt of a later turn, including earlier answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaterPrompt {
    /// Id of the row, with the turn's number.
    pub id: String,
    /// Including special tokens.
    pub text: String,
    /// Not sent to other ranks: only gradients need it.
    #[serde(skip)]
    pub token_ids: Vec<u32>,
}

/// A turn with tools, up to its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToolTurn {
    pub steps: Vec<CallStep>,
    /// Calls of the answer itself, whose replies were not read because of a limit or failure.
    pub last_calls: Vec<AnsweredCall>,
    /// Prompt of the answer.
    #[serde(skip)]
    pub prompt: Vec<u32>,
    pub end: ChainEnd,
    /// The failure of a tool.
    pub failure: Option<String>,
    pub states: Map<String, Value>,
    /// Requests of an agent; all but the last are steps.
    pub agent: Option<Box<AgentRecord>>,
    /// Time of calls; of an agent's program.
    pub seconds: f64,
    /// Time per call, as in [`Self::calls`]; empty for an agent, which calls tools itself.
    pub call_seconds: Vec<f64>,
}

/// A completion with calls, and their replies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallStep {
    /// Not sent to other ranks: only gradients need it.
    #[serde(skip)]
    pub prompt: Vec<u32>,
    pub completion: Completion,
    pub text: String,
    pub calls: Vec<AnsweredCall>,
    /// Tokens of the replies with the chat template's text around them.
    pub reply_tokens: usize,
}

impl ToolTurn {
    pub fn calls(&self) -> impl Iterator<Item = &AnsweredCall> {
        self.steps
            .iter()
            .flat_map(|step| &step.calls)
            .chain(&self.last_calls)
    }

    /// The chain for records.
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

    /// All completions in order: those with calls, and the answer.
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

    /// Tokens that the policy chose: sampled, not forced.
    pub fn chosen_tokens(&self) -> usize {
        self.completions()
            .map(|completion| completion.token_ids.len() - completion.forced.len())
            .sum()
    }

    /// Completions with their prompts; `first`: the row's.
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
        // An agent without requests leaves an empty one.
        all.filter(|(_, completion)| !completion.token_ids.is_empty())
    }

    /// Whether it was sampled freely and has a reward.
    pub fn is_scored(&self) -> bool {
        self.completion.stop != StopReason::Guided && !self.score.is_error()
    }

    /// Whether it was sampled freely and has the full reward.
    pub fn is_solved(&self) -> bool {
        self.is_scored() && self.score.is_max()
    }

    /// Converts for files and API answers, as of the trained model.
    ///
    /// # Errors
    /// A score that cannot be written as JSON.
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
            confidence: None,
            target: Target::Trained,
            step: None,
        })
    }
}

/// The signal of the answers to one prompt. `weights`: with `per_part`, where parts are compared
/// separately.
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
