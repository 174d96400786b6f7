//! A metric of two evals on the same prompts: the difference, its test, and the verdict.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::Metric;
use super::sample_differences::SampleDifference;
use crate::format::{counted, p_equals, p_value, points_interval};
use crate::page::{Block, Level};
use crate::run::{Comparison, EvalRecord};
pub use crate::statistics::Verdict;
use crate::statistics::{
    Interval, PairedTest, SIGNIFICANT, holm, look_adjusted, look_level, paired_counts,
    paired_means, required_n, required_n_of_means,
};

/// The power for which the required number of prompts is computed.
const POWER: f64 = 0.8;

/// The verdict on one metric of the second of two evals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MetricVerdict {
    #[serde(skip)]
    pub metric: Metric,
    pub verdict: Verdict,
    /// Two-sided.
    pub p: f64,
    /// By Holm's method, where several comparisons are made, and for the look; the verdict follows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjusted_p: Option<f64>,
    /// Difference of the rates, second minus first, with the confidence of the look.
    pub difference: Interval,
    /// The number of the look at the test set, from 1; `None` for other sets, and where looks were not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<u64>,
}

impl MetricVerdict {
    pub fn from_comparison(metric: Metric, comparison: &Comparison, look: Option<u64>) -> Self {
        let (fixed, broken, p) = (comparison.fixed, comparison.broken, comparison.mcnemar_p);
        let level = look.map_or(SIGNIFICANT, look_level);
        let difference = paired_counts(fixed, broken, comparison.pairs(), level).difference;
        let adjusted_p = adjusted(p, None, look);
        Self {
            metric,
            verdict: Verdict::from_difference(difference.estimate, adjusted_p.unwrap_or(p)),
            p,
            adjusted_p,
            difference,
            look,
        }
    }

    /// [`Level::Good`] only where one of the two is better, the other is not worse, and both were measured.
    pub fn level(valid: Verdict, exact: Option<Verdict>) -> Level {
        let both = [Some(valid), exact];
        match exact {
            _ if both.contains(&Some(Verdict::Worse)) => Level::Warning,
            Some(_) if both.contains(&Some(Verdict::Better)) => Level::Good,
            _ => Level::Info,
        }
    }

    /// Both metrics in one sentence, each with its effect size in percentage points: `valid: +40.6 points (95% CI
    /// [+36.1, +44.8], p = 1.6e-61), exact: no difference (+0.2 points, ...)`.
    pub fn sentence(valid: Self, exact: Option<Self>) -> String {
        let exact = exact.map_or_else(|| "exact n/a".to_owned(), Self::with_effect);
        let look = valid.look.map_or_else(String::new, |look| {
            format!("; look {look} of this test set")
        });
        format!("{}, {exact}{look}", valid.with_effect())
    }

    fn with_effect(self) -> String {
        let Interval {
            estimate,
            low,
            high,
        } = self.difference;
        let [estimate, interval] = points_interval(estimate, [low, high]);
        let effect = match self.verdict {
            Verdict::NoDifference => format!("no difference ({estimate} points, "),
            Verdict::Better | Verdict::Worse => format!("{estimate} points ("),
        };
        format!(
            "{}: {effect}{} CI {interval}, {})",
            self.metric,
            confidence(self.look),
            self.p_value()
        )
    }

    /// `better (p = 0.0300)`
    pub fn words(self) -> String {
        let words = match self.verdict {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::NoDifference => "no difference",
        };
        format!("{words} ({})", self.p_value())
    }

    /// `p = 0.0300`, or `p = 0.0300, Holm-adjusted 0.0900`; at a look `p = 0.0300, adjusted 0.0600`.
    fn p_value(self) -> String {
        let is_for_look = self.look.is_some_and(|look| look > 1);
        let how = if is_for_look { "" } else { "Holm-" };
        let adjusted = self.adjusted_p.map_or_else(String::new, |adjusted| {
            format!(", {how}adjusted {}", p_value(adjusted))
        });
        p_equals(self.p) + &adjusted
    }
}

impl std::fmt::Display for MetricVerdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let colon = match self.verdict {
            Verdict::NoDifference => ":",
            Verdict::Better | Verdict::Worse => "",
        };
        write!(formatter, "{}{colon} {}", self.metric, self.words())
    }
}

