//! Summary of an endpoint's answers: cost, latency, rate and log-probs.

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::api_client::LogProbs;

/// Cost, latency, rate and log-probs of an endpoint's answers; costs are in the currency of its
/// prices. Unknown values are `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSummary {
    pub answers: usize,
    pub cost: Option<f64>,
    pub cost_per_1000_answers: Option<f64>,
    pub latency_median_seconds: Option<f64>,
    pub latency_p95_seconds: Option<f64>,
    /// Time in which at least one answered request was active, over all sessions of the eval.
    pub busy_seconds: Option<f64>,
    /// Completion tokens, counted by the server, per busy second.
    pub tokens_per_second: Option<f64>,
    /// `None` if not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<LogProbs>,
}

struct Answer {
    seconds: f64,
    begun: Option<f64>,
    tokens: Option<usize>,
}

impl EndpointSummary {
    /// `None` if no completion is from an endpoint.
    pub(super) fn from_records(records: &[EvalRecord]) -> Option<Self> {
        if records.iter().all(|record| record.call.is_none()) {
            return None;
        }
        let calls = records
            .iter()
            .filter_map(|record| Some((answers_of(record), record.call.as_ref()?)));
        let calls: Vec<_> = calls.filter(|(answers, _)| !answers.is_empty()).collect();
        let answers: Vec<&Answer> = calls.iter().flat_map(|(answers, _)| answers).collect();
        let mut seconds: Vec<f64> = answers.iter().map(|answer| answer.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        // Nearest rank, so the result is a measured latency.
        let rank = |share: f64| {
            seconds
                .get(((share * seconds.len() as f64).ceil() as usize).max(1) - 1)
                .copied()
        };
        let cost = calls
            .iter()
            .map(|(_, call)| call.cost)
            .sum::<Option<f64>>()
            .filter(|_| !calls.is_empty());
        let busy_seconds = busy_seconds(&answers);
        let tokens = answers
            .iter()
            .map(|answer| answer.tokens)
            .sum::<Option<usize>>();
        Some(Self {
            answers: seconds.len(),
            cost,
            cost_per_1000_answers: cost.map(|cost| 1000.0 * cost / seconds.len() as f64),
            latency_median_seconds: rank(0.5),
            latency_p95_seconds: rank(0.95),
            busy_seconds,
            tokens_per_second: busy_seconds
                .zip(tokens)
                .map(|(seconds, tokens)| tokens as f64 / seconds),
            logprobs: LogProbs::sum(calls.iter().filter_map(|(_, call)| call.logprobs)),
        })
    }
}

fn answers_of(record: &EvalRecord) -> Vec<Answer> {
    if !record.is_endpoint_error() && record.turns.is_empty() {
        let begun = record.call.as_ref().and_then(|call| call.begun);
        return vec![Answer {
            seconds: record.seconds,
            begun,
            tokens: record.tokens,
        }];
    }
    let turns = record.turns.iter();
    turns
        .filter_map(|turn| {
            Some(Answer {
                seconds: turn.seconds?,
                begun: turn.begun,
                tokens: turn.tokens,
            })
        })
        .collect()
}

/// The length of the union of the answers' times: concurrent requests count once, and pauses
/// between sessions do not count. `None` if any time is unknown.
fn busy_seconds(answers: &[&Answer]) -> Option<f64> {
    let times = answers
        .iter()
        .map(|answer| Some((answer.begun?, answer.begun? + answer.seconds)));
    let mut times: Vec<(f64, f64)> = times.collect::<Option<_>>()?;
    times.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut until = f64::NEG_INFINITY;
    let mut busy = 0.0;
    for (begun, ended) in times {
        busy += (ended - begun.max(until)).max(0.0);
        until = until.max(ended);
    }
    (busy > 0.0 && busy.is_finite()).then_some(busy)
}

#[cfg(test)]
mod tests {
    use super::super::eval_record::{EndpointCall, EvalTurn};
    use super::*;

    fn record(begun: Option<f64>, seconds: f64, tokens: Option<usize>) -> EvalRecord {
        let call = EndpointCall {
            begun,
            ..EndpointCall::default()
        };
        EvalRecord {
            seconds,
            tokens,
            call: Some(Box::new(call)),
            ..EvalRecord::default()
        }
    }

    #[test]
    fn time_counts_once_while_any_answered_request_is_under_way() {
        let check = |records: &[EvalRecord], expected: [Option<f64>; 2]| {
            let found = EndpointSummary::from_records(records).unwrap_or_default();
            assert_eq!(
                [found.busy_seconds, found.tokens_per_second],
                expected,
                "{records:?}"
            );
        };
        let at = |begun: f64, seconds: f64| record(Some(begun), seconds, Some(30));
        check(&[at(100.0, 2.0)], [Some(2.0), Some(15.0)]);
        // Concurrent, nested, in any order.
        check(
            &[at(101.0, 3.0), at(100.0, 2.0), at(102.0, 1.0)],
            [Some(4.0), Some(22.5)],
        );
        // A pause between two sessions does not count.
        check(&[at(100.0, 2.0), at(9000.0, 1.0)], [Some(3.0), Some(20.0)]);
        // An answer without a time, an answer without a count, no answers.
        check(&[at(100.0, 2.0), record(None, 1.0, Some(30))], [None, None]);
        check(
            &[at(100.0, 2.0), record(Some(101.0), 3.0, None)],
            [Some(4.0), None],
        );
        let turn = EvalTurn {
            seconds: Some(1.0),
            begun: Some(50.0),
            tokens: Some(8),
            ..EvalTurn::default()
        };
        check(
            &[EvalRecord {
                turns: vec![turn],
                ..record(None, 1.0, Some(8))
            }],
            [Some(1.0), Some(8.0)],
        );
        let error = serde_json::json!({"failure": "endpoint_error"});
        let unanswered = || EvalRecord {
            score: error.clone(),
            ..record(None, 0.0, None)
        };
        check(&[unanswered()], [None, None]);
        check(&[unanswered(), at(100.0, 2.0)], [Some(2.0), Some(15.0)]);
    }

    #[test]
    fn the_mean_log_prob_is_of_the_tokens_that_have_one() {
        let with = |logprobs| {
            let call = EndpointCall {
                logprobs,
                ..EndpointCall::default()
            };
            EvalRecord {
                call: Some(Box::new(call)),
                ..EvalRecord::default()
            }
        };
        let given = |mean, tokens| {
            Some(LogProbs {
                mean: Some(mean),
                tokens,
                answers: 1,
            })
        };
        let check = |all: &[Option<LogProbs>], expected: Option<LogProbs>| {
            let records: Vec<EvalRecord> = all.iter().copied().map(with).collect();
            assert_eq!(
                EndpointSummary::from_records(&records)
                    .unwrap_or_default()
                    .logprobs,
                expected,
                "{all:?}"
            );
        };
        let none = Some(LogProbs::default());
        check(&[None, None], None);
        check(&[none, none], none);
        check(
            &[given(-0.5, 1), none, given(-1.0, 3)],
            Some(LogProbs {
                mean: Some(-0.875),
                tokens: 4,
                answers: 2,
            }),
        );
    }
}
