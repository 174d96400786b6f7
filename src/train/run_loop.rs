//! A training run from start to report: load, the loop over intervals, what is due between them, and the end.

use std::collections::BTreeMap;
use std::time::Instant;

use super::TrainError;
use super::checkpointing::{leave, save};
use super::collapse::leave_collapse;
use super::early_stop::{is_due, should_stop};
use super::evaluation::{Report, report, run_eval, stop_before};
use super::follower::{Begin, Loaded};
use super::grpo::{grpo_interval, sft_step};
use super::guard::measure_guard;
use super::guide::Guide;
use super::job::Job;
use super::rank_work::{LatestReading, RankWork};
use super::ranked::probe_memory;
use super::recorder::{Listener, Recorder};
use super::requests::handle_requests;
use super::setup::Setup;
use crate::checkpoint;
use crate::kernels::device::Engine;
use crate::ranks::Ranks;
use crate::run::events::{Alert, Checkpoint, End, Recovered, Run};
use crate::run::{
    Answer, RunDirectory, RunFolders, Settings, Status, Stop, Verb, Worker, checkpoint_folder, checkpoint_path,
    list_checkpoints, settings,
};
use crate::score::rows_without_answer;

/// The processes that compute a run.
#[derive(Debug, Default)]
pub enum RankSource {
    /// As many as the run is configured for, started here.
    #[default]
    Configured,
    /// As many, started here.
    Here(u16),
    /// One on each of these GPUs, started here; this process computes on the first.
    OnGpus(Vec<usize>),
    /// Those that a launcher started.
    Launched(Ranks),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    Finished(Box<Report>),
    /// Stopped by request after this step; can be resumed.
    Interrupted {
        step: u64,
    },
    /// Stopped at once, before an eval, or while the disk was full; can be resumed from the last checkpoint.
    CutShort {
        /// The step of that checkpoint; `None` before the first one.
        resumes_from: Option<u64>,
        cause: String,
    },
}

/// Trains a run as `worker`, from its last checkpoint or from the start, and handles requests between steps. A stop
/// after a step saves first; a stop at once interrupts within a decode step or a micro-batch. A full disk pauses the
/// run.
///
/// # Errors
/// [`TrainError`], which is also recorded in the run directory.
pub fn train(
    run: &RunDirectory,
    run_folders: &RunFolders,
    engine: &Engine,
    worker: &Worker,
    source: RankSource,
    listener: Listener<'_>,
) -> Result<Ended, TrainError> {
    let start = Instant::now();
    let mut recorder = Recorder::open(worker, listener)?;
    let mut reached = recorder.history()?.last_step;
    let result = run_job(run, run_folders, engine, worker, source, &mut recorder, &mut reached);
    // Nothing may be written into a lost folder.
    worker.check()?;
    let unsaved = leave(&mut recorder);
    let result = match result {
        Err(error) => match error.interruption() {
            Some(cause) => Ok(Ended::CutShort { resumes_from: list_checkpoints(run.path())?.last().copied(), cause }),
            None => Err(error),
        },
        ended => ended,
    };
    let (status, mut cause) = last_word(&result, worker);
    if let Some(unsaved) = unsaved {
        cause = format!("{cause}; {unsaved}");
    }
    recorder.stop_watching();
    let too_late = record_requests(worker, &mut recorder, reached);
    let end = End { status: status.name().to_owned(), cause, step: reached, seconds: start.elapsed().as_secs_f64() };
    let recorded = too_late.and_then(|()| recorder.end(end));
    match result {
        // The error of an end event on a full disk would hide the result.
        Ok(Ended::CutShort { .. }) | Err(_) => result,
        Ok(ended) => recorded.map(|()| ended),
    }
}

fn last_word(result: &Result<Ended, TrainError>, worker: &Worker) -> (Status, String) {
    match result {
        Ok(Ended::Finished(report)) => (Status::Finished, report.cause.clone()),
        Ok(Ended::Interrupted { .. }) if worker.is_ended_by_slurm() => {
            (Status::Interrupted, "Slurm ends the job (preemption, time limit or scancel); checkpoint saved".to_owned())
        }
        Ok(Ended::Interrupted { step }) => (Status::Interrupted, stopped_after(*step)),
        Ok(Ended::CutShort { resumes_from, cause }) => {
            let step = resumes_from.map_or_else(
                || "resume starts from step 0".to_owned(),
                |step| format!("resume continues from the checkpoint of step {step}"),
            );
            (Status::Interrupted, format!("{cause}; {step}"))
        }
        Err(error) => (Status::Failed, error.to_string()),
    }
}

/// The cause of a run that was stopped by request after a step.
pub fn stopped_after(step: u64) -> String {
    format!("stopped after step {step}, at your request")
}

