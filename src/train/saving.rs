//! Checkpoints of a run: room for them first, then a durable one, then the keep rules.

use super::TrainError;
use super::job::Job;
use super::recorder::Recorder;
use crate::checkpoint;
use crate::run::events::Checkpoint;
use crate::run::{Held, RunDirectory, checkpoint_folder, checkpoint_path, checkpoints_to_delete, disk_forecast, list_checkpoints};

/// A checkpoint's bytes for each trained number: itself and two moments, f32.
const BYTES_PER_NUMBER: u64 = 12;
/// What comes with it: names, counters, the log's lines.
const BESIDES_BYTES: u64 = 1 << 20;

/// A durable checkpoint of the step, then the keep rules.
pub(super) fn save(run: &RunDirectory, job: &mut Job, recorder: &mut Recorder<'_>, why: &str) -> Result<(), TrainError> {
    let step = job.state.step;
    // A whole checkpoint of this step is this very state; to write it again would take it away first.
    if list_checkpoints(run.path())?.last() == Some(&step) {
        return Ok(());
    }
    recorder.phase(step, "checkpoint")?;
    recorder.sync()?;
    let (what, needed) =
        (format!("the checkpoint of step {step}"), job.model.parameters().count() as u64 * BYTES_PER_NUMBER + BESIDES_BYTES);
    wait_for_room(run, job, recorder, (&what, needed))?;
    let folder = checkpoint_path(run.path(), step);
    let base = &job.config.base_model;
    let bytes = recorder
        .write(&what, needed, |_| checkpoint::save(&folder, job.model.parameters(), &job.optimizer, &job.state, job.trainable, base))?;
    let steps = list_checkpoints(run.path())?;
    let best = recorder.history()?.best_step_by(&steps, job.config.keep_best_by);
    let end = (step == job.total_steps).then_some(step);
    let removed = checkpoints_to_delete(&steps, job.config.keep_checkpoints, best, end);
    recorder.event(Checkpoint { step, path: checkpoint_folder(step), bytes, why: why.to_owned(), removed: removed.clone() })?;
    for step in removed {
        checkpoint::remove(&checkpoint_path(run.path(), step))?;
    }
    Ok(())
}

/// Holds the run while this checkpoint does not fit its disk, or, unless somebody has said to go on regardless, the rest of the run does not.
fn wait_for_room(run: &RunDirectory, job: &mut Job, recorder: &mut Recorder<'_>, (what, needed): (&str, u64)) -> Result<(), TrainError> {
    if recorder.free_bytes().is_some_and(|free| free < needed) {
        // To stop now is to try it all the same: the write tells, and a checkpoint that fits saves the step.
        let _ = recorder.hold(what, needed, false);
    }
    if job.goes_on_regardless {
        return Ok(());
    }
    let forecast = disk_forecast(run.path(), recorder.history()?, &job.config);
    if let (false, Some(rest)) = (forecast.fits(), forecast.needed_bytes) {
        job.goes_on_regardless = recorder.hold("the rest of the run", rest, false) == Held::Resumed;
    }
    Ok(())
}
