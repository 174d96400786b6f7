//! Settings on the same prompts, each by the results of all its seeds: the best against the others on the eval set, and
//! against the base on the test set.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::measure::{MeasuredRun, Metric};
use crate::format::{p_equals, points_interval};
use crate::page::Block;
use crate::report::{MetricComparison, MetricVerdict};
use crate::run::EvalRecord;
use crate::statistics::{
    Interval, OverRuns, SIGNIFICANT, Verdict, over_runs, paired_means, student_mean,
};

/// A setting compared with the best one, paired by prompt of the eval set.
#[derive(Debug, Clone, Serialize)]
pub struct EvalDifference {
    pub setting: String,
    /// Number of prompts.
    pub n: usize,
    /// The best setting's mean minus this one's; seeds are samples of a prompt.
    pub difference: Interval,
    /// Two-sided, Holm-adjusted for all that are compared with the best; `None` for rewards, whose interval is Student's.
    pub p: Option<f64>,
    pub verdict: Verdict,
}

impl EvalDifference {
    /// `None` without prompts that both have.
    pub(super) fn between(
        setting: &str,
        metric: Metric,
        best: &[&MeasuredRun],
        other: &[&MeasuredRun],
    ) -> Option<Self> {
        let (best, other) = (by_prompt(metric, best)?, by_prompt(metric, other)?);
        let both = best
            .iter()
            .filter_map(|(prompt, (mean, seeds))| Some((mean - other.get(prompt)?.0, *seeds)));
        let (differences, seeds): (Vec<f64>, Vec<usize>) = both.unzip();
        let (difference, p) = if metric.is_share() {
            let least = 1.0 / seeds.into_iter().max()? as f64;
            let test = paired_means(&differences, least, SIGNIFICANT);
            (test.difference, Some(test.p))
        } else {
            (student_mean(&differences)?, None)
        };
        let mut found = Self {
            setting: setting.to_owned(),
            n: differences.len(),
            difference,
            p,
            verdict: Verdict::NoDifference,
        };
        found.decide(p);
        Some(found)
    }

    pub(super) fn decide(&mut self, adjusted: Option<f64>) {
        let Interval {
            estimate,
            low,
            high,
        } = self.difference;
        self.p = adjusted;
        // Without a p-value the interval decides.
        let p = adjusted.unwrap_or(if low <= 0.0 && high >= 0.0 { 1.0 } else { 0.0 });
        self.verdict = Verdict::from_difference(estimate, p);
    }

    /// `learning_rate=1e-5 (+8.3 points, 95% CI [-14.0, +28.3], p = 1)`
    pub(super) fn text(&self, metric: Metric) -> String {
        let Interval {
            estimate,
            low,
            high,
        } = self.difference;
        let effect = match metric.is_share() {
            true => {
                let [points, bounds] = points_interval(estimate, [low, high]);
                format!("{points} points, 95% CI {bounds}")
            }
            false => format!("{estimate:+.3}, 95% CI [{low:+.3}, {high:+.3}]"),
        };
        let p = self
            .p
            .map_or_else(String::new, |p| format!(", {}", p_equals(p)));
        format!("{} ({effect}{p})", self.setting)
    }
}

/// Each prompt's mean over runs, and the number of these.
fn by_prompt(metric: Metric, runs: &[&MeasuredRun]) -> Option<BTreeMap<String, (f64, usize)>> {
    let mut sums: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for run in runs {
        for record in run.best_records()? {
            if let Some(value) = metric.of_record(&record) {
                let (sum, count) = sums.entry(record.prompt_id).or_default();
                (*sum, *count) = (*sum + value, *count + 1);
            }
        }
    }
    for (sum, count) in sums.values_mut() {
        *sum /= *count as f64;
    }
    Some(sums)
}

/// A setting against the base, on the prompts of the test set.
#[derive(Debug, Clone)]
pub struct ArmComparison {
    pub label: String,
    pub seeds: usize,
    /// Paired by prompt, the seeds being samples of a prompt: these runs on other prompts.
    pub valid: MetricComparison,
    pub exact: Option<MetricComparison>,
    /// Paired by seed, of the valid rate: other runs on these prompts.
    pub over_seeds: Option<OverRuns>,
}

impl ArmComparison {
    pub(super) fn with_base<'a>(
        label: &str,
        runs: impl Iterator<Item = &'a MeasuredRun>,
    ) -> Option<Self> {
        let (mut before, mut after, mut differences) = (Vec::new(), Vec::new(), Vec::new());
        let mut look = None;
        for run in runs {
            let records = (run.test_records(true), run.test_records(false));
            let ((Some(base), Some(own)), Some(test)) = (records, &run.test) else {
                continue;
            };
            let seed = differences.len();
            // The latest look that the comparison needs.
            look = look.max(test.look);
            differences.push(test.valid - test.base_valid);
            before.extend(as_samples(base, seed));
            after.extend(as_samples(own, seed));
        }
        let (valid, exact) = MetricComparison::both(&before, &after, 1, look);
        (valid.n > 0).then(|| Self {
            label: label.to_owned(),
            seeds: differences.len(),
            valid,
            exact,
            over_seeds: over_runs(&differences),
        })
    }

    /// `test set, GRPO vs base: valid better (...), exact: no difference (...)`, and the difference paired by seed.
    pub(super) fn page(&self) -> Vec<Block> {
        let (valid, exact) = (
            self.valid.judged(),
            self.exact.as_ref().map(MetricComparison::judged),
        );
        let verdict = MetricVerdict::sentence(valid, exact);
        let verdict = format!("test set, {} vs base: {verdict}", self.label);
        let level = MetricVerdict::level(valid.verdict, exact.map(|exact| exact.verdict));
        let over_seeds = self.over_seeds.filter(|over| over.n > 1).map(|over| {
            let [points, bounds] = points_interval(over.mean, [over.low, over.high]);
            let spread = over.spread.described("seed");
            let text = format!("valid, paired by seed: {points} points {bounds}, {spread}");
            Block::List(vec![text])
        });
        let verdict = Block::Text(level, verdict);
        [verdict].into_iter().chain(over_seeds).collect()
    }

    pub(super) fn document(&self) -> Value {
        json!({"first": "base", "second": self.label, "seeds": self.seeds, "valid": self.valid,
            "exact": self.exact, "valid_difference_over_seeds": self.over_seeds})
    }
}

/// A run's eval has one completion a prompt.
fn as_samples(records: Vec<EvalRecord>, seed: usize) -> impl Iterator<Item = EvalRecord> {
    records.into_iter().map(move |record| EvalRecord {
        sample: seed,
        ..record
    })
}
