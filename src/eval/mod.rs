//! Held-out passes: prompts prepared once, completions drawn, scored, one record each.

#[cfg(feature = "parity")]
mod candle_parity; // the same log-probs by another implementation
mod prompts; // rows as the model reads them

use std::time::Instant;

use crate::model::{Adapters, Decoder};
use crate::rollout::{Completion, Request, Sampling, StopReason, ThreadPool, generate};
use crate::run::EvalRecord;
use crate::score::Scorer;
use crate::text::Tokenizer;

#[cfg(feature = "parity")]
pub use candle_parity::{LogProbAgreement, parity_with_candle};
pub use prompts::{Lengths, Prompt, PromptError, prepare, prepare_rows};

/// What a pass is made with.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    pub model: &'a Decoder,
    /// Adapters on: the trained model; off: the base.
    pub adapters: Adapters,
    pub tokenizer: &'a Tokenizer,
    /// The task's scorer.
    pub scorer: &'a Scorer,
    /// Where it is computed.
    pub threads: &'a ThreadPool,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A tensor operation failed.
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    /// Tokens could not become text.
    #[error("{0}")]
    Text(#[from] crate::text::TextError),
    /// A score could not be written as JSON.
    #[error("a score cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// `samples` completions of every prompt, scored; the records in the order of the prompts.
pub fn evaluate(pass: Pass<'_>, prompts: &[Prompt], sampling: &Sampling, samples: usize) -> Result<Vec<EvalRecord>, EvalError> {
    let start = Instant::now();
    let request = |(number, prompt): (usize, &Prompt)| Request {
        prompt: prompt.token_ids.clone(),
        prompt_number: number as u32,
        // No step of a training draws from this place, so that an eval never repeats a rollout's randomness.
        step: u32::MAX,
        samples,
    };
    let requests: Vec<Request> = prompts.iter().enumerate().map(request).collect();
    let drawn = generate(pass.model, pass.adapters, &requests, sampling, pass.threads)?;
    let share = start.elapsed().as_secs_f64() / (prompts.len() * samples).max(1) as f64;
    let mut records = Vec::with_capacity(prompts.len() * samples);
    let decode = |completion: &Completion| pass.tokenizer.decode(&completion.token_ids, true);
    let texts = drawn.iter().flatten().map(decode).collect::<Result<Vec<_>, _>>()?;
    let rows = prompts.iter().zip(&drawn).flat_map(|(prompt, drawn)| drawn.iter().map(|_| Some(&prompt.row)));
    let scores = pass.scorer.score_all(&texts.iter().map(String::as_str).zip(rows).collect::<Vec<_>>());
    let mut scored = texts.into_iter().zip(scores);
    for (prompt, completions) in prompts.iter().zip(drawn) {
        for ((sample, completion), (text, score)) in completions.into_iter().enumerate().zip(scored.by_ref()) {
            records.push(EvalRecord {
                prompt_id: prompt.row.id.clone(),
                sample,
                tags: prompt.row.tags.clone(),
                reward: score.reward,
                tier: score.tier.name().to_owned(),
                tolerant: score.tolerant,
                exact: score.exact,
                score: serde_json::to_value(&score)?,
                tokens: completion.token_ids.len(),
                truncated: completion.stop == StopReason::Length,
                seconds: share,
                completion: text,
            });
        }
    }
    Ok(records)
}
