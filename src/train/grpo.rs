//! The loop: completions sampled and scored in groups, a gradient from the spread of their rewards, one optimizer step;
//! or, for SFT, from the rows' answers.

use std::collections::BTreeMap;
use std::time::Instant;

use super::TrainError;
use super::job::Job;
use super::metrics::StepUpdate;
use super::oom_retry::{Extent, shrunk};
use super::recorder::Recorder;
use super::rollout_groups::{PolicyBatch, StepRollout, next_prompts, policy_batch, sample_steps};
use crate::eval::Prompt;
use crate::model::{Adapters, Gradients};
use crate::plan::StepShape;
use crate::text::json_line;
use crate::update::{self, Applied, Example, PolicyStatistics, completion_log_probs, supervised_gradient};

/// `steps` steps, all sampled with the weights as they are. The first of them moves those very weights: its ratios are
/// exactly 1. The others' old log-probs come from a training forward before anything moves.
pub(super) fn grpo_interval(job: &mut Job, recorder: &mut Recorder<'_>, steps: u64) -> Result<(), TrainError> {
    let first = job.state.step + 1;
    recorder.phase(first, "rollout")?;
    let mut rollouts = sample_steps(job, first, steps)?;
    let shape = job.shape.get();
    rollouts.iter_mut().skip(1).try_for_each(|rollout| add_old_log_probs(job, rollout))?;
    shrunk(first, shape, job.shape.get()).into_iter().try_for_each(|alert| recorder.event(alert))?;
    rollouts.into_iter().try_for_each(|rollout| grpo_step(job, recorder, rollout))
}

/// One optimizer step from its groups.
fn grpo_step(job: &mut Job, recorder: &mut Recorder<'_>, rollout: StepRollout) -> Result<(), TrainError> {
    recorder.phase(job.state.step + 1, "update")?;
    let mut step = StepUpdate::begin(job);
    let mut batch = policy_batch(&job.config, &job.prompts.train, &rollout);
    if !batch.groups.is_empty() {
        let (gradients, statistics) = policy_gradient(job, &mut batch)?;
        step.statistics = statistics;
        // A loss that is not finite comes with a gradient that is not: the optimizer leaves everything as it was.
        step.applied = Some(job.optimizer.apply(job.model.parameters(), &gradients)?);
    }
    recorder.step(job, rollout, step)
}

/// One optimizer step of supervised fine-tuning on the next prompts' own answers: the start that GRPO then improves on.
///
/// # Errors
/// [`TrainError::NoAnswer`] for a prompt without one.
pub(super) fn sft_step(job: &mut Job, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    recorder.phase(job.state.step + 1, "update")?;
    let mut step = StepUpdate::begin(job);
    let prompts = next_prompts(job, job.config.prompt_groups_per_step);
    let examples =
        prompts.iter().map(|&prompt| example(job, &job.prompts.train[prompt])).collect::<Result<Vec<_>, _>>()?;
    let lengths = || examples.iter().map(|example| example.prompt.len() + example.completion.len());
    let longest_sequence = lengths().max().unwrap_or(0);
    let extent = Extent { longest_sequence, all: longest_sequence * examples.len() };
    let (gradients, loss) = job.retry_smaller(extent, || {
        let StepShape { tokens_per_micro_batch, recompute } = job.shape.get();
        supervised_gradient(&job.model, &examples, tokens_per_micro_batch, recompute, &job.threads)
    })?;
    let applied = job.optimizer.apply(job.model.parameters(), &gradients)?;
    step.applied = Some(applied);
    let seconds = step.start.elapsed().as_secs_f64();
    let metrics = BTreeMap::from([
        ("loss".to_owned(), loss),
        ("learning_rate".to_owned(), step.learning_rate),
        ("grad_norm".to_owned(), if let Applied::Moved { grad_norm, .. } = applied { grad_norm } else { f64::NAN }),
        ("step_time".to_owned(), seconds),
        ("tokens_per_second/train".to_owned(), lengths().sum::<usize>() as f64 / seconds.max(1e-9)),
    ]);
    recorder.finish_step(job, &step, metrics, seconds)
}

/// The gradient of a step's batch, and again in a smaller shape where memory runs out: until the optimizer moves, a
/// step has changed nothing.
fn policy_gradient(job: &Job, batch: &mut PolicyBatch<'_>) -> Result<(Gradients, PolicyStatistics), TrainError> {
    job.retry_smaller(job.extent(), || {
        let settings = job.policy_settings();
        if job.config.kl_beta > 0.0 {
            let (reference, adapters) = job.reference();
            let log_probs = completion_log_probs(reference, adapters, &batch.groups, &settings, &job.threads)?;
            batch.set_reference_log_probs(log_probs);
        }
        update::policy_gradient(&job.model, &batch.groups, batch.totals, &settings, &job.threads)
    })
}

/// The log-probs of a step's completions under the weights as they are, in the micro-batches that the gradient will
/// have.
fn add_old_log_probs(job: &Job, rollout: &mut StepRollout) -> Result<(), TrainError> {
    let start = Instant::now();
    let batch = policy_batch(&job.config, &job.prompts.train, rollout);
    if batch.groups.is_empty() {
        return Ok(());
    }
    let log_probs = job.retry_smaller(job.extent(), || {
        completion_log_probs(&job.model, Adapters::On, &batch.groups, &job.policy_settings(), &job.threads)
    })?;
    rollout.old_log_probs = Some(log_probs.concat());
    rollout.forward_seconds = start.elapsed().as_secs_f64();
    Ok(())
}

/// The answer is the row's `completion` where it has one, else its `expected` as JSON with a space after each comma and
/// colon.
fn example(job: &Job, prompt: &Prompt) -> Result<Example, TrainError> {
    let written = prompt.row.fields.get("completion").and_then(|text| text.as_str()).map(str::to_owned);
    let answer = match (written, &prompt.row.expected) {
        (Some(text), _) => text,
        (None, Some(expected)) => json_line(expected)?,
        (None, None) => return Err(TrainError::NoAnswer { id: prompt.row.id.clone(), line: prompt.row.line }),
    };
    let mut completion = job.tokenizer.encode(&answer)?;
    completion.extend(job.tokenizer.turn_end_id());
    Ok(Example { prompt: prompt.token_ids.clone(), completion })
}
