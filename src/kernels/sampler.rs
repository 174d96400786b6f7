//! Drawing tokens from logits, with the log-probability under the very distribution that was drawn from.

use candle_core::{Result, Tensor, bail};

use super::Real;
use super::log_probs::scale_row;
use super::memory::{by_number_type, read};
use super::numbers::vectorised;

/// A drawn token and its log-probability, nats. At temperature 0 the likeliest token, and its log-probability at temperature 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub token_id: u32,
    /// `log softmax(logits / temperature)[token_id]`.
    pub log_prob: f32,
}

/// `logits`: [rows, vocabulary]; `uniforms`: one number in [0, 1) a row. Inverts the cumulative distribution in the order of the ids: no truncation of any kind.
///
/// # Errors
/// When a row's logits are not finite.
pub fn sample_tokens(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Vec<Drawn>> {
    by_number_type!(logits, draw(logits, temperature, uniforms))
}

/// Probabilities are summed in blocks of this many, so that finding the drawn token reads few of them.
const BLOCK: usize = 64;

fn draw<T: Real>(logits: &Tensor, temperature: f64, uniforms: &[f64]) -> Result<Vec<Drawn>> {
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
        let token =
            if greedy { scaled.iter().position(|&s| s == largest).unwrap_or(0) } else { invert(&weights, &blocks, uniform * total) };
        let log_prob = (scaled[token] - largest).double() - total.ln();
        drawn.push(Drawn { token_id: token as u32, log_prob: log_prob as f32 });
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
