//! The next-token gradient of pretraining and SFT: mean negative log-prob over the completions' tokens.

use candle_core::Result;

use super::accumulate::sum_gradients;
use super::log_probs::accumulate_gradient;
use super::micro_batch::pack;
use crate::model::{Decoder, Gradients};
use crate::rollout::ThreadPool;

/// A prompt and the completion to imitate, the stop token included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Given, not learnt.
    pub prompt: Vec<u32>,
    /// Learnt.
    pub completion: Vec<u32>,
}

/// The gradient over `examples`, and the mean loss in nats a token.
pub fn supervised_gradient(
    model: &Decoder,
    examples: &[Example],
    tokens_per_micro_batch: usize,
    recompute: bool,
    threads: &ThreadPool,
) -> Result<(Gradients, f64)> {
    let groups = examples.iter().map(|example| (example.prompt.as_slice(), vec![example.completion.as_slice()]));
    let micro_batches = pack(groups, tokens_per_micro_batch);
    let tokens: usize = examples.iter().map(|example| example.completion.len()).sum();
    let share = 1.0 / tokens.max(1) as f64;
    let (sum, losses) = sum_gradients(model, &micro_batches, threads, |micro_batch, gradients| {
        accumulate_gradient(model, micro_batch, 1.0, recompute, gradients, |sequences| {
            let loss: f64 = sequences.iter().flatten().map(|token| -f64::from(token.log_prob)).sum();
            (sequences.iter().map(|tokens| vec![-share; tokens.len()]).collect(), loss * share)
        })
    })?;
    Ok((sum, losses.into_iter().fold(0.0, |sum, loss| sum + loss)))
}
