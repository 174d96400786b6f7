//! Rewards of a group to advantages: what each completion earned beyond its siblings.

pub use crate::config::Advantage;

/// Added to the standard deviation, so that nearly equal rewards do not explode (the experiment's own value).
pub const STANDARD_DEVIATION_FLOOR: f64 = 1e-4;

/// Advantages of one group, in the order of `rewards`.
///
/// `rewards`: one finite number a completion. A reward that is not finite counts as unscored: it gets advantage 0 and stays out of the mean and the
/// deviation. Equal rewards, and a group with fewer than two scored completions, give exactly 0. The standard deviation is the sample one (n - 1).
pub fn group_advantages(rewards: &[f64], advantage: Advantage) -> Vec<f64> {
    let scored: Vec<f64> = rewards.iter().copied().filter(|reward| reward.is_finite()).collect();
    if scored.len() < 2 || all_equal(&scored) {
        return vec![0.0; rewards.len()];
    }
    let count = scored.len() as f64;
    let mean = scored.iter().sum::<f64>() / count;
    let scale = match advantage {
        Advantage::Standardized => {
            let variance = scored.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (count - 1.0);
            1.0 / (variance.sqrt() + STANDARD_DEVIATION_FLOOR)
        }
        Advantage::Centered => 1.0,
        // r_i - mean of the others = n / (n - 1) * (r_i - mean)
        Advantage::LeaveOneOut => count / (count - 1.0),
    };
    rewards.iter().map(|reward| if reward.is_finite() { (reward - mean) * scale } else { 0.0 }).collect()
}

/// Why a group carries no signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dead {
    /// The rewards differ: the group is informative.
    #[default]
    No,
    /// Every completion earned the full reward: the prompt is solved.
    Best,
    /// All equal below that: too hard, or a scorer that cannot tell.
    Worst,
}

/// Whether a group's rewards carry a signal. `solved`: every completion is in the top tier with the full reward (`Score::is_full`); how
/// large equal rewards are does not tell. A group with fewer than two scored completions is dead; one with none is `Worst`.
pub fn group_signal(rewards: &[f64], solved: bool) -> Dead {
    let scored: Vec<f64> = rewards.iter().copied().filter(|reward| reward.is_finite()).collect();
    if scored.len() >= 2 && !all_equal(&scored) {
        return Dead::No;
    }
    match scored.first() {
        Some(_) if solved => Dead::Best,
        _ => Dead::Worst,
    }
}

fn all_equal(rewards: &[f64]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(rewards: &[f64], advantage: Advantage, expected: &[f64]) {
        let found = group_advantages(rewards, advantage);
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-9, "{rewards:?} {advantage}: {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn hand_computed_groups() {
        use Advantage::{Centered, LeaveOneOut, Standardized};
        // mean 0.5, sample deviation sqrt(0.5 / 3)
        let scale = 1.0 / ((0.5f64 / 3.0).sqrt() + 1e-4);
        check(&[0.0, 0.5, 0.5, 1.0], Standardized, &[-0.5 * scale, 0.0, 0.0, 0.5 * scale]);
        check(&[0.0, 0.5, 0.5, 1.0], Centered, &[-0.5, 0.0, 0.0, 0.5]);
        check(&[0.0, 0.5, 0.5, 1.0], LeaveOneOut, &[-2.0 / 3.0, 0.0, 0.0, 2.0 / 3.0]);
        for advantage in [Standardized, Centered, LeaveOneOut] {
            check(&[0.1; 7], advantage, &[0.0; 7]);
            check(&[1.0], advantage, &[0.0]);
            check(&[], advantage, &[]);
            check(&[f64::NAN, 1.0], advantage, &[0.0, 0.0]);
        }
        check(&[0.0, f64::NAN, 1.0], Centered, &[-0.5, 0.0, 0.5]);
        check(&[0.0, f64::INFINITY, 1.0], LeaveOneOut, &[-1.0, 0.0, 1.0]);
    }

    #[test]
    fn one_odd_among_eight_is_the_known_size() {
        let found = group_advantages(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5], Advantage::Standardized);
        assert!((found[7] + 2.475).abs() < 2e-3, "{found:?}");
    }

    #[test]
    fn states() {
        let check = |rewards: &[f64], solved, expected| assert_eq!(group_signal(rewards, solved), expected, "{rewards:?} {solved}");
        check(&[1.0, 1.0], true, Dead::Best);
        check(&[0.0, 0.0], false, Dead::Worst);
        // Nearer to the top than to the bottom, and still no solved prompt.
        check(&[0.9, 0.9], false, Dead::Worst);
        check(&[0.5, 1.0], false, Dead::No);
        check(&[1.0], true, Dead::Best);
        check(&[], true, Dead::Worst);
        check(&[f64::NAN, 1.0, 1.0], true, Dead::Best);
    }
}
