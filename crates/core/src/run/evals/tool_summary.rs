//! Tool calls of an eval's conversations, why turns ended, and how many consecutive calls are
//! valid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::environment::{CallOutcome, ToolChain};
use crate::statistics::{compound, wilson_by_prompt};

/// Chain lengths that are reported, if conversations of that length exist.
const CHAINS: [usize; 7] = [1, 2, 3, 5, 10, 20, 50];

/// Calls in conversations with tools, including those without a score.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolSummary {
    /// Mean number of calls per conversation.
    pub mean_calls: f64,
    /// Share of refused calls: unknown functions, wrong arguments.
    pub refused: f64,
    /// Share of calls whose tool failed.
    pub failed: f64,
    /// Mean number of unsampled tokens that a conversation read.
    pub mean_reply_tokens: f64,
    /// Shares of turns by the reason for their end.
    pub ends: BTreeMap<String, f64>,
    pub turns: usize,
    /// Number of conversations by number of calls, ascending; empty in evals of older programs.
    pub calls: Vec<CallCount>,
    /// `None` without calls, and for agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_calls: Option<ValidCalls>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallCount {
    pub calls: usize,
    pub conversations: usize,
}

/// How many of a model's calls are valid ([`ToolChain::valid_calls`]), singly and consecutively.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ValidCalls {
    pub n: usize,
    pub valid: f64,
    /// 95% interval of `valid`, clustered by prompt.
    pub interval: [f64; 2],
    pub chains: Vec<ChainRate>,
}

/// Conversations with at least `k` calls.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChainRate {
    pub k: usize,
    /// Number of conversations, at least one.
    pub n: usize,
    /// Share of these conversations whose first `k` calls are all valid.
    pub valid: f64,
    pub interval: [f64; 2],
}

impl ToolSummary {
    pub(super) fn from_records(records: &[EvalRecord]) -> Option<Box<Self>> {
        let chains: Vec<&ToolChain> = records.iter().flat_map(EvalRecord::chains).collect();
        let with_chains: Vec<&EvalRecord> = records
            .iter()
            .filter(|record| record.chains().next().is_some())
            .collect();
        let conversations = with_chains.len() as f64;
        if chains.is_empty() {
            return None;
        }
        let outcomes: Vec<CallOutcome> = chains
            .iter()
            .flat_map(|chain| chain.calls())
            .map(|call| call.outcome)
            .collect();
        let share = |outcome: CallOutcome| {
            outcomes.iter().filter(|found| **found == outcome).count() as f64
                / outcomes.len().max(1) as f64
        };
        let mut ends = BTreeMap::new();
        for chain in &chains {
            *ends.entry(chain.end.name().to_owned()).or_default() += 1.0 / chains.len() as f64;
        }
        let mut calls: BTreeMap<usize, usize> = BTreeMap::new();
        for record in &with_chains {
            *calls
                .entry(record.chains().map(|chain| chain.calls().count()).sum())
                .or_default() += 1;
        }
        let calls = calls
            .into_iter()
            .map(|(calls, conversations)| CallCount {
                calls,
                conversations,
            })
            .collect();
        let reply_tokens: usize = chains
            .iter()
            .flat_map(|chain| &chain.steps)
            .map(|step| step.reply_tokens)
            .sum();
        Some(Box::new(Self {
            mean_calls: outcomes.len() as f64 / conversations,
            refused: share(CallOutcome::Refused),
            failed: share(CallOutcome::Failed),
            mean_reply_tokens: reply_tokens as f64 / conversations,
            ends,
            turns: chains.len(),
            calls,
            valid_calls: ValidCalls::from_records(&with_chains),
        }))
    }
}

impl ValidCalls {
    fn from_records(records: &[&EvalRecord]) -> Option<Self> {
        let calls: Vec<(&str, Vec<bool>)> = records
            .iter()
            .map(|record| {
                (
                    record.prompt_id.as_str(),
                    record.chains().flat_map(ToolChain::valid_calls).collect(),
                )
            })
            .collect();
        let (n, valid, interval) = rate(
            calls
                .iter()
                .flat_map(|(prompt, calls)| calls.iter().map(|call| (*prompt, *call))),
        )?;
        let chain = |k: usize| {
            let are_valid = |(prompt, calls): &(_, Vec<bool>)| {
                Some((*prompt, calls.get(..k)?.iter().all(|call| *call)))
            };
            let (n, valid, interval) = rate(calls.iter().filter_map(are_valid))?;
            Some(ChainRate {
                k,
                n,
                valid,
                interval,
            })
        };
        Some(Self {
            n,
            valid,
            interval,
            chains: CHAINS.into_iter().filter_map(chain).collect(),
        })
    }

