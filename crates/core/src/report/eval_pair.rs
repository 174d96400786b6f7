//! What a report says of each task: the answers of base and result on one set, and what they compare to.

use std::borrow::Cow;

use super::run_report::Report;
use super::significance::{MetricComparison, verdict};
use super::summary_table::tables;
use crate::facts::Target;
use crate::page::{Block, Level};
use crate::run::events::Eval;
use crate::run::{EvalRecord, RunState, TestLook, eval_path, read_evals};
use crate::task::SetName;

/// One of the tasks of a run, or the only one.
pub(super) struct TaskSection<'r> {
    /// Empty for the only one.
    pub(super) name: &'r str,
    /// Its metrics and evals under the names that the only task has.
    pub(super) history: Cow<'r, RunState>,
    pub(super) result: Option<&'r Eval>,
    pub(super) pair: Option<EvalPair>,
}

impl<'r> TaskSection<'r> {
    pub(super) fn all(report: &'r Report) -> Vec<Self> {
        let section = |name: &'r str| Self {
            name,
            history: match name {
                "" => Cow::Borrowed(&report.history),
                _ => Cow::Owned(report.history.of_task(name)),
            },
            result: report.result_of(name),
            pair: EvalPair::read(report, name),
        };
        report
            .directory
            .task_names()
            .into_iter()
            .map(section)
            .collect()
    }
}

/// The evals of base and trained model: on the test set if it was evaluated, else on the eval set.
pub(super) struct EvalPair {
    pub(super) set: SetName,
    /// The name of the trained model's eval.
    pub(super) after_name: String,
    pub(super) before: Vec<EvalRecord>,
    pub(super) after: Vec<EvalRecord>,
    pub(super) look: Option<TestLook>,
}

impl EvalPair {
    fn read(report: &Report, task: &str) -> Option<Self> {
        let of = |set: SetName| {
            // The base is not compared with itself.
            let result = report
                .history
                .result(&set, report.best())
                .filter(|result| result.step > 0)?;
            let read = |step, target: Target| {
                let path = eval_path(report.directory.path(), step, &set, target.name());
                read_evals(&path).ok()
            };
            let (before, after) = (read(0, Target::Base)?, read(result.step, result.target)?);
            Some(Self {
                after_name: result_name(result),
                look: result.look.as_deref().cloned(),
                before,
                after,
                set,
            })
        };
        SetName::held_out(&[task]).into_iter().find_map(of)
    }

    /// With what is to be known of the look.
    pub(super) fn verdict(&self) -> Vec<Block> {
        let number = self.look.as_ref().map(|look| look.number);
        let (valid, exact) = MetricComparison::both(&self.before, &self.after, 1, number);
        let warnings = self.look.iter().flat_map(|look| look.warnings.clone());
        let warnings = warnings.map(|text| Block::Finding(Level::Request, text));
        verdict(&valid, exact.as_ref())
            .into_iter()
            .chain(warnings)
            .collect()
    }
}

/// The verdict on the result, and its rates after the base's unless it is that itself.
pub(super) fn result_page(report: &Report, result: &Eval, pair: Option<&EvalPair>) -> Vec<Block> {
    let base = report.history.base(&result.set).filter(|_| result.step > 0);
    let name = result_name(result);
    let evals = base.map(|base| ("base", &base.summary));
    let evals: Vec<_> = evals
        .into_iter()
        .chain([(name.as_str(), &result.summary)])
        .collect();
    let verdict = pair.into_iter().flat_map(EvalPair::verdict);
    verdict.chain(tables(&result.set, &evals)).collect()
}

fn result_name(result: &Eval) -> String {
    if result.step == 0 {
        "best checkpoint: step 0 (the base)".to_owned()
    } else {
        format!("step {}", result.step)
    }
}
