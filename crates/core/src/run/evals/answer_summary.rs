//! Answers of conversations of several turns, each counted.

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::facts::Tier;
use crate::statistics::{compound, wilson_by_prompt};

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerSummary {
    pub n: usize,
    /// Mean number of turns per conversation.
    pub mean_turns: f64,
    pub valid: f64,
    pub valid_interval: [f64; 2],
    /// Expected share of valid conversations if answers were independent: the mean of
    /// `valid ^ turns`.
    pub independent: f64,
    /// `independent` at the ends of `valid_interval`.
    pub independent_interval: [f64; 2],
}

impl AnswerSummary {
    pub(super) fn from_records(records: &[&EvalRecord]) -> Option<Box<Self>> {
        let counts = |record: &&EvalRecord| {
            (
                record
                    .turns
                    .iter()
                    .filter(|turn| turn.tier == Tier::Valid)
                    .count(),
                record.turns.len(),
            )
        };
        let conversations: Vec<(usize, usize)> = records
            .iter()
            .filter(|record| !record.turns.is_empty())
            .map(counts)
            .collect();
        if conversations.is_empty() {
            return None;
        }
        let n = conversations
            .iter()
            .map(|(_, answers)| answers)
            .sum::<usize>();
        let valid = conversations.iter().map(|(valid, _)| valid).sum::<usize>() as f64 / n as f64;
        let valid_interval: [f64; 2] = wilson_by_prompt(&conversations).into();
        let mean = |of: &dyn Fn(usize) -> f64| {
            records
                .iter()
                .map(|record| of(record.turn_count()))
                .sum::<f64>()
                / records.len() as f64
        };
        let independent = |rate: f64| mean(&|turns| compound(rate, turns as u32));
        Some(Box::new(Self {
            n,
            mean_turns: mean(&|turns| turns as f64),
            valid,
            valid_interval,
            independent: independent(valid),
            independent_interval: valid_interval.map(independent),
        }))
    }
}
