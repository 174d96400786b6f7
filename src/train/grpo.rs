//! The training loop: draw groups, score them, learn from their spread (or imitate, for SFT); eval, checkpoint, and prove the result at the end.

use std::collections::BTreeMap;
use std::time::Instant;

use super::TrainError;
use super::checkpointing::{leave, save};
use super::early_stop::{is_due, should_stop};
use super::evaluation::{Report, pass, report};
use super::job::Job;
use super::memory_probe::probe_memory;
use super::metrics::{StepUpdate, metrics};
use super::oom_retry::{retry_smaller, shrunk};
use super::recorder::{Listener, Recorder};
use super::requests::attend;
use super::rollout_groups::{StepRollout, draw_steps, policy_batch};
use super::setup::Setup;
use super::sft::sft_step;
use crate::checkpoint;
use crate::config::Method;
use crate::kernels::device::Engine;
use crate::model::{Adapters, Gradients};
use crate::run::events::{Checkpoint, End, Recovered, Run, Step};
use crate::run::{
    Answer, RunDirectory, RunFolders, Settings, Status, Stop, Verb, Worker, checkpoint_folder, checkpoint_path, list_checkpoints, settings,
};
use crate::update::{Applied, PolicyGroup, PolicySettings, PolicyStatistics, StepTotals, completion_log_probs, policy_gradient};

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// It came to its end, and this is what it shows.
    Finished(Box<Report>),
    /// It was asked to stop after this step, and can be resumed.
    Interrupted {
        /// Steps done.
        step: u64,
    },
    /// It was told to stop at once, or while its disk had no room: it can be resumed from its last checkpoint.
    CutShort {
        /// The step of that checkpoint; None before the first one.
        goes_on_from: Option<u64>,
        /// How it came to that.
        cause: String,
    },
}

/// Trains a run from its last checkpoint, or from the start, as `worker`. Between steps it does what the worker is asked. To stop after a step, it saves
/// first; to stop at once, it leaves what it does within a decode step or a micro-batch. A disk without room holds it.
///
/// # Errors
/// [`TrainError`]; the run directory then says so too, and its checkpoints are whole.
pub fn train(
    run: &RunDirectory,
    places: &RunFolders,
    engine: &Engine,
    worker: &Worker,
    listener: Listener<'_>,
) -> Result<Ended, TrainError> {
    let start = Instant::now();
    let mut recorder = Recorder::open(worker, listener)?;
    let mut reached = recorder.history()?.last_step;
    let result = work(run, places, engine, worker, &mut recorder, &mut reached);
    // Of a folder that is lost there is nothing more to say in it.
    worker.check()?;
    let unsaved = leave(&mut recorder);
    let result = match result {
        Err(error) => match error.interruption() {
            Some(cause) => Ok(Ended::CutShort { goes_on_from: list_checkpoints(run.path())?.last().copied(), cause }),
            None => Err(error),
        },
        ended => ended,
    };
    let (status, mut cause) = last_word(&result);
    if let Some(unsaved) = unsaved {
        cause = format!("{cause}; {unsaved}");
    }
    recorder.stop_watching();
    let too_late = record_requests(worker, &mut recorder, reached);
    let end = End { status: status.name().to_owned(), cause, step: reached, seconds: start.elapsed().as_secs_f64() };
    let told = too_late.and_then(|()| recorder.end(end));
    match result {
        // The disk may have no room for the last word either; its error is not the one to tell.
        Ok(Ended::CutShort { .. }) | Err(_) => result,
        Ok(ended) => told.map(|()| ended),
    }
}

fn last_word(result: &Result<Ended, TrainError>) -> (Status, String) {
    match result {
        Ok(Ended::Finished(report)) => (Status::Finished, report.cause.clone()),
        Ok(Ended::Interrupted { .. }) => (Status::Interrupted, "stopped after the step, as requested".to_owned()),
        Ok(Ended::CutShort { goes_on_from, cause }) => {
            let step = goes_on_from.map_or_else(
                || "resume starts from step 0".to_owned(),
                |step| format!("resume continues from the checkpoint of step {step}"),
            );
            (Status::Interrupted, format!("{cause}; {step}"))
        }
        Err(error) => (Status::Failed, error.to_string()),
    }
}