/// What a resume from an earlier step than the last one discards; empty where it discards nothing.
fn void_steps(last_step: u64, resumed_from: u64) -> String {
    match last_step.saturating_sub(resumed_from) {
        0 => String::new(),
        1 => format!("; step {last_step} is void"),
        _ => format!("; steps {} to {last_step} are void", resumed_from + 1),
    }
}

fn run_job(
    run: &RunDirectory,
    run_folders: &RunFolders,
    engine: &Engine,
    worker: &Worker,
    source: RankSource,
    recorder: &mut Recorder<'_>,
    reached: &mut u64,
) -> Result<Ended, TrainError> {
    let start = Instant::now();
    let count = match &source {
        RankSource::Configured => None,
        RankSource::Here(count) => Some(usize::from(*count)),
        RankSource::OnGpus(ordinals) => Some(ordinals.len()),
        RankSource::Launched(ranks) => Some(ranks.size()),
    };
    let mut setup = Setup::read(run, run_folders, engine, count)?;
    let ranks = match source {
        RankSource::Launched(ranks) => ranks,
        RankSource::OnGpus(ordinals) => {
            Ranks::start_here(ordinals.len(), |rank| vec!["--gpu".to_owned(), ordinals[rank].to_string()])?
        }
        RankSource::Configured | RankSource::Here(_) => {
            Ranks::start_here(setup.config.ranks, |_| vec!["--cpu".to_owned()])?
        }
    };
    setup.divide(ranks.ranks_per_host(0))?;
    // They begin to load the model.
    ranks.send(|rank| Begin {
        run: run.path().to_owned(),
        ranks: ranks.size(),
        ranks_per_host: ranks.ranks_per_host(rank),
        resumed_from: setup.resumed_from,
    })?;
    let (controls, loss) = (worker.controls().clone(), ranks.loss());
    let is_stopped = move || controls.stop_requested() == Some(Stop::Now);
    let ranks = ranks.until(is_stopped.clone());
    setup.threads = setup.threads.until(move || is_stopped() || loss());
    let settings = settings(run.path(), recorder.history()?)?;
    setup.set_goal(&settings);
    *reached = setup.resumed_from.unwrap_or(0);
    begin(run, &setup, recorder)?;
    let (rank_work, reading) = (RankWork::of(&ranks), LatestReading::unknown(engine));
    if let Some(gpu) = setup.gpu.take() {
        recorder.watch(gpu, reading.clone());
    }
    recorder.phase(*reached, "load")?;
    let model_digest = setup.start.digest.clone();
    let mut job = Job { ranks, rank_work, reading, ..Job::load(run, setup, engine, recorder.history()?, 0)? };
    let result = check_loaded(&job, model_digest)
        .and_then(|()| Ok(job.ranks.join(&engine.device)?))
        .and_then(|()| run_steps(run, worker, &mut job, settings, start, recorder, reached));
    // Wherever it was noticed: work is cancelled when a rank is lost, too.
    result.map_err(|error| job.ranks.check().map_or_else(TrainError::Rank, |()| error))
}

/// # Errors
/// [`TrainError::RankLoaded`] naming what a rank has that this one has not.
fn check_loaded(job: &Job, model_digest: String) -> Result<(), TrainError> {
    if job.ranks.size() == 1 {
        return Ok(());
    }
    let own = Loaded::of(job, model_digest)?;
    let difference = |(rank, other): (usize, Loaded)| Some((rank, other.difference(&own)?));
    match (1..).zip(job.ranks.gather()?).find_map(difference) {
        Some((rank, what)) => Err(TrainError::RankLoaded { rank, what }),
        None => Ok(()),
    }
}

