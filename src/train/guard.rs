//! What the model forgets: the guard prompts before, during and after a training.

use std::time::Instant;

use super::TrainError;
use super::eval_beside::sample_alone;
use super::job::Job;
use super::recorder::Recorder;
use crate::eval::{guard_exact, guard_log_probs, guard_requests};
use crate::model::Adapters;
use crate::run::events::Guard;

/// Measures and records the guard prompts, and raises the alert of those that it lost. What is recorded is not measured
/// again.
pub(super) fn measure_guard(job: &mut Job, recorder: &mut Recorder<'_>, step: u64) -> Result<(), TrainError> {
    if job.prompts.guard.is_empty() {
        return Ok(());
    }
    let guard = match recorder.history()?.guards.get(&step) {
        Some(guard) => guard.clone(),
        None => {
            recorder.phase(step, "eval")?;
            let guard = measure(job, step)?;
            recorder.event(guard.clone())?;
            guard
        }
    };
    let alerts = job.alerts.observe_guard(&guard, &job.config);
    alerts.into_iter().try_for_each(|alert| recorder.event(alert))
}

fn measure(job: &Job, step: u64) -> Result<Guard, TrainError> {
    let start = Instant::now();
    let prompts = &job.prompts.guard;
    let sums = guard_log_probs(&job.model, prompts, job.shape.get().tokens_per_micro_batch, &job.threads)?;
    job.engine.trim_memory()?;
    let most_tokens = job.config.max_completion_tokens;
    let requests = guard_requests(prompts, most_tokens);
    let completions =
        if requests.is_empty() { Vec::new() } else { sample_alone(job, Adapters::On, &requests, None)?.completions };
    let exact = guard_exact(prompts, most_tokens, &completions, &job.tokenizer)?;
    Ok(Guard {
        step,
        log_probs: sums.iter().map(|(sum, tokens)| sum / (*tokens).max(1) as f64).collect(),
        tokens: sums.iter().map(|(_, tokens)| tokens).sum(),
        exact: exact.map(|(exact, count)| exact as f64 / count as f64),
        answers: exact.map_or(0, |(_, count)| count),
        seconds: start.elapsed().as_secs_f64(),
    })
}
