//! Evals and requested completions: prompts are prepared, completions sampled and scored, one record each.

#[cfg(feature = "parity")]
mod candle_parity; // the same log-probs by another implementation
mod prompts; // rows as the model reads them
mod sample; // one prompt's completions for a user
mod sample_server; // a model that stays loaded to be sampled from

use std::time::Instant;

use crate::rollout::{Completion, Request, RolloutContext, Sampling, StopReason};
use crate::run::EvalRecord;
use crate::score::Scorer;

#[cfg(feature = "parity")]
pub use candle_parity::{LogProbAgreement, parity_with_candle};
pub use prompts::{Lengths, Prompt, PromptError, prepare, prepare_rows};
pub use sample::{SampleError, SampleSource, resolve_task, sample_row, sampled, task_limit};
pub use sample_server::serve;

#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    #[error("{0}")]
    Text(#[from] crate::text::TextError),
    #[error("{0}")]
    Scorer(#[from] crate::score::ScorerErrors),
    #[error("a score cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The step of an eval's random numbers; no training has it, so an eval never repeats a rollout.
const EVAL_STEP: u32 = u32::MAX;
/// The same for requested samples; a training begins with step 1.
pub const SAMPLE_STEP: u32 = 0;

/// Requests for `samples` completions of each prompt, numbered in order.
pub fn requests(prompts: &[Prompt], step: u32, samples: usize) -> Vec<Request> {
    let request =
        |(prompt_number, prompt): (u32, &Prompt)| Request::new(prompt.token_ids.clone(), prompt_number, step, samples);
    (0..).zip(prompts).map(request).collect()
}

/// Requests for the likeliest completion of each prompt.
pub fn greedy_requests(prompts: &[Prompt]) -> impl Iterator<Item = Request> {
    requests(prompts, EVAL_STEP, 1).into_iter().map(|request| Request { greedy: true, ..request })
}

/// Samples and scores `samples` completions of every prompt; records are in prompt order.
pub fn evaluate(
    context: RolloutContext<'_>,
    scorer: &Scorer,
    prompts: &[Prompt],
    sampling: &Sampling,
    samples: usize,
) -> Result<Vec<EvalRecord>, EvalError> {
    let start = Instant::now();
    let completions = context.rollout(&requests(prompts, EVAL_STEP, samples), sampling)?.completions;
    records(context, scorer, prompts, completions, start.elapsed().as_secs_f64())
}

/// Scores the completions of every prompt, which took `seconds`; records are in prompt order.
pub fn records(
    context: RolloutContext<'_>,
    scorer: &Scorer,
    prompts: &[Prompt],
    completions: Vec<Vec<Completion>>,
    seconds: f64,
) -> Result<Vec<EvalRecord>, EvalError> {
    let count = completions.iter().map(Vec::len).sum::<usize>();
    let seconds = seconds / count.max(1) as f64;
    let scored = context.score(scorer, completions, prompts.iter().map(|prompt| &prompt.row))?;
    scorer.check_errors(scored.iter().flatten().map(|scored| &scored.score))?;
    let mut records = Vec::with_capacity(count);
    for (prompt, completions) in prompts.iter().zip(scored) {
        for (sample, scored) in completions.into_iter().enumerate() {
            let score = scored.score;
            records.push(EvalRecord {
                prompt_id: prompt.row.id.clone(),
                sample,
                tags: prompt.row.tags.clone(),
                reward: score.reward,
                tier: score.tier.name().to_owned(),
                tolerant: score.tolerant,
                exact: score.exact,
                score: serde_json::to_value(&score)?,
                tokens: scored.completion.token_ids.len(),
                truncated: scored.completion.stop == StopReason::Length,
                seconds,
                completion: scored.text,
            });
        }
    }
    Ok(records)
}
