//! Checkpoints of a run: reserves disk space, then copies parameters and moments, which a thread
//! makes durable during training.

use std::time::Instant;

use super::checkpoint_writer::{Completed, PendingCheckpoint};
use super::error::TrainError;
use super::recorder::{Record, Recorder};
use super::sharded::{parameters_and_moments, serve_pieces, stop_serving};
use super::trainer::Trainer;
use crate::checkpoint::{Contents, Snapshot};
use crate::config::TrainConfig;
use crate::facts::{PhaseKind, SaveReason};
use crate::model::Trainable;
use crate::plan::BYTES_PER_TRAINED_NUMBER;
use crate::run::events::Checkpoint;
use crate::run::{
    RunDirectory, WaitOutcome, checkpoint_folder, checkpoint_path, checkpoints_to_delete,
    disk_forecast, list_checkpoints,
};

/// Space for names, counters and log lines.
const BESIDES_BYTES: u64 = 1 << 20;

/// Whether training continues while a checkpoint is written.
fn is_beside_training(reason: SaveReason) -> bool {
    matches!(
        reason,
        SaveReason::Start | SaveReason::Interval | SaveReason::Eval
    )
}

/// Saves a checkpoint and applies the keep rules. Requested and final checkpoints are durable on
/// return; those of an interval, an eval and the start are written during training, and their event
/// marks durability. Other ranks send the parts that rank 0 requests.
pub(super) fn save(
    trainer: &Trainer,
    record: &mut Record<'_>,
    reason: SaveReason,
) -> Result<(), TrainError> {
    if trainer.ranks.rank() > 0 {
        return serve_pieces(trainer);
    }
    record.on_rank_0(|recorder| save_on_rank_0(trainer, recorder, reason))?;
    stop_serving(trainer)
}

fn save_on_rank_0(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
    reason: SaveReason,
) -> Result<(), TrainError> {
    let (begun, run) = (Instant::now(), &trainer.run);
    collect(recorder, true)?;
    let step = trainer.state.step;
    // A complete checkpoint of this step has the same contents; rewriting would first remove it.
    if list_checkpoints(run.path())?.last() == Some(&step) {
        return Ok(());
    }
    recorder.phase(step, PhaseKind::Checkpoint)?;
    recorder.sync()?;
    let why = reason;
    let event = Checkpoint {
        step,
        path: checkpoint_folder(step),
        why,
        ..Checkpoint::default()
    };
    // Before the first step, all weights equal the base's.
    let is_base = step == 0 && trainer.trainable() == Trainable::Full;
    let parameters = trainer.policy.model.parameters();
    let trained = if is_base {
        0
    } else {
        parameters.count() as u64
    };
    let needed_bytes = trained * BYTES_PER_TRAINED_NUMBER + BESIDES_BYTES;
    let mut pending = Box::new(PendingCheckpoint {
        run: run.path().to_owned(),
        snapshot: None,
        event,
        is_logged: false,
        to_remove: Vec::new(),
        begun,
        blocked: (0.0, Some(begun)),
        log: recorder.log(),
        needed_bytes,
    });
    wait_for_space(trainer, recorder, &pending)?;
    let folder = checkpoint_path(run.path(), step);
    let contents = Contents::for_state(
        parameters,
        &trainer.state,
        trainer.trainable(),
        &trainer.config.base_model,
    );
    let [mut parameters, mut moments] = parameters_and_moments(trainer);
    match if is_base {
        None
    } else {
        recorder.saver.take_buffer()
    } {
        Some(buffer) => {
            pending.snapshot = Some(Snapshot::take(
                buffer,
                contents,
                &mut *parameters,
                &mut *moments,
            )?)
        }
        None => {
            let write = |_: &mut Recorder<'_>| match is_base {
                true => contents.write_start(&folder),
                false => contents.write(&folder, &mut *parameters, &mut *moments),
            };
            pending.event.bytes = recorder.write(&pending.label(), needed_bytes, write)?;
        }
    }
    drop((parameters, moments));
    pending.event.removed = deleted_by(recorder, run, &trainer.config, trainer.total_steps, step)?;
    pending.to_remove.clone_from(&pending.event.removed);
    if pending.snapshot.is_none() {
        let result = pending.proceed();
        return complete(recorder, pending, result);
    }
    let is_beside_training = is_beside_training(reason);
    if is_beside_training {
        pending.blocked = (begun.elapsed().as_secs_f64(), None);
    }
    if let Err(mut pending) = recorder.saver.hand_over(pending) {
        let result = pending.proceed();
        return complete(recorder, pending, result);
    }
    if is_beside_training {
        Ok(())
    } else {
        collect(recorder, true)
    }
}

