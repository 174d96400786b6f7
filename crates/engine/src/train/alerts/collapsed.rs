//! When a policy has collapsed: nothing that it writes differs from what it wrote before, so no reward can. A policy
//! without any success yet writes different answers.

use std::collections::BTreeMap;

use crate::format::shortened;

/// A policy has collapsed if, in each step of a window, at least this share of the groups has one equal reward below the
/// maximum, with at most this share of distinct answers, or of the first step's entropy.
const COLLAPSED_GROUPS: f64 = 0.9;
const COLLAPSED_ANSWERS: f64 = 0.5;
const COLLAPSED_ENTROPY: f64 = 0.25;
/// One that had collapsed has until this share of the groups of a step has a gradient.
const RECOVERED_GROUPS: f64 = 0.5;

/// Whether a step is one of a collapsed policy. `is_active`: it had collapsed before.
pub(super) fn has_collapsed(metrics: &BTreeMap<String, f64>, first_entropy: Option<f64>, is_active: bool) -> bool {
    let worst = metrics.get("groups/frac_all_worst").copied().unwrap_or(0.0);
    let is_equal = metrics.get("groups/frac_distinct").is_some_and(|share| *share <= COLLAPSED_ANSWERS);
    let entropy = first_entropy.zip(metrics.get("completions/entropy"));
    let is_narrow = is_equal || entropy.is_some_and(|(first, now)| *now <= COLLAPSED_ENTROPY * first);
    worst >= COLLAPSED_GROUPS && is_narrow || is_active && worst > RECOVERED_GROUPS
}

/// What a collapsed policy does, by its last step: `the most frequent answer is {..}, mean reward 0.50, entropy 2.74 ->
/// 0.12 nats/token`.
pub(super) fn description(
    metrics: &BTreeMap<String, f64>,
    first_entropy: Option<f64>,
    frequent_answer: Option<&str>,
) -> String {
    let answers = frequent_answer.map_or_else(
        || "nearly equal answers".to_owned(),
        |answer| format!("the most frequent answer is `{}`", shortened(&answer.replace(char::is_control, " "), 60)),
    );
    let entropy = first_entropy.zip(metrics.get("completions/entropy"));
    let entropy =
        entropy.map_or_else(String::new, |(first, now)| format!(", entropy {first:.2} -> {now:.2} nats/token"));
    let reward = metrics.get("reward").map_or_else(String::new, |reward| format!(", mean reward {reward:.2}"));
    format!("{answers}{reward}{entropy}")
}
