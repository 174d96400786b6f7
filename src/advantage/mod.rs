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

/// Whether a group is informative, and where its rewards lie if they are all equal. The aliases are what older programs wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupSignal {
    /// The rewards differ: the group is informative.
    #[default]
    #[serde(alias = "no")]
    Mixed,
    /// Every completion earned the full reward: the prompt is solved.
    #[serde(alias = "best")]
    AllMax,
    /// Every completion earned nothing: too hard as yet.
    AllMin,
    /// All equal in between: a scorer that cannot tell.
    #[serde(alias = "worst")]
    AllEqual,
}

/// The signal of a group. `all_max`, `all_min`: every completion is `Score::is_max`, or `Score::is_min`; how large equal rewards are does not
/// tell. A group with fewer than two scored completions has zero variance; one with none is `AllEqual`.
pub fn group_signal(rewards: &[f64], all_max: bool, all_min: bool) -> GroupSignal {
    let scored: Vec<f64> = rewards.iter().copied().filter(|reward| reward.is_finite()).collect();
    if scored.len() >= 2 && !all_equal(&scored) {
        return GroupSignal::Mixed;
    }
    match scored.first() {
        Some(_) if all_max => GroupSignal::AllMax,
        Some(_) if all_min => GroupSignal::AllMin,
        _ => GroupSignal::AllEqual,
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
    fn signals() {
        let check = |rewards: &[f64], all_max, expected| {
            assert_eq!(group_signal(rewards, all_max, rewards.iter().all(|reward| *reward == 0.0)), expected, "{rewards:?} {all_max}");
        };
        check(&[1.0, 1.0], true, GroupSignal::AllMax);
        check(&[0.0, 0.0], false, GroupSignal::AllMin);
        // Nearer to the top than to the bottom, and still no solved prompt.
        check(&[0.9, 0.9], false, GroupSignal::AllEqual);
        check(&[0.5, 1.0], false, GroupSignal::Mixed);
        check(&[1.0], true, GroupSignal::AllMax);
        check(&[], true, GroupSignal::AllEqual);
        check(&[f64::NAN, 1.0, 1.0], true, GroupSignal::AllMax);
        for (old, signal) in [("no", GroupSignal::Mixed), ("best", GroupSignal::AllMax), ("worst", GroupSignal::AllEqual)] {
            assert_eq!(serde_json::from_value::<GroupSignal>(old.into()).unwrap(), signal);
        }
        assert_eq!(serde_json::to_value(GroupSignal::AllMin).unwrap(), "all_min");
    }
}
