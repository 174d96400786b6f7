//! Prompts with several samples: how pass@j, and the share of prompts of which all samples pass, differ between two evals.

use serde::Serialize;

use super::measure::{Measure, Metric};
use crate::format::{p_equals, points_interval};
use crate::run::{EvalRecord, counts_by_prompt};
use crate::statistics::{Interval, PairedTest, SIGNIFICANT, paired_counts, paired_means, pass_at};

/// The difference of a rate over samples between two evals. Its p is not adjusted for the number of rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampleDifference {
    /// `pass@4`, `all 8 exact`.
    pub rate: Measure,
    /// Prompts with so many samples in both evals.
    pub n: usize,
    /// Second minus first, paired by prompt.
    pub difference: Interval,
    /// Two-sided.
    pub p: f64,
}

impl SampleDifference {
    /// Nothing with one sample a prompt. pass@1 is the rate itself; `all` is compared where both have as many samples.
    pub(super) fn between(
        metric: Metric,
        [before, after]: [&[EvalRecord]; 2],
        measure: fn(&EvalRecord) -> Option<bool>,
    ) -> Vec<Self> {
        let (before, after) = (
            counts_by_prompt(before, measure),
            counts_by_prompt(after, measure),
        );
        let [first, second] =
            [&before, &after].map(|counts| counts.values().map(|(_, all)| *all).max().unwrap_or(0));
        let samples = first.min(second);
        if samples < 2 {
            return Vec::new();
        }
        let pairs: Vec<_> = before
            .iter()
            .filter_map(|(prompt, first)| Some((*first, *after.get(prompt)?)))
            .collect();
        let of = |rate: Measure, n: usize, PairedTest { difference, p }| Self {
            rate,
            n,
            difference,
            p,
        };
        let powers = std::iter::successors(Some(2), |j| Some(2 * j)).take_while(|j| *j < samples);
        let pass_at = powers.chain([samples]).map(|j| {
            let value = |(passed, all)| pass_at(j, all, passed);
            let differences: Vec<f64> = pairs
                .iter()
                .filter_map(|(first, second)| Some(value(*second)? - value(*first)?))
                .collect();
            of(
                Measure::PassAt(j, metric),
                differences.len(),
                paired_means(&differences, 1.0, SIGNIFICANT),
            )
        });
        let whole = pairs
            .iter()
            .filter(|(first, second)| first.1 == samples && second.1 == samples);
        let passes: Vec<[bool; 2]> = whole
            .map(|pair| [pair.0, pair.1].map(|(passed, all)| passed == all))
            .collect();
        let count = |outcome: [bool; 2]| passes.iter().filter(|found| **found == outcome).count();
        let changed = [[false, true], [true, false]].map(count);
        let test = paired_counts(changed[0], changed[1], passes.len(), SIGNIFICANT);
        let all = (first == second).then(|| of(Measure::All(samples, metric), passes.len(), test));
        pass_at.chain(all).collect()
    }

    /// `pass@4: +3.2 points [-1.0, +7.4], p = 0.1234`.
    pub fn text(&self) -> String {
        let Interval {
            estimate,
            low,
            high,
        } = self.difference;
        let [estimate, interval] = points_interval(estimate, [low, high]);
        format!(
            "{}: {estimate} points {interval}, {}",
            self.rate,
            p_equals(self.p)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Tier;

    fn eval(passed: &[usize], samples: usize) -> Vec<EvalRecord> {
        let record = |prompt: usize, sample: usize| EvalRecord {
            prompt_id: format!("p{prompt}"),
            sample,
            tier: if sample < passed[prompt] {
                Tier::Valid
            } else {
                Tier::Invalid
            },
            ..EvalRecord::default()
        };
        (0..passed.len())
            .flat_map(|prompt| (0..samples).map(move |sample| record(prompt, sample)))
            .collect()
    }

    #[test]
    fn rates_of_samples_are_paired_by_prompt() {
        let valid = |record: &EvalRecord| Some(record.is_valid());
        let of = |before: &[EvalRecord], after: &[EvalRecord]| {
            SampleDifference::between(Metric::Valid, [before, after], valid)
        };
        let (before, after) = (eval(&[0, 1, 4, 2], 4), eval(&[1, 4, 4, 0], 4));
        let found = of(&before, &after);
        let rates: Vec<_> = found
            .iter()
            .map(|found| (found.rate.to_string(), found.n))
            .collect();
        let expected = [("pass@2", 4), ("pass@4", 4), ("all 4 valid", 4)];
        assert_eq!(rates, expected.map(|(rate, n)| (rate.to_owned(), n)));
        // pass@2 of 0, 1, 2 and 4 passed of 4: 0, 1/2, 5/6 and 1.
        let expected = [(0.5 + 0.5 + 0.0 - 5.0 / 6.0) / 4.0, 0.0, 0.25];
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found.difference.estimate - expected).abs() < 1e-12,
                "{found:?}"
            );
            assert!(
                found.difference.low < 0.0 && found.difference.high > 0.0 && found.p > 0.05,
                "{found:?}"
            );
        }
        assert_eq!(
            found[2].text(),
            "all 4 valid: +25.0 points [-38.3, +71.7], p = 1"
        );
        // Where each prompt has an outcome alone, it is the same test.
        let many = of(&eval(&[0; 40], 2), &eval(&[2; 40], 2));
        assert_eq!(
            (many[0].p, many[0].difference),
            (many[1].p, many[1].difference)
        );
        // Fewer samples on one side: what both have; none of single ones.
        let fewer: Vec<String> = of(&before, &eval(&[1, 2, 2, 0], 2))
            .into_iter()
            .map(|found| found.rate.to_string())
            .collect();
        assert_eq!(fewer, ["pass@2"]);
        assert!(of(&eval(&[1, 0], 1), &eval(&[1, 1], 1)).is_empty());
    }
}
