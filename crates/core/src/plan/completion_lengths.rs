//! How long completions are expected to be, and where that is known from.

use serde::{Deserialize, Serialize};

use super::DataShape;
use crate::advantage::mean_and_deviation;
use crate::format::{counted, short_id};
use crate::statistics::normal_quantile;

/// Expected mean length of a step's completions, in tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionLengths {
    #[serde(flatten)]
    pub basis: LengthBasis,
    pub mean: f64,
    pub least: f64,
    pub most: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "basis", rename_all = "snake_case")]
pub enum LengthBasis {
    /// The steps of an earlier run of the same task and model; from its 10th to its 90th percentile.
    Run { run: String, steps: usize },
    /// Sampled completions of the base; a 95% interval of their mean.
    Sample { completions: usize },
    /// Unknown: every completion is counted as `max_completion_tokens`. `least` is the mean of those sampled, some of
    /// them truncated.
    Limit,
}

/// The share of an earlier run's steps outside the range, on either side.
const OUTSIDE: f64 = 0.1;

impl CompletionLengths {
    /// From the mean lengths of an earlier run's steps, at most `limit`; `None` without any.
    pub fn from_run(run: &str, step_means: &[f64], limit: usize) -> Option<Self> {
        let mut means: Vec<f64> = step_means
            .iter()
            .filter(|mean| mean.is_finite())
            .copied()
            .collect();
        means.sort_by(f64::total_cmp);
        let at = |share: f64| {
            means
                .get((share * means.len().saturating_sub(1) as f64).round() as usize)
                .copied()
        };
        let basis = LengthBasis::Run {
            run: run.to_owned(),
            steps: means.len(),
        };
        let mean = means.iter().sum::<f64>() / means.len().max(1) as f64;
        // A few long steps may lift the mean out of the percentiles.
        let (least, most) = (at(OUTSIDE)?.min(mean), at(1.0 - OUTSIDE)?.max(mean));
        Some(
            Self {
                basis,
                mean,
                least,
                most,
            }
            .within(limit),
        )
    }

    /// From completions of the base, all of them sampled to their end or to `limit`: lengths by group.
    pub fn from_sample(groups: &[Vec<usize>], limit: usize) -> Self {
        let completions = groups.iter().map(Vec::len).sum::<usize>();
        let mean_of =
            |group: &Vec<usize>| group.iter().sum::<usize>() as f64 / group.len().max(1) as f64;
        let means: Vec<f64> = groups
            .iter()
            .filter(|group| !group.is_empty())
            .map(mean_of)
            .collect();
        // Completions of one prompt are alike, so prompts are counted.
        let (mean, deviation) = mean_and_deviation(&means);
        let margin = normal_quantile(0.975) * deviation / (means.len().max(1) as f64).sqrt();
        let basis = LengthBasis::Sample { completions };
        Self {
            basis,
            mean,
            least: (mean - margin).max(1.0),
            most: mean + margin,
        }
        .within(limit)
    }

    /// Unknown; completions that were sampled in part had `seen` tokens on average.
    pub fn unknown(seen: f64, limit: usize) -> Self {
        let limit = limit as f64;
        Self {
            basis: LengthBasis::Limit,
            mean: limit,
            least: seen.min(limit),
            most: limit,
        }
    }

    fn within(self, limit: usize) -> Self {
        let limit = limit as f64;
        Self {
            mean: self.mean.min(limit),
            least: self.least.min(limit),
            most: self.most.min(limit),
            ..self
        }
    }

    pub fn for_data(&self, data: &DataShape) -> DataShape {
        DataShape {
            mean_completion_tokens: self.mean,
            least_completion_tokens: self.least,
            most_completion_tokens: self.most,
            ..*data
        }
    }

    /// Where they are from, after a forecast: `from the lengths of run k7f3a2: 41 to 52 tokens in 40 steps`.
    pub fn described(&self) -> String {
        let Self {
            mean, least, most, ..
        } = self;
        match &self.basis {
            LengthBasis::Run { run, steps } => {
                let (run, steps) = (short_id(run), counted(*steps, "step"));
                format!("from the lengths of run {run}: {least:.0} to {most:.0} tokens in {steps}")
            }
            LengthBasis::Sample { completions } => {
                let sampled = counted(*completions, "sampled completion");
                format!("from {sampled}: mean {mean:.0} tokens ({least:.0} to {most:.0})")
            }
            LengthBasis::Limit => {
                format!(
                    "every completion as long as max_completion_tokens = {most:.0}, since lengths are unknown"
                )
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gives_its_percentiles_below_the_limit() {
        let steps: Vec<f64> = (0..=100).map(f64::from).collect();
        let found =
            CompletionLengths::from_run("20261120-143205-invoice-k7f3a2", &steps, 80).unwrap();
        assert_eq!((found.mean, found.least, found.most), (50.0, 10.0, 80.0));
        assert_eq!(
            found.described(),
            "from the lengths of run k7f3a2: 10 to 80 tokens in 101 steps"
        );
        assert_eq!(CompletionLengths::from_run("x", &[f64::NAN], 80), None);
        let one = CompletionLengths::from_run("x", &[44.0], 80).unwrap();
        assert_eq!((one.mean, one.least, one.most), (44.0, 44.0, 44.0));
        let skewed =
            CompletionLengths::from_run("x", &[[10.0; 10].as_slice(), &[120.0]].concat(), 80)
                .unwrap();
        assert_eq!((skewed.mean, skewed.least, skewed.most), (20.0, 10.0, 20.0));
    }

    #[test]
    fn a_sample_gives_the_interval_of_its_mean_by_prompts() {
        let found = CompletionLengths::from_sample(
            &[vec![10, 30], vec![40, 40], vec![], vec![60, 60]],
            512,
        );
        assert_eq!(
            (found.mean, &found.basis),
            (40.0, &LengthBasis::Sample { completions: 6 })
        );
        // Means 20, 40, 60: a standard error of 20 / sqrt(3).
        assert!(
            (found.most - 62.63).abs() < 0.01 && (found.least - 17.37).abs() < 0.01,
            "{found:?}"
        );
        assert_eq!(
            found.described(),
            "from 6 sampled completions: mean 40 tokens (17 to 63)"
        );
    }

    #[test]
    fn lengths_survive_json() {
        let basis = LengthBasis::Run {
            run: "k7f3a2".to_owned(),
            steps: 40,
        };
        for basis in [
            basis,
            LengthBasis::Sample { completions: 64 },
            LengthBasis::Limit,
        ] {
            let lengths = CompletionLengths {
                basis,
                mean: 44.5,
                least: 41.0,
                most: 52.0,
            };
            let json = serde_json::to_string(&lengths).unwrap();
            assert_eq!(
                serde_json::from_str::<CompletionLengths>(&json).unwrap(),
                lengths,
                "{json}"
            );
        }
        let json = serde_json::to_value(CompletionLengths::unknown(12.0, 512)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"basis": "limit", "mean": 512.0, "least": 12.0, "most": 512.0})
        );
    }
}
