//! Evals of a run: base against trained on the same held-out prompts.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::job::Job;
use super::recorder::Recorder;
use crate::checkpoint;
use crate::eval::evaluate;
use crate::model::Adapters;
use crate::rollout::{RolloutContext, Sampling};
use crate::run::events::Eval;
use crate::run::{
    At, Comparison, EvalSummary, RunDirectory, RunState, Status, checkpoint_path, eval_file, eval_path, read_evals,
    resolve_checkpoint, write_evals,
};

/// What a finished run shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run's id.
    pub run: String,
    /// Wall-clock time of this worker, evals included.
    pub seconds: f64,
    /// Why it ended, as a sentence: all steps done, or an early stop.
    #[serde(default)]
    pub cause: String,
    pub steps: u64,
    /// The step whose checkpoint was the best on the eval set.
    pub best_step: u64,
    /// The set that base and result are compared on: `test`, or `eval` where the task has no test set.
    pub set: String,
    /// The start.
    pub base: EvalSummary,
    /// The best checkpoint.
    pub trained: EvalSummary,
    /// Valid only after training, only before, in both, in neither, with the McNemar test.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// The same for exact match; `None` where the set has none.
    pub exact_comparison: Option<Comparison>,
}

/// A greedy eval of a set, recorded, and the alerts that follow from it; None where the task has no such set. What is
/// recorded already is not run again.
pub(super) fn run_eval(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    set: &str,
    target: &str,
    step: u64,
) -> Result<Option<EvalSummary>, TrainError> {
    let prompts = if set == "test" { &job.prompts.test } else { &job.prompts.eval };
    if prompts.is_empty() {
        return Ok(None);
    }
    let recorded = recorder.history()?.evals.get(&(step, set.to_owned(), target.to_owned()));
    let eval = match recorded.filter(|eval| run.path().join(&eval.file).is_file()) {
        Some(eval) => eval.clone(),
        None => sample_and_record(run, job, recorder, set, target, step)?,
    };
    job.alerts.observe_eval(&eval, &job.config).into_iter().try_for_each(|alert| recorder.event(alert))?;
    Ok(Some(eval.summary))
}

fn sample_and_record(
    run: &RunDirectory,
    job: &Job,
    recorder: &mut Recorder<'_>,
    set: &str,
    target: &str,
    step: u64,
) -> Result<Eval, TrainError> {
    let prompts = if set == "test" { &job.prompts.test } else { &job.prompts.eval };
    recorder.phase(step, "eval")?;
    let start = Instant::now();
    let adapters = if target == "base" { Adapters::Off } else { Adapters::On };
    let context = RolloutContext { adapters, ..job.rollout_context() };
    let sampling = Sampling { temperature: 0.0, ..job.sampling() };
    let records = evaluate(context, &job.scorer, prompts, &sampling, 1)?;
    // An eval decodes more rows than a step does; what it held is given back, else the gradient's memory would come on
    // top of it.
    job.engine.trim_memory()?;
    let file = eval_file(step, set, target);
    let path = run.path().join(&file);
    recorder.write("the eval results", 1 << 20, |_| write_evals(&path, &records))?;
    let summary = EvalSummary::from_records(&records);
    let seconds = start.elapsed().as_secs_f64();
    let eval = Eval { step, set: set.to_owned(), target: target.to_owned(), summary, file, seconds };
    recorder.event(eval.clone())?;
    Ok(eval)
}

/// Puts the best checkpoint's weights into the model and evaluates the test set with them.
pub(super) fn report(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    seconds: f64,
) -> Result<Report, TrainError> {
    let start = Instant::now();
    let best_step = resolve_checkpoint(run, At::Best)?;
    if best_step != job.state.step {
        checkpoint::load_parameters(&checkpoint_path(run.path(), best_step), job.model.parameters())?;
    }
    let set = if job.prompts.test.is_empty() { "eval" } else { "test" };
    let trained = if set == "test" && best_step > 0 {
        run_eval(run, job, recorder, "test", "trained", best_step)?
    } else {
        // The eval set was evaluated at that step already; at step 0 the trained model is the base.
        let mut evals = recorder.history()?.evals.values();
        evals.find(|eval| eval.step == best_step && eval.set == set).map(|eval| eval.summary.clone())
    };
    let mut report = recorded(run, set, best_step, job.state.step)?;
    report.seconds = seconds + start.elapsed().as_secs_f64();
    report.trained = trained.unwrap_or(report.trained);
    Ok(report)
}

/// What a run showed when it ended, read from its files; None where it has not come to its end.
///
/// # Errors
/// [`TrainError`] naming a file that is missing or unreadable.
pub fn finished_report(run: &RunDirectory) -> Result<Option<Report>, TrainError> {
    let Some(end) = RunState::read(run.path())?.end.filter(|end| end.status == Status::Finished.name()) else {
        return Ok(None);
    };
    let set = if eval_path(run.path(), 0, "test", "base").exists() { "test" } else { "eval" };
    let report = recorded(run, set, resolve_checkpoint(run, At::Best)?, end.step)?;
    Ok(Some(Report { seconds: end.seconds, cause: end.cause, ..report }))
}

/// The evals before and after, as they were recorded.
fn recorded(run: &RunDirectory, set: &str, best_step: u64, steps: u64) -> Result<Report, TrainError> {
    let read = |step, target: &str| {
        let files = [eval_path(run.path(), step, set, target), eval_path(run.path(), 0, set, "base")];
        // A task without held-out prompts has neither.
        files.iter().find(|path| path.exists()).map_or_else(|| Ok(Vec::new()), |path| read_evals(path))
    };
    let (before, after) = (read(0, "base")?, read(best_step, "trained")?);
    Ok(Report {
        run: run.id().to_owned(),
        seconds: 0.0,
        cause: String::new(),
        steps,
        best_step,
        set: set.to_owned(),
        base: EvalSummary::from_records(&before),
        trained: EvalSummary::from_records(&after),
        comparison: Comparison::of(&before, &after),
        exact_comparison: Comparison::of_exact(&before, &after),
    })
}
