//! Samples tokens from logits, with log-probs under the sampled distribution.

use candle_core::{Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::log_probs::scale_row;
use super::real::vectorised;

/// Replaces a random number: selects the most likely token at any temperature.
pub const LIKELIEST: f64 = -1.0;

/// Random number and temperature of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleParams {
    /// Number in [0, 1), or [`LIKELIEST`].
    pub uniform: f64,
    /// 0: greedy.
    pub temperature: f64,
}

impl SampleParams {
    /// Words for [`sample_into`]: halves of both fields, low first.
    pub fn words(self) -> [u32; 4] {
        let [uniform, temperature] = [self.uniform, self.temperature].map(f64::to_bits);
        [
            uniform as u32,
            (uniform >> 32) as u32,
            temperature as u32,
            (temperature >> 32) as u32,
        ]
    }
}

/// A sampled token with its log-prob, nats; at temperature 0 the most likely token with its
/// log-prob at temperature 1. Under a mask, probabilities of allowed tokens are normalised to
/// sum 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledToken {
    pub token_id: u32,
    /// `log softmax(logits / temperature)[token_id]`.
    pub log_prob: f32,
}

/// `logits`: [rows, vocabulary]; `params`: one per row. Inverts the cumulative distribution in id
/// order, without truncation.
///
/// # Errors
/// Non-finite logits.
pub fn sample_tokens(logits: &Tensor, params: &[SampleParams]) -> Result<Vec<SampledToken>> {
    on_gpu!(logits => gpu::sample_tokens(logits, params, None));
    by_number_type!(logits, sample_rows(logits, params))
}

/// As [`sample_tokens`] under masks: bit `id % 32` of word `id / 32`, [`mask_words`] words per row.
/// Masked tokens are never sampled.
///
/// # Errors
/// Non-finite logits of allowed tokens, or none allowed.
pub fn sample_masked(
    logits: &Tensor,
    params: &[SampleParams],
    masks: &[u32],
) -> Result<Vec<SampledToken>> {
    let (rows, vocabulary) = logits.dims2()?;
    if rows != params.len() || masks.len() != rows * mask_words(vocabulary) {
        bail!(
            "{} draws and {} words of masks for {rows} rows of {vocabulary} tokens",
            params.len(),
            masks.len()
        )
    }
    on_gpu!(logits => gpu::sample_tokens(logits, params, Some(masks)));
    by_number_type!(logits, sample_rows_masked(logits, params, masks))
}

/// Words per row.
pub fn mask_words(vocabulary: usize) -> usize {
    vocabulary.div_ceil(u32::BITS as usize)
}

/// As [`sample_tokens`] on a GPU into existing memory, for graphs: `params` [rows, 4], u32,
/// [`SampleParams::words`] -> `sampled` [rows, 2], u32, read by [`read_sampled`].
///
/// # Errors
/// On the CPU, and for wrong shapes or dtypes.
pub fn sample_into(logits: &Tensor, params: &Tensor, sampled: &Tensor) -> Result<()> {
    on_gpu!(logits => gpu::sample_into(logits, params, None, sampled));
    bail!(
        "a recorded draw needs a GPU: {:?}",
        [logits, params, sampled].map(Tensor::device)
    )
}

/// As [`sample_into`], with masks as in [`sample_masked`], [rows, [`mask_words`]].
///
/// # Errors
/// As [`sample_into`].
#[cfg(feature = "cuda")]
pub fn sample_masked_into(
    logits: &Tensor,
    params: &Tensor,
    masks: &Tensor,
    sampled: &Tensor,
) -> Result<()> {
    gpu::sample_into(logits, params, Some(masks), sampled)
}

/// Reads the result of [`sample_into`]: id and log-prob bits per row. The id is `u32::MAX` for
/// non-finite logits.
///
/// # Errors
/// Non-finite logits.
pub fn read_sampled(sampled: &[[u32; 2]]) -> Result<Vec<SampledToken>> {
    let token = |&[token_id, bits]: &[u32; 2]| {
        if token_id == u32::MAX {
            bail!("the model's logits are not finite")
        }
        Ok(SampledToken {
            token_id,
            log_prob: f32::from_bits(bits),
        })
    };
    sampled.iter().map(token).collect()
}

