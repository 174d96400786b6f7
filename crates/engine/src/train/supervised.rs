//! SFT: trains on rows' answers, or on the base's where a row has none.

use std::collections::BTreeMap;

use super::checkpointing::collect;
use super::error::TrainError;
use super::gradient_shape::Extent;
use super::guided::{GuidingAnswer, demonstrated, guiding_answers};
use super::metrics::StepUpdate;
use super::recorder::Record;
use super::rollout_order::StepPlan;
use super::trainer::Trainer;
use crate::config::Method;
use crate::facts::PhaseKind;
use crate::policy::{PolicyVersion, Prompt, Turn, answer_to_learn, render};
use crate::score::Tier;
use crate::update::{Example, StepOutcome, SupervisedSettings, supervised_gradient};

/// One SFT step on the next prompts' answers; in `sft+grpo`, single-turn rows without one use a
/// valid answer of the base, sampled under the task's grammar.
///
/// # Errors
/// [`TrainError::NoAnswer`] for a prompt without one.
pub(super) fn sft_step(trainer: &mut Trainer, record: &mut Record<'_>) -> Result<(), TrainError> {
    let step = trainer.state.step + 1;
    record.phase(step, PhaseKind::Update)?;
    let mut update = StepUpdate::begin(trainer);
    let plan = trainer.plan(step, trainer.config.prompt_groups_per_step as u64);
    let examples = examples(trainer, &plan.share(&trainer.ranks))?;
    let lengths: Vec<usize> = examples.iter().map(Example::tokens).collect();
    update.rank.trained_tokens = lengths.iter().sum();
    let shares = trainer.ranks.exchange(Share {
        examples: examples.len(),
        longest: lengths.into_iter().max().unwrap_or(0),
        trained_tokens: update.rank.trained_tokens,
        loss_tokens: examples.iter().map(Example::loss_tokens).sum(),
    })?;
    let sum = |count: fn(&Share) -> usize| shares.iter().map(count).sum::<usize>();
    let all = sum(|share| share.examples);
    if all == 0 {
        return record.finish_step(trainer, update, BTreeMap::new());
    }
    let longest_sequence = shares.iter().map(|share| share.longest).max().unwrap_or(0);
    let extent = Extent {
        longest_sequence,
        all: longest_sequence * all,
    };
    let (policy, loss_tokens) = (&trainer.policy, sum(|share| share.loss_tokens));
    let (gradient, loss) = trainer.shrink_together(extent, || {
        let shape = trainer.shape.get();
        let settings = SupervisedSettings {
            loss_tokens,
            tokens_per_micro_batch: shape.tokens_per_micro_batch,
            recompute: shape.recompute,
        };
        supervised_gradient(&policy.model, &examples, settings, &policy.threads)
    })?;
    let loss = trainer.ranks.sum(loss)?;
    let applied = trainer.apply(&gradient)?;
    update.applied = Some(applied);
    update.end(&trainer.ranks);
    let seconds = update.update_seconds;
    let metrics = BTreeMap::from([
        ("loss".to_owned(), loss),
        ("learning_rate".to_owned(), update.learning_rate),
        (
            "grad_norm".to_owned(),
            if let StepOutcome::Updated { grad_norm, .. } = applied {
                grad_norm
            } else {
                f64::NAN
            },
        ),
        ("step_time".to_owned(), seconds),
        (
            "tokens_per_second/train".to_owned(),
            sum(|share| share.trained_tokens) as f64 / seconds.max(1e-9),
        ),
    ]);
    record.on_rank_0(|recorder| collect(recorder, false))?;
    record.finish_step(trainer, update, metrics)
}

/// A rank's share of a step.
#[derive(serde::Serialize, serde::Deserialize)]
struct Share {
    examples: usize,
    /// Tokens of the longest example.
    longest: usize,
    /// Including prompts.
    trained_tokens: usize,
    /// Tokens averaged by the loss.
    loss_tokens: usize,
}

fn examples(trainer: &Trainer, plan: &StepPlan) -> Result<Vec<Example>, TrainError> {
    let (mut examples, mut unanswered) = (Vec::new(), Vec::new());
    for planned in plan.planned() {
        let prompt = &trainer.prompts.train[planned.prompt];
        match own_examples(trainer, prompt) {
            Err(TrainError::NoAnswer { .. })
                if trainer.config.method == Method::SftGrpo && prompt.row.turn_count() == 1 =>
            {
                unanswered.push(planned.question(trainer));
            }
            own => examples.extend(own?),
        }
    }
    let base = if trainer.has_base() {
        PolicyVersion::Base
    } else {
        PolicyVersion::Trained
    };
    for GuidingAnswer { question, answer } in guiding_answers(trainer, base, &unanswered)? {
        if answer.score.tier == Tier::Valid && !answer.score.is_error() {
            examples.extend(completed(&answer, &unanswered[question].prompt.token_ids));
        }
    }
    Ok(examples)
}

/// An answered turn: one, or where prompts are no continuations, one from each on. `first`: the
/// row's prompt.
fn completed(turn: &Turn, first: &[u32]) -> Vec<Example> {
    let (mut examples, mut read): (Vec<Example>, Vec<u32>) = (Vec::new(), Vec::new());
    for (prompt, completion) in turn.prompted(first) {
        let completion = &completion.token_ids;
        match (examples.last_mut(), prompt.strip_prefix(read.as_slice())) {
            (Some(example), Some(follows)) => {
                example.later.push((follows.to_vec(), completion.clone()));
            }
            _ => examples.push(Example {
                prompt: prompt.to_vec(),
                completion: completion.clone(),
                ..Example::default()
            }),
        }
        read = [prompt, completion].concat();
    }
    examples
}

/// Of the row's demonstration, or one per turn of the row, following the answers
/// of earlier turns.
fn own_examples(trainer: &Trainer, prompt: &Prompt) -> Result<Vec<Example>, TrainError> {
    let (mut examples, mut answers) = (Vec::new(), Vec::new());
    let (tokenizer, task) = (&trainer.policy.tokenizer, trainer.task_of(prompt));
    if let Some(held) = demonstrated(trainer, prompt)? {
        return Ok(completed(&held, &prompt.token_ids));
    }
    while let Some(row) = prompt.row.after(&answers) {
        let missing = || TrainError::NoAnswer {
            id: row.id.clone(),
            line: row.line,
            method: trainer.config.method,
            instead: None,
        };
        let answer =
            answer_to_learn(task.task(), &task.scorer, tokenizer, &row)?.ok_or_else(missing)?;
        let prompt_ids = if answers.is_empty() {
            prompt.token_ids.clone()
        } else {
            render(task.task(), row, tokenizer)?.token_ids
        };
        let completion = tokenizer.answer_ids(&answer)?;
        examples.push(Example {
            prompt: prompt_ids,
            completion,
            ..Example::default()
        });
        answers.push(answer);
    }
    Ok(examples)
}
