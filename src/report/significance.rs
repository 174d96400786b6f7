//! A metric of two evals on the same prompts: the difference, its test, and the verdict.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::run::{Comparison, EvalRecord};
use crate::statistics::{Interval, PairedTest, paired_counts, paired_means, required_n, required_n_of_means};

/// The significance level.
const SIGNIFICANT: f64 = 0.05;
/// The power for which the required number of prompts is computed.
const POWER: f64 = 0.8;

/// The verdict on the second eval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// Which does not prove that there is none.
    NoDifference,
}

/// A metric of two evals with its test. In JSON, the counts of `comparison` are on the same level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricComparison {
    /// `valid` or `exact`.
    #[serde(skip)]
    pub metric: &'static str,
    /// Prompts in both evals.
    pub n: usize,
    /// Of the first completion of each prompt.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Second minus first, over all completions, paired by prompt.
    pub difference: Interval,
    /// Two-sided: of the exact McNemar test; with several completions per prompt, of its analogue for mean rates.
    pub p: f64,
    pub verdict: Verdict,
    /// Completions per prompt.
    #[serde(skip)]
    pub samples: usize,
    /// The number of prompts that would show such a difference with a power of 80%; `None` if one was found, or no
    /// number would.
    #[serde(rename = "required_n")]
    pub needed: Option<usize>,
}

impl MetricComparison {
    /// `valid` and `exact`; `None` if no prompt of both has an expected answer.
    pub fn both(before: &[EvalRecord], after: &[EvalRecord]) -> (Self, Option<Self>) {
        // The completions of a prompt are not independent, so only the first counts.
        let firsts =
            |records: &[EvalRecord]| records.iter().filter(|record| record.sample == 0).cloned().collect::<Vec<_>>();
        let (first, second) = (firsts(before), firsts(after));
        let judged = |metric, comparison: Comparison, measure: fn(&EvalRecord) -> Option<bool>| {
            let samples = before.iter().chain(after).map(|record| record.sample + 1).max().unwrap_or(1);
            if samples == 1 {
                return Self::of(metric, comparison);
            }
            let differences = differences(before, after, measure);
            let test = paired_means(&differences, samples);
            Self::tested(metric, comparison, samples, test, || required_n_of_means(&differences, POWER))
        };
        let exact =
            Comparison::of_exact(&first, &second).map(|comparison| judged("exact", comparison, |record| record.exact));
        (judged("valid", Comparison::of(&first, &second), |record| Some(record.is_valid())), exact)
    }

    /// For one completion per prompt.
    pub fn of(metric: &'static str, comparison: Comparison) -> Self {
        let (fixed, broken, pairs) = (comparison.fixed, comparison.broken, comparison.pairs());
        let share = |count: usize| count as f64 / pairs.max(1) as f64;
        Self::tested(metric, comparison, 1, paired_counts(fixed, broken, pairs), || {
            required_n(share(fixed), share(broken), POWER)
        })
    }

    fn tested(
        metric: &'static str,
        comparison: Comparison,
        samples: usize,
        test: PairedTest,
        needed: impl FnOnce() -> Option<usize>,
    ) -> Self {
        let PairedTest { difference, p } = test;
        let (n, is_significant) = (comparison.pairs(), p < SIGNIFICANT);
        let verdict = match is_significant {
            true if difference.estimate > 0.0 => Verdict::Better,
            true => Verdict::Worse,
            false => Verdict::NoDifference,
        };
        let needed = if is_significant { None } else { needed().filter(|needed| *needed > n) };
        Self { metric, n, comparison, difference, p, verdict, samples, needed }
    }

    /// `significantly better (p = 1.6e-61)`.
    pub fn in_words(&self) -> String {
        let words = match self.verdict {
            Verdict::Better => "significantly better",
            Verdict::Worse => "significantly worse",
            Verdict::NoDifference => "no difference found",
        };
        format!("{words} (p = {})", p_value(self.p))
    }

    /// `valid: significantly better (p = 1.6e-61)`, with the required number of prompts if no difference was found.
    pub fn sentence(&self) -> String {
        let needed = |needed: usize| format!("; one like this needs about {needed} prompts for 80% power");
        format!("{}: {}{}", self.metric, self.in_words(), self.needed.map_or_else(String::new, needed))
    }

    /// The sentence with the difference and its counts.
    pub fn line(&self) -> String {
        let Comparison { fixed, broken, .. } = self.comparison;
        let (difference, pairs) = (points(&self.difference), self.n);
        let firsts = if self.samples > 1 { " (first completions)" } else { "" };
        format!(
            "{}\n  {difference}; {fixed} improvements, {broken} regressions in {pairs} prompts{firsts}\n",
            self.sentence()
        )
    }
}

