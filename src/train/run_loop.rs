//! A training run from its start to its report: load, the loop over intervals, what is due between them, and the last
//! word.

use std::collections::BTreeMap;
use std::time::Instant;

use super::TrainError;
use super::checkpointing::{leave, save};
use super::early_stop::{is_due, should_stop};
use super::evaluation::{Report, report, run_eval};
use super::grpo::{grpo_interval, sft_step};
use super::job::Job;
use super::memory_probe::probe_memory;
use super::recorder::{Listener, Recorder};
use super::requests::handle_requests;
use super::setup::Setup;
use crate::checkpoint;
use crate::config::Method;
use crate::kernels::device::Engine;
use crate::run::events::{Checkpoint, End, Recovered, Run};
use crate::run::{
    Answer, RunDirectory, RunFolders, Settings, Status, Stop, Verb, Worker, checkpoint_folder, checkpoint_path,
    list_checkpoints, settings,
};

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

/// Trains a run from its last checkpoint, or from the start, as `worker`. Between steps it does what the worker is
/// asked. To stop after a step, it saves first; to stop at once, it leaves what it does within a decode step or a
/// micro-batch. A disk without room holds it.
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
    let result = run_job(run, places, engine, worker, &mut recorder, &mut reached);
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
    let recorded = too_late.and_then(|()| recorder.end(end));
    match result {
        // The disk may have no space for the end event either; its error is not the one to tell.
        Ok(Ended::CutShort { .. }) | Err(_) => result,
        Ok(ended) => recorded.map(|()| ended),
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

fn run_job(
    run: &RunDirectory,
    places: &RunFolders,
    engine: &Engine,
    worker: &Worker,
    recorder: &mut Recorder<'_>,
    reached: &mut u64,
) -> Result<Ended, TrainError> {
    let start = Instant::now();
    let mut setup = Setup::read(run, places, engine)?;
    let controls = worker.controls().clone();
    setup.threads = setup.threads.until(move || controls.stop_requested() == Some(Stop::Now));
    let mut settings = settings(run.path(), recorder.history()?)?;
    setup.set_goal(&settings);
    *reached = setup.resumed_from.unwrap_or(0);
    begin(run, &setup, recorder)?;
    if let Some(gpu) = setup.gpu.take() {
        recorder.watch(gpu);
    }
    recorder.phase(*reached, "load")?;
    let mut job = Job::load(run, setup, engine, recorder.history()?)?;
    recorder.saver.prepare(&job);
    // Only now: where a checkpoint turns out to be damaged, everything stays as it was.
    recorder.rewind(worker.lock(), job.state.step, job.config.keep_rollouts)?;
    apply_settings(&mut job, &mut settings);
    recorder.status(Status::Running, job.state.step, None)?;
    if !engine.device.is_cpu() {
        probe_memory(&job)?.into_iter().try_for_each(|alert| recorder.event(alert))?;
    }
    if job.resumed_from.is_none() {
        run_eval(run, &mut job, recorder, "test", "base", 0)?;
        run_eval(run, &mut job, recorder, "eval", "base", 0)?;
        save(run, &mut job, recorder, "start")?;
    }
    let cause = loop {
        apply_settings(&mut job, &mut settings);
        if handle_requests(run, &mut job, recorder, worker.controls())? {
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
    run_eval(run, &mut job, recorder, "eval", "trained", step)?;
    save(run, &mut job, recorder, "end")?;
    recorder.finish_rollouts()?;
    let report = report(run, &mut job, recorder, start.elapsed().as_secs_f64())?;
    Ok(Ended::Finished(Box::new(Report { cause, ..report })))
}

/// What earlier workers accepted to set for the next step, or for one before it.
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
fn begin(run: &RunDirectory, setup: &Setup, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    let mut versions = BTreeMap::from([("grpo-tui".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    if let Some(gpu) = &setup.gpu {
        versions.insert("NVIDIA driver".to_owned(), gpu.driver.clone());
    }
    recorder.event(Run {
        id: run.id().to_owned(),
        job: run.file().job.clone(),
        config_digest: run.file().config_digest.clone(),
        model_digest: setup.start.digest.clone(),
        device: setup.device.clone(),
        versions,
        total_steps: setup.total_steps,
    })?;
    if let Some(memory) = setup.memory() {
        recorder.event(memory)?;
    }
    // Where every checkpoint is gone, the steps that were recorded are void too.
    let resumed_from = setup.resumed_from.or((recorder.history()?.last_step > 0).then_some(0));
    if let Some(step) = resumed_from {
        let text = match setup.resumed_from {
            Some(step) => format!("resumed from the checkpoint of step {step}; later records are void"),
            None => "restarted without a checkpoint; earlier records are void".to_owned(),
        };
        recorder.event(Recovered { dropped_bytes: 0, resumed_from: Some(step), text })?;
        match recorder.history()?.checkpoints.get(&step) {
            // Its worker died when the log said what the keep rules remove, and not all of it was removed.
            Some(event) => {
                event.removed.iter().try_for_each(|old| checkpoint::remove(&checkpoint_path(run.path(), *old)))?
            }
            // Its worker died when the checkpoint was on the disk and not yet in the log.
            None if setup.resumed_from.is_some() => {
                let (path, bytes) = (checkpoint_folder(step), checkpoint::size(&checkpoint_path(run.path(), step))?);
                recorder.event(Checkpoint { step, path, bytes, why: "found".to_owned(), ..Checkpoint::default() })?;
            }
            None => {}
        }
    }
    Ok(())
}

/// Evals and checkpoints that fall due after `steps` more steps. Those of the last step are the end's.
fn after_interval(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
    steps: u64,
) -> Result<(), TrainError> {
    let step = job.state.step;
    if step >= job.total_steps {
        return Ok(());
    }
    let eval_due = is_due(job.config.eval_every, step, steps);
    let is_evaluated = eval_due && run_eval(run, job, recorder, "eval", "trained", step)?.is_some();
    // Every eval comes with a checkpoint, so that the best weights on the eval set are never lost; the keep rules take
    // the others away again.
    if eval_due || is_due(job.config.checkpoint_every, step, steps) {
        save(run, job, recorder, if is_evaluated { "eval" } else { "interval" })?;
    }
    Ok(())
}
