//! Log-probs of completions and their gradient: only completion rows reach the head, a few
//! sequences at a time, so no [tokens, vocabulary] tensor of the whole batch exists.

use std::ops::{Deref, Range};
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::{MicroBatch, pack};
use crate::kernels::accumulate::accumulate;
use crate::kernels::embedding::{gather_rows, scatter_rows};
use crate::kernels::log_probs::{
    TokenLogProb, TokenWeight, token_log_probs, token_log_probs_backward_as,
};
use crate::model::{AdapterUse, Adapters, Decoder, Gradients, Pauses, RouterUse};
use crate::plan::{HEAD_ROWS, HEAD_ROWS_OF_ONE};
use crate::rollout::likeliest;

/// Log-probs of each sequence's tokens, without gradient.
pub fn log_probs(
    model: &Decoder,
    micro_batch: &MicroBatch,
    adapters: Adapters,
    temperature: f64,
) -> Result<Vec<Vec<TokenLogProb>>> {
    let normed = model.forward(&micro_batch.batch, adapters)?;
    let mut found = Vec::with_capacity(micro_batch.sequences.len());
    for part in HeadPart::all(model, &normed, micro_batch, temperature) {
        found.extend(part.log_probs()?.0);
    }
    Ok(found)
}

/// A model that reads texts, and whose adapters.
#[derive(Clone, Copy, Debug)]
pub struct ReadingModel<'a> {
    pub model: &'a Decoder,
    pub adapters: Adapters,
    /// Adapter and rank per adapter if there are several, as in [`AdapterUse::own`].
    pub own: Option<(u32, usize)>,
}

/// A token of an evaluated text.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadToken {
    /// Nats, at temperature 1.
    pub log_prob: f32,
    /// Most likely tokens at its position with log-probs, descending.
    pub likeliest: Vec<(u32, f32)>,
}

/// Evaluates all sequences' tokens, in order, with `count` alternatives each.
pub async fn read_tokens(
    reading: ReadingModel<'_>,
    micro_batch: &MicroBatch,
    count: usize,
) -> Result<Vec<ReadToken>> {
    let mut pauses = Pauses::default();
    let normed = forward(reading, micro_batch, &mut pauses).await?;
    let mut found = Vec::new();
    let at_once = match count {
        0 => HEAD_ROWS_OF_ONE,
        _ => LOGIT_ROWS,
    };
    for part in HeadPart::all(reading.model, &normed, micro_batch, 1.0) {
        for (rows, targets) in part.chunks(at_once) {
            let logits = part.logits(rows)?;
            let own = token_log_probs(&logits, targets, 1.0)?;
            let alternatives = match count {
                0 => vec![Vec::new(); own.len()],
                _ => likeliest(&logits, count)?,
            };
            let read = own.iter().zip(alternatives);
            found.extend(read.map(|(own, likeliest)| ReadToken {
                log_prob: own.log_prob,
                likeliest,
            }));
            pauses.after_head(rows.len()).await;
        }
    }
    Ok(found)
}

/// As [`read_tokens`], of the tokens of a text after its first.
pub async fn read_text(
    reading: ReadingModel<'_>,
    token_ids: &[u32],
    count: usize,
) -> Result<Vec<ReadToken>> {
    let (first, rest) = token_ids.split_at(1);
    let mut tokens = Vec::with_capacity(rest.len());
    for packed in pack([(first, vec![rest])], usize::MAX) {
        tokens.extend(read_tokens(reading, &packed, count).await?);
    }
    Ok(tokens)
}

/// Rows after the final norm.
async fn forward(
    reading: ReadingModel<'_>,
    micro_batch: &MicroBatch,
    pauses: &mut Pauses,
) -> Result<Tensor> {
    let (ReadingModel { model, own, .. }, rows) = (reading, micro_batch.batch.rows());
    let column = |(adapter, _): (u32, usize)| Tensor::full(adapter, rows, model.device());
    let adapters = own.map(column).transpose()?;
    let slot = own.map_or(0, |(_, slot)| slot);
    let adapters = AdapterUse::for_rows(reading.adapters, adapters.as_ref(), slot);
    let batch = &micro_batch.batch;
    model.forward_in_pieces(batch, adapters, pauses).await
}