/// Probabilities are summed in blocks, so that finding the sampled token reads few of them.
const BLOCK: usize = 64;

fn sample_rows<T: Real>(logits: &Tensor, params: &[SampleParams]) -> Result<Vec<SampledToken>> {
    let (rows, vocabulary) = logits.dims2()?;
    if rows != params.len() {
        bail!("{} draws for {rows} rows", params.len())
    }
    numbers!(T: numbers = logits);
    let mut scaled = vec![T::zero(); vocabulary];
    let mut weights = vec![T::zero(); vocabulary];
    let mut blocks = vec![0.0_f64; vocabulary.div_ceil(BLOCK)];
    let mut sampled = Vec::with_capacity(rows);
    for (row, params) in numbers.chunks_exact(vocabulary).zip(params) {
        let (uniform, temperature) = (params.uniform, params.temperature);
        let greedy = temperature == 0.0 || uniform < 0.0;
        let inverse = T::constant(if greedy { 1.0 } else { 1.0 / temperature });
        let largest = vectorised!(|| {
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
        sampled.push(SampledToken {
            token_id: token as u32,
            log_prob: log_prob as f32,
        });
    }
    Ok(sampled)
}

/// Bit-equal to the unmasked sum if all tokens are allowed.
fn sample_rows_masked<T: Real>(
    logits: &Tensor,
    params: &[SampleParams],
    masks: &[u32],
) -> Result<Vec<SampledToken>> {
    let (_, vocabulary) = logits.dims2()?;
    numbers!(T: numbers = logits);
    let mut allowed: Vec<(usize, T)> = Vec::with_capacity(vocabulary);
    let mut sampled = Vec::with_capacity(params.len());
    let rows = numbers
        .chunks_exact(vocabulary)
        .zip(params)
        .zip(masks.chunks_exact(mask_words(vocabulary)));
    for (
        (
            row,
            &SampleParams {
                uniform,
                temperature,
            },
        ),
        mask,
    ) in rows
    {
        let greedy = temperature == 0.0 || uniform < 0.0;
        let inverse = T::constant(if greedy { 1.0 } else { 1.0 / temperature });
        allowed.clear();
        allowed.extend(
            set_bits(mask)
                .take_while(|id| *id < vocabulary)
                .map(|id| (id, row[id] * inverse)),
        );
        let mut largest = T::neg_infinity();
        for &(_, scaled) in &allowed {
            largest = if scaled > largest { scaled } else { largest };
        }
        let weight = |&(_, scaled): &(usize, T)| (scaled - largest).exponential().double();
        let in_one_block = |one: &(usize, T), other: &(usize, T)| one.0 / BLOCK == other.0 / BLOCK;
        let blocks = || {
            allowed
                .chunk_by(in_one_block)
                .map(|block| (block, block.iter().map(weight).sum::<f64>()))
        };
        let total: f64 = blocks().map(|(_, sum)| sum).sum();
        if !total.is_finite() {
            bail!("the model's logits are not finite")
        }
        let found = if greedy {
            allowed.iter().find(|(_, scaled)| *scaled == largest)
        } else {
            let (mut sum, target) = (0.0, uniform * total);
            let mut inverted = None;
            for (block, of_block) in blocks() {
                if sum + of_block <= target {
                    sum += of_block;
                    continue;
                }
                inverted = block.iter().find(|token| {
                    sum += weight(token);
                    sum > target
                });
                inverted = inverted.or(block.last());
                break;
            }
            // Rounding left the target at the very end.
            inverted.or(allowed.last())
        };
        let Some(&(id, scaled)) = found else {
            bail!("a mask allows no token")
        };
        let log_prob = (scaled - largest).double() - total.ln();
        sampled.push(SampledToken {
            token_id: id as u32,
            log_prob: log_prob as f32,
        });
    }
    Ok(sampled)
}

/// Indices of set bits, ascending.
fn set_bits(words: &[u32]) -> impl Iterator<Item = usize> {
    words.iter().enumerate().flat_map(|(index, &word)| {
        let mut left = word;
        std::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (bit < u32::BITS).then_some(index * u32::BITS as usize + bit as usize)
        })
    })
}

