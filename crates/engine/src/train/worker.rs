//! Rank 0 of a run: from its worker's start, with other ranks, to the recorded end.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use super::checkpointing::{deleted_by, leave};
use super::error::TrainError;
use super::judge_models::check_judges;
use super::rank::{Begin, load_and_train};
use super::recorder::{Listener, Record, Recorder};
use super::report::Report;
use super::run_loop::Ended;
use super::setup::Setup;
use crate::checkpoint;
use crate::facts::{Cause, PhaseKind, SaveReason};
use crate::kernels::device::Engine;
use crate::ranks::Ranks;
use crate::run::events::{Checkpoint, Collapse, End, Recovered, Run};
use crate::run::{
    Answer, RunDirectory, RunFolders, RunState, Status, Stop, Verb, Worker, checkpoint_folder,
    checkpoint_path, eval_damage, list_checkpoints, set_aside_damaged, settings,
};

/// Processes that compute a run.
#[derive(Debug, Default)]
pub enum RankSource {
    /// Started here as configured.
    #[default]
    Configured,
    /// This many, started here.
    Here(u16),
    /// One per GPU, started here; this process uses the first.
    OnGpus(Vec<usize>),
    /// Started by a launcher.
    Launched(Ranks),
}

/// Trains a run as `worker`, from its last checkpoint or the start, handling requests between
/// steps. A stop after a step saves first; a stop at once interrupts within a decode step or
/// micro-batch. A full disk pauses the run.
///
/// # Errors
/// [`TrainError`], also recorded in the run directory.
pub fn train(
    run: &RunDirectory,
    run_folders: &RunFolders,
    engine: &Engine,
    worker: &Worker,
    source: RankSource,
    listener: Listener<'_>,
) -> Result<Ended, TrainError> {
    let start = Instant::now();
    // Before anything lists checkpoints.
    let mut damaged = set_aside_damaged(run.path())?;
    if !damaged.is_empty() {
        let resumed_from = list_checkpoints(run.path())?.last().copied();
        worker.controls().compute_until(resumed_from.unwrap_or(0));
    }
    damaged.extend_from_slice(worker.damage());
    let mut record = Record::new(Some(Recorder::open(worker, listener)?), engine);
    let setup = set_up(run, run_folders, engine, source);
    let result = setup
        .and_then(|(setup, ranks)| compute(run, setup, ranks, (worker, &damaged), &mut record));
    // Nothing may be written into a lost folder.
    worker.check()?;
    let result = match result {
        Err(error) => match error.interruption() {
            Some(cause) => Ok(Ended::CutShort {
                resumes_from: list_checkpoints(run.path())?.last().copied(),
                cause,
            }),
            None => Err(error),
        },
        Ok(Ended::Finished(report)) => Ok(Ended::Finished(Box::new(Report {
            seconds: start.elapsed().as_secs_f64(),
            ..*report
        }))),
        ended => ended,
    };
    record.stop_watching();
    let recorded = record.on_rank_0(|recorder| record_end(recorder, worker, &result, start));
    match result {
        // An error of the end event on a full disk would hide the result.
        Ok(Ended::CutShort { .. }) | Err(_) => result,
        Ok(ended) => recorded.map(|()| ended),
    }
}

/// Reads what the run needs besides weights, and starts its other ranks.
fn set_up(
    run: &RunDirectory,
    run_folders: &RunFolders,
    engine: &Engine,
    source: RankSource,
) -> Result<(Setup, Ranks), TrainError> {
    let count = match &source {
        RankSource::Configured => None,
        RankSource::Here(count) => Some(usize::from(*count)),
        RankSource::OnGpus(ordinals) => Some(ordinals.len()),
        RankSource::Launched(ranks) => Some(ranks.size()),
    };
    let setup = Setup::read(run, run_folders, engine, count)?;
    check_judges(run, &setup.tasks)?;
    let ranks = match source {
        RankSource::Launched(ranks) => ranks,
        RankSource::OnGpus(ordinals) => Ranks::start_here(ordinals.len(), |rank| {
            vec!["--gpu".to_owned(), ordinals[rank].to_string()]
        })?,
        RankSource::Configured | RankSource::Here(_) => {
            Ranks::start_here(setup.config.ranks, |_| vec!["--cpu".to_owned()])?
        }
    };
    Ok((setup, ranks))
}

