//! Supervised fine-tuning on the rows' own answers: the start that GRPO then improves on.

use std::collections::BTreeMap;
use std::time::Instant;

use super::TrainError;
use super::job::Job;
use super::oom_retry::{Extent, retry_smaller, shrunk};
use super::recorder::Recorder;
use super::rollout_groups::next_prompts;
use crate::eval::Prompt;
use crate::run::events::Step;
use crate::text::json_line;
use crate::update::{Applied, Example, supervised_gradient};

/// One optimizer step on the next prompts' answers.
///
/// # Errors
/// [`TrainError::NoAnswer`] for a prompt without one.
pub(super) fn sft_step(job: &mut Job, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    let step = job.state.step + 1;
    recorder.phase(step, "update")?;
    let start = Instant::now();
    let prompts = next_prompts(job, job.config.prompt_groups_per_step);
    let examples = prompts.iter().map(|&prompt| example(job, &job.prompts.train[prompt])).collect::<Result<Vec<_>, _>>()?;
    let shape = job.shape;
    let learning_rate = job.optimizer.learning_rate(job.optimizer.updates());
    let longest = examples.iter().map(|example| example.prompt.len() + example.completion.len()).max().unwrap_or(0);
    let extent = Extent { longest_sequence: longest, all: longest * examples.len() };
    let (gradients, loss) = retry_smaller(
        &mut job.shape,
        extent,
        || _ = job.engine.trim_memory(),
        |shape| supervised_gradient(&job.model, &examples, shape.tokens_per_micro_batch, shape.recompute, &job.threads),
    )?;
    let applied = job.optimizer.apply(job.model.parameters(), &gradients)?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens: usize = examples.iter().map(|example| example.prompt.len() + example.completion.len()).sum();
    let grad_norm = if let Applied::Moved { grad_norm, .. } = applied { grad_norm } else { f64::NAN };
    let mut metrics = BTreeMap::from([
        ("loss".to_owned(), loss),
        ("learning_rate".to_owned(), learning_rate),
        ("grad_norm".to_owned(), grad_norm),
        ("step_time".to_owned(), seconds),
        ("tokens_per_second/train".to_owned(), tokens as f64 / seconds.max(1e-9)),
    ]);
    metrics.extend(job.engine.peak_memory().map(|bytes| ("memory/peak_bytes".to_owned(), bytes as f64)));
    job.finish_step(applied == Applied::NotFinite, seconds);
    recorder.event(Step { step, seconds, metrics })?;
    shrunk(step, shape, job.shape).into_iter().try_for_each(|alert| recorder.event(alert))?;
    recorder.step_done(step)?;
    job.check_skipped()
}

/// The answer is the row's `completion` where it has one, else its `expected` as JSON with a space after each comma and colon.
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