/// Checkpoints that the keep rules delete once that of `step` is durable.
pub(super) fn deleted_by(
    recorder: &mut Recorder<'_>,
    run: &RunDirectory,
    config: &TrainConfig,
    total_steps: u64,
    step: u64,
) -> Result<Vec<u64>, TrainError> {
    let mut steps = list_checkpoints(run.path())?;
    steps.push(step);
    let best = recorder
        .history()?
        .best_step_by(&steps, config.keep_best_by);
    let end = (step == total_steps).then_some(step);
    Ok(checkpoints_to_delete(
        &steps,
        config.keep_checkpoints,
        best,
        end,
    ))
}

/// Records a durable checkpoint, or pauses the run if it could not be written; `wait` waits for it.
pub(super) fn collect(recorder: &mut Recorder<'_>, wait: bool) -> Result<(), TrainError> {
    let Some(completed) = recorder.saver.completed(wait) else {
        return Ok(());
    };
    let Completed { checkpoint, result } = completed?;
    complete(recorder, checkpoint, result)
}

/// Waits for a checkpoint being written when the run ends. Returns why it failed.
pub(super) fn leave(recorder: &mut Recorder<'_>) -> Option<String> {
    match recorder.saver.completed(true)? {
        Ok(Completed {
            checkpoint,
            result: Ok(()),
        }) => {
            recorder.notify(&checkpoint.event.into());
            None
        }
        Ok(Completed {
            checkpoint,
            result: Err(error),
        }) => Some(format!("{} was not saved: {error}", checkpoint.label())),
        Err(error) => Some(error.to_string()),
    }
}

/// Records the thread's result; after a full disk, retries from the same copy once there is space.
fn complete(
    recorder: &mut Recorder<'_>,
    mut pending: Box<PendingCheckpoint>,
    result: Result<(), TrainError>,
) -> Result<(), TrainError> {
    match result {
        // There may be space again.
        Err(error) if error.is_full_disk() => {
            pending.blocked.1.get_or_insert_with(Instant::now);
            recorder.write(&pending.label(), pending.needed_bytes, |_| {
                pending.proceed()
            })?;
        }
        result => result?,
    }
    recorder.saver.buffer = pending.snapshot.map(Snapshot::into_buffer);
    recorder.notify(&pending.event.into());
    Ok(())
}

/// Pauses the run while this checkpoint or, unless the user has resumed regardless, the rest of the
/// run does not fit the disk.
fn wait_for_space(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
    pending: &PendingCheckpoint,
) -> Result<(), TrainError> {
    if recorder
        .disk
        .free_bytes()
        .is_some_and(|free| free < pending.needed_bytes)
    {
        // On a stop try to write anyway, since a checkpoint that fits saves the step.
        let _ = recorder.wait_for_space(&pending.label(), pending.needed_bytes, false);
    }
    if recorder.ignores_disk_forecast {
        return Ok(());
    }
    let forecast = disk_forecast(trainer.run.path(), recorder.history()?, &trainer.config);
    if let (false, Some(rest)) = (forecast.fits(), forecast.needed_bytes) {
        recorder.ignores_disk_forecast =
            recorder.wait_for_space("the rest of the run", rest, false) == WaitOutcome::Resumed;
    }
    Ok(())
}
