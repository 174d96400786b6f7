//! The results of a sweep's run, read from its folder.

use std::path::PathBuf;

use serde::Serialize;

use crate::config::choices;
use crate::facts::{Target, Tier};
use crate::format::percent;
use crate::report::Report;
use crate::run::events::Eval;
use crate::run::{
    EvalRecord, RunDirectory, RunError, RunState, Status, StepEvals, eval_path, read_evals,
};
use crate::task::{PromptSet, SetName, task_prompt};

choices! {
    /// The metric by which settings are compared; larger is better.
    #[derive(Default)]
    Metric {
        #[default]
        Valid = "valid",
        Exact = "exact",
        Tolerant = "tolerant",
        Parse = "parse",
        /// The mean reward.
        Reward = "reward",
    }
}

impl Metric {
    pub fn is_share(self) -> bool {
        self != Self::Reward
    }

    /// `None` where the scorer failed, or there is no expected answer.
    pub(super) fn of_record(self, record: &EvalRecord) -> Option<f64> {
        let is_true = match self {
            Self::Reward => return Some(record.reward).filter(|reward| reward.is_finite()),
            _ if record.is_error() => return None,
            Self::Valid => record.is_valid(),
            Self::Exact => record.exact?,
            Self::Tolerant => record.tolerant,
            Self::Parse => record.tier != Tier::Unparsable,
        };
        Some(f64::from(u8::from(is_true)))
    }

    fn measure(self, run: &RunDirectory, eval: &Eval) -> f64 {
        if self != Self::Reward {
            return eval.summary.metric(self.name());
        }
        let records = read_evals(&eval_path(
            run.path(),
            eval.step,
            &eval.set,
            eval.target.name(),
        ))
        .unwrap_or_default();
        let rewards: Vec<f64> = records
            .iter()
            .map(|record| record.reward)
            .filter(|reward| reward.is_finite())
            .collect();
        rewards.iter().sum::<f64>() / rewards.len() as f64
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredRun {
    pub id: String,
    #[serde(skip)]
    pub path: PathBuf,
    /// Names of several tasks; of one the empty name.
    #[serde(skip)]
    pub tasks: Vec<String>,
    pub status: Status,
    pub cause: Option<String>,
    pub step: u64,
    pub total_steps: Option<u64>,
    /// The metric on the eval set by step, finite; step 0 is the base.
    pub curve: Vec<(u64, f64)>,
    /// Rates of the last eval on the eval set.
    pub latest: Option<LatestRates>,
    /// The step and the metric of the best checkpoint, by the run's `keep_best_by`.
    pub best: Option<(u64, f64)>,
    pub test: Option<TestResult>,
    /// Training time, without evals.
    pub seconds: f64,
}

/// Rates of the last eval on the eval set; of several tasks the mean of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatestRates {
    pub step: u64,
    pub valid: f64,
    pub exact: Option<f64>,
}

impl LatestRates {
    /// `None` before the first eval.
    pub fn of(history: &RunState) -> Option<Self> {
        let evals = history.step_evals();
        evals.last().map(|evals| Self {
            step: evals.step,
            valid: evals.valid(),
            exact: evals.exact(),
        })
    }

    /// `valid 98.0%, exact 97.0%`.
    pub fn text(&self) -> String {
        let exact = self
            .exact
            .map_or_else(String::new, |exact| format!(", exact {}", percent(exact)));
        format!("valid {}{exact}", percent(self.valid))
    }
}

/// Rates on the test set, of the base and of the best checkpoint; of several tasks the mean of theirs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestResult {
    pub step: u64,
    pub valid: f64,
    pub exact: Option<f64>,
    pub base_valid: f64,
    pub base_exact: Option<f64>,
    /// The latest look at the test sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<u64>,
}

impl MeasuredRun {
    pub fn read(directory: RunDirectory, metric: Metric) -> Result<Self, RunError> {
        let report = Report::read(directory)?;
        let (run, history) = (&report.directory, &report.history);
        // Of several tasks the mean, each of the same weight.
        let curve = history.step_evals().into_iter().filter_map(|evals| {
            let values = evals.evals.iter().map(|eval| metric.measure(run, eval));
            Some((
                evals.step,
                mean(&values.filter(|value| value.is_finite()).collect::<Vec<_>>())?,
            ))
        });
        let curve: Vec<(u64, f64)> = curve.collect();
        let best = report.best();
        let value_at = |step: u64| curve.iter().find(|(at, _)| *at == step).copied();
        Ok(Self {
            id: run.id().to_owned(),
            path: run.path().to_owned(),
            tasks: history
                .task_names()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            status: report.status(),
            cause: report.cause().map(|cause| cause.sentence),
            step: history.last_step,
            total_steps: history
                .run
                .as_ref()
                .map(|run| run.total_steps)
                .filter(|steps| *steps > 0),
            latest: LatestRates::of(history),
            best: best.and_then(value_at),
            test: test_result(history, best),
            seconds: report.computed_seconds(),
            curve,
        })
    }

    /// The completions of the test sets of all tasks: of the base, or of the best checkpoint.
    pub(super) fn test_records(&self, is_base: bool) -> Option<Vec<EvalRecord>> {
        let step = if is_base { 0 } else { self.test.as_ref()?.step };
        self.records(PromptSet::Test, step)
    }

    /// The completions of the best checkpoint on the eval sets of all tasks.
    pub(super) fn best_records(&self) -> Option<Vec<EvalRecord>> {
        self.records(PromptSet::Eval, self.best?.0)
    }

    fn records(&self, set: PromptSet, step: u64) -> Option<Vec<EvalRecord>> {
        let target = match step {
            0 => Target::Base,
            _ => Target::Trained,
        };
        let mut all = Vec::new();
        for task in &self.tasks {
            let set = SetName::new(set, task);
            let found = read_evals(&eval_path(&self.path, step, &set, target.name())).ok()?;
            let named = |record: EvalRecord| EvalRecord {
                prompt_id: task_prompt(task, &record.prompt_id),
                ..record
            };
            all.extend(found.into_iter().map(named));
        }
        Some(all)
    }
}

/// `None` of no values.
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn test_result(history: &RunState, best: Option<u64>) -> Option<TestResult> {
    history
        .end
        .as_ref()
        .filter(|end| end.status == Status::Finished)?;
    let (mut base, mut evals) = (Vec::new(), Vec::new());
    for task in history.task_names() {
        let set = SetName::new(PromptSet::Test, task);
        base.push(history.base(&set)?);
        evals.push(history.result(&set, best)?);
    }
    let step = evals.first()?.step;
    let looks = evals.iter().filter_map(|eval| eval.look.as_ref());
    let look = looks.map(|look| look.number).max();
    let (base, result) = (
        StepEvals {
            step: 0,
            evals: base,
        },
        StepEvals { step, evals },
    );
    Some(TestResult {
        step,
        valid: result.valid(),
        exact: result.exact(),
        base_valid: base.valid(),
        base_exact: base.exact(),
        look,
    })
}
