//! Forgetting: guard prompts before, during and after training.

use std::time::Instant;

use super::error::TrainError;
use super::recorder::{Record, Recorder};
use super::trainer::Trainer;
use crate::eval::GuardPrompt;
use crate::facts::PhaseKind;
use crate::model::Adapters;
use crate::policy::{EVAL_STEP, PolicyVersion};
use crate::rollout::Request;
use crate::run::events::Guard;
use crate::update::{log_probs, pack};

/// Measures and records guard prompts on rank 0, unless recorded, and raises their alert.
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
            recorder.phase(step, PhaseKind::Eval)?;
            let guard = measure(trainer)?;
            recorder.event(guard.clone())?;
            guard
        }
    };
    let alerts = recorder.alerts.observe_guard(&guard, &trainer.config);
    recorder.events(alerts)
}

fn measure(trainer: &Trainer) -> Result<Guard, TrainError> {
    let (start, policy, prompts) = (Instant::now(), &trainer.policy, &trainer.prompts.guard);
    let log_probs = reference_log_probs(trainer)?;
    policy.engine.trim_memory()?;
    let limit = trainer.config.max_completion_tokens;
    let answered =
        |prompt: &&GuardPrompt| prompt.answer.is_some() && prompt.reference.len() <= limit;
    let asked: Vec<&GuardPrompt> = prompts.iter().filter(answered).collect();
    let exact = match asked.is_empty() {
        true => None,
        false => Some(count_exact(trainer, &asked)? as f64 / asked.len() as f64),
    };
    Ok(Guard {
        step: trainer.state.step,
        log_probs,
        tokens: prompts.iter().map(|prompt| prompt.reference.len()).sum(),
        exact,
        answers: asked.len(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Mean log-prob of each reference's tokens, nats/token.
fn reference_log_probs(trainer: &Trainer) -> candle_core::Result<Vec<f64>> {
    let (policy, prompts) = (&trainer.policy, &trainer.prompts.guard);
    let sequences = prompts
        .iter()
        .map(|prompt| (prompt.prompt.as_slice(), vec![prompt.reference.as_slice()]));
    let packed = pack(sequences, trainer.shape.get().tokens_per_micro_batch);
    let log_probs = policy.threads.map(&packed, |micro_batch| {
        log_probs(&policy.model, micro_batch, Adapters::On, 1.0)
    })?;
    let mut means = vec![0.0; prompts.len()];
    for (micro_batch, sequences) in packed.iter().zip(log_probs) {
        for (&(prompt, _), tokens) in micro_batch.owners.iter().zip(sequences) {
            let sum: f64 = tokens.iter().map(|token| f64::from(token.log_prob)).sum();
            means[prompt] = sum / tokens.len().max(1) as f64;
        }
    }
    Ok(means)
}

/// Number of prompts answered with their reference, up to surrounding space.
fn count_exact(trainer: &Trainer, asked: &[&GuardPrompt]) -> Result<usize, TrainError> {
    let request = |(number, prompt): (u32, &&GuardPrompt)| Request {
        greedy: true,
        // One more, so that a longer answer differs.
        lengths: vec![prompt.reference.len() + 1],
        ..Request::new(prompt.prompt.clone(), number, EVAL_STEP, 1)
    };
    let requests: Vec<Request> = (0..).zip(asked).map(request).collect();
    let rollout =
        trainer
            .policy
            .rollout(PolicyVersion::Trained, &requests, &trainer.sampling()?)?;
    let mut exact = 0;
    for (prompt, completion) in asked.iter().zip(rollout.completions.iter().flatten()) {
        let text = trainer
            .policy
            .tokenizer
            .decode(&completion.token_ids, true)?;
        exact += usize::from(
            prompt
                .answer
                .as_ref()
                .is_some_and(|answer| answer.trim() == text.trim()),
        );
    }
    Ok(exact)
}
