//! What the model forgets: the guard prompts before, during and after a training.

use std::time::Instant;

use super::TrainError;
use super::recorder::{Record, Recorder};
use super::trainer::Trainer;
use crate::eval::{guard_exact, guard_log_probs, guard_requests};
use crate::policy::PolicyVersion;
use crate::run::events::Guard;

/// Measures and records the guard prompts on rank 0, and raises the alert of those that it lost. What is recorded is not
/// measured again.
pub(super) fn measure_guard(trainer: &Trainer, record: &mut Record<'_>) -> Result<(), TrainError> {
    if trainer.prompts.guard.is_empty() {
        return Ok(());
    }
    record.on_rank_0(|recorder| measure_on_rank_0(trainer, recorder))
}

fn measure_on_rank_0(trainer: &Trainer, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    let step = trainer.state.step;
    let guard = match recorder.history()?.guards.get(&step) {
        Some(guard) => guard.clone(),
        None => {
            recorder.phase(step, "eval")?;
            let guard = measure(trainer)?;
            recorder.event(guard.clone())?;
            guard
        }
    };
    let alerts = recorder.alerts.observe_guard(&guard, &trainer.config);
    alerts.into_iter().try_for_each(|alert| recorder.event(alert))
}

fn measure(trainer: &Trainer) -> Result<Guard, TrainError> {
    let (start, policy, prompts) = (Instant::now(), &trainer.policy, &trainer.prompts.guard);
    let tokens_per_micro_batch = trainer.shape.get().tokens_per_micro_batch;
    let sums = guard_log_probs(&policy.model, prompts, tokens_per_micro_batch, &policy.threads)?;
    policy.engine.trim_memory()?;
    let most_tokens = trainer.config.max_completion_tokens;
    let requests = guard_requests(prompts, most_tokens);
    let completions = match requests.is_empty() {
        true => Vec::new(),
        false => policy.rollout(PolicyVersion::Trained, &requests, &trainer.sampling())?.completions,
    };
    let exact = guard_exact(prompts, most_tokens, &completions, &policy.tokenizer)?;
    Ok(Guard {
        step: trainer.state.step,
        log_probs: sums.iter().map(|(sum, tokens)| sum / (*tokens).max(1) as f64).collect(),
        tokens: sums.iter().map(|(_, tokens)| tokens).sum(),
        exact: exact.map(|(exact, count)| exact as f64 / count as f64),
        answers: exact.map_or(0, |(_, count)| count),
        seconds: start.elapsed().as_secs_f64(),
    })
}