/// The logits of one position: a value for each token of the vocabulary.
#[derive(Clone, Debug)]
pub struct LogitRow {
    /// Of several positions, as the host read them.
    rows: Arc<Vec<f32>>,
    range: Range<usize>,
}

impl Deref for LogitRow {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.rows[self.range.clone()]
    }
}

/// The logits after the tokens before `positions` of each sequence, in order, at temperature 1.
pub async fn read_logits(
    reading: ReadingModel<'_>,
    micro_batch: &MicroBatch,
    positions: &[Vec<usize>],
) -> Result<Vec<LogitRow>> {
    let mut pauses = Pauses::default();
    let normed = forward(reading, micro_batch, &mut pauses).await?;
    let model = reading.model;
    let of_sequence = |(sequence, positions): (usize, &Vec<usize>)| {
        let at = |position: &usize| (sequence, *position);
        positions.iter().map(at).collect::<Vec<_>>()
    };
    let asked: Vec<(usize, usize)> = positions.iter().enumerate().flat_map(of_sequence).collect();
    let mut found = Vec::with_capacity(asked.len());
    for chunk in asked.chunks(LOGIT_ROWS) {
        let row = |(sequence, position): &(usize, usize)| {
            micro_batch.sequences[*sequence].rows[*position]
        };
        let rows: Vec<u32> = chunk.iter().map(row).collect();
        let rows = Tensor::from_slice(&rows, rows.len(), normed.device())?;
        let logits = model.logits(&gather_rows(&normed, &rows, normed.dtype())?)?;
        let (_, size) = logits.dims2()?;
        let rows = Arc::new(logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?);
        found.extend((0..chunk.len()).map(|number| LogitRow {
            rows: Arc::clone(&rows),
            range: number * size..(number + 1) * size,
        }));
        pauses.after_logits(chunk.len()).await;
    }
    Ok(found)
}

/// Rows of logits that are held twice at once.
const LOGIT_ROWS: usize = 64;

/// Adds a loss gradient over a micro-batch. `d_log_probs`: derivative by each token of a sequence,
/// given its index and log-probs; called as soon as these are known, so logits are computed once
/// (twice for a sequence with more rows than the head takes at once).
pub(super) fn add_gradient(
    model: &Decoder,
    micro_batch: &MicroBatch,
    temperature: f64,
    recompute: bool,
    gradients: &mut Gradients,
    mut d_log_probs: impl FnMut(usize, &[TokenLogProb]) -> Vec<TokenWeight>,
) -> Result<Vec<RouterUse>> {
    let (normed, activations) = model.forward_saving(&micro_batch.batch, recompute)?;
    let routers = activations.routers().to_vec();
    let mut sum: Option<Tensor> = None;
    for part in HeadPart::all(model, &normed, micro_batch, temperature) {
        let (log_probs, logits) = part.log_probs()?;
        let weights = part
            .sequences
            .clone()
            .zip(&log_probs)
            .flat_map(|(index, tokens)| d_log_probs(index, tokens));
        for (rows, gradient) in
            part.backward(logits, &weights.collect::<Vec<TokenWeight>>(), gradients)?
        {
            let scattered = scatter_rows(&gradient, &rows, micro_batch.batch.rows())?;
            match &sum {
                Some(sum) => accumulate(sum, &scattered)?,
                None => sum = Some(scattered),
            }
        }
    }
    if let Some(gradient) = sum {
        model.backward(&micro_batch.batch, activations, &gradient, gradients)?;
    }
    Ok(routers)
}

/// Sequences whose logits are computed together.
struct HeadPart<'a> {
    model: &'a Decoder,
    normed: &'a Tensor,
    micro_batch: &'a MicroBatch,
    temperature: f64,
    sequences: Range<usize>,
    /// Batch row of each token.
    rows: Vec<u32>,
    targets: Vec<u32>,
}