pub(super) fn verdict(valid: &MetricComparison, exact: Option<&MetricComparison>) -> [Block; 2] {
    let sentence = MetricVerdict::sentence(valid.judged(), exact.map(MetricComparison::judged));
    let level = MetricVerdict::level(valid.verdict, exact.map(|exact| exact.verdict));
    let numbers = std::iter::once(valid)
        .chain(exact)
        .flat_map(MetricComparison::lines);
    [Block::Text(level, sentence), Block::List(numbers.collect())]
}

/// A metric of two evals with its test. In JSON, the counts of `comparison` are on the same level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricComparison {
    #[serde(skip)]
    pub metric: Metric,
    pub n: usize,
    /// Compares the first completion of each prompt.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Second minus first, over all completions, paired by prompt.
    pub difference: Interval,
    /// Two-sided: of the exact McNemar test; with several completions per prompt, of its analogue for mean rates.
    pub p: f64,
    /// By Holm's method, as one of several comparisons, and for the look; the verdict follows it. Only for the look is the
    /// interval adjusted.
    pub adjusted_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<u64>,
    pub verdict: Verdict,
    /// Completions per prompt.
    #[serde(skip)]
    pub samples: usize,
    /// The number of prompts that would show such a difference with a power of 80%; `None` if one was found, or no
    /// number would.
    #[serde(rename = "required_n")]
    pub needed: Option<usize>,
    /// Empty with one completion per prompt.
    #[serde(rename = "samples", skip_serializing_if = "Vec::is_empty")]
    pub of_samples: Vec<SampleDifference>,
}

impl MetricComparison {
    /// `valid` and `exact`; `None` if no prompt of both has an expected answer. As one of `comparisons`, the required n
    /// is for a level of 5% / `comparisons`, the least that Holm's method asks; [`Self::adjust`] does the rest.
    pub fn both(
        before: &[EvalRecord],
        after: &[EvalRecord],
        comparisons: usize,
        look: Option<u64>,
    ) -> (Self, Option<Self>) {
        let trial = Trial { comparisons, look };
        // The completions of a prompt are not independent, so only the first counts.
        let firsts = |records: &[EvalRecord]| {
            records
                .iter()
                .filter(|record| record.sample == 0)
                .cloned()
                .collect::<Vec<_>>()
        };
        let (first, second) = (firsts(before), firsts(after));
        let judged = |metric, comparison: Comparison, measure: fn(&EvalRecord) -> Option<bool>| {
            let samples = before
                .iter()
                .chain(after)
                .map(|record| record.sample + 1)
                .max()
                .unwrap_or(1);
            if samples == 1 {
                return Self::at(trial, metric, comparison);
            }
            let differences = differences(before, after, measure);
            let test = paired_means(&differences, 1.0 / samples as f64, trial.look_level());
            let needed = || required_n_of_means(&differences, POWER, trial.level());
            Self {
                of_samples: SampleDifference::between(metric, [before, after], measure),
                ..Self::tested(trial, metric, comparison, samples, test, needed)
            }
        };
        let exact = Comparison::between_exact(&first, &second)
            .map(|comparison| judged(Metric::Exact, comparison, |record| record.exact));
        (
            judged(
                Metric::Valid,
                Comparison::between(&first, &second),
                |record| (!record.is_error()).then(|| record.is_valid()),
            ),
            exact,
        )
    }

    pub fn from_comparison(metric: Metric, comparison: Comparison, look: Option<u64>) -> Self {
        let comparisons = 1;
        Self::at(Trial { comparisons, look }, metric, comparison)
    }

    /// Adjusts the p-values and verdicts of one metric in several comparisons.
    pub fn adjust(family: Vec<&mut Self>) {
        if family.len() < 2 {
            return;
        }
        let adjusted = holm(&family.iter().map(|judged| judged.p).collect::<Vec<_>>());
        for (judged, p) in family.into_iter().zip(adjusted) {
            judged.decide(Some(p));
        }
    }

    fn decide(&mut self, holm: Option<f64>) {
        self.adjusted_p = adjusted(self.p, holm, self.look);
        let p = self.adjusted_p.unwrap_or(self.p);
        self.verdict = Verdict::from_difference(self.difference.estimate, p);
        self.needed = self
            .needed
            .filter(|_| self.verdict == Verdict::NoDifference);
    }

