//! Next-token gradient of pretraining and SFT: mean negative log-prob over completion tokens.

use candle_core::Result;

use super::log_probs::add_gradient;
use super::micro_batch::{Piece, pack, sum_gradients};
use crate::kernels::log_probs::TokenWeight;
use crate::model::{Decoder, Gradients};
use crate::rollout::ThreadPool;

/// A prompt and its target completion, with stop token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Tokens without loss.
    pub prompt: Vec<u32>,
    /// Averaged by the loss.
    pub completion: Vec<u32>,
    /// Continuations: tokens without loss, then a completion.
    pub later: Vec<(Vec<u32>, Vec<u32>)>,
}

impl Example {
    /// All tokens.
    pub fn tokens(&self) -> usize {
        let later = self
            .later
            .iter()
            .map(|(follows, completion)| follows.len() + completion.len());
        self.prompt.len() + self.completion.len() + later.sum::<usize>()
    }

    /// Tokens averaged by the loss.
    pub fn loss_tokens(&self) -> usize {
        self.completion.len()
            + self
                .later
                .iter()
                .map(|(_, completion)| completion.len())
                .sum::<usize>()
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        let later = self.later.iter().map(|(follows, token_ids)| Piece {
            follows: Some(follows),
            token_ids,
        });
        std::iter::once(self.completion.as_slice().into())
            .chain(later)
            .collect()
    }
}

/// How a supervised gradient is computed.
#[derive(Clone, Copy, Debug)]
pub struct SupervisedSettings {
    /// Completion tokens of the step's examples on all ranks: the loss is their mean.
    pub loss_tokens: usize,
    pub tokens_per_micro_batch: usize,
    /// Whether to keep only layer inputs and recompute the rest.
    pub recompute: bool,
}

/// Gradient over `examples`, and their part of the step's mean loss, nats/token.
///
/// # Errors
/// A failed tensor operation, or cancellation.
pub fn supervised_gradient(
    model: &Decoder,
    examples: &[Example],
    settings: SupervisedSettings,
    threads: &ThreadPool,
) -> Result<(Gradients, f64)> {
    let SupervisedSettings {
        loss_tokens,
        tokens_per_micro_batch,
        recompute,
    } = settings;
    let groups = examples
        .iter()
        .map(|example| (example.prompt.as_slice(), example.pieces()));
    let micro_batches = pack(groups, tokens_per_micro_batch);
    let share = 1.0 / loss_tokens.max(1) as f64;
    let (sum, losses) = sum_gradients(model, &micro_batches, threads, |micro_batch, gradients| {
        let mut loss = 0.0;
        add_gradient(
            model,
            micro_batch,
            1.0,
            recompute,
            gradients,
            |_, tokens| {
                loss -= tokens
                    .iter()
                    .map(|token| f64::from(token.log_prob))
                    .sum::<f64>();
                vec![TokenWeight::for_log_prob(-share); tokens.len()]
            },
        )?;
        Ok(loss * share)
    })?;
    Ok((sum, losses.into_iter().fold(0.0, |sum, loss| sum + loss)))
}
