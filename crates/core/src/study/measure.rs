//! The results of a sweep's run, read from its folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::run::events::Eval;
use crate::run::{EvalRecord, RunDirectory, RunError, RunState, Status, eval_path, read_evals};

/// The metric by which settings are compared; larger is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    #[default]
    Valid,
    Exact,
    Tolerant,
    Parse,
    /// The mean reward.
    Reward,
}

impl Metric {
    pub const NAMES: [&'static str; 5] = ["valid", "exact", "tolerant", "parse", "reward"];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Valid, Self::Exact, Self::Tolerant, Self::Parse, Self::Reward];
        all.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether it is a rate in [0, 1].
    pub fn is_share(self) -> bool {
        self != Self::Reward
    }

    /// Measures one eval of a run; NaN where there is no value.
    fn measure(self, run: &RunDirectory, eval: &Eval) -> f64 {
        if self != Self::Reward {
            return eval.summary.metric(self.name());
        }
        let records = read_evals(&eval_path(run.path(), eval.step, &eval.set, &eval.target)).unwrap_or_default();
        let rewards: Vec<f64> =
            records.iter().map(|record| record.reward).filter(|reward| reward.is_finite()).collect();
        rewards.iter().sum::<f64>() / rewards.len() as f64
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredRun {
    pub id: String,
    #[serde(skip)]
    pub path: PathBuf,
    pub status: Status,
    pub cause: Option<String>,
    pub step: u64,
    pub total_steps: Option<u64>,
    /// The metric on the eval set by step, finite; step 0 is the base.
    pub curve: Vec<(u64, f64)>,
    /// The step and the metric of the best checkpoint, by the run's `keep_best_by`.
    pub best: Option<(u64, f64)>,
    pub test: Option<TestResult>,
    /// Training time, without evals.
    pub seconds: f64,
    /// The mean share of informative groups.
    pub mixed_groups: Option<f64>,
    /// The mean share of tokens whose probability ratio was clipped.
    pub clipped: Option<f64>,
}

/// Rates on the test set, of the base and of the best checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestResult {
    pub step: u64,
    pub valid: f64,
    pub exact: Option<f64>,
    pub base_valid: f64,
    pub base_exact: Option<f64>,
}

impl MeasuredRun {
    /// # Errors
    /// [`RunError`] naming the file.
    pub fn read(directory: RunDirectory, metric: Metric) -> Result<Self, RunError> {
        let report = Report::read(directory)?;
        let (run, history) = (&report.directory, &report.history);
        let of_eval =
            history.evals.values().filter(|eval| eval.set == "eval" && (eval.target == "trained") == (eval.step > 0));
        let curve: Vec<(u64, f64)> =
            of_eval.map(|eval| (eval.step, metric.measure(run, eval))).filter(|(_, value)| value.is_finite()).collect();
        let best = report.best();
        let value_at = |step: u64| curve.iter().find(|(at, _)| *at == step).copied();
        let mean = |name: &str| {
            let values: Vec<f64> =
                history.metrics.get(name)?.values().iter().copied().filter(|value| value.is_finite()).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let clipped = [mean("clip_ratio/low_mean"), mean("clip_ratio/high_mean")];
        Ok(Self {
            id: run.id().to_owned(),
            path: run.path().to_owned(),
            status: report.status(),
            cause: report.cause(),
            step: history.last_step,
            total_steps: history.run.as_ref().map(|run| run.total_steps).filter(|steps| *steps > 0),
            best: best.and_then(value_at),
            test: test_result(history, best),
            seconds: report.computed_seconds(),
            mixed_groups: mean("groups/frac_mixed"),
            clipped: clipped[0].zip(clipped[1]).map(|(low, high)| low + high),
            curve,
        })
    }

    /// The completions of the test set: of the base, or of the best checkpoint.
    pub(super) fn test_records(&self, is_base: bool) -> Option<Vec<EvalRecord>> {
        let step = self.test.as_ref()?.step;
        let (step, target) = if is_base || step == 0 { (0, "base") } else { (step, "trained") };
        read_evals(&eval_path(&self.path, step, "test", target)).ok()
    }
}

/// Only of a finished run: until then its best checkpoint may change.
fn test_result(history: &RunState, best: Option<u64>) -> Option<TestResult> {
    history.end.as_ref().filter(|end| end.status == Status::Finished.name())?;
    let base = &history.base("test")?.summary;
    let eval = history.result("test", best)?;
    Some(TestResult {
        step: eval.step,
        valid: eval.summary.valid,
        exact: eval.summary.exact,
        base_valid: base.valid,
        base_exact: base.exact,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_their_names() {
        for name in Metric::NAMES {
            assert_eq!(Metric::from_name(name).map(Metric::name), Some(name));
        }
        assert_eq!(Metric::from_name("loss"), None);
    }
}
