//! Turns the rewards of a group into advantages relative to its mean.

mod per_part;

pub use crate::config::Advantage;
pub use per_part::{normalise_sums, part_sums, parts_differ, step_advantages};

/// Added to the standard deviation, so that nearly equal rewards do not explode.
pub const STANDARD_DEVIATION_FLOOR: f64 = 1e-4;

/// Returns the advantages of one group, in the order of `rewards`.
///
/// A reward that is not finite counts as unscored: advantage 0, left out of mean and std. Equal
/// rewards, and a group with fewer than two scored completions, give exactly 0. The std is the
/// sample one (n - 1).
pub fn group_advantages(rewards: &[f64], advantage: Advantage) -> Vec<f64> {
    let scored: Vec<f64> = rewards
        .iter()
        .copied()
        .filter(|reward| reward.is_finite())
        .collect();
    if scored.len() < 2 || all_equal(&scored) {
        return vec![0.0; rewards.len()];
    }
    let count = scored.len() as f64;
    let (mean, deviation) = mean_and_deviation(&scored);
    let scale = match advantage {
        // A single part is standardized like this until the step is normalised.
        Advantage::Standardized | Advantage::PerPart => {
            1.0 / (deviation + STANDARD_DEVIATION_FLOOR)
        }
        Advantage::Centered => 1.0,
        // r_i - mean of the others = n / (n - 1) * (r_i - mean)
        Advantage::LeaveOneOut => count / (count - 1.0),
    };
    rewards
        .iter()
        .map(|reward| {
            if reward.is_finite() {
                (reward - mean) * scale
            } else {
                0.0
            }
        })
        .collect()
}

