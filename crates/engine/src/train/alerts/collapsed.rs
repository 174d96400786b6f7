//! Detects collapse: the policy's answers no longer differ, so neither can rewards. A policy
//! without success yet still writes different answers.

use super::steps::{Metrics, entropy_change, get};
use crate::format::shortened;

/// Collapsed if, in each step of a window, at least this share of groups has one equal reward below
/// the maximum and no guided answer (which would give a gradient), and at most this share of
/// distinct answers, or of the first step's entropy.
const COLLAPSED_GROUPS: f64 = 0.9;
const COLLAPSED_ANSWERS: f64 = 0.5;
const COLLAPSED_ENTROPY: f64 = 0.25;
/// Recovered once this share of a step's groups has a gradient.
const RECOVERED_GROUPS: f64 = 0.5;

/// Whether a step is one of a collapsed policy. `is_active`: it was collapsed before.
pub(super) fn has_collapsed(
    metrics: &Metrics,
    first_entropy: Option<f64>,
    is_active: bool,
) -> bool {
    let worst = get(metrics, "groups/frac_all_worst") - get(metrics, "groups/frac_guided");
    let is_equal = metrics
        .get("groups/frac_distinct")
        .is_some_and(|share| *share <= COLLAPSED_ANSWERS);
    let entropy = first_entropy.zip(metrics.get("completions/entropy"));
    let is_narrow =
        is_equal || entropy.is_some_and(|(first, now)| *now <= COLLAPSED_ENTROPY * first);
    worst >= COLLAPSED_GROUPS && is_narrow || is_active && worst > RECOVERED_GROUPS
}

/// Describes a collapsed policy by its last step: `the most frequent answer is {..}, mean reward
/// 0.50, entropy 2.74 -> 0.12 nats/token`.
pub(super) fn description(
    metrics: &Metrics,
    first_entropy: Option<f64>,
    frequent_answer: Option<&str>,
) -> String {
    let answers = frequent_answer.map_or_else(
        || "nearly equal answers".to_owned(),
        |answer| {
            format!(
                "the most frequent answer is `{}`",
                shortened(&answer.replace(char::is_control, " "), 60)
            )
        },
    );
    let entropy = entropy_change(first_entropy, metrics);
    let reward = metrics
        .get("reward")
        .map_or_else(String::new, |reward| format!(", mean reward {reward:.2}"));
    format!("{answers}{reward}{entropy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gemma 3 270M at 3.3e-4: a guided answer in every group, and entropy at a quarter of the
    /// first step's.
    #[test]
    fn a_policy_that_guided_answers_still_move_has_not_collapsed() {
        for (worst, guided, is_active, expected) in [
            (1.0, 0.0, false, true),
            (1.0, 1.0, false, false),
            (1.0, 0.05, false, true),
            (0.95, 0.5, false, false),
            (0.6, 0.0, true, true),
            (0.6, 0.6, true, false),
        ] {
            let shares = [
                ("groups/frac_all_worst", worst),
                ("groups/frac_guided", guided),
                ("completions/entropy", 0.5),
            ];
            let metrics = shares
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            assert_eq!(
                has_collapsed(&metrics, Some(2.0), is_active),
                expected,
                "{worst} {guided} {is_active}"
            );
        }
    }
}
