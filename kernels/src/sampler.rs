//! Samples tokens from logits, with their log-probability under the distribution that was sampled from.

use candle_core::{Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, read};
use super::log_probs::scale_row;
use super::real::vectorised;

/// A sampled token and its log-probability, nats. At temperature 0 the likeliest token, and its log-probability at
/// temperature 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledToken {
    pub token_id: u32,
    /// `log softmax(logits / temperature)[token_id]`.
    pub log_prob: f32,
}

/// `logits`: [rows, vocabulary]; `uniforms`: one number in [0, 1) a row. Inverts the cumulative distribution in the
/// order of the ids: no truncation of any kind.
///
/// # Errors
/// When a row's logits are not finite.
pub fn sample_tokens(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Vec<SampledToken>> {
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return gpu::sample_tokens(logits, temperature, uniforms);
    }
    by_number_type!(logits, draw(logits, temperature, uniforms))
}

/// What stays the same over the steps of a decode on a GPU.
#[derive(Clone, Debug)]
pub struct SampleSettings {
    /// Divides the logits; 0 takes the likeliest token, of several the one with the lowest id.
    pub temperature: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Tokens that end a completion: u32, at least one, since a tensor on a GPU cannot be empty; `u32::MAX` stands for
    /// none.
    pub stop_ids: Tensor,
    /// Tokens a completion may have, the stop token included.
    pub max_completion_tokens: usize,
}

/// Why a row draws no more, as [`SampleState::done`] says it; 0 while it still does.
pub mod done {
    /// It drew a stop token.
    pub const STOPPED: u32 = 1;
    /// It has `max_completion_tokens`.
    pub const FULL: u32 = 2;
    /// Its logits were not finite.
    pub const NOT_FINITE: u32 = 3;
}

/// A decode that moves on by itself, all on a GPU: u32 but for the log-probs, each contiguous. A row's `slot` is its
/// own.
#[derive(Clone, Debug)]
pub struct SampleState {
    /// [rows, 4]: slot, prefix start, prefix length, length; the table of `DecodeRows::Table`. `length` counts the
    /// row's own tokens, the one that is about to be fed included: 0 before the first token.
    pub rows: Tensor,
    /// [rows, 3]: optimizer step, prompt, sample: with the count of tokens sampled so far, the counter of a random
    /// number.
    pub places: Tensor,
    /// `[rows]`: the token to feed next.
    pub newest: Tensor,
    /// `[rows]`: its position.
    pub positions: Tensor,
    /// `[rows]`: 0, or one of [`done`]. Rows that are not to sample at all start with another number than 0, and with a
    /// length of at least 1.
    pub done: Tensor,
    /// [slots, max_completion_tokens]: the sampled tokens; `u32::MAX` where the logits were not finite.
    pub token_ids: Tensor,
    /// [slots, max_completion_tokens], f32, nats: NaN where the logits were not finite.
    pub log_probs: Tensor,
    /// `[slots]`: how many were sampled.
    pub lengths: Tensor,
}

/// Draws the next token of each row that is not done from `logits` [rows, vocabulary], f32, notes it, and moves the row
/// on. Only on a GPU; nothing comes back to the host and nothing of the call depends on the step, so that a graph can
/// repeat it.
///
/// The first call reads the prefill's logits, with `length` 0 and `lengths` 0. After each call a row that drew has
/// `length = lengths[slot]`, the token in `newest` and `positions = prefix length + length - 1`: 1 and the prefix
/// length after the first, so that the decode step that follows puts the token's keys and values at index 0. The token
/// that ends a row moves it on as well. What the row then feeds changes nothing, and its `length` is between 1 and
/// `max_completion_tokens` from the first token on: every index stays inside the cache. Rows that are done stand still,
/// and feed the same token to the same place again. A row whose logits are not finite keeps its older `newest`, which
/// the caller sets to any token at the start.
///
/// # Errors
/// On the CPU, and when shapes do not fit.
pub fn sample_step(logits: &Tensor, settings: &SampleSettings, state: &SampleState) -> Result<()> {
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return gpu::sample_step(logits, settings, state);
    }
    let SampleSettings { stop_ids, .. } = settings;
    bail!(
        "a decode step on the device needs a GPU: logits {:?}, rows {:?}, stop ids {stop_ids:?}",
        logits.device(),
        state.rows
    )
}

/// Probabilities are summed in blocks of this many, so that finding the sampled token reads few of them.
const BLOCK: usize = 64;

