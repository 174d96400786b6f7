//! Guard prompts as a model reads them, and the log-probs of their references.

use candle_core::Result;

use crate::dataset::guard_rows;
use crate::model::{Adapters, Decoder};
use crate::policy::{EVAL_STEP, Lengths, PromptError};
use crate::rollout::{Completion, Request, ThreadPool};
use crate::score::thinking_of;
use crate::task::Task;
use crate::text::Tokenizer;
use crate::update::{log_probs, pack};

/// A guard prompt in tokens.
#[derive(Clone, Debug)]
pub struct GuardPrompt {
    pub id: String,
    /// At least one token.
    prompt: Vec<u32>,
    /// The end of the turn included, of an answer.
    reference: Vec<u32>,
    /// The text of an answer; `None` of plain text.
    answer: Option<String>,
}

/// The task's guard prompts. Its system prompt is no part of them.
///
/// # Errors
/// [`PromptError`] naming file, line and row.
pub fn prepare_guard(
    task: &Task,
    tokenizer: &Tokenizer,
    lengths: Lengths,
) -> std::result::Result<Vec<GuardPrompt>, PromptError> {
    let label = task.prompts.guard.as_ref().map_or_else(String::new, |file| task.label(file));
    let prepared = guard_rows(task)?.into_iter().map(|row| {
        let place = format!("{label} line {} (`{}`)", row.line, row.id);
        let failed = |source| PromptError::Text { place: place.clone(), source };
        let mut reference = tokenizer.encode(&row.reference).map_err(failed)?;
        let thinking = thinking_of(task);
        let (prompt, answer) = if row.messages.is_empty() {
            // The first token has none before it.
            let rest = reference.split_off(1.min(reference.len()));
            (std::mem::replace(&mut reference, rest), None)
        } else {
            let prompt = tokenizer.prompt_ids(&row.messages, None, thinking).map_err(failed)?;
            reference.extend(tokenizer.turn_end_id());
            (prompt, Some(row.reference))
        };
        let lengths = Lengths { max_completion_tokens: lengths.max_completion_tokens.max(reference.len()), ..lengths };
        if prompt.len() > lengths.prompt_limit() {
            return Err(PromptError::TooLong { place, tokens: prompt.len(), lengths });
        }
        Ok(GuardPrompt { id: row.id, prompt, reference, answer })
    });
    prepared.collect()
}

/// Of each reference the sum of its tokens' log-probs, nats, and their number.
///
/// # Errors
/// A failed tensor operation, or cancelled work.
pub fn guard_log_probs(
    model: &Decoder,
    prompts: &[GuardPrompt],
    tokens_per_micro_batch: usize,
    threads: &ThreadPool,
) -> Result<Vec<(f64, usize)>> {
    let groups = prompts.iter().map(|prompt| (prompt.prompt.as_slice(), vec![prompt.reference.as_slice()]));
    let packed = pack(groups, tokens_per_micro_batch);
    let found = threads.map(&packed, |micro_batch| log_probs(model, micro_batch, Adapters::On, 1.0))?;
    let mut sums = vec![(0.0, 0); prompts.len()];
    for (micro_batch, sequences) in packed.iter().zip(found) {
        for (&(prompt, _), tokens) in micro_batch.owners.iter().zip(sequences) {
            sums[prompt].0 += tokens.iter().map(|token| f64::from(token.log_prob)).sum::<f64>();
            sums[prompt].1 += tokens.len();
        }
    }
    Ok(sums)
}

/// Requests for the likeliest answer of each prompt that has one of at most `most_tokens`.
pub fn guard_requests(prompts: &[GuardPrompt], most_tokens: usize) -> Vec<Request> {
    let asked = answered(prompts, most_tokens);
    let request = |(number, prompt): (u32, &GuardPrompt)| Request {
        greedy: true,
        // One more, so that a longer answer differs.
        lengths: vec![prompt.reference.len() + 1],
        ..Request::new(prompt.prompt.clone(), number, EVAL_STEP, 1)
    };
    (0..).zip(asked).map(request).collect()
}

/// How many completions of [`guard_requests`] are their prompt's reference, but for space around it; `None` without one.
///
/// # Errors
/// If tokens cannot be decoded.
pub fn guard_exact(
    prompts: &[GuardPrompt],
    most_tokens: usize,
    completions: &[Vec<Completion>],
    tokenizer: &Tokenizer,
) -> std::result::Result<Option<(usize, usize)>, crate::text::TextError> {
    let mut exact = (0, 0);
    for (prompt, completion) in answered(prompts, most_tokens).zip(completions.iter().flatten()) {
        let text = tokenizer.decode(&completion.token_ids, true)?;
        let is_equal = prompt.answer.as_ref().is_some_and(|answer| answer.trim() == text.trim());
        exact = (exact.0 + usize::from(is_equal), exact.1 + 1);
    }
    Ok((exact.1 > 0).then_some(exact))
}

fn answered(prompts: &[GuardPrompt], most_tokens: usize) -> impl Iterator<Item = &GuardPrompt> {
    prompts.iter().filter(move |prompt| prompt.answer.is_some() && prompt.reference.len() <= most_tokens)
}