fn work(
    run: &RunDirectory,
    places: &RunFolders,
    engine: &Engine,
    worker: &Worker,
    recorder: &mut Recorder<'_>,
    reached: &mut u64,
) -> Result<Ended, TrainError> {
    let start = Instant::now();
    let mut outline = Setup::read(run, places, engine)?;
    let controls = worker.controls().clone();
    outline.threads = outline.threads.until(move || controls.stop_requested() == Some(Stop::Now));
    let mut settings = settings(run.path(), recorder.history()?)?;
    outline.set_goal(&settings);
    *reached = outline.resumed_from.unwrap_or(0);
    begin(run, &outline, recorder)?;
    if let Some(gpu) = outline.gpu.take() {
        recorder.watch(gpu);
    }
    recorder.phase(*reached, "load")?;
    let mut job = Job::load(run, outline, engine, recorder.history()?)?;
    recorder.saver.prepare(&job);
    // Only now: where a checkpoint turns out to be damaged, everything stays as it was.
    recorder.rewind(worker.lock(), job.state.step, job.config.keep_rollouts)?;
    apply_settings(&mut job, &mut settings);
    recorder.status(Status::Running, job.state.step, None)?;
    if !engine.device.is_cpu() {
        probe_memory(&mut job)?.into_iter().try_for_each(|alert| recorder.event(alert))?;
    }
    if job.resumed_from.is_none() {
        pass(run, &mut job, recorder, "test", "base", 0)?;
        pass(run, &mut job, recorder, "eval", "base", 0)?;
        save(run, &mut job, recorder, "start")?;
    }
    let cause = loop {
        apply_settings(&mut job, &mut settings);
        if attend(run, &mut job, recorder, worker.controls())? {
            save(run, &mut job, recorder, "interrupted")?;
            return Ok(Ended::Interrupted { step: job.state.step });
        }
        // Only now: what was asked during the last step may have moved the end.
        if job.state.step >= job.total_steps {
            break "all steps done".to_owned();
        }
        if let Some(cause) = should_stop(recorder.history()?, &job.state, &job.config) {
            break cause;
        }
        let steps = job.config.weight_sync_interval.min(job.total_steps - job.state.step);
        if !worker.controls().compute_until(job.state.step + steps) {
            continue;
        }
        match job.config.method {
            Method::Grpo => grpo_interval(&mut job, recorder, steps)?,
            Method::Sft => (0..steps).try_for_each(|_| sft_step(&mut job, recorder))?,
        }
        *reached = job.state.step;
        after_interval(run, &mut job, recorder, steps)?;
    };
    let step = job.state.step;
    pass(run, &mut job, recorder, "eval", "trained", step)?;
    save(run, &mut job, recorder, "end")?;
    recorder.finish_rollouts()?;
    let report = report(run, &mut job, recorder, start.elapsed().as_secs_f64())?;
    Ok(Ended::Finished(Box::new(Report { cause, ..report })))
}

/// What earlier workers were told to set for the next step, or for one before it.
fn apply_settings(job: &mut Job, settings: &mut Settings) {
    while let Some(due) = settings.first_entry().filter(|due| *due.key() <= job.state.step + 1) {
        job.set(&due.remove());
    }
}

/// What was asked too late to be done is in the log all the same; its askers hear that the run has ended.
fn record_requests(worker: &Worker, recorder: &mut Recorder<'_>, step: u64) -> Result<(), TrainError> {
    for accepted in worker.controls().take_last() {
        recorder.event(accepted.event(step + 1))?;
        worker.controls().recorded(&accepted);
        let answer = match accepted.verb {
            Verb::Stop { .. } => Answer::done("stopped", serde_json::Value::Null),
            _ => Answer::refused("the run ended before it handled this request (recorded in the log)"),
        };
        worker.controls().answer(accepted.id, &answer);
    }
    Ok(())
}