/// Returns mean and sample std (n - 1) of the finite rewards; std 0 with fewer than two.
pub fn mean_and_deviation(rewards: &[f64]) -> (f64, f64) {
    let scored = || rewards.iter().copied().filter(|reward| reward.is_finite());
    let count = scored().count() as f64;
    let mean = scored().sum::<f64>() / count;
    if count < 2.0 {
        return (mean, 0.0);
    }
    (
        mean,
        (scored().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt(),
    )
}

pub fn explain(rewards: &[f64], reward: f64, advantage: f64, kind: Advantage) -> String {
    let scored: Vec<f64> = rewards
        .iter()
        .copied()
        .filter(|reward| reward.is_finite())
        .collect();
    if !reward.is_finite() {
        return "0: not scored, excluded from the mean".to_owned();
    }
    if kind != Advantage::PerPart && all_equal(&scored) {
        return format!(
            "0: all {} rewards are {reward:.3} (zero variance)",
            scored.len()
        );
    }
    let (count, (mean, deviation)) = (scored.len() as f64, mean_and_deviation(&scored));
    match kind {
        Advantage::Standardized => {
            format!(
                "({reward:.3} - {mean:.3}) / ({deviation:.3} + {STANDARD_DEVIATION_FLOOR}) = {advantage:+.3}"
            )
        }
        Advantage::Centered => format!("{reward:.3} - {mean:.3} = {advantage:+.3}"),
        Advantage::PerPart => {
            format!(
                "{advantage:+.3} (parts normalised in the group, their weighted sum over the step)"
            )
        }
        Advantage::LeaveOneOut => {
            let others = (mean * count - reward) / (count - 1.0);
            format!(
                "{reward:.3} - {others:.3} (mean of the other {}) = {advantage:+.3}",
                scored.len() - 1
            )
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupSignal {
    #[default]
    Mixed,
    /// Every completion has the full reward: the prompt is solved.
    AllMax,
    /// Every completion has the lowest reward.
    AllMin,
    /// All equal in between: the scorer does not discriminate.
    AllEqual,
}

/// Classifies a group. `all_max`, `all_min`: every completion is `Score::is_max`, or
/// `Score::is_min`; equal rewards alone do not show which. Fewer than two scored completions have
/// zero variance; none is `AllEqual`.
pub fn group_signal(rewards: &[f64], all_max: bool, all_min: bool) -> GroupSignal {
    let scored: Vec<f64> = rewards
        .iter()
        .copied()
        .filter(|reward| reward.is_finite())
        .collect();
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
            assert!(
                (a - b).abs() < 1e-9,
                "{rewards:?} {advantage}: {found:?}, expected {expected:?}"
            );
        }
    }

    #[test]
    fn hand_computed_groups() {
        use Advantage::{Centered, LeaveOneOut, Standardized};
        // mean 0.5, sample deviation sqrt(0.5 / 3)
        let scale = 1.0 / ((0.5f64 / 3.0).sqrt() + 1e-4);
        check(
            &[0.0, 0.5, 0.5, 1.0],
            Standardized,
            &[-0.5 * scale, 0.0, 0.0, 0.5 * scale],
        );
        check(&[0.0, 0.5, 0.5, 1.0], Centered, &[-0.5, 0.0, 0.0, 0.5]);
        check(
            &[0.0, 0.5, 0.5, 1.0],
            LeaveOneOut,
            &[-2.0 / 3.0, 0.0, 0.0, 2.0 / 3.0],
        );
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
        let found = group_advantages(
            &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5],
            Advantage::Standardized,
        );
        assert!((found[7] + 2.475).abs() < 2e-3, "{found:?}");
    }

    #[test]
    fn the_formula_gives_what_it_says() {
        let check = |rewards: &[f64], member: usize, kind, expected: &str| {
            assert_eq!(
                explain(
                    rewards,
                    rewards[member],
                    group_advantages(rewards, kind)[member],
                    kind
                ),
                expected
            );
        };
        use Advantage::{Centered, LeaveOneOut, Standardized};
        let mixed = [1.0, 0.5, 0.0, 1.0];
        check(
            &mixed,
            0,
            Standardized,
            "(1.000 - 0.625) / (0.479 + 0.0001) = +0.783",
        );
        check(
            &mixed,
            1,
            Standardized,
            "(0.500 - 0.625) / (0.479 + 0.0001) = -0.261",
        );
        check(&mixed, 1, Centered, "0.500 - 0.625 = -0.125");
        check(
            &mixed,
            0,
            LeaveOneOut,
            "1.000 - 0.500 (mean of the other 3) = +0.500",
        );
        check(
            &mixed,
            1,
            LeaveOneOut,
            "0.500 - 0.667 (mean of the other 3) = -0.167",
        );
        check(
            &[1.0; 8],
            3,
            Standardized,
            "0: all 8 rewards are 1.000 (zero variance)",
        );
        check(
            &[f64::NAN, 0.0, 1.0],
            0,
            Standardized,
            "0: not scored, excluded from the mean",
        );
        check(&[f64::NAN, 0.0, 1.0], 2, Centered, "1.000 - 0.500 = +0.500");
    }

    #[test]
    fn signals() {
        let check = |rewards: &[f64], all_max, expected| {
            assert_eq!(
                group_signal(
                    rewards,
                    all_max,
                    rewards.iter().all(|reward| *reward == 0.0)
                ),
                expected,
                "{rewards:?} {all_max}"
            );
        };
        check(&[1.0, 1.0], true, GroupSignal::AllMax);
        check(&[0.0, 0.0], false, GroupSignal::AllMin);
        // Nearer to the top than to the bottom, but not solved.
        check(&[0.9, 0.9], false, GroupSignal::AllEqual);
        check(&[0.5, 1.0], false, GroupSignal::Mixed);
        check(&[1.0], true, GroupSignal::AllMax);
        check(&[], true, GroupSignal::AllEqual);
        check(&[f64::NAN, 1.0, 1.0], true, GroupSignal::AllMax);
        assert_eq!(
            serde_json::to_value(GroupSignal::AllMin).unwrap(),
            "all_min"
        );
    }
}
