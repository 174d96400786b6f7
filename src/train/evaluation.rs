//! Evals of a run: base and trained model on the same held-out prompts.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::eval_beside::{is_beside, is_last, sample_eval, sample_open};
use super::job::Job;
use super::ranked::{Command, weights_norm};
use super::recorder::Recorder;
use super::setup::lengths;
use crate::checkpoint;
use crate::eval::{Asked, EvalWatch, KeptAnswers, greedy_requests, records};
use crate::model::Adapters;
use crate::rollout::Request;
use crate::run::events::Eval;
use crate::run::{
    AgainstBase, AnswerLog, At, Comparison, EvalProgress, EvalSummary, RunDirectory, RunState, Status, Worker,
    answers_path, checkpoint_path, eval_file, eval_path, read_evals, resolve_checkpoint, write_evals,
};

/// The result of a finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// Runs and records a greedy eval of a set, and its alerts; `None` if the task has no such set. A recorded eval is not
/// repeated.
pub(super) fn run_eval(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    set: &str,
    target: &str,
    step: u64,
) -> Result<Option<Eval>, TrainError> {
    let prompts = job.prompts.held_out(set);
    if prompts.is_empty() {
        return Ok(None);
    }
    let recorded = recorder.history()?.evals.get(&(step, set.to_owned(), target.to_owned()));
    let eval = match recorded.filter(|eval| run.path().join(&eval.file).is_file()) {
        Some(eval) => eval.clone(),
        None => sample_and_record(run, job, recorder, set, target, step)?,
    };
    job.alerts.observe_eval(&eval, &job.config).into_iter().try_for_each(|alert| recorder.event(alert))?;
    Ok(Some(eval))
}

fn sample_and_record(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    set: &str,
    target: &str,
    step: u64,
) -> Result<Eval, TrainError> {
    recorder.phase(step, "eval")?;
    let adapters = if target == "base" { Adapters::Off } else { Adapters::On };
    let requests: Vec<Request> = greedy_requests(job.prompts.held_out(set)).collect();
    let mut watch = watch(run, job, recorder, (set, target), step)?;
    let sampled = if set == "eval" && target == "trained" && is_beside(job) && !is_last(job) {
        sample_eval(job, &mut watch)?
    } else {
        sample_open(job, adapters, (&requests, job.prompts.held_out(set)), &mut watch)?
    };
    let start = Instant::now();
    // An eval decodes more rows than a step; its memory is released for the gradient.
    job.engine.trim_memory()?;
    let prompts = job.prompts.held_out(set);
    let most_tokens = lengths(&job.config, job.model.config()).prompt_limit();
    let asked = Asked { prompts, requests: &requests, most_tokens, seconds: sampled.seconds };
    let records = records((job.rollout_context(), &job.task, &job.scorer), asked, sampled.completions, |requests| {
        Ok::<_, TrainError>(sample_open(job, adapters, (requests, &[]), &mut watch)?.completions)
    })?;
    let file = eval_file(step, set, target);
    let path = run.path().join(&file);
    recorder.write("the eval results", 1 << 20, |_| write_evals(&path, &records))?;
    let summary = EvalSummary::from_records(&records);
    let seconds = sampled.seconds + start.elapsed().as_secs_f64();
    let base = if target == "base" { None } else { read_evals(&eval_path(run.path(), 0, set, "base")).ok() };
    let against_base = base.and_then(|base| AgainstBase::between(&base, &records)).map(Box::new);
    let eval = Eval { step, set: set.to_owned(), target: target.to_owned(), summary, file, seconds, against_base };
    recorder.event(eval.clone())?;
    // The next write says it too.
    let _ = recorder.state().eval(None);
    // The eval has its answers; a log that stays is in nobody's way.
    let _ = watch.into_kept().map(KeptAnswers::remove);
    Ok(eval)
}