fn compute(
    run: &RunDirectory,
    mut setup: Setup,
    mut ranks: Ranks,
    (worker, damaged): (&Worker, &[String]),
    record: &mut Record<'_>,
) -> Result<Ended, TrainError> {
    setup.share_processors(ranks.rendezvous()?)?;
    let (resumed_from, path) = (setup.resumed_from, run.path().to_owned());
    let settings = record.on_rank_0(|recorder| Ok(settings(run.path(), recorder.history()?)?))?;
    let collapses = record.on_rank_0(|recorder| collapses_until(recorder, resumed_from))?;
    let has_recovered = !collapses.is_empty();
    // The others begin to load the model.
    ranks.broadcast(Begin {
        run: path,
        resumed_from,
        has_recovered,
    })?;
    let (controls, is_lost) = (worker.controls().clone(), ranks.loss());
    let is_stopped = move || controls.stop_requested() == Some(Stop::Now);
    let ranks = Rc::new(ranks.until(is_stopped.clone()));
    setup.threads = setup.threads.until(move || is_stopped() || is_lost());
    record.on_rank_0(|recorder| {
        setup.set_goal(&settings);
        recorder.requests.settings = settings;
        for Collapse {
            step,
            learning_rate,
            ..
        } in collapses
        {
            let changes = recorder.requests.settings.entry(step + 1).or_default();
            changes.insert("learning_rate".to_owned(), learning_rate.into());
        }
        recorder.requests.last_step = resumed_from.unwrap_or(0);
        record_start(run, &setup, damaged, recorder)
    })?;
    record.watch(setup.gpu.take());
    record.phase(resumed_from.unwrap_or(0), PhaseKind::Load)?;
    let result = load_and_train(run, setup, &ranks, has_recovered, record);
    // Wherever noticed: losing a rank also cancels work.
    if result.is_err() {
        ranks.check()?;
    }
    result
}

/// Collapses from which the run had recovered by the resumed checkpoint; later steps are void.
fn collapses_until(
    recorder: &mut Recorder<'_>,
    resumed_from: Option<u64>,
) -> Result<Vec<Collapse>, TrainError> {
    let collapses = recorder.history()?.collapses.iter();
    Ok(collapses
        .filter(|collapse| Some(collapse.step) <= resumed_from)
        .cloned()
        .collect())
}

/// Records the end, and late requests.
fn record_end(
    recorder: &mut Recorder<'_>,
    worker: &Worker,
    result: &Result<Ended, TrainError>,
    start: Instant,
) -> Result<(), TrainError> {
    let unsaved = leave(recorder);
    let (status, mut cause) = last_word(result, worker);
    if let Some(unsaved) = unsaved {
        cause.sentence = format!("{cause}; {unsaved}");
    }
    let too_late = record_requests(worker, recorder);
    let step = recorder.requests.last_step;
    let seconds = start.elapsed().as_secs_f64();
    too_late.and_then(|()| {
        recorder.end(End {
            status,
            cause,
            step,
            seconds,
        })
    })
}

fn last_word(result: &Result<Ended, TrainError>, worker: &Worker) -> (Status, Cause) {
    match result {
        Ok(Ended::Finished(report)) => (Status::Finished, report.cause.clone().into()),
        Ok(Ended::Interrupted { .. }) if worker.is_ended_by_slurm() => (
            Status::Interrupted,
            "Slurm ends the job (preemption, time limit or scancel); checkpoint saved".into(),
        ),
        Ok(Ended::Interrupted { step }) => (
            Status::Interrupted,
            Cause::requested(format!("stopped after step {step}, at your request")),
        ),
        Ok(Ended::CutShort {
            resumes_from,
            cause,
        }) => {
            let step = resumes_from.map_or_else(
                || "resume starts from step 0".to_owned(),
                |step| format!("resume continues from the checkpoint of step {step}"),
            );
            (
                Status::Interrupted,
                Cause::requested(format!("{cause}; {step}")),
            )
        }
        Err(error) => (Status::Failed, error.to_string().into()),
    }
}