impl<'a> HeadPart<'a> {
    /// All sequences in order, in parts of at most [`HEAD_ROWS`] rows, unless a single one has
    /// more.
    fn all(
        model: &'a Decoder,
        normed: &'a Tensor,
        micro_batch: &'a MicroBatch,
        temperature: f64,
    ) -> impl Iterator<Item = Self> {
        let lengths = micro_batch
            .sequences
            .iter()
            .map(|sequence| sequence.rows.len());
        split(lengths, HEAD_ROWS).into_iter().map(move |range| {
            let sequences = &micro_batch.sequences[range.clone()];
            Self {
                model,
                normed,
                micro_batch,
                temperature,
                rows: sequences
                    .iter()
                    .flat_map(|sequence| sequence.rows.iter().copied())
                    .collect(),
                targets: sequences
                    .iter()
                    .flat_map(|sequence| sequence.targets.iter().copied())
                    .collect(),
                sequences: range,
            }
        })
    }

    /// Log-probs by sequence; and the logits if there is one chunk.
    fn log_probs(&self) -> Result<(Vec<Vec<TokenLogProb>>, Option<Tensor>)> {
        let (mut flat, mut kept) = (Vec::with_capacity(self.rows.len()), None);
        for (rows, targets) in self.chunks(HEAD_ROWS_OF_ONE) {
            let logits = self.logits(rows)?;
            flat.extend(token_log_probs(&logits, targets, self.temperature)?);
            kept = (self.rows.len() <= HEAD_ROWS_OF_ONE).then_some(logits);
        }
        let mut flat = flat.into_iter();
        let sequences = &self.micro_batch.sequences[self.sequences.clone()];
        Ok((
            sequences
                .iter()
                .map(|sequence| flat.by_ref().take(sequence.rows.len()).collect())
                .collect(),
            kept,
        ))
    }

    /// Rows and targets that the head takes at once.
    fn chunks(&self, at_once: usize) -> impl Iterator<Item = (&[u32], &[u32])> {
        let chunks = self.rows.chunks(at_once);
        chunks.zip(self.targets.chunks(at_once))
    }

    fn logits(&self, rows: &[u32]) -> Result<Tensor> {
        self.model.logits(&self.select(rows)?)
    }

    /// Adds the head's gradient if trained; returns gradients after the final norm, by chunk.
    fn backward(
        &self,
        mut logits: Option<Tensor>,
        weights: &[TokenWeight],
        gradients: &mut Gradients,
    ) -> Result<Vec<(Vec<u32>, Tensor)>> {
        let chunks = self
            .chunks(HEAD_ROWS_OF_ONE)
            .zip(weights.chunks(HEAD_ROWS_OF_ONE));
        let backward = |((rows, targets), weights): ((&[u32], &[u32]), &[TokenWeight])| {
            let hidden = self.select(rows)?;
            let logits = logits
                .take()
                .map_or_else(|| self.model.logits(&hidden), Ok)?;
            let gradient = token_log_probs_backward_as(
                &logits,
                targets,
                weights,
                self.temperature,
                hidden.dtype(),
            )?;
            Ok((
                rows.to_vec(),
                self.model
                    .logits_backward(&gradient, &logits, &hidden, gradients)?,
            ))
        };
        chunks.map(backward).collect()
    }

    fn select(&self, rows: &[u32]) -> Result<Tensor> {
        let rows = Tensor::from_slice(rows, rows.len(), self.normed.device())?;
        gather_rows(self.normed, &rows, self.normed.dtype())
    }
}

/// Ranges of adjacent lengths that sum to at most `most`; a longer one is alone.
fn split(lengths: impl Iterator<Item = usize>, most: usize) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (index, length) in lengths.enumerate() {
        match ranges.last_mut().filter(|_| sum + length <= most) {
            Some(range) => (range.end, sum) = (index + 1, sum + length),
            None => {
                ranges.push(index..index + 1);
                sum = length;
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn sequences_stay_whole() {
        let check = |lengths: &[usize], expected: &[std::ops::Range<usize>]| {
            assert_eq!(split(lengths.iter().copied(), 10), expected, "{lengths:?}");
        };
        check(&[4, 6, 1], &[0..2, 2..3]);
        check(&[30, 3, 3], &[0..1, 1..3]);
        check(&[3, 30, 3], &[0..1, 1..2, 2..3]);
        check(&[], &[]);
    }
}
