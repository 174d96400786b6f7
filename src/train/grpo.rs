//! GRPO: samples and scores groups, computes the gradient from their advantages, and takes an optimizer step. SFT: does
//! so from the rows' answers.

use std::collections::BTreeMap;
use std::time::Instant;

use super::TrainError;
use super::guided::{FailedGroup, guiding_answers};
use super::job::Job;
use super::metrics::StepUpdate;
use super::oom_retry::{Extent, shrunk};
use super::ranked::{self, SupervisedSettings};
use super::recorder::Recorder;
use super::rollout_groups::{PolicyBatch, StepRollout, policy_batch, remember, sample_steps};
use super::rollout_plan::{requests, take};
use crate::config::Method;
use crate::eval::Prompt;
use crate::model::Adapters;
use crate::plan::StepShape;
use crate::rollout::{RolloutContext, ScoredCompletion};
use crate::score::{Tier, prompt_text, reference_answer};
use crate::update::{Example, StepOutcome};

/// Computes the next steps, all sampled with the current weights. The ratios of the first are exactly 1; the old
/// log-probs of the others are computed by a training forward before any update.
pub(super) fn grpo_interval(job: &mut Job, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    let first = job.state.step + 1;
    recorder.phase(first, "rollout")?;
    let mut rollouts = sample_steps(job)?;
    let shape = job.shape.get();
    rollouts.iter_mut().skip(1).try_for_each(|rollout| add_old_log_probs(job, rollout))?;
    shrunk(first, shape, job.shape.get()).into_iter().try_for_each(|alert| recorder.event(alert))?;
    rollouts.into_iter().try_for_each(|rollout| grpo_step(job, recorder, rollout))
}

fn grpo_step(job: &mut Job, recorder: &mut Recorder<'_>, rollout: StepRollout) -> Result<(), TrainError> {
    recorder.phase(job.state.step + 1, "update")?;
    let mut step = StepUpdate::begin(job);
    let PolicyBatch { groups, totals } = policy_batch(&job.config, job.entropy_coef(), &job.prompts.train, &rollout);
    if !groups.is_empty() {
        let (gradients, statistics) = ranked::gradient(job, groups, totals)?;
        step.statistics = statistics;
        // A non-finite loss has a non-finite gradient, which the optimizer skips.
        step.applied = Some(ranked::update(job, gradients)?);
    }
    remember(job, job.state.step + 1, &rollout)?;
    recorder.step(job, rollout, step)
}

/// Takes one step of supervised fine-tuning on the next prompts' own answers; in `sft+grpo`, rows of one turn without
/// an answer have one of the base's, sampled under the task's grammar, if it is valid.
///
/// # Errors
/// [`TrainError::NoAnswer`] for a prompt without one.
pub(super) fn sft_step(job: &mut Job, recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    recorder.phase(job.state.step + 1, "update")?;
    let mut step = StepUpdate::begin(job);
    let plan = vec![(job.state.step + 1, take(job, job.config.prompt_groups_per_step))];
    let (prompts, requests) = requests(job, &plan);
    let (mut examples, mut asked) = (Vec::new(), Vec::new());
    for (&prompt, request) in prompts.iter().zip(&requests) {
        let prompt = &job.prompts.train[prompt];
        match own_examples(job, prompt) {
            Err(TrainError::NoAnswer { .. })
                if job.config.method == Method::SftGrpo && prompt.row.turn_count() == 1 =>
            {
                asked.push(FailedGroup { row: asked.len(), prompt, request });
            }
            own => examples.extend(own?),
        }
    }
    examples.extend(valid_answers_of_base(job, &asked)?);
    if examples.is_empty() {
        return recorder.finish_step(job, &step, BTreeMap::new(), &[], step.start.elapsed().as_secs_f64());
    }
    let lengths = || examples.iter().map(|example| example.prompt.len() + example.completion.len());
    let longest_sequence = lengths().max().unwrap_or(0);
    let extent = Extent { longest_sequence, all: longest_sequence * examples.len() };
    let tokens = examples.iter().map(|example| example.completion.len()).sum();
    let settings = || {
        let StepShape { tokens_per_micro_batch, recompute } = job.shape.get();
        SupervisedSettings { tokens, tokens_per_micro_batch, recompute }
    };
    let (gradients, loss) = ranked::supervised(job, &examples, settings, extent)?;
    let applied = ranked::update(job, gradients)?;
    step.applied = Some(applied);
    let seconds = step.start.elapsed().as_secs_f64();
    let metrics = BTreeMap::from([
        ("loss".to_owned(), loss),
        ("learning_rate".to_owned(), step.learning_rate),
        (
            "grad_norm".to_owned(),
            if let StepOutcome::Updated { grad_norm, .. } = applied { grad_norm } else { f64::NAN },
        ),
        ("step_time".to_owned(), seconds),
        ("tokens_per_second/train".to_owned(), lengths().sum::<usize>() as f64 / seconds.max(1e-9)),
    ]);
    recorder.finish_step(job, &step, metrics, &[], seconds)
}

/// Computes the log-probs of a step's completions under the current weights, in the gradient's micro-batches.
fn add_old_log_probs(job: &Job, rollout: &mut StepRollout) -> Result<(), TrainError> {
    let start = Instant::now();
    let batch = policy_batch(&job.config, job.entropy_coef(), &job.prompts.train, rollout);
    if batch.groups.is_empty() {
        return Ok(());
    }
    rollout.old_log_probs = Some(ranked::log_probs(job, batch.groups)?);
    rollout.forward_seconds = start.elapsed().as_secs_f64();
    rollout.ranks = job.rank_work.take(&rollout.ranks);
    Ok(())
}

/// What the base answers under the task's grammar, where that is valid.
fn valid_answers_of_base(job: &Job, asked: &[FailedGroup<'_>]) -> Result<Vec<Example>, TrainError> {
    let (model, adapters) = job.model_for(true).unwrap_or((&job.model, Adapters::On));
    let base = RolloutContext { model, adapters, ..job.rollout_context() };
    let answers = guiding_answers(job, &base, asked)?.into_iter();
    let example = |(row, answer): (usize, ScoredCompletion)| {
        let is_valid = answer.score.tier == Tier::Valid && !answer.score.is_error();
        is_valid
            .then(|| Example { prompt: asked[row].prompt.token_ids.clone(), completion: answer.completion.token_ids })
    };
    Ok(answers.filter_map(example).collect())
}

/// One for each turn of the row, after the answers of the turns before.
fn own_examples(job: &Job, prompt: &Prompt) -> Result<Vec<Example>, TrainError> {
    let (mut examples, mut answers) = (Vec::new(), Vec::new());
    while let Some(row) = prompt.row.after(&answers) {
        let missing =
            || TrainError::NoAnswer { id: row.id.clone(), line: row.line, method: job.config.method, instead: None };
        let answer = reference_answer(&job.task, &job.scorer, &row)?.ok_or_else(missing)?;
        let asked = if answers.is_empty() {
            prompt.token_ids.clone()
        } else {
            job.tokenizer.encode(&prompt_text(&job.task, &job.tokenizer, &row)?)?
        };
        let mut completion = job.tokenizer.encode(&answer)?;
        completion.extend(job.tokenizer.turn_end_id());
        examples.push(Example { prompt: asked, completion });
        answers.push(answer);
    }
    Ok(examples)
}
