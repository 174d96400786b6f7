//! The record of a completion, or of a conversation of several turns, in an eval.

use serde::{Deserialize, Serialize};

use crate::api_client::LogProbs;
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::facts::{Tier, TierOutcome};
use crate::score::{FailureClass, Score, mean_reward, null_is_nan};

/// A completion of an eval: one line of `evals/*.jsonl`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalRecord {
    /// The row; of a row of several turns one record is a conversation, with the outcome of the answer that decided it.
    pub prompt_id: String,
    /// The sample of that prompt, from 0.
    pub sample: usize,
    pub tags: Vec<String>,
    pub completion: String,
    /// NaN (`null`) where the scorer failed.
    #[serde(deserialize_with = "null_is_nan")]
    pub reward: f64,
    pub tier: Tier,
    /// Whether it would be valid without a fence or text around it.
    pub tolerant: bool,
    /// Whether it equals the row's expected value; `None` if there is none.
    pub exact: Option<bool>,
    /// As the scorer writes it.
    pub score: serde_json::Value,
    /// The stop token included; `None` if an endpoint did not count them.
    pub tokens: Option<usize>,
    /// At the token limit.
    pub truncated: bool,
    /// Its share of the batch's time; of an endpoint the latency of its answer, of a conversation in all.
    pub seconds: f64,
    /// Only of an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Box<EndpointCall>>,
    /// How a turn with tools came to the answer, and why it ended; of a row of several turns each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Box<ToolChain>>,
    /// Seconds of each of its calls, in order; beside it, since a clock has no part in a conversation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub call_seconds: Vec<f64>,
    /// The answers of a conversation; empty for a row of one turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<EvalTurn>,
    /// Turns of the row without an answer: that the conversation did not reach, or that an endpoint did not answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub unanswered: usize,
}

/// Cost, attempts and timing of an endpoint's completion.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointCall {
    /// By the endpoint's count.
    pub prompt_tokens: Option<usize>,
    /// In the currency of the prices; `None` without prices or counts.
    pub cost: Option<f64>,
    /// Requests, the failed ones included.
    pub attempts: u32,
    /// When the answered request began, seconds since 1970; `None` for a conversation, whose turns have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<f64>,
    /// `None` if the endpoint was not asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<LogProbs>,
}

/// An answer of a conversation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalTurn {
    pub completion: String,
    /// As [`EvalRecord::chain`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Box<ToolChain>>,
    /// As [`EvalRecord::call_seconds`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub call_seconds: Vec<f64>,
    pub tier: Tier,
    pub exact: Option<bool>,
    /// The stop token included; `None` if an endpoint did not count them.
    pub tokens: Option<usize>,
    /// Latency; only of an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// As [`EndpointCall::begun`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<f64>,
    /// As [`EndpointCall::logprobs`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<LogProbs>,
    /// NaN (`null`) where the scorer failed.
    #[serde(deserialize_with = "null_is_nan")]
    pub reward: f64,
}

pub(super) fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

impl EvalRecord {
    /// Takes the outcome from the scores of its answers, in order.
    ///
    /// # Errors
    /// A score that cannot be written as JSON.
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
        // Without an answer for every turn it is neither valid nor exact.
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

    /// Turns of its row.
    pub fn turn_count(&self) -> usize {
        self.turns.len().max(1) + self.unanswered
    }

    /// Those of all its turns.
    pub fn chains(&self) -> impl Iterator<Item = &ToolChain> {
        self.chain
            .as_deref()
            .into_iter()
            .chain(self.turns.iter().filter_map(|turn| turn.chain.as_deref()))
    }

    /// Its answers.
    pub fn texts(&self) -> Vec<&str> {
        if self.turns.is_empty() {
            return vec![&self.completion];
        }
        self.turns
            .iter()
            .map(|turn| turn.completion.as_str())
            .collect()
    }

    /// Its row as scorers see it with each of its answers.
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

    /// The index of the answer that decides a conversation's outcome: the first without a score, else the first that is
    /// not valid, else the first that is not exact, else the last.
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

    /// `None` for a completion without a failure.
    pub fn failure(&self) -> Option<FailureClass> {
        serde_json::from_value(self.score["failure"].clone()).ok()
    }

    /// Whether scorer or endpoint failed, so that nothing is known of the completion.
    pub fn is_error(&self) -> bool {
        self.failure()
            .is_some_and(|class| class.is_unscored() || class == FailureClass::EndpointError)
    }

    /// Its tier in words: of an error `not scored`.
    pub fn outcome(&self) -> TierOutcome {
        TierOutcome::new(self.tier, self.is_error())
    }

    pub fn is_endpoint_error(&self) -> bool {
        self.failure() == Some(FailureClass::EndpointError)
    }

    /// Not valid, or valid with wrong values; nothing is known of one without a score or an answer.
    pub fn fails(&self) -> bool {
        !self.is_error() && (!self.is_valid() || self.exact == Some(false))
    }
}
