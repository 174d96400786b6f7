//! A policy that has collapsed is replaced by the last checkpoint whose groups were informative.

use super::TrainError;
use super::checkpointing::{collect, save};
use super::guide::Guide;
use super::job::Job;
use super::recorder::Recorder;
use crate::checkpoint;
use crate::config::OnCollapse;
use crate::model::Trainable;
use crate::run::events::Collapse;
use crate::run::{RunDirectory, RunState, checkpoint_path, list_checkpoints};
use crate::update::Optimizer;

/// Times that a run recovers.
const MAX_RECOVERIES: usize = 3;

/// Recovers from a collapse, if there is one; returns why the run ends instead, if it does.
///
/// The step goes on counting, so that prompts and random numbers are new ones. The checkpoint that is saved holds the
/// restored weights; the one of the collapsed weights at the same step is removed before anything is recorded, so that
/// a worker that dies meanwhile leaves a run that collapses and recovers again.
pub(super) fn leave_collapse(
    run: &RunDirectory,
    job: &mut Job,
    recorder: &mut Recorder<'_>,
) -> Result<Option<String>, TrainError> {
    let step = job.state.step;
    let is_watched = job.config.on_collapse != OnCollapse::Continue && step < job.total_steps;
    if !is_watched || !job.alerts.is_collapsed() {
        return Ok(None);
    }
    let stopped = |why: &str| Ok(Some(format!("stopped early: the policy collapsed ({why})")));
    if job.config.on_collapse == OnCollapse::Stop {
        return stopped("on_collapse = stop");
    }
    if job.ranks.size() > 1 {
        return stopped("a run of several ranks does not recover by itself");
    }
    if recorder.history()?.collapses.len() >= MAX_RECOVERIES {
        return stopped(&format!("again, after {MAX_RECOVERIES} recoveries"));
    }
    collect(recorder, true)?;
    let kept: Vec<u64> = list_checkpoints(run.path())?.into_iter().filter(|kept| *kept < step).collect();
    let Some(restored_step) = last_informative(&kept, recorder.history()?, job.trainable) else {
        return stopped("no checkpoint is left whose groups were informative");
    };
    checkpoint::remove(&checkpoint_path(run.path(), step))?;
    let learning_rate = job.config.learning_rate / 2.0;
    recorder.event(Collapse { step, restored_step, learning_rate })?;
    let (moments, restored) = checkpoint::load(&checkpoint_path(run.path(), restored_step), job.model.parameters())?;
    job.config.learning_rate = learning_rate;
    job.optimizer = Optimizer::restored(job.optimizer_settings(), moments, restored.updates);
    job.state.updates = restored.updates;
    job.ahead = None;
    job.guide.get_or_insert_with(|| Guide::new(&job.task, &job.tokenizer));
    job.alerts.recovered(step, &job.config).into_iter().try_for_each(|alert| recorder.event(alert))?;
    save(run, job, recorder, "recovered")?;
    Ok(None)
}

/// The last checkpoint after which a step had a mixed group, else the start, whose adapters change nothing.
fn last_informative(kept: &[u64], history: &RunState, trainable: Trainable) -> Option<u64> {
    let mixed = history.metrics.get("groups/frac_mixed");
    let is_informative = |step: &&u64| mixed.and_then(|mixed| mixed.at(**step + 1)).is_some_and(|share| share > 0.0);
    let start = kept.first().filter(|step| **step == 0 && trainable != Trainable::Full);
    kept.iter().rev().find(is_informative).filter(|step| **step > 0).or(start).copied()
}
