//! What the answers of an endpoint took: cost and latency.

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;

/// Cost and latency of an endpoint's answers; costs are in the currency of its prices, and `None` if one is not known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSummary {
    pub answers: usize,
    pub cost: Option<f64>,
    pub cost_per_1000_answers: Option<f64>,
    pub latency_median_seconds: Option<f64>,
    pub latency_p95_seconds: Option<f64>,
}

impl EndpointSummary {
    /// `None` where no completion is of an endpoint.
    pub(super) fn of(records: &[EvalRecord]) -> Option<Self> {
        if records.iter().all(|record| record.call.is_none()) {
            return None;
        }
        // A conversation that broke off has answers, too.
        let latencies = |record: &EvalRecord| match record.is_endpoint_error() || !record.turns.is_empty() {
            true => record.turns.iter().filter_map(|turn| turn.seconds).collect(),
            false => vec![record.seconds],
        };
        let calls = records.iter().filter_map(|record| Some((latencies(record), record.call.as_ref()?)));
        let calls: Vec<_> = calls.filter(|(seconds, _)| !seconds.is_empty()).collect();
        let mut seconds: Vec<f64> = calls.iter().flat_map(|(seconds, _)| seconds).copied().collect();
        seconds.sort_by(f64::total_cmp);
        // By nearest rank: a latency that was measured.
        let rank = |share: f64| seconds.get(((share * seconds.len() as f64).ceil() as usize).max(1) - 1).copied();
        let cost = calls.iter().map(|(_, call)| call.cost).sum::<Option<f64>>().filter(|_| !calls.is_empty());
        Some(Self {
            answers: seconds.len(),
            cost,
            cost_per_1000_answers: cost.map(|cost| 1000.0 * cost / seconds.len() as f64),
            latency_median_seconds: rank(0.5),
            latency_p95_seconds: rank(0.95),
        })
    }
}
