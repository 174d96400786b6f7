//! Advantages from each part of a reward separately (GDPO, arXiv 2601.05242; TRL's
//! `normalize_then_sum`), so that a part of high variance does not drown one of low variance.

use super::{STANDARD_DEVIATION_FLOOR, all_equal, mean_and_deviation};
use crate::score::{PartWeights, Score};

/// First stage: standardizes each part within the group (sample std + 1e-4) and sums by weight. 0
/// for a score without a reward, and in a group with fewer than two rewards. A part that no score
/// has, or that is equal in all, adds 0.
pub fn part_sums(scores: &[&Score], weights: &PartWeights) -> Vec<f64> {
    let mut sums = vec![0.0; scores.len()];
    for (values, weight) in parts(scores, weights) {
        let known: Vec<f64> = values
            .iter()
            .copied()
            .filter(|value| value.is_finite())
            .collect();
        if known.len() < 2 || all_equal(&known) {
            continue;
        }
        let (mean, deviation) = mean_and_deviation(&values);
        for (sum, value) in sums
            .iter_mut()
            .zip(values)
            .filter(|(_, value)| value.is_finite())
        {
            *sum += weight * (value - mean) / (deviation + STANDARD_DEVIATION_FLOOR);
        }
    }
    sums
}

/// Whether a part differs within a group: informative even where the sums are equal.
pub fn parts_differ(scores: &[&Score], weights: &PartWeights) -> bool {
    parts(scores, weights).any(|(values, _)| {
        let known: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        known.len() >= 2 && !all_equal(&known)
    })
}

/// Second stage: standardizes a sum over those of the step (sample std + 1e-4).
pub fn normalise_sums(sum: f64, mean: f64, deviation: f64) -> f64 {
    (sum - mean) / (deviation + STANDARD_DEVIATION_FLOOR)
}

/// Runs both stages on a step's groups; returns advantages by group, 0 in a group of which no part
/// differs.
pub fn step_advantages(groups: &[Vec<&Score>], weights: &PartWeights) -> Vec<Vec<f64>> {
    let sums: Vec<Vec<f64>> = groups
        .iter()
        .map(|group| part_sums(group, weights))
        .collect();
    let scored = groups
        .iter()
        .flatten()
        .zip(sums.iter().flatten())
        .filter(|(score, _)| score.reward.is_finite());
    let (mean, deviation) = mean_and_deviation(&scored.map(|(_, sum)| *sum).collect::<Vec<_>>());
    let advantages = |(group, sums): (&Vec<&Score>, Vec<f64>)| {
        let differs = parts_differ(group, weights);
        let one = |(score, sum): (&&Score, f64)| {
            if differs && score.reward.is_finite() {
                normalise_sums(sum, mean, deviation)
            } else {
                0.0
            }
        };
        group.iter().zip(sums).map(one).collect()
    };
    groups.iter().zip(sums).map(advantages).collect()
}

/// Yields the values of each part in the group, NaN where a score lacks it, with its weight. A
/// reward without parts is one part.
fn parts<'a>(
    scores: &'a [&Score],
    weights: &'a PartWeights,
) -> impl Iterator<Item = (Vec<f64>, f64)> + 'a {
    weights.0.iter().map(|(name, weight)| {
        let value = |score: &&Score| match score.parts.get(name) {
            _ if !score.reward.is_finite() => f64::NAN,
            None if name == "tier" => score.reward,
            value => value.copied().unwrap_or(f64::NAN),
        };
        (scores.iter().map(value).collect(), *weight)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `reward`: tier's value plus `fields`; NaN: no score.
    fn score(tier: f64, fields: Option<f64>) -> Score {
        let mut parts = serde_json::Map::from_iter([("tier".to_owned(), tier.into())]);
        parts.extend(fields.map(|fields| ("fields".to_owned(), fields.into())));
        let reward = if tier.is_nan() {
            None
        } else {
            Some(tier + fields.unwrap_or(0.0))
        };
        serde_json::from_value(serde_json::json!({
            "reward": reward, "tier": "valid", "tolerant": true, "warnings": [], "errors": [], "fields": null,
            "exact": null, "failure": null, "parts": if tier.is_nan() { serde_json::Map::new() } else { parts },
        }))
        .unwrap()
    }

    fn weights(fields: f64) -> PartWeights {
        PartWeights(vec![
            ("tier".to_owned(), 1.0),
            ("fields".to_owned(), fields),
        ])
    }

    fn near(found: &[f64], expected: &[f64]) {
        let is_near = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(is_near, "{found:?}, expected {expected:?}");
    }

    #[test]
    fn hand_computed_parts() {
        // Tier 0, 1: mean 0.5, std sqrt(0.5); fields 1, 0: the same with the other sign. The sum of rewards is equal.
        let (first, second) = (score(0.0, Some(1.0)), score(1.0, Some(0.0)));
        let unit = 0.5 / (0.5f64.sqrt() + 1e-4);
        near(&part_sums(&[&first, &second], &weights(1.0)), &[0.0, 0.0]);
        near(
            &part_sums(&[&first, &second], &weights(3.0)),
            &[2.0 * unit, -2.0 * unit],
        );
        assert!(parts_differ(&[&first, &second], &weights(1.0)));
        // A part that one score lacks, and a score without a reward.
        let (unknown, failed) = (score(1.0, None), score(f64::NAN, None));
        near(
            &part_sums(&[&first, &second, &failed], &weights(3.0)),
            &[2.0 * unit, -2.0 * unit, 0.0],
        );
        near(
            &part_sums(&[&unknown, &unknown], &weights(1.0)),
            &[0.0, 0.0],
        );
        assert!(!parts_differ(&[&unknown, &failed], &weights(1.0)));
        near(&part_sums(&[&first], &weights(1.0)), &[0.0]);
    }

    #[test]
    fn the_step_is_normalised_over_all_groups() {
        let (none, half, full) = (
            score(0.0, Some(0.0)),
            score(0.0, Some(0.5)),
            score(0.0, Some(1.0)),
        );
        // Within each group -u and +u: apart from the 1e-4, differing by 0.5 or by 1 gives the
        // same.
        let groups = [vec![&none, &half], vec![&none, &full], vec![&full, &full]];
        let (a, b) = (
            0.25 / (0.125f64.sqrt() + 1e-4),
            0.5 / (0.5f64.sqrt() + 1e-4),
        );
        let deviation = ((2.0 * a * a + 2.0 * b * b) / 5.0).sqrt() + 1e-4;
        let found = step_advantages(&groups, &weights(1.0));
        near(
            &found.concat(),
            &[
                -a / deviation,
                a / deviation,
                -b / deviation,
                b / deviation,
                0.0,
                0.0,
            ],
        );
    }
}
