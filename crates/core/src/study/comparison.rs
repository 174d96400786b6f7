//! Two settings on the prompts of the test set, each by the results of all its seeds.

use serde_json::{Value, json};

use super::measure::MeasuredRun;
use crate::format::points_interval;
use crate::page::Block;
use crate::report::{MetricComparison, MetricVerdict};
use crate::run::EvalRecord;
use crate::statistics::{OverRuns, over_runs};

/// The comparison of two settings, second against first.
#[derive(Debug, Clone)]
pub struct ArmComparison {
    pub labels: [String; 2],
    pub seeds: usize,
    /// Paired by prompt, the seeds being samples of a prompt: these runs on other prompts.
    pub valid: MetricComparison,
    pub exact: Option<MetricComparison>,
    /// Paired by seed, of the valid rate: other runs on these prompts.
    pub over_seeds: Option<OverRuns>,
}

impl ArmComparison {
    /// `runs`: of both settings with the same seed; with `is_base` it is the base of the first that is compared. As one
    /// of `comparisons`, to be adjusted.
    pub(super) fn between(
        labels: [String; 2],
        is_base: bool,
        runs: &[(&MeasuredRun, &MeasuredRun)],
        comparisons: usize,
    ) -> Option<Self> {
        let (mut before, mut after, mut differences) = (Vec::new(), Vec::new(), Vec::new());
        let mut look = None;
        for (first, second) in runs {
            let records = (first.test_records(is_base), second.test_records(false));
            let (Some(first_records), Some(second_records)) = records else {
                continue;
            };
            let (Some(before_test), Some(test)) = (&first.test, &second.test) else {
                continue;
            };
            let seed = differences.len();
            // The latest look that the comparison needs.
            look = look.max(before_test.look).max(test.look);
            differences.push(
                test.valid
                    - if is_base {
                        before_test.base_valid
                    } else {
                        before_test.valid
                    },
            );
            before.extend(as_samples(first_records, seed));
            after.extend(as_samples(second_records, seed));
        }
        let (valid, exact) = MetricComparison::both(&before, &after, comparisons, look);
        (valid.n > 0).then(|| Self {
            labels,
            seeds: differences.len(),
            valid,
            exact,
            over_seeds: over_runs(&differences),
        })
    }

    /// Adjusts all of a table by Holm's method, each metric for itself.
    pub(super) fn adjust(all: &mut [Self]) {
        MetricComparison::adjust(all.iter_mut().map(|one| &mut one.valid).collect());
        MetricComparison::adjust(
            all.iter_mut()
                .filter_map(|one| one.exact.as_mut())
                .collect(),
        );
    }

    /// `test set, GRPO vs base: valid better (...), exact: no difference (...)`, and the difference paired by seed.
    pub(super) fn page(&self) -> Vec<Block> {
        let (valid, exact) = (
            self.valid.judged(),
            self.exact.as_ref().map(MetricComparison::judged),
        );
        let [first, second] = &self.labels;
        let verdict = MetricVerdict::sentence(valid, exact);
        let verdict = format!("test set, {second} vs {first}: {verdict}");
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
        json!({"first": self.labels[0], "second": self.labels[1], "seeds": self.seeds, "valid": self.valid,
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