/// Steps discarded by resuming from an earlier one; empty if none.
fn void_steps(last_step: u64, resumed_from: u64) -> String {
    match last_step.saturating_sub(resumed_from) {
        0 => String::new(),
        1 => format!("; step {last_step} is void"),
        _ => format!("; steps {} to {last_step} are void", resumed_from + 1),
    }
}

/// Records and rejects late requests.
fn record_requests(worker: &Worker, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    // First those taken from the queue when the run ended.
    let open = std::mem::take(&mut recorder.requests.open);
    for accepted in open.into_iter().chain(worker.controls().take_last()) {
        recorder.event(accepted.event(recorder.requests.last_step + 1))?;
        worker.controls().recorded(&accepted);
        let answer = match accepted.verb {
            Verb::Stop { .. } => Answer::done("stopped", serde_json::Value::Null),
            _ => Answer::refused(
                "the run ended before it handled this request (recorded in the log)",
            ),
        };
        worker.controls().answer(accepted.id, &answer);
    }
    Ok(())
}

/// Recorded evals unusable from `step` on, and steps missing from the log.
fn lost_records(run: &Path, history: &RunState, step: u64) -> Vec<String> {
    let evals = history.evals.values().filter(|eval| eval.step <= step);
    let mut damage: Vec<String> = evals.filter_map(|eval| eval_damage(run, eval)).collect();
    if step > history.last_step {
        damage.push(format!(
            "events.jsonl ends at step {}: what it had of later steps is lost",
            history.last_step
        ));
    }
    damage
}

/// Records the run, its memory, and which earlier steps will be redone. `damaged`: damaged files,
/// in words.
fn record_start(
    run: &RunDirectory,
    setup: &Setup,
    damaged: &[String],
    recorder: &mut Recorder<'_>,
) -> Result<(), TrainError> {
    let mut versions =
        BTreeMap::from([("grpo-tui".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    if let Some(gpu) = &setup.gpu {
        versions.insert("NVIDIA driver".to_owned(), gpu.driver.clone());
    }
    recorder.event(Run {
        id: run.id().to_owned(),
        job: run.file().job,
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
    let has_begun = recorder.history()?.last_step > 0 || !damaged.is_empty();
    let resumed_from = setup.resumed_from.or(has_begun.then_some(0));
    if let Some(step) = resumed_from {
        let text = match setup.resumed_from {
            Some(step) => format!(
                "resumed from step {step}{}",
                void_steps(recorder.history()?.last_step, step)
            ),
            None => "restarted without a checkpoint; earlier steps are void".to_owned(),
        };
        let lost = lost_records(run.path(), recorder.history()?, step);
        let text = [&[text], damaged, &lost].concat().join("; ");
        recorder.event(Recovered {
            dropped_bytes: 0,
            resumed_from: Some(step),
            text,
        })?;
        let removed = match recorder.history()?.checkpoints.get(&step) {
            // The worker died between this event and the removals.
            Some(event) => event.removed.clone(),
            // The worker died between the checkpoint and its event.
            None if setup.resumed_from.is_some() => {
                let removed = deleted_by(recorder, run, &setup.config, setup.total_steps, step)?;
                recorder.event(Checkpoint {
                    step,
                    path: checkpoint_folder(step),
                    bytes: checkpoint::size(&checkpoint_path(run.path(), step))?,
                    why: SaveReason::Found,
                    removed: removed.clone(),
                    ..Checkpoint::default()
                })?;
                removed
            }
            None => Vec::new(),
        };
        for old in removed {
            checkpoint::remove(&checkpoint_path(run.path(), old))?;
        }
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