/// `start`: before anything was loaded.
fn run_steps(
    run: &RunDirectory,
    worker: &Worker,
    job: &mut Job,
    mut settings: Settings,
    start: Instant,
    recorder: &mut Recorder<'_>,
    reached: &mut u64,
) -> Result<Ended, TrainError> {
    recorder.saver.prepare(job);
    // After the checkpoint is known to be intact.
    recorder.rewind(worker.lock(), job.state.step, job.config.keep_rollouts)?;
    apply_settings(job, &mut settings);
    recorder.status(Status::Running, job.state.step, None)?;
    if !job.engine.device.is_cpu() {
        probe_memory(job)?.into_iter().try_for_each(|alert| recorder.event(alert))?;
    }
    if let Some(cause) = unguided(job)? {
        let (rule, level) = ("unguided".to_owned(), "info".to_owned());
        let suggestion = "Add `expected` to the rows, or simplify what cannot be enforced.".to_owned();
        recorder.event(Alert { rule, level, step: job.state.step, sentence: cause, suggestion, ..Alert::default() })?;
    }
    if job.resumed_from.is_none() {
        let is_tested = run_eval(run, job, recorder, "test", "base", 0)?.is_some();
        if is_tested && !job.prompts.eval.is_empty() {
            stop_before(recorder, worker, ("eval", "base"), 0)?;
        }
        run_eval(run, job, recorder, "eval", "base", 0)?;
        measure_guard(job, recorder, 0)?;
        save(run, job, recorder, "start")?;
    }
    let cause = loop {
        apply_settings(job, &mut settings);
        if handle_requests(run, job, recorder, worker.controls())? {
            save(run, job, recorder, "interrupted")?;
            return Ok(Ended::Interrupted { step: job.state.step });
        }
        // Checked after requests, which may have moved the end.
        if job.state.step >= job.total_steps {
            break "all steps done".to_owned();
        }
        if let Some(cause) = should_stop(recorder.history()?, &job.state, &job.config) {
            break cause;
        }
        if let Some(cause) = leave_collapse(run, job, recorder)? {
            break cause;
        }
        if worker.controls().stops_after(job.state.step) {
            run_eval(run, job, recorder, "eval", "trained", job.state.step)?;
            save(run, job, recorder, "interrupted")?;
            return Ok(Ended::Interrupted { step: job.state.step });
        }
        let steps = job.next_steps();
        if !worker.controls().compute_until(job.state.step + steps) {
            continue;
        }
        match job.is_supervised() {
            false => grpo_interval(job, recorder)?,
            true => (0..steps).try_for_each(|_| sft_step(job, recorder))?,
        }
        *reached = job.state.step;
        job.is_stopping = worker.controls().stop_requested().is_some();
        after_interval(run, job, recorder, steps)?;
    };
    let step = job.state.step;
    run_eval(run, job, recorder, "eval", "trained", step)?;
    measure_guard(job, recorder, step)?;
    save(run, job, recorder, "end")?;
    recorder.finish_rollouts()?;
    let report = report(run, job, recorder, worker, start.elapsed().as_secs_f64())?;
    Ok(Ended::Finished(Box::new(Report { cause, ..report })))
}

/// Why groups without a valid completion are not guided, if some are not.
fn unguided(job: &Job) -> Result<Option<String>, TrainError> {
    let Some(cause) = job.guide.as_ref().and_then(Guide::refusal) else { return Ok(None) };
    let rows = job.prompts.train.iter().map(|prompt| &prompt.row);
    let rows = rows_without_answer(&job.task, &job.scorer, rows)?.len();
    Ok((rows > 0).then(|| format!("Groups of {rows} rows without an expected answer are not guided: {cause}.")))
}

/// Applies each `set` that earlier workers accepted for the next step or an earlier one.
fn apply_settings(job: &mut Job, settings: &mut Settings) {
    while let Some(due) = settings.first_entry().filter(|due| *due.key() <= job.state.step + 1) {
        job.set(&due.remove());
    }
}

/// Records requests that came too late and refuses them.
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

/// Records the run, its memory, and what will be redone of an earlier worker's steps.
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
    // Without any checkpoint, all recorded steps are void.
    let resumed_from = setup.resumed_from.or((recorder.history()?.last_step > 0).then_some(0));
    if let Some(step) = resumed_from {
        let text = match setup.resumed_from {
            Some(step) => format!("resumed from step {step}{}", void_steps(recorder.history()?.last_step, step)),
            None => "restarted without a checkpoint; earlier steps are void".to_owned(),
        };
        recorder.event(Recovered { dropped_bytes: 0, resumed_from: Some(step), text })?;
        match recorder.history()?.checkpoints.get(&step) {
            // The worker died between this event and the removals.
            Some(event) => {
                event.removed.iter().try_for_each(|old| checkpoint::remove(&checkpoint_path(run.path(), *old)))?
            }
            // The worker died between the checkpoint and its event.
            None if setup.resumed_from.is_some() => {
                let (path, bytes) = (checkpoint_folder(step), checkpoint::size(&checkpoint_path(run.path(), step))?);
                recorder.event(Checkpoint { step, path, bytes, why: "found".to_owned(), ..Checkpoint::default() })?;
            }
            None => {}
        }
    }
    Ok(())
}

/// The evals and checkpoints due after `steps` more steps, except those of the last step.
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
    if eval_due {
        measure_guard(job, recorder, step)?;
    }
    // Every eval saves a checkpoint, so that the best weights on the eval set are kept.
    if eval_due || is_due(job.config.checkpoint_every, step, steps) {
        save(run, job, recorder, if is_evaluated { "eval" } else { "interval" })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_says_what_it_discards() {
        assert_eq!(
            [13, 14, 20].map(|last| void_steps(last, 13)),
            ["", "; step 14 is void", "; steps 14 to 20 are void"]
        );
    }
}
