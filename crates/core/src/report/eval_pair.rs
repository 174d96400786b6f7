//! The answers of base and result on one set, and what they compare to.

use super::{MetricComparison, Report, verdict_lines};
use crate::run::events::Eval;
use crate::run::{EvalRecord, EvalSummary, eval_path, read_evals};

/// The evals of base and trained model: on the test set if it was evaluated, else on the eval set.
pub(super) struct EvalPair {
    pub(super) set: &'static str,
    /// The name of the trained model's eval.
    pub(super) after_name: String,
    pub(super) before: Vec<EvalRecord>,
    pub(super) after: Vec<EvalRecord>,
}

impl EvalPair {
    pub(super) fn read(report: &Report) -> Option<Self> {
        let of = |set: &'static str| {
            // The base is not compared with itself.
            let result = report.history.result(set, report.best()).filter(|result| result.step > 0)?;
            let read = |step, target| read_evals(&eval_path(report.directory.path(), step, set, target)).ok();
            let (before, after) = (read(0, "base")?, read(result.step, &result.target)?);
            Some(Self { set, after_name: result_name(result), before, after })
        };
        of("test").or_else(|| of("eval"))
    }

    /// The verdict on both metrics, then the numbers of each.
    pub(super) fn sentences(&self) -> Vec<String> {
        let (valid, exact) = MetricComparison::both(&self.before, &self.after, 1);
        sentences(&valid, exact.as_ref())
    }
}

pub(super) fn sentences(valid: &MetricComparison, exact: Option<&MetricComparison>) -> Vec<String> {
    verdict_lines(valid, exact).lines().map(|line| line.trim().to_owned()).collect()
}

/// The result's eval, after the base's unless it is that itself: the title of a column each, and the summaries.
pub(super) fn columns<'a>(report: &'a Report, result: &'a Eval) -> (Vec<String>, Vec<&'a EvalSummary>) {
    let base = report.history.base(&result.set).filter(|_| result.step > 0);
    let evals = base.map(|base| ("base".to_owned(), base)).into_iter().chain([(result_name(result), result)]);
    evals.map(|(name, Eval { summary, .. })| (format!("{name} (n = {})", summary.n), summary)).unzip()
}

/// The name of the trained model's eval.
fn result_name(result: &Eval) -> String {
    if result.step == 0 { "best checkpoint: step 0 (the base)".to_owned() } else { format!("step {}", result.step) }
}
