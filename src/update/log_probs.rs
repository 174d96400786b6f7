//! Log-probs of completions and their gradient: only completion rows reach the head, a chunk at a time, so no [tokens,
//! vocabulary] tensor of the whole batch exists.

use candle_core::{Result, Tensor};

use super::MicroBatch;
use crate::kernels::embedding::scatter_rows;
use crate::kernels::log_probs::{TokenLogProb, token_log_probs, token_log_probs_backward_as};
use crate::model::{Activations, Adapters, Decoder, Gradients};
use crate::plan::HEAD_ROWS;

/// The log-probs of each sequence's tokens, without a gradient.
pub fn log_probs(
    model: &Decoder,
    micro_batch: &MicroBatch,
    adapters: Adapters,
    temperature: f64,
) -> Result<Vec<Vec<TokenLogProb>>> {
    let normed = model.forward(&micro_batch.batch, adapters)?;
    let (flat, _) = forward_rows(model, &normed, micro_batch, temperature)?;
    Ok(by_sequence(micro_batch, flat))
}

/// The forward half of a micro-batch's gradient, with what its backward half reads.
pub(super) struct ForwardPass<'a> {
    /// Of each sequence's tokens.
    pub(super) log_probs: Vec<Vec<TokenLogProb>>,
    model: &'a Decoder,
    micro_batch: &'a MicroBatch,
    temperature: f64,
    normed: Tensor,
    activations: Activations,
    /// Where one chunk held them all.
    logits: Option<Tensor>,
}

impl<'a> ForwardPass<'a> {
    pub(super) fn new(
        model: &'a Decoder,
        micro_batch: &'a MicroBatch,
        temperature: f64,
        recompute: bool,
    ) -> Result<Self> {
        let (normed, activations) = model.forward_saving(&micro_batch.batch, recompute)?;
        let (flat, logits) = forward_rows(model, &normed, micro_batch, temperature)?;
        Ok(Self {
            log_probs: by_sequence(micro_batch, flat),
            model,
            micro_batch,
            temperature,
            normed,
            activations,
            logits,
        })
    }

    /// Adds the gradient of a loss; `weights`: its derivative by each log-prob.
    pub(super) fn backward(self, weights: &[Vec<f64>], gradients: &mut Gradients) -> Result<()> {
        let Self { model, micro_batch, temperature, normed, activations, logits: last_logits, .. } = self;
        let weights = weights.concat();
        let (rows, targets) = rows_and_targets(micro_batch);
        let mut normed_gradient: Option<Tensor> = None;
        for (index, chunk) in rows.chunks(HEAD_ROWS).enumerate() {
            let range = index * HEAD_ROWS..index * HEAD_ROWS + chunk.len();
            let hidden = select(&normed, chunk)?;
            let logits = match &last_logits {
                Some(logits) => logits.clone(),
                None => model.logits(&hidden)?,
            };
            let (targets, weights) = (&targets[range.clone()], &weights[range]);
            let logits_gradient = token_log_probs_backward_as(&logits, targets, weights, temperature, hidden.dtype())?;
            let chunk_gradient = model.logits_backward(&logits_gradient, &hidden, gradients)?;
            let scattered = scatter_rows(&chunk_gradient, chunk, micro_batch.batch.rows())?;
            normed_gradient = Some(match normed_gradient {
                Some(sum) => (sum + scattered)?,
                None => scattered,
            });
        }
        match normed_gradient {
            Some(gradient) => model.backward(&micro_batch.batch, activations, &gradient, gradients),
            None => Ok(()),
        }
    }
}

/// Every row's log-prob in the order of the sequences, and the logits where one chunk held them all.
fn forward_rows(
    model: &Decoder,
    normed: &Tensor,
    micro_batch: &MicroBatch,
    temperature: f64,
) -> Result<(Vec<TokenLogProb>, Option<Tensor>)> {
    let (rows, targets) = rows_and_targets(micro_batch);
    let mut flat = Vec::with_capacity(rows.len());
    let mut last_logits = None;
    for (chunk, targets) in rows.chunks(HEAD_ROWS).zip(targets.chunks(HEAD_ROWS)) {
        let logits = model.logits(&select(normed, chunk)?)?;
        flat.extend(token_log_probs(&logits, targets, temperature)?);
        last_logits = (rows.len() <= HEAD_ROWS).then_some(logits);
    }
    Ok((flat, last_logits))
}

fn select(normed: &Tensor, rows: &[u32]) -> Result<Tensor> {
    normed.index_select(&Tensor::from_slice(rows, rows.len(), normed.device())?, 0)
}

fn rows_and_targets(micro_batch: &MicroBatch) -> (Vec<u32>, Vec<u32>) {
    let rows = micro_batch.sequences.iter().flat_map(|sequence| sequence.rows.iter().copied()).collect();
    let targets = micro_batch.sequences.iter().flat_map(|sequence| sequence.targets.iter().copied()).collect();
    (rows, targets)
}

fn by_sequence(micro_batch: &MicroBatch, flat: Vec<TokenLogProb>) -> Vec<Vec<TokenLogProb>> {
    let mut rest = flat.into_iter();
    micro_batch.sequences.iter().map(|sequence| rest.by_ref().take(sequence.targets.len()).collect()).collect()
}