    fn at(trial: Trial, metric: Metric, comparison: Comparison) -> Self {
        let (fixed, broken, pairs) = (comparison.fixed, comparison.broken, comparison.pairs());
        let share = |count: usize| count as f64 / pairs.max(1) as f64;
        Self::tested(
            trial,
            metric,
            comparison,
            1,
            paired_counts(fixed, broken, pairs, trial.look_level()),
            || required_n(share(fixed), share(broken), POWER, trial.level()),
        )
    }

    fn tested(
        trial: Trial,
        metric: Metric,
        comparison: Comparison,
        samples: usize,
        test: PairedTest,
        needed: impl FnOnce() -> Option<usize>,
    ) -> Self {
        let PairedTest { difference, p } = test;
        let n = comparison.pairs();
        let needed = if p < trial.level() {
            None
        } else {
            needed().filter(|needed| *needed > n)
        };
        let mut judged = Self {
            metric,
            n,
            comparison,
            difference,
            p,
            adjusted_p: None,
            look: trial.look,
            verdict: Verdict::NoDifference,
            samples,
            needed,
            of_samples: Vec::new(),
        };
        judged.decide(None);
        judged
    }

    pub fn judged(&self) -> MetricVerdict {
        MetricVerdict {
            metric: self.metric,
            verdict: self.verdict,
            p: self.p,
            adjusted_p: self.adjusted_p,
            difference: self.difference,
            look: self.look,
        }
    }

    /// All of it that the sentence does not say.
    pub fn lines(&self) -> Vec<String> {
        let of_samples = self.of_samples.iter().map(SampleDifference::text);
        std::iter::once(self.numbers())
            .chain(of_samples)
            .chain(self.needed_prompts())
            .collect()
    }

    pub fn numbers(&self) -> String {
        let Comparison { fixed, broken, .. } = self.comparison;
        let (metric, pairs) = (self.metric, self.n);
        let firsts = if self.samples > 1 {
            " (first completions)"
        } else {
            ""
        };
        let [fixed, broken, pairs] = [
            (fixed, "improvement"),
            (broken, "regression"),
            (pairs, "prompt"),
        ]
        .map(|(n, noun)| counted(n, noun));
        format!("{metric}: {fixed}, {broken} in {pairs}{firsts}")
    }

    pub fn needed_prompts(&self) -> Option<String> {
        let metric = self.metric;
        self.needed.map(|needed| {
            format!("{metric}: such a difference needs about {needed} prompts for 80% power")
        })
    }
}

/// The p-value that makes the verdict, unless that is `p`: after Holm's method, corrected for the look. All verdicts are
/// corrected here.
fn adjusted(p: f64, holm: Option<f64>, look: Option<u64>) -> Option<f64> {
    match look {
        Some(look) if look > 1 => Some(look_adjusted(holm.unwrap_or(p), look)),
        _ => holm,
    }
}

/// What is asked of a comparison besides its counts.
#[derive(Debug, Clone, Copy)]
struct Trial {
    comparisons: usize,
    look: Option<u64>,
}

impl Trial {
    fn look_level(self) -> f64 {
        self.look.map_or(SIGNIFICANT, look_level)
    }

    /// Holm's method asks no less.
    fn level(self) -> f64 {
        self.look_level() / self.comparisons.max(1) as f64
    }
}

/// The confidence of intervals at a look: `95%`, at look 2 `97.5%`, at look 7 `99.88%`.
pub(super) fn confidence(look: Option<u64>) -> String {
    let percent = 100.0 * look.map_or(SIGNIFICANT, look_level);
    let decimals = (1.0 - percent.log10().floor()).max(0.0) as usize;
    let text = format!("{:.decimals$}", 100.0 - percent);
    match text.contains('.') {
        true => format!("{}%", text.trim_end_matches('0').trim_end_matches('.')),
        false => format!("{text}%"),
    }
}

pub fn points(interval: &Interval) -> String {
    let [estimate, interval] = points_interval(interval.estimate, [interval.low, interval.high]);
    format!("{estimate} points {interval}")
}

