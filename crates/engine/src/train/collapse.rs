//! Recovery: a collapsed policy is replaced by the last checkpoint with informative groups, a
//! diverged one by the checkpoint with the highest reward.

use super::alerts::WINDOW;
use super::checkpointing::{collect, save};
use super::error::TrainError;
use super::next_action::NextAction;
use super::recorder::{Record, Recorder};
use super::trainer::Trainer;
use crate::checkpoint;
use crate::config::OnCollapse;
use crate::facts::{Ruin, SaveReason};
use crate::model::Trainable;
use crate::run::events::{Collapse, Note};
use crate::run::{RunError, RunState, checkpoint_path, list_checkpoints, verify_checkpoint};
use crate::update::Optimizer;

/// Limit per run.
const MAX_RECOVERIES: usize = 3;

/// Returns the recovery from a collapse, or the end of the run, on rank 0.
///
/// Removes the checkpoint of the collapsed weights at the same step before recording anything, so
/// that a worker that dies in between collapses and recovers again.
pub(super) fn next(
    trainer: &Trainer,
    recorder: &mut Recorder<'_>,
) -> Result<Option<NextAction>, TrainError> {
    let (step, run, config) = (trainer.state.step, &trainer.run, &trainer.config);
    let Some(rule) = recorder
        .alerts
        .ruin()
        .filter(|_| config.on_collapse != OnCollapse::Continue)
    else {
        return Ok(None);
    };
    let stopped = |why: &str| {
        Ok(Some(NextAction::Finish {
            cause: format!("stopped early: the policy {rule} ({why})"),
        }))
    };
    if config.on_collapse == OnCollapse::Stop {
        return stopped("on_collapse = stop");
    }
    if recorder.history()?.collapses.len() >= MAX_RECOVERIES {
        return stopped(&format!("again, after {MAX_RECOVERIES} recoveries"));
    }
    collect(recorder, true)?;
    let mut kept: Vec<u64> = list_checkpoints(run.path())?
        .into_iter()
        .filter(|kept| *kept < step)
        .collect();
    let restored_step = loop {
        let (history, trainable) = (recorder.history()?, trainer.trainable());
        let (restored, needed) = match rule {
            Ruin::Diverged => (best_earlier(&kept, history, trainable), "before it"),
            Ruin::Collapsed => (
                last_informative(&kept, history, trainable),
                "whose groups were informative",
            ),
        };
        let Some(restored) = restored else {
            return stopped(&format!("no checkpoint is left {needed}"));
        };
        match verify_checkpoint(&checkpoint_path(run.path(), restored), |_| true) {
            Ok(_) => break restored,
            Err(error @ RunError::Malformed { .. }) => {
                let text = format!("{error}: the recovery uses another checkpoint");
                recorder.event(Note { text })?;
                kept.retain(|kept| *kept != restored);
            }
            Err(error) => return Err(error.into()),
        }
    };
    checkpoint::remove(&checkpoint_path(run.path(), step))?;
    let learning_rate = config.learning_rate / 2.0;
    let collapse = Collapse {
        step,
        restored_step,
        learning_rate,
        rule,
    };
    recorder.event(collapse.clone())?;
    Ok(Some(NextAction::Recover(collapse)))
}

/// Restores an earlier step's weights. The step count continues, for new prompts and random
/// numbers; saves a checkpoint with the restored weights.
pub(super) fn recover(
    trainer: &mut Trainer,
    record: &mut Record<'_>,
    collapse: &Collapse,
) -> Result<(), TrainError> {
    let folder = checkpoint_path(trainer.run.path(), collapse.restored_step);
    let (moments, restored) = checkpoint::load(&folder, trainer.policy.model.parameters())?;
    // Keep rules must not remove what another rank still reads.
    trainer.ranks.exchange(())?;
    trainer.config.learning_rate = collapse.learning_rate;
    trainer.optimizer =
        Optimizer::restored(trainer.optimizer_settings(), moments, restored.updates);
    trainer.state.updates = restored.updates;
    if let (Some(adaptive), Some(restored)) = (&mut trainer.state.adaptive, restored.adaptive) {
        // Outcomes of the collapsed policy do not apply to the restored one.
        adaptive.recall(restored);
    }
    trainer.guide();
    record.on_rank_0(|recorder| {
        let alerts = recorder.alerts.recovered(collapse.step, &trainer.config);
        recorder.events(alerts)
    })?;
    save(trainer, record, SaveReason::Recovered)
}

/// The last checkpoint followed by a mixed group, else the start if training adapters.
fn last_informative(kept: &[u64], history: &RunState, trainable: Trainable) -> Option<u64> {
    if let Some(mixed) = history.metrics.get("groups/frac_mixed")
        && let Some(step) = kept
            .iter()
            .rev()
            .find(|step| **step > 0 && mixed.at(**step + 1) > Some(0.0))
    {
        return Some(*step);
    }
    kept.first()
        .filter(|step| **step == 0 && trainable != Trainable::Full)
        .copied()
}

/// The checkpoint whose following steps had the highest reward, of equals the lowest entropy (a policy
/// that never earned anything becomes noise), then the latest; the start as in [`last_informative`].
fn best_earlier(kept: &[u64], history: &RunState, trainable: Trainable) -> Option<u64> {
    let next = |name: &str, step: u64| {
        let series = history.metrics.get(name)?;
        let next: Vec<f64> = series
            .between(step + 1, step + WINDOW as u64)
            .map(|(_, value)| value)
            .filter(|value| value.is_finite())
            .collect();
        (!next.is_empty()).then(|| next.iter().sum::<f64>() / next.len() as f64)
    };
    let order = |step: u64| {
        let entropy = next("completions/entropy", step).unwrap_or(0.0);
        Some((next("reward", step)?, -entropy, step))
    };
    kept.iter()
        .filter(|step| **step > 0 || trainable != Trainable::Full)
        .filter_map(|step| order(*step))
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map(|(.., step)| step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Event;
    use crate::run::events::Step;

    #[test]
    fn a_diverged_policy_is_replaced_by_the_checkpoint_that_earned_the_most() {
        let mut history = RunState::default();
        for step in 1..=15 {
            let reward = match step {
                1..=5 => 0.3,
                6..=10 => 0.6,
                _ => 0.0,
            };
            history.fold(Event {
                seq: step,
                time_ms: 0,
                body: Step {
                    step,
                    metrics: [("reward".to_owned(), reward)].into(),
                    ..Step::default()
                }
                .into(),
            });
        }
        let adapters = Trainable::Lora {
            rank: 4,
            alpha: 4.0,
            has_experts: false,
        };
        let best = |kept: &[u64], trainable| best_earlier(kept, &history, trainable);
        assert_eq!(best(&[0, 5, 10], adapters), Some(5));
        assert_eq!(best(&[0, 10], adapters), Some(0));
        assert_eq!(best(&[0, 10], Trainable::Full), Some(10));
        assert_eq!(best(&[0], Trainable::Full), None);
    }
}