/// The first lines of a worker: who computes what in which memory, and what of an earlier worker's will be redone.
fn begin(run: &RunDirectory, outline: &Setup, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    let mut versions = BTreeMap::from([("grpo-tui".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    if let Some(gpu) = &outline.gpu {
        versions.insert("NVIDIA driver".to_owned(), gpu.driver.clone());
    }
    recorder.event(Run {
        id: run.id().to_owned(),
        job: run.file().job.clone(),
        config_digest: run.file().config_digest.clone(),
        model_digest: outline.start.digest.clone(),
        device: outline.device.clone(),
        versions,
        total_steps: outline.total_steps,
    })?;
    if let Some(memory) = outline.memory() {
        recorder.event(memory)?;
    }
    // Where every checkpoint is gone, the steps that were recorded are void too.
    let resumed_from = outline.resumed_from.or((recorder.history()?.last_step > 0).then_some(0));
    if let Some(step) = resumed_from {
        let text = match outline.resumed_from {
            Some(step) => format!("resumed from the checkpoint of step {step}; later records are void"),
            None => "restarted without a checkpoint; earlier records are void".to_owned(),
        };
        recorder.event(Recovered { dropped_bytes: 0, resumed_from: Some(step), text })?;
        match recorder.history()?.checkpoints.get(&step) {
            // Its worker died when the log said what the keep rules remove, and not all of it was removed.
            Some(told) => told.removed.iter().try_for_each(|old| checkpoint::remove(&checkpoint_path(run.path(), *old)))?,
            // Its worker died when the checkpoint was on the disk and not yet in the log.
            None if outline.resumed_from.is_some() => {
                let (path, bytes) = (checkpoint_folder(step), checkpoint::size(&checkpoint_path(run.path(), step))?);
                recorder.event(Checkpoint { step, path, bytes, why: "found".to_owned(), ..Checkpoint::default() })?;
            }
            None => {}
        }
    }
    Ok(())
}

/// A step's groups, and what its gradient is computed from.
struct Batch {
    groups: StepRollout,
    policy: Vec<PolicyGroup>,
    totals: StepTotals,
    /// Of the forward for the old log-probs.
    forward_seconds: f64,
}

/// `steps` steps of GRPO, all sampled with the weights as they are. The first of them moves those very weights: its ratios are exactly 1. The others' old
/// log-probs come from a training forward before anything moves.
fn grpo_interval(job: &mut Job, recorder: &mut Recorder<'_>, steps: u64) -> Result<(), TrainError> {
    let first = job.state.step + 1;
    recorder.phase(first, "rollout")?;
    let mut batches = Vec::new();
    for groups in draw_steps(job, first, steps)? {
        let (policy, totals) = policy_batch(job, &groups.groups);
        batches.push(Batch { groups, policy, totals, forward_seconds: 0.0 });
    }
    let shape = job.shape;
    for batch in batches.iter_mut().skip(1).filter(|batch| !batch.policy.is_empty()) {
        let start = Instant::now();
        let log_probs =
            with_oom_retry(job, |job, settings| completion_log_probs(&job.model, Adapters::On, &batch.policy, &settings, &job.threads))?;
        for (sample, log_probs) in batch.policy.iter_mut().flat_map(|group| &mut group.samples).zip(log_probs.into_iter().flatten()) {
            sample.old_log_probs = Some(log_probs);
        }
        batch.forward_seconds = start.elapsed().as_secs_f64();
    }
    shrunk(first, shape, job.shape).into_iter().try_for_each(|alert| recorder.event(alert))?;
    batches.into_iter().try_for_each(|batch| grpo_step(job, recorder, batch))
}

/// One optimizer step from its groups.
fn grpo_step(job: &mut Job, recorder: &mut Recorder<'_>, batch: Batch) -> Result<(), TrainError> {
    let Batch { groups, mut policy, totals, forward_seconds } = batch;
    let step = job.state.step + 1;
    recorder.phase(step, "update")?;
    let start = Instant::now();
    let shape = job.shape;
    let learning_rate = job.optimizer.learning_rate(job.optimizer.updates());
    let (mut statistics, mut applied) = (PolicyStatistics::default(), None);
    if !policy.is_empty() {
        let (gradients, found) = gradient(job, &mut policy, totals)?;
        statistics = found;
        // A loss that is not finite comes with a gradient that is not: the optimizer leaves everything as it was.
        applied = Some(job.optimizer.apply(job.model.parameters(), &gradients)?);
    }
    let update_seconds = forward_seconds + start.elapsed().as_secs_f64();
    for (groups, replaced) in [(&groups.groups, false), (&groups.replaced, true)] {
        groups.iter().try_for_each(|group| recorder.group(job, step, group, replaced))?;
    }
    let step_seconds = groups.rollout_seconds + groups.score_seconds + forward_seconds + start.elapsed().as_secs_f64();
    job.finish_step(applied == Some(Applied::NotFinite), step_seconds);
    let updated = StepUpdate { statistics, applied, learning_rate, update_seconds, step_seconds };
    let mut metrics = metrics(&groups, updated);
    metrics.extend(job.engine.peak_memory().map(|bytes| ("memory/peak_bytes".to_owned(), bytes as f64)));
    let mut alerts = job.alerts.observe(step, &metrics, &job.config);
    alerts.extend(shrunk(step, shape, job.shape));
    recorder.event(Step { step, seconds: step_seconds, metrics })?;
    for alert in alerts {
        recorder.event(alert)?;
    }
    recorder.step_done(step)?;
    job.check_skipped()
}

/// The gradient of a step's groups.
fn gradient(job: &mut Job, policy: &mut [PolicyGroup], totals: StepTotals) -> Result<(Gradients, PolicyStatistics), TrainError> {
    with_oom_retry(job, |job, settings| {
        if job.config.kl_beta > 0.0 {
            let (reference, adapters) = job.reference();
            let log_probs = completion_log_probs(reference, adapters, policy, &settings, &job.threads)?;
            for (sample, log_probs) in policy.iter_mut().flat_map(|group| &mut group.samples).zip(log_probs.into_iter().flatten()) {
                sample.reference_log_probs = Some(log_probs);
            }
        }
        policy_gradient(&job.model, policy, totals, &settings, &job.threads)
    })
}

/// A pass over a step's groups, and again in a smaller shape where memory runs out: until the optimizer moves, a step has changed nothing.
fn with_oom_retry<R>(job: &mut Job, mut attempt: impl FnMut(&Job, PolicySettings) -> candle_core::Result<R>) -> Result<R, TrainError> {
    let (extent, settings) = (job.extent(), job.policy_settings());
    let mut shape = job.shape;
    let result = retry_smaller(&mut shape, extent, || _ = job.engine.trim_memory(), |shape| attempt(job, settings.in_shape(shape)));
    job.shape = shape;
    result
}

/// Evals and checkpoints that fall due after `steps` more steps. Those of the last step are the end's.
fn after_interval(run: &RunDirectory, job: &mut Job, recorder: &mut Recorder<'_>, steps: u64) -> Result<(), TrainError> {
    let step = job.state.step;
    if step >= job.total_steps {
        return Ok(());
    }
    let eval_due = is_due(job.config.eval_every, step, steps);
    let is_read = eval_due && pass(run, job, recorder, "eval", "trained", step)?.is_some();
    // Every eval comes with a checkpoint, so that the best weights on the eval set are never lost; the keep rules take the others away again.
    if eval_due || is_due(job.config.checkpoint_every, step, steps) {
        save(run, job, recorder, if is_read { "eval" } else { "interval" })?;
    }
    Ok(())
}
