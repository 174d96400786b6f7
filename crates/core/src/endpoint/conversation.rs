//! An endpoint's side of the conversation about a row, and its record, in the form of a local
//! model's.

use serde_json::json;

use super::{Answer, Endpoint, Question, UnansweredQuestion};
use crate::confidence::confidence_of_tokens;
use crate::dataset::PromptRow;
use crate::environment::ToolChain;
use crate::facts::Tier;
use crate::run::{EndpointCall, EvalRecord, EvalTurn, LogProbs};
use crate::score::{Score, Scorer};

#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) row: usize,
    pub(super) sample: usize,
    /// One per turn; with tools, everything said in the turn joined.
    pub(super) answers: Vec<Answer>,
    /// One per answer with tools: the chain and the seconds of its calls.
    pub(super) chains: Vec<(ToolChain, Vec<f64>)>,
    /// One per answer.
    pub(super) scores: Vec<Score>,
    pub(super) failed: Option<UnansweredQuestion>,
    pub(super) unfinished: Option<Answer>,
}

impl Conversation {
    pub(super) fn begin(question: &Question) -> Self {
        Self {
            row: question.row,
            sample: question.sample,
            answers: Vec::new(),
            chains: Vec::new(),
            scores: Vec::new(),
            failed: None,
            unfinished: None,
        }
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        self.answers
            .iter()
            .map(|answer| answer.text.as_str())
            .collect()
    }

    pub(super) fn record(
        mut self,
        endpoint: &Endpoint,
        scorer: &Scorer,
        rows: &[PromptRow],
    ) -> Result<EvalRecord, serde_json::Error> {
        let row = &rows[self.row];
        let said = || self.answers.iter().chain(&self.unfinished);
        // Without answers the sum is unknown.
        let sum = |of: fn(&Answer) -> Option<usize>| {
            said()
                .map(of)
                .sum::<Option<usize>>()
                .filter(|_| said().next().is_some())
        };
        let (prompt_tokens, tokens) = (
            sum(|answer| answer.prompt_tokens),
            sum(|answer| answer.tokens),
        );
        let attempts = said().map(|answer| answer.attempts).sum::<u32>()
            + self.failed.as_ref().map_or(0, |failed| failed.attempts);
        let cost = endpoint.prices.cost(prompt_tokens, tokens);
        let chain = |turn: usize| {
            let (chain, seconds) = self.chains.get(turn).cloned().unzip();
            (chain.map(Box::new), seconds.unwrap_or_default())
        };
        let turn = |(number, answer): (usize, &Answer)| {
            let (chain, call_seconds) = chain(number);
            EvalTurn {
                completion: answer.text.clone(),
                chain,
                call_seconds,
                tokens: answer.tokens,
                seconds: Some(answer.seconds),
                begun: Some(answer.begun),
                logprobs: answer.logprobs,
                ..EvalTurn::default()
            }
        };
        let (only_chain, call_seconds) = if row.turn_count() == 1 {
            chain(0)
        } else {
            Default::default()
        };
        let logprobs = LogProbs::sum(self.answers.iter().filter_map(|answer| answer.logprobs));
        let begun = self
            .answers
            .first()
            .filter(|_| row.turn_count() == 1)
            .map(|answer| answer.begun);
        let mut record = EvalRecord {
            prompt_id: row.id.clone(),
            sample: self.sample,
            tags: row.tags.clone(),
            completion: self
                .answers
                .first()
                .map(|answer| answer.text.clone())
                .unwrap_or_default(),
            tokens,
            truncated: self.answers.iter().any(|answer| answer.truncated),
            seconds: said().map(|answer| answer.seconds).sum(),
            call: Some(Box::new(EndpointCall {
                prompt_tokens,
                cost,
                attempts,
                begun,
                logprobs,
            })),
            chain: only_chain,
            call_seconds,
            turns: if row.turn_count() > 1 {
                self.answers.iter().enumerate().map(turn).collect()
            } else {
                Vec::new()
            },
            unanswered: row.turn_count() - self.answers.len(),
            ..EvalRecord::default()
        };
        if let ([answer], [score]) = (&self.answers[..], &self.scores[..])
            && !answer.written.is_empty()
        {
            let mut confidence = confidence_of_tokens(&answer.written);
            confidence.judge(&answer.text, score);
            record.confidence = Some(Box::new(confidence));
        }
        scorer.join(&mut self.scores.iter_mut().collect::<Vec<_>>());
        record.judge(&self.scores)?;
        if let Some(UnansweredQuestion { reason, .. }) = self.failed {
            let place = match row.turn_count() {
                1 => String::new(),
                _ => format!("turn {}: ", self.answers.len() + 1),
            };
            record = EvalRecord {
                reward: f64::NAN,
                tier: Tier::Unparsable,
                tolerant: false,
                exact: None,
                score: json!({"tier": "unparsable", "failure": "endpoint_error", "errors": [{"message": place + &reason}]}),
                // A missing single answer differs from a turn not reached.
                unanswered: if row.turn_count() > 1 {
                    record.unanswered
                } else {
                    0
                },
                ..record
            };
        }
        Ok(record)
    }
}
