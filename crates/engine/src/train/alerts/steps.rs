//! What the rules read of each step.

use std::collections::BTreeMap;

/// One step's metrics by name.
pub(super) type Metrics = BTreeMap<String, f64>;

/// The moving window of the rules, in steps.
pub(in crate::train) const WINDOW: usize = 5;

pub(super) fn get(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).copied().unwrap_or(0.0)
}

/// A missing metric counts as 0.
pub(super) fn mean(steps: &[Metrics], name: &str) -> f64 {
    steps.iter().map(|metrics| get(metrics, name)).sum::<f64>() / steps.len().max(1) as f64
}
