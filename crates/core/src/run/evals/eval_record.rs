//! The record of a completion, or of a conversation of several turns, in an eval.

use serde::{Deserialize, Serialize};

use crate::api_client::LogProbs;
use crate::confidence::AnswerConfidence;
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::facts::{Tier, TierOutcome};
use crate::score::{FailureClass, Score, mean_reward, null_is_nan};

/// A completion of an eval: one line of `evals/*.jsonl`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalRecord {
    /// The row's id. A row of several turns has one record per conversation, with the outcome of
    /// the answer that decided it.
    pub prompt_id: String,
    /// Index of the sample for that prompt, from 0.
    pub sample: usize,
    pub tags: Vec<String>,
    pub completion: String,
    /// NaN (`null`) if the scorer failed.
    #[serde(deserialize_with = "null_is_nan")]
    pub reward: f64,
    pub tier: Tier,
    /// Whether it would be valid after unwrapping.
    pub tolerant: bool,
    /// Whether it equals the row's expected value; `None` if there is none.
    pub exact: Option<bool>,
    pub score: serde_json::Value,
    /// Of each value of the answer; `None` unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Box<AnswerConfidence>>,
    /// Completion tokens including the stop token; `None` if an endpoint did not report them.
    pub tokens: Option<usize>,
    /// Truncated at the token limit.
    pub truncated: bool,
    /// Share of the batch's time; for an endpoint the answer's latency, or the sum over a
    /// conversation.
    pub seconds: f64,
    /// `None` unless an endpoint answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Box<EndpointCall>>,
    /// The tool calls that led to the answer, and why the turn ended; with several turns, each has
    /// a chain in `turns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Box<ToolChain>>,
    /// Seconds of each tool call, in order. Times are kept outside `chain`, which is reproducible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub call_seconds: Vec<f64>,
    /// Answers of a conversation; empty for a row of one turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<EvalTurn>,
    /// Number of turns without an answer: not reached, or not answered by an endpoint.
    #[serde(skip_serializing_if = "is_zero")]
    pub unanswered: usize,
}

/// Cost, attempts and timing of an endpoint's completion.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointCall {
    /// Token count reported by the endpoint.
    pub prompt_tokens: Option<usize>,
    /// Cost in the currency of the prices; `None` without prices or counts.
    pub cost: Option<f64>,
    /// Number of requests, including failed ones.
    pub attempts: u32,
    /// Start of the answered request in seconds since 1970; `None` for a conversation, which has it
    /// per turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<f64>,
    /// `None` if not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<LogProbs>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalTurn {
    pub completion: String,
    /// See [`EvalRecord::chain`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Box<ToolChain>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub call_seconds: Vec<f64>,
    pub tier: Tier,
    pub exact: Option<bool>,
    /// Completion tokens including the stop token; `None` if an endpoint did not report them.
    pub tokens: Option<usize>,
    /// Latency of an endpoint; else `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// See [`EndpointCall::begun`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<f64>,
    /// See [`EndpointCall::logprobs`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<LogProbs>,
    /// NaN (`null`) if the scorer failed.
    #[serde(deserialize_with = "null_is_nan")]
    pub reward: f64,
}

pub(super) fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

impl EvalRecord {
    /// Sets the outcome from the scores of the answers, in order.
    ///
    /// # Errors
    /// A score that cannot be represented as JSON.
    pub fn judge(&mut self, scores: &[Score]) -> Result<(), serde_json::Error> {
        for (turn, score) in self.turns.iter_mut().zip(scores) {
            turn.tier = score.tier;
            (turn.exact, turn.reward) = (score.exact, score.reward);
        }
        let deciding = self.deciding_turn();
        let Some(score) = scores.get(deciding) else {
            return Ok(());
        };
        if let Some(turn) = self.turns.get(deciding) {
            self.completion.clone_from(&turn.completion);
        }
        // Without an answer for every turn, the conversation is neither valid nor exact.
        let is_complete = self.unanswered == 0;
        let is_known = scores.iter().any(|score| score.exact.is_some());
        self.tier = score.tier;
        self.score = serde_json::to_value(score)?;
        self.reward = mean_reward(scores.iter().map(|score| score.reward));
        self.tolerant = is_complete && scores.iter().all(|score| score.tolerant);
        self.exact =
            is_known.then(|| is_complete && scores.iter().all(|score| score.exact != Some(false)));
        Ok(())
    }

    pub fn turn_count(&self) -> usize {
        self.turns.len().max(1) + self.unanswered
    }

    pub fn chains(&self) -> impl Iterator<Item = &ToolChain> {
        self.chain
            .as_deref()
            .into_iter()
            .chain(self.turns.iter().filter_map(|turn| turn.chain.as_deref()))
    }

    pub fn texts(&self) -> Vec<&str> {
        if self.turns.is_empty() {
            return vec![&self.completion];
        }
        self.turns
            .iter()
            .map(|turn| turn.completion.as_str())
            .collect()
    }

    pub fn rows(&self, row: Option<&PromptRow>) -> Vec<Option<PromptRow>> {
        let texts = self.texts();
        let scored = |turn: usize| {
            let row = row?.after(&texts[..turn])?;
            let chain = self.turns.get(turn).map_or(&self.chain, |turn| &turn.chain);
            Some(
                chain
                    .as_ref()
                    .map_or_else(|| row.clone(), |chain| chain.scored_row(&row)),
            )
        };
        (0..texts.len()).map(scored).collect()
    }

    /// The index of the answer that decides the outcome: the first without a score, else the first
    /// invalid one, else the first not exact, else the last.
    pub fn deciding_turn(&self) -> usize {
        let first = |is_wrong: fn(&EvalTurn) -> bool| self.turns.iter().position(is_wrong);
        first(|turn| turn.reward.is_nan())
            .or_else(|| first(|turn| turn.tier != Tier::Valid))
            .or_else(|| first(|turn| turn.exact == Some(false)))
            .unwrap_or(self.turns.len().saturating_sub(1))
    }

    pub fn parses(&self) -> bool {
        self.tier != Tier::Unparsable
    }

    pub fn is_valid(&self) -> bool {
        self.tier == Tier::Valid && self.unanswered == 0
    }

    pub fn failure(&self) -> Option<FailureClass> {
        serde_json::from_value(self.score["failure"].clone()).ok()
    }

    /// Whether scorer or endpoint failed, which leaves the outcome unknown.
    pub fn is_error(&self) -> bool {
        self.failure()
            .is_some_and(|class| class.is_unscored() || class == FailureClass::EndpointError)
    }

    /// The tier, or `not scored` after an error.
    pub fn outcome(&self) -> TierOutcome {
        TierOutcome::new(self.tier, self.is_error())
    }

    pub fn is_endpoint_error(&self) -> bool {
        self.failure() == Some(FailureClass::EndpointError)
    }

    /// Whether it is invalid, or valid with wrong values; false if the outcome is unknown.
    pub fn fails(&self) -> bool {
        !self.is_error() && (!self.is_valid() || self.exact == Some(false))
    }
}
