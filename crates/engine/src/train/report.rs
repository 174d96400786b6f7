//! The result of a finished run: base against the best checkpoint.

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::evaluation::{RunEval, run_eval, stop_before};
use super::recorder::Record;
use super::trainer::Trainer;
use crate::checkpoint;
use crate::policy::PolicyVersion;
use crate::run::{
    At, Comparison, EvalSummary, RunDirectory, RunState, Status, checkpoint_path, eval_path, read_evals,
    resolve_checkpoint,
};
use crate::task::PromptSet;

/// The result of a finished run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub run: String,
    /// Wall-clock time of this worker, evals included.
    pub seconds: f64,
    /// All steps done, or why it stopped early; a sentence.
    #[serde(default)]
    pub cause: String,
    pub steps: u64,
    /// The step of the best checkpoint by the eval set.
    pub best_step: u64,
    /// The set of the comparison: `test`, or `eval` if the task has no test set.
    pub set: String,
    pub base: EvalSummary,
    /// Of the best checkpoint.
    pub trained: EvalSummary,
    /// By `valid`.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// By `exact`; `None` if the set has no expected answers.
    pub exact_comparison: Option<Comparison>,
}

/// Loads the best checkpoint's weights into the model and evaluates them on the test set. Without its seconds and its
/// cause; empty on ranks other than 0.
pub(super) fn report(trainer: &Trainer, record: &mut Record<'_>) -> Result<Report, TrainError> {
    let best_step = record.on_rank_0(|_| Ok(resolve_checkpoint(&trainer.run, At::Best)?))?;
    let best_step = trainer.ranks.broadcast(best_step)?;
    // Of step 0 there is the base's eval.
    if best_step > 0 && best_step != trainer.state.step {
        let folder = checkpoint_path(trainer.run.path(), best_step);
        checkpoint::load_parameters(&folder, trainer.policy.model.parameters())?;
    }
    let set = if trainer.prompts.test.is_empty() { PromptSet::Eval } else { PromptSet::Test };
    let mut trained = None;
    if set == PromptSet::Test && best_step > 0 {
        let which = RunEval { set, version: PolicyVersion::Trained, step: best_step };
        stop_before(record, which)?;
        trained = run_eval(trainer, record, which)?.map(|eval| eval.summary);
    }
    record.on_rank_0(|recorder| {
        // The eval set was evaluated at that step; at step 0 the trained model is the base.
        let mut evals = recorder.history()?.evals.values();
        let recorded = evals.find(|eval| eval.step == best_step && eval.set == set.name());
        let trained = trained.or(recorded.map(|eval| eval.summary.clone()));
        let report = read_report(&trainer.run, set.name(), best_step, trainer.state.step)?;
        Ok(Report { trained: trained.unwrap_or_else(|| report.trained.clone()), ..report })
    })
}

/// The report of a finished run, from its files; `None` if it has not finished.
///
/// # Errors
/// [`TrainError`] naming a file that is missing or unreadable.
pub fn finished_report(run: &RunDirectory) -> Result<Option<Report>, TrainError> {
    let Some(end) = RunState::read(run.path())?.end.filter(|end| end.status == Status::Finished.name()) else {
        return Ok(None);
    };
    let set = if eval_path(run.path(), 0, "test", "base").exists() { "test" } else { "eval" };
    let report = read_report(run, set, resolve_checkpoint(run, At::Best)?, end.step)?;
    Ok(Some(Report { seconds: end.seconds, cause: end.cause, ..report }))
}

/// The recorded evals of base and result.
fn read_report(run: &RunDirectory, set: &str, best_step: u64, steps: u64) -> Result<Report, TrainError> {
    let [base, best] = [(0, "base"), (best_step, "trained")].map(|(step, name)| eval_path(run.path(), step, set, name));
    // Without held-out prompts there are none.
    let before = if base.exists() { read_evals(&base)? } else { Vec::new() };
    let after = if best.exists() { read_evals(&best)? } else { before.clone() };
    Ok(Report {
        run: run.id().to_owned(),
        steps,
        best_step,
        set: set.to_owned(),
        base: EvalSummary::from_records(&before),
        trained: EvalSummary::from_records(&after),
        comparison: Comparison::between(&before, &after),
        exact_comparison: Comparison::between_exact(&before, &after),
        ..Report::default()
    })
}