fn p_value(p: f64) -> String {
    if p < 1e-4 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

/// A difference of rates in percentage points, with its 95% interval.
pub fn points(interval: &Interval) -> String {
    format!("{:+.1} points [{:+.1}, {:+.1}]", 100.0 * interval.estimate, 100.0 * interval.low, 100.0 * interval.high)
}

/// Second minus first, averaged over a prompt's completions.
fn differences(before: &[EvalRecord], after: &[EvalRecord], measure: fn(&EvalRecord) -> Option<bool>) -> Vec<f64> {
    let key = |record: &EvalRecord| (record.prompt_id.clone(), record.sample);
    let before: BTreeMap<_, bool> = before.iter().filter_map(|record| Some((key(record), measure(record)?))).collect();
    let mut by_prompt: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    for record in after {
        if let (Some(then), Some(now)) = (before.get(&key(record)), measure(record)) {
            let (sum, count) = by_prompt.entry(&record.prompt_id).or_default();
            *sum += i64::from(now) - i64::from(*then);
            *count += 1;
        }
    }
    by_prompt.into_values().map(|(sum, count)| sum as f64 / count as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(fixed: usize, broken: usize, pairs: usize) -> MetricComparison {
        let mcnemar_p = crate::statistics::mcnemar_exact(fixed, broken);
        MetricComparison::of(
            "valid",
            Comparison { fixed, broken, both: pairs - fixed - broken, mcnemar_p, ..Comparison::default() },
        )
    }

    #[test]
    fn the_sentence_and_the_interval_never_disagree() {
        let check = |(fixed, broken, pairs), verdict, expected: &str| {
            let judged = counted(fixed, broken, pairs);
            assert_eq!((judged.verdict, judged.line().as_str()), (verdict, expected));
            let Interval { low, high, .. } = judged.difference;
            assert_eq!(low <= 0.0 && 0.0 <= high, verdict == Verdict::NoDifference, "{expected}");
        };
        let few = "valid: no difference found (p = 0.0625); one like this needs about 790 prompts for 80% power\n  +1.0 points [-0.0, +2.3]; 5 improvements, 0 regressions in 500 prompts\n";
        check((5, 0, 500), Verdict::NoDifference, few);
        let none = "valid: no difference found (p = 1.0000)\n  +0.0 points [-0.7, +0.7]; 0 improvements, 0 regressions in 500 prompts\n";
        check((0, 0, 500), Verdict::NoDifference, none);
        let better = "valid: significantly better (p = 1.6e-61)\n  +40.6 points [+36.1, +45.0]; 203 improvements, 0 regressions in 500 prompts\n";
        check((203, 0, 500), Verdict::Better, better);
        let worse = "valid: significantly worse (p = 0.0129)\n  -20.0 points [-34.2, -3.9]; 2 improvements, 12 regressions in 50 prompts\n";
        check((2, 12, 50), Verdict::Worse, worse);
    }

    /// An eval that gains in form and loses in content is not "better": each metric has its own test.
    #[test]
    fn both_metrics_are_judged() {
        let record = |index: usize, sample: usize, is_valid: bool, exact: bool| EvalRecord {
            prompt_id: format!("p{index}"),
            sample,
            tier: if is_valid { "valid" } else { "invalid" }.to_owned(),
            exact: Some(exact),
            ..EvalRecord::default()
        };
        let eval = |samples: usize, valid: usize, exact: usize| -> Vec<EvalRecord> {
            (0..100 * samples)
                .map(|at| record(at / samples, at % samples, at / samples < valid, at / samples < exact))
                .collect()
        };
        for samples in [1, 4] {
            let (valid, exact) = MetricComparison::both(&eval(samples, 20, 20), &eval(samples, 95, 5));
            let exact = exact.as_ref().map(|exact| (exact.verdict, exact.comparison.broken));
            assert_eq!(
                (valid.verdict, valid.comparison.fixed, exact),
                (Verdict::Better, 75, Some((Verdict::Worse, 15))),
                "{samples} samples"
            );
            // As many prompts, however many completions each has.
            assert!(
                (valid.difference.estimate - 0.75).abs() < 1e-12 && valid.p > 1e-24,
                "{samples} samples: {valid:?}"
            );
        }
        let unknown: Vec<EvalRecord> =
            eval(1, 20, 20).into_iter().map(|record| EvalRecord { exact: None, ..record }).collect();
        assert!(MetricComparison::both(&unknown, &unknown).1.is_none());
    }
}
