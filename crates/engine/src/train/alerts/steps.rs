//! Step metrics read by the rules.

use std::collections::BTreeMap;

/// A step's metrics by name.
pub(super) type Metrics = BTreeMap<String, f64>;

/// Moving window of the rules.
pub(in crate::train) const WINDOW: usize = 5;

pub(super) fn get(metrics: &Metrics, name: &str) -> f64 {
    metrics.get(name).copied().unwrap_or(0.0)
}

/// A missing metric counts as 0.
pub(super) fn mean(steps: &[Metrics], name: &str) -> f64 {
    steps.iter().map(|metrics| get(metrics, name)).sum::<f64>() / steps.len().max(1) as f64
}

/// `, entropy 2.74 -> 0.12 nats/token`; empty if unknown.
pub(super) fn entropy_change(first: Option<f64>, last: &Metrics) -> String {
    let entropy = first.zip(last.get("completions/entropy"));
    entropy.map_or_else(String::new, |(first, now)| {
        format!(", entropy {first:.2} -> {now:.2} nats/token")
    })
}