    /// p^k, the rate expected if calls were independent, with its 95% interval.
    pub fn independent(&self, k: usize) -> (f64, [f64; 2]) {
        let k = u32::try_from(k).unwrap_or(u32::MAX);
        (
            compound(self.valid, k),
            self.interval.map(|rate| compound(rate, k)),
        )
    }
}

/// Number of outcomes, share that holds, and its interval clustered by prompt; `None` without
/// outcomes.
fn rate<'r>(outcomes: impl Iterator<Item = (&'r str, bool)>) -> Option<(usize, f64, [f64; 2])> {
    let mut prompts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (prompt, holds) in outcomes {
        let (found, all) = prompts.entry(prompt).or_default();
        (*found, *all) = (*found + usize::from(holds), *all + 1);
    }
    let prompts: Vec<(usize, usize)> = prompts.into_values().collect();
    let (found, n) = prompts
        .iter()
        .fold((0, 0), |(found, n), (one, all)| (found + one, n + all));
    (n > 0).then(|| {
        (
            n,
            found as f64 / n as f64,
            wilson_by_prompt(&prompts).into(),
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::environment::{AnsweredCall, ChainEnd, ToolStep};

    /// `calls`: one letter per call, for valid, refused, or failed (by the tool).
    fn record(prompt_id: &str, calls: &str, end: ChainEnd) -> EvalRecord {
        let call = |letter: char| AnsweredCall {
            name: "f".to_owned(),
            arguments: Map::new(),
            reply: String::new(),
            outcome: match letter {
                'r' => CallOutcome::Refused,
                'f' => CallOutcome::Failed,
                _ => CallOutcome::Answered,
            },
        };
        let step = |letter| ToolStep {
            text: String::new(),
            tokens: 3,
            reply_tokens: 5,
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            calls: vec![call(letter)],
        };
        let chain = ToolChain {
            steps: calls.chars().map(step).collect(),
            last_calls: Vec::new(),
            end,
            failure: None,
            states: Map::new(),
            agent: None,
        };
        EvalRecord {
            prompt_id: prompt_id.to_owned(),
            chain: Some(Box::new(chain)),
            ..EvalRecord::default()
        }
    }

    #[test]
    fn calls_in_a_row_are_counted_in_real_conversations() {
        let records = [
            record("a", "", ChainEnd::Answer),
            record("b", "vv", ChainEnd::Answer),
            record("c", "vr", ChainEnd::Answer),
            record("d", "r", ChainEnd::MaxTurns),
            // An unreadable call is not valid; a failing tool is not the model's fault.
            record("e", "v", ChainEnd::Unreadable),
            record("f", "vvf", ChainEnd::ToolFailed),
        ];
        let summary = *ToolSummary::from_records(&records).unwrap();
        let counts: Vec<(usize, usize)> = summary
            .calls
            .iter()
            .map(|one| (one.calls, one.conversations))
            .collect();
        assert_eq!(counts, [(0, 1), (1, 2), (2, 2), (3, 1)]);
        assert_eq!((summary.turns, summary.mean_calls), (6, 1.5));
        let valid = summary.valid_calls.unwrap();
        // b 2 of 2, c 1 of 2, d 0 of 1, e 1 of 2, f 3 of 3.
        assert_eq!((valid.n, valid.valid), (10, 0.7));
        let chains: Vec<(usize, usize, f64)> = valid
            .chains
            .iter()
            .map(|one| (one.k, one.n, one.valid))
            .collect();
        assert_eq!(chains, [(1, 5, 0.8), (2, 4, 0.5), (3, 1, 1.0)]);
        assert!((valid.independent(2).0 - 0.49).abs() < 1e-12);
        let back: ValidCalls = serde_json::from_value(json!(valid)).unwrap();
        assert_eq!(back, valid);
        assert_eq!(
            ToolSummary::from_records(&records[..1])
                .unwrap()
                .valid_calls,
            None
        );
        assert_eq!(ToolSummary::from_records(&[EvalRecord::default()]), None);
    }
}