/// First index at which the running sum of `weights` passes `target`.
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
    // Rounding left the target at the very end: the last token with any weight.
    weights
        .iter()
        .rposition(|weight| weight.double() > 0.0)
        .unwrap_or(0)
}

/// Marks an index of a sampled token in place of a token id.
#[cfg(feature = "cuda")]
pub const SAMPLED_AT: u32 = 1 << 31;

/// `tokens`: [rows] of u32, ids or [`SAMPLED_AT`] with an index; `sampled`: from [`sample_into`] ->
/// [rows], ids.
#[cfg(feature = "cuda")]
pub fn gather_sampled(tokens: &Tensor, sampled: &Tensor) -> Result<Tensor> {
    gpu::gather_sampled(tokens, sampled)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::{SampleParams, SampledToken};
    use crate::cuda::{Grid, Module, arguments, at, capability, device, empty, module};

    static MODULE: Module = module!("sampler");

    /// Tile size of the kernels.
    const TILE: usize = 1024;

    /// Vocabularies from which a row gets four blocks.
    const CLUSTER_FROM: usize = 1 << 15;

    pub(super) fn sample_tokens(
        logits: &Tensor,
        params: &[SampleParams],
        masks: Option<&[u32]>,
    ) -> Result<Vec<SampledToken>> {
        let (rows, device) = (params.len(), device(logits)?);
        if rows == 0 {
            return Ok(Vec::new());
        }
        let words: Vec<u32> = params.iter().flat_map(|row| row.words()).collect();
        let params = Tensor::from_vec(words, (rows, 4), logits.device())?;
        let sampled = empty((rows, 2), DType::U32, device)?;
        let masks = masks
            .map(|masks| Tensor::from_slice(masks, (rows, masks.len() / rows), logits.device()))
            .transpose()?;
        sample_into(logits, &params, masks.as_ref(), &sampled)?;
        super::read_sampled(sampled.flatten_all()?.to_vec1::<u32>()?.as_chunks().0)
    }

    pub(super) fn gather_sampled(tokens: &Tensor, sampled: &Tensor) -> Result<Tensor> {
        let (rows, device) = (tokens.dims1()?, device(tokens)?);
        let taken = empty(rows, DType::U32, device)?;
        let arguments = arguments!(at tokens, sampled, &taken; int rows);
        MODULE
            .kernel("take_drawn")
            .launch(device, Grid::elements(rows), &arguments)?;
        Ok(taken)
    }

    pub(super) fn sample_into(
        logits: &Tensor,
        params: &Tensor,
        masks: Option<&Tensor>,
        sampled: &Tensor,
    ) -> Result<()> {
        let (rows, vocabulary) = logits.dims2()?;
        if logits.dtype() != DType::F32 || vocabulary == 0 {
            bail!("logits to sample from are f32 on a GPU and have a vocabulary, not {logits:?}")
        }
        for (tensor, words) in [(params, 4), (sampled, 2)] {
            if tensor.dtype() != DType::U32 || tensor.dims() != [rows, words] {
                bail!("{tensor:?}, not [{rows}, {words}] of u32")
            }
        }
        if let Some(masks) = masks
            && (masks.dtype() != DType::U32
                || masks.dims() != [rows, super::mask_words(vocabulary)])
        {
            bail!("masks of {rows} rows of {vocabulary} tokens are {masks:?}")
        }
        let mut arguments = arguments!(at logits, params, sampled; int vocabulary).to_vec();
        arguments.extend(masks.map(at).transpose()?);
        let device = device(logits)?;
        let by_four = capability(device)?.has_clusters() && vocabulary >= CLUSTER_FROM;
        let name = match (masks.is_some(), by_four) {
            (false, false) => "sample",
            (false, true) => "sample_by_four",
            (true, false) => "sample_masked",
            (true, true) => "sample_masked_by_four",
        };
        let blocks = if by_four { 4 } else { 1 };
        let threads = vocabulary.next_multiple_of(32).min(1024);
        let shared_bytes = vocabulary.div_ceil(TILE) * size_of::<f64>();
        let grid = Grid {
            blocks: (rows * blocks, 1, 1),
            threads,
            shared_bytes,
        };
        MODULE.kernel(name).launch(device, grid, &arguments)
    }
}