/// Second minus first, averaged over a prompt's completions.
fn differences(
    before: &[EvalRecord],
    after: &[EvalRecord],
    measure: fn(&EvalRecord) -> Option<bool>,
) -> Vec<f64> {
    let key = |record: &EvalRecord| (record.prompt_id.clone(), record.sample);
    let before: BTreeMap<_, bool> = before
        .iter()
        .filter_map(|record| Some((key(record), measure(record)?)))
        .collect();
    let mut by_prompt: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
    for record in after {
        if let (Some(then), Some(now)) = (before.get(&key(record)), measure(record)) {
            let (sum, count) = by_prompt.entry(&record.prompt_id).or_default();
            *sum += i64::from(now) - i64::from(*then);
            *count += 1;
        }
    }
    by_prompt
        .into_values()
        .map(|(sum, count)| sum as f64 / count as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Tier;
    use crate::page::text::render;

    fn counted(fixed: usize, broken: usize, pairs: usize) -> MetricComparison {
        let mcnemar_p = crate::statistics::mcnemar_exact(fixed, broken);
        MetricComparison::from_comparison(
            Metric::Valid,
            Comparison {
                fixed,
                broken,
                both: pairs - fixed - broken,
                mcnemar_p,
                ..Comparison::default()
            },
            None,
        )
    }

    #[test]
    fn the_sentence_follows_the_test() {
        let check = |(fixed, broken, pairs), expected_verdict, expected: &str| {
            let judged = counted(fixed, broken, pairs);
            assert_eq!(
                (judged.verdict, render(&verdict(&judged, None)).as_str()),
                (expected_verdict, expected)
            );
            let Interval { low, high, .. } = judged.difference;
            assert_eq!(
                low <= 0.0 && 0.0 <= high,
                expected_verdict == Verdict::NoDifference,
                "{expected}"
            );
        };
        let few = "valid: no difference (+1.0 points, 95% CI [-0.0, +2.0], p = 0.0625), exact n/a\n  valid: 5 improvements, 0 regressions in 500 prompts\n  valid: such a difference needs about 790 prompts for 80% power\n";
        check((5, 0, 500), Verdict::NoDifference, few);
        let none = "valid: no difference (+0.0 points, 95% CI [-0.6, +0.6], p = 1), exact n/a\n  valid: 0 improvements, 0 regressions in 500 prompts\n";
        check((0, 0, 500), Verdict::NoDifference, none);
        let better = "valid: +40.6 points (95% CI [+36.1, +44.8], p = 1.6e-61), exact n/a\n  valid: 203 improvements, 0 regressions in 500 prompts\n";
        check((203, 0, 500), Verdict::Better, better);
        let worse = "valid: -20.0 points (95% CI [-33.4, -5.1], p = 0.0129), exact n/a\n  valid: 2 improvements, 12 regressions in 50 prompts\n";
        check((2, 12, 50), Verdict::Worse, worse);
        assert_eq!(
            counted(2, 1, 50).numbers(),
            "valid: 2 improvements, 1 regression in 50 prompts"
        );
    }

    /// An eval that gains in form and loses in content is not "better": each metric has its own test.
    #[test]
    fn both_metrics_are_judged() {
        let record = |index: usize, sample: usize, is_valid: bool, exact: bool| EvalRecord {
            prompt_id: format!("p{index}"),
            sample,
            tier: if is_valid { Tier::Valid } else { Tier::Invalid },
            exact: Some(exact),
            ..EvalRecord::default()
        };
        let eval = |samples: usize, valid: usize, exact: usize| -> Vec<EvalRecord> {
            (0..100 * samples)
                .map(|at| {
                    record(
                        at / samples,
                        at % samples,
                        at / samples < valid,
                        at / samples < exact,
                    )
                })
                .collect()
        };
        for samples in [1, 4] {
            let (valid, exact) =
                MetricComparison::both(&eval(samples, 20, 20), &eval(samples, 95, 5), 1, None);
            let exact = exact
                .as_ref()
                .map(|exact| (exact.verdict, exact.comparison.broken));
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
        let unknown: Vec<EvalRecord> = eval(1, 20, 20)
            .into_iter()
            .map(|record| EvalRecord {
                exact: None,
                ..record
            })
            .collect();
        assert!(
            MetricComparison::both(&unknown, &unknown, 1, None)
                .1
                .is_none()
        );
    }
}
