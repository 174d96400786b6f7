//! The calls of an eval's conversations with tools, and why these ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::environment::{CallOutcome, ToolChain};

/// The calls of conversations with tools, those without a score included.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolSummary {
    /// Calls of a conversation, on average.
    pub mean_calls: f64,
    /// Share of the calls that were refused: unknown functions, wrong arguments.
    pub refused: f64,
    /// Share of the calls at which a tool failed.
    pub failed: f64,
    /// Tokens that a conversation has read and not sampled, on average.
    pub mean_reply_tokens: f64,
    /// Shares of the turns by why they ended.
    pub ends: BTreeMap<String, f64>,
}

impl ToolSummary {
    pub(super) fn from_records(records: &[EvalRecord]) -> Option<Box<Self>> {
        let chains: Vec<&ToolChain> = records.iter().flat_map(EvalRecord::chains).collect();
        let conversations = records.iter().filter(|record| record.chains().next().is_some()).count() as f64;
        if chains.is_empty() {
            return None;
        }
        let outcomes: Vec<CallOutcome> =
            chains.iter().flat_map(|chain| chain.calls()).map(|call| call.outcome).collect();
        let share = |outcome: CallOutcome| {
            outcomes.iter().filter(|found| **found == outcome).count() as f64 / outcomes.len().max(1) as f64
        };
        let mut ends = BTreeMap::new();
        for chain in &chains {
            *ends.entry(chain.end.name().to_owned()).or_default() += 1.0 / chains.len() as f64;
        }
        let reply_tokens: usize = chains.iter().flat_map(|chain| &chain.steps).map(|step| step.reply_tokens).sum();
        Some(Box::new(Self {
            mean_calls: outcomes.len() as f64 / conversations,
            refused: share(CallOutcome::Refused),
            failed: share(CallOutcome::Failed),
            mean_reply_tokens: reply_tokens as f64 / conversations,
            ends,
        }))
    }
}