fn draw<T: Real>(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Vec<SampledToken>> {
    let (rows, vocabulary) = logits.dims2()?;
    if rows != uniforms.len() {
        bail!("{} random numbers for {rows} rows", uniforms.len())
    }
    let greedy = temperature == 0.0;
    let inverse = T::of(if greedy { 1.0 } else { 1.0 / temperature });
    let logits_read = read(logits)?;
    let mut scaled = vec![T::of(0.0); vocabulary];
    let mut weights = vec![T::of(0.0); vocabulary];
    let mut blocks = vec![0.0_f64; vocabulary.div_ceil(BLOCK)];
    let mut drawn = Vec::with_capacity(rows);
    for (row, &uniform) in logits_read.numbers::<T>()?.chunks_exact(vocabulary).zip(uniforms) {
        let largest = vectorised(|| {
            let largest = scale_row(row, inverse, &mut scaled);
            for (w, &s) in weights.iter_mut().zip(&scaled) {
                *w = (s - largest).exponential();
            }
            for (block, chunk) in blocks.iter_mut().zip(weights.chunks(BLOCK)) {
                *block = chunk.iter().map(|w| w.double()).sum();
            }
            largest
        });
        let total: f64 = blocks.iter().sum();
        if !total.is_finite() {
            bail!("the model's logits are not finite")
        }
        let token = if greedy {
            scaled.iter().position(|&s| s == largest).unwrap_or(0)
        } else {
            invert(&weights, &blocks, uniform * total)
        };
        let log_prob = (scaled[token] - largest).double() - total.ln();
        drawn.push(SampledToken { token_id: token as u32, log_prob: log_prob as f32 });
    }
    Ok(drawn)
}

/// The first index at which the running sum of `weights` passes `target`.
fn invert<T: Real>(weights: &[T], blocks: &[f64], target: f64) -> usize {
    let mut sum = 0.0;
    let mut last_possible = 0;
    for (index, block) in blocks.iter().enumerate() {
        if sum + block <= target {
            sum += block;
            continue;
        }
        let start = index * BLOCK;
        for (offset, weight) in weights[start..].iter().take(BLOCK).enumerate() {
            if weight.double() > 0.0 {
                last_possible = start + offset;
            }
            sum += weight.double();
            if sum > target {
                return start + offset;
            }
        }
        return last_possible;
    }
    // Rounding left the target at the very end: the last token that has any weight.
    weights.iter().rposition(|weight| weight.double() > 0.0).unwrap_or(0)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::{SampleSettings, SampleState, SampledToken};
    use crate::cuda::{Argument, Grid, Module, at, device, empty, int, launch, module};

    static MODULE: Module = module!("sampler");

    /// As the kernels have it.
    const TILE: usize = 1024;

    fn grid(rows: usize, vocabulary: usize) -> Grid {
        let threads = vocabulary.next_multiple_of(32).min(1024);
        Grid { blocks: (rows, 1, 1), threads, shared_bytes: vocabulary.div_ceil(TILE) * size_of::<f64>() }
    }

    fn dimensions(logits: &Tensor) -> Result<(usize, usize)> {
        let (rows, vocabulary) = logits.dims2()?;
        if logits.dtype() != DType::F32 || vocabulary == 0 {
            bail!(
                "logits to sample from are f32 on a GPU and have a vocabulary, not {:?} {:?}",
                logits.dtype(),
                logits.shape()
            )
        }
        Ok((rows, vocabulary))
    }

    pub(super) fn sample_tokens(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Vec<SampledToken>> {
        let (rows, vocabulary) = dimensions(logits)?;
        if rows != uniforms.len() {
            bail!("{} random numbers for {rows} rows", uniforms.len())
        }
        if rows == 0 {
            return Ok(Vec::new());
        }
        let device = device(logits)?;
        let uniforms = Tensor::from_slice(uniforms, rows, logits.device())?;
        let (token_ids, log_probs) = (empty(rows, DType::U32, device)?, empty(rows, DType::F32, device)?);
        let arguments = [
            at(logits)?,
            at(&uniforms)?,
            at(&token_ids)?,
            at(&log_probs)?,
            int(vocabulary),
            Argument::Double(temperature),
        ];
        launch(device, &MODULE, "sample", None, grid(rows, vocabulary), &arguments)?;
        let (token_ids, log_probs) = (token_ids.to_vec1::<u32>()?, log_probs.to_vec1::<f32>()?);
        if token_ids.contains(&u32::MAX) {
            bail!("the model's logits are not finite")
        }
        Ok(token_ids
            .into_iter()
            .zip(log_probs)
            .map(|(token_id, log_prob)| SampledToken { token_id, log_prob })
            .collect())
    }

    pub(super) fn sample_step(logits: &Tensor, settings: &SampleSettings, state: &SampleState) -> Result<()> {
        let (rows, vocabulary) = dimensions(logits)?;
        let most = settings.max_completion_tokens;
        let slots = state.lengths.dims1()?;
        let expected: [(&str, &Tensor, DType, &[usize]); 9] = [
            ("rows", &state.rows, DType::U32, &[rows, 4]),
            ("places", &state.places, DType::U32, &[rows, 3]),
            ("newest", &state.newest, DType::U32, &[rows]),
            ("positions", &state.positions, DType::U32, &[rows]),
            ("done", &state.done, DType::U32, &[rows]),
            ("token_ids", &state.token_ids, DType::U32, &[slots, most]),
            ("log_probs", &state.log_probs, DType::F32, &[slots, most]),
            ("lengths", &state.lengths, DType::U32, &[slots]),
            ("stop_ids", &settings.stop_ids, DType::U32, &[settings.stop_ids.elem_count()]),
        ];
        for (name, tensor, dtype, dims) in expected {
            if tensor.dtype() != dtype || tensor.dims() != dims {
                bail!("{name} is {:?} {:?}, not {dtype:?} {dims:?}", tensor.dtype(), tensor.shape())
            }
        }
        let arguments = [
            at(logits)?,
            int(vocabulary),
            Argument::Double(settings.temperature),
            Argument::Long(settings.seed),
            at(&settings.stop_ids)?,
            int(settings.stop_ids.elem_count()),
            int(most),
            at(&state.rows)?,
            at(&state.places)?,
            at(&state.newest)?,
            at(&state.positions)?,
            at(&state.done)?,
            at(&state.token_ids)?,
            at(&state.log_probs)?,
            at(&state.lengths)?,
        ];
        launch(device(logits)?, &MODULE, "sample_step", None, grid(rows, vocabulary), &arguments)
    }
}