/// Shows the progress of an eval in `state.json`, and stores its answers where the next worker would ask for the very
/// same ones: of weights that are on disk, on the CPU, where one rank decodes some prompts at a time. A GPU decodes all
/// of them together, and rounds otherwise what is decoded beside fewer.
fn watch(
    run: &RunDirectory,
    job: &Job,
    recorder: &Recorder<'_>,
    (set, target): (&str, &str),
    step: u64,
) -> Result<EvalWatch<'static>, TrainError> {
    let is_kept = job.engine.device.is_cpu() && job.ranks.size() == 1 && (target == "base" || set == "test");
    // Without a log, of a full disk maybe, the next worker asks for all.
    let log = if is_kept { AnswerLog::open(answers_path(run.path(), step, set, target)).ok() } else { None };
    let kept = if let Some(log) = log {
        let weights = weights_norm(job.model.parameters())?;
        let (version, digest) = (env!("CARGO_PKG_VERSION"), &run.file().model_digest);
        let key = format!("{version} {digest} {} {weights} {target} {:?}", job.config.digest(), job.sampling());
        Some(KeptAnswers::new(log, key))
    } else {
        None
    };
    let (step, set, target) = (Some(step), set.to_owned(), target.to_owned());
    let progress = EvalProgress { step, set, target, other_ranks: job.ranks.size() - 1, ..EvalProgress::default() };
    let is_scored = job.prompts.held_out(&progress.set).iter().all(|prompt| prompt.row.turn_count() == 1);
    let state = recorder.state().clone();
    // Of a full disk the worker's own next write says so.
    Ok(EvalWatch::new(progress, is_scored, kept, move |progress| _ = state.eval(Some(progress.clone()))))
}

/// Stops where a user has asked for it, before an eval that is still to be done: the next worker does it. What Slurm ends
/// goes on as long as it can.
///
/// # Errors
/// [`TrainError::StoppedBeforeEval`].
pub(super) fn stop_before(
    recorder: &mut Recorder<'_>,
    worker: &Worker,
    (set, target): (&str, &str),
    step: u64,
) -> Result<(), TrainError> {
    let is_recorded = recorder.history()?.evals.contains_key(&(step, set.to_owned(), target.to_owned()));
    if is_recorded || worker.controls().stop_requested().is_none() || worker.is_ended_by_slurm() {
        return Ok(());
    }
    Err(TrainError::StoppedBeforeEval { set: set.to_owned() })
}

/// Loads the best checkpoint's weights into the model and evaluates them on the test set.
pub(super) fn report(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    worker: &Worker,
    seconds: f64,
) -> Result<Report, TrainError> {
    let start = Instant::now();
    let best_step = resolve_checkpoint(run, At::Best)?;
    // Of step 0 there is the base's eval.
    if best_step > 0 && best_step != job.state.step {
        let folder = checkpoint_path(run.path(), best_step);
        job.ranks.send(|_| Command::Load { folder: folder.clone() })?;
        checkpoint::load_parameters(&folder, job.model.parameters())?;
    }
    let set = if job.prompts.test.is_empty() { "eval" } else { "test" };
    let trained = if set == "test" && best_step > 0 {
        stop_before(recorder, worker, (set, "trained"), best_step)?;
        run_eval(run, job, recorder, "test", "trained", best_step)?.map(|eval| eval.summary)
    } else {
        // The eval set was evaluated at that step; at step 0 the trained model is the base.
        let mut evals = recorder.history()?.evals.values();
        evals.find(|eval| eval.step == best_step && eval.set == set).map(|eval| eval.summary.clone())
    };
    let mut report = read_report(run, set, best_step, job.state.step)?;
    report.seconds = seconds + start.elapsed().as_secs_f64();
    report.trained = trained.unwrap_or(report.trained);
    Ok(report)
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
    let read = |step, target: &str| {
        let files = [eval_path(run.path(), step, set, target), eval_path(run.path(), 0, set, "base")];
        // Without held-out prompts there are none.
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
        comparison: Comparison::between(&before, &after),
        exact_comparison: Comparison::between_exact(&before, &after),
    })
}
