//! Logits to log-probs of chosen tokens, and back; f64 sums, so that a vocabulary of 150,000 loses
//! no precision.

use candle_core::{DType, Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::real::vectorised;

/// Log-prob of a row's target token, and entropy of its distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogProb {
    /// Nats, at most 0.
    pub log_prob: f32,
    /// Entropy of the whole distribution, nats.
    pub entropy: f32,
}

/// `logits`: [rows, vocabulary]; probabilities are `softmax(logits / temperature)`. Returns one
/// entry per row for token `targets[row]`.
pub fn token_log_probs(
    logits: &Tensor,
    targets: &[u32],
    temperature: f64,
) -> Result<Vec<TokenLogProb>> {
    check_targets(logits, targets)?;
    on_gpu!(logits => gpu::forward(logits, targets, temperature));
    by_number_type!(logits, forward(logits, targets, temperature))
}

/// Log of the sum of `exp(logit)` over the tokens of `allowed`, bit `id % 32` of word `id / 32`, or over
/// all; -infinity without any.
pub fn log_sum_exp(logits: &[f32], allowed: Option<&[u32]>) -> f64 {
    let (chunks, rest) = logits.as_chunks::<WORD>();
    let mut last = [f32::NEG_INFINITY; WORD];
    last[..rest.len()].copy_from_slice(rest);
    let word = |at: usize| match allowed {
        Some(words) => words.get(at).copied().unwrap_or(0),
        None => u32::MAX,
    };
    vectorised!(|| {
        let mut largest = [f32::NEG_INFINITY; WORD];
        for at in 0..=chunks.len() {
            let (chunk, word) = (chunks.get(at).unwrap_or(&last), word(at));
            for lane in 0..WORD {
                let x = kept(chunk[lane], word, lane);
                largest[lane] = if x > largest[lane] { x } else { largest[lane] };
            }
        }
        let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
        if largest == f32::NEG_INFINITY {
            return f64::NEG_INFINITY;
        }
        let mut sums = [0.0_f64; WORD];
        for at in 0..=chunks.len() {
            let (chunk, word) = (chunks.get(at).unwrap_or(&last), word(at));
            if word == 0 {
                continue;
            }
            for lane in 0..WORD {
                let x = kept(chunk[lane], word, lane) - largest;
                sums[lane] += x.exponential().double();
            }
        }
        f64::from(largest) + sums.iter().sum::<f64>().ln()
    })
}

/// Bits of a word of a mask.
const WORD: usize = 32;

/// A logit, or -infinity if its bit is not set.
#[inline(always)]
fn kept(logit: f32, word: u32, lane: usize) -> f32 {
    match word >> lane & 1 {
        0 => f32::NEG_INFINITY,
        _ => logit,
    }
}

/// Derivative of a loss by a row's log-prob and entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenWeight {
    /// d loss / d log-probability.
    pub log_prob: f64,
    /// d loss / d entropy.
    pub entropy: f64,
}

impl TokenWeight {
    /// Weight of a loss independent of the entropy.
    pub fn for_log_prob(log_prob: f64) -> Self {
        Self {
            log_prob,
            entropy: 0.0,
        }
    }
}

/// Gradient of the logits, [rows, vocabulary]: with probabilities p and entropy H, `(log_prob
/// weight * (1[token = target] - p) - entropy weight * p * (ln p + H)) / temperature`.
pub fn token_log_probs_backward(
    logits: &Tensor,
    targets: &[u32],
    weights: &[TokenWeight],
    temperature: f64,
) -> Result<Tensor> {
    token_log_probs_backward_as(logits, targets, weights, temperature, logits.dtype())
}

/// As [`token_log_probs_backward`], in a given dtype.
pub fn token_log_probs_backward_as(
    logits: &Tensor,
    targets: &[u32],
    weights: &[TokenWeight],
    temperature: f64,
    dtype: DType,
) -> Result<Tensor> {
    check_targets(logits, targets)?;
    if weights.len() != targets.len() {
        bail!("{} weights for {} rows", weights.len(), targets.len())
    }
    on_gpu!(logits => gpu::backward(logits, targets, weights, temperature, dtype));
    by_number_type!(logits, backward(logits, targets, weights, temperature))?.to_dtype(dtype)
}

fn check_targets(logits: &Tensor, targets: &[u32]) -> Result<()> {
    let (rows, vocabulary) = logits.dims2()?;
    if targets.len() != rows {
        bail!("{} targets for {rows} rows of logits", targets.len())
    }
    match targets
        .iter()
        .find(|&&target| target as usize >= vocabulary)
    {
        Some(target) => bail!("token {target} is outside the vocabulary of {vocabulary}"),
        None => Ok(()),
    }
}

fn forward<T: Real>(
    logits: &Tensor,
    targets: &[u32],
    temperature: f64,
) -> Result<Vec<TokenLogProb>> {
    let (_, vocabulary) = logits.dims2()?;
    numbers!(T: numbers = logits);
    let inverse = T::constant(1.0 / temperature);
    let mut scaled = vec![T::zero(); vocabulary];
    let rows = numbers.chunks_exact(vocabulary).zip(targets);
    Ok(vectorised!(|| {
        rows.map(|(row, &target)| {
            let largest = scale_row(row, inverse, &mut scaled);
            let target_logit = (scaled[target as usize] - largest).double();
            let (mut total, mut weighted) = (0.0_f64, 0.0_f64);
            for x in &mut scaled {
                let shifted = bounded(*x - largest);
                *x = shifted.exponential();
                total += x.double();
                weighted += (*x * shifted).double();
            }
            TokenLogProb {
                log_prob: (target_logit - total.ln()) as f32,
                entropy: (total.ln() - weighted / total) as f32,
            }
        })
        .collect()
    }))
}

/// `scaled = row * inverse_temperature`; returns the maximum. A NaN logit stays in `scaled` and all
/// sums over it.
#[inline(always)]
pub(crate) fn scale_row<T: Real>(row: &[T], inverse_temperature: T, scaled: &mut [T]) -> T {
    let mut largest = T::neg_infinity();
    for (s, &x) in scaled.iter_mut().zip(row) {
        *s = x * inverse_temperature;
        largest = if *s > largest { *s } else { largest };
    }
    largest
}

/// Bounds negligible terms: keeps 0 * infinity out of the entropy, and passes NaN.
#[inline(always)]
fn bounded<T: Real>(shifted: T) -> T {
    let least = T::constant(-1e4);
    if shifted < least { least } else { shifted }
}

fn backward<T: Real>(
    logits: &Tensor,
    targets: &[u32],
    weights: &[TokenWeight],
    temperature: f64,
) -> Result<Tensor> {
    let (rows, vocabulary) = logits.dims2()?;
    numbers!(T: numbers = logits);
    let inverse = T::constant(1.0 / temperature);
    let mut output = vec![T::zero(); rows * vocabulary];
    let places = numbers
        .chunks_exact(vocabulary)
        .zip(output.chunks_exact_mut(vocabulary))
        .zip(targets)
        .zip(weights);
    vectorised!(|| {
        for (((row, out), &target), &weight) in places {
            let largest = scale_row(row, inverse, out);
            if weight.entropy == 0.0 {
                let mut total = 0.0_f64;
                for x in out.iter_mut() {
                    *x = (*x - largest).exponential();
                    total += x.double();
                }
                let factor = T::constant(-weight.log_prob / temperature / total);
                for x in out.iter_mut() {
                    *x *= factor;
                }
            } else {
                let (mut total, mut weighted) = (0.0_f64, 0.0_f64);
                for x in out.iter() {
                    let shifted = bounded(*x - largest);
                    let share = shifted.exponential().double();
                    total += share;
                    weighted += share * shifted.double();
                }
                // ln p + H is the shifted logit minus its mean.
                let mean = weighted / total;
                for x in out.iter_mut() {
                    let shifted = bounded(*x - largest).double();
                    let slope = weight.log_prob + weight.entropy * (shifted - mean);
                    *x = T::constant(-shifted.exp() / total * slope / temperature);
                }
            }
            out[target as usize] += T::constant(weight.log_prob / temperature);
        }
    });
    Tensor::from_vec(output, (rows, vocabulary), logits.device())
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::{TokenLogProb, TokenWeight};
    use crate::cuda::{Argument, Grid, Module, arguments, device, empty, module};

    static MODULE: Module = module!("log_probs");

    const THREADS: usize = 512;

    fn dimensions(logits: &Tensor) -> Result<(usize, usize)> {
        if logits.dtype() != DType::F32 {
            bail!("logits are f32 on a GPU, not {:?}", logits.dtype())
        }
        logits.dims2()
    }

    pub(super) fn forward(
        logits: &Tensor,
        targets: &[u32],
        temperature: f64,
    ) -> Result<Vec<TokenLogProb>> {
        let (rows, vocabulary) = dimensions(logits)?;
        if rows == 0 {
            return Ok(Vec::new());
        }
        let device = device(logits)?;
        let targets = Tensor::from_slice(targets, rows, logits.device())?;
        let results = empty((rows, 2), DType::F32, device)?;
        let arguments = arguments!(
            at logits, &targets, &results; int vocabulary; float 1.0 / temperature
        );
        MODULE
            .kernel("token_log_probs")
            .launch(device, Grid::rows(rows, THREADS), &arguments)?;
        let found = results.to_vec2::<f32>()?;
        Ok(found
            .iter()
            .map(|row| TokenLogProb {
                log_prob: row[0],
                entropy: row[1],
            })
            .collect())
    }

    pub(super) fn backward(
        logits: &Tensor,
        targets: &[u32],
        weights: &[TokenWeight],
        temperature: f64,
        dtype: DType,
    ) -> Result<Tensor> {
        let (rows, vocabulary) = dimensions(logits)?;
        let device = device(logits)?;
        let output = empty((rows, vocabulary), dtype, device)?;
        let targets = Tensor::from_slice(targets, rows, logits.device())?;
        let weights: Vec<f64> = weights
            .iter()
            .flat_map(|weight| [weight.log_prob, weight.entropy])
            .collect();
        let weights = Tensor::from_vec(weights, (rows, 2), logits.device())?;
        let arguments = arguments!(
            at logits, &targets, &weights, &output; int vocabulary;
            given Argument::Double(temperature)
        );
        MODULE.typed("token_log_probs_backward", dtype).launch(
            device,
            Grid::rows(rows, THREADS),
            &arguments,
        )?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::log_sum_exp;

    #[test]
    fn masked_sums_are_those_of_the_allowed_tokens() {
        let logits: Vec<f32> = (0..77_u32).map(|at| (at * 37 % 23) as f32 - 40.0).collect();
        let check = |logits: &[f32], mask: Option<&[u32]>, is_allowed: &dyn Fn(usize) -> bool| {
            let allowed = (0..logits.len()).filter(|at| is_allowed(*at));
            let weights = allowed.map(|at| f64::from(logits[at]).exp());
            let (expected, found) = (weights.sum::<f64>().ln(), log_sum_exp(logits, mask));
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        };
        check(&logits, None, &|_| true);
        let mask = [0x8000_0001, 0, 0x1003];
        let is_set = |at: usize| mask[at / 32] >> (at % 32) & 1 == 1;
        check(&logits, Some(&mask), &is_set);
        // A mask may be longer or shorter than the logits.
        check(&logits[..40], Some(&mask), &is_set);
        check(&logits, Some(&mask[..1]), &|at| at < 32 && is_set(at));
        assert_eq!(log_sum_exp(&logits, Some(&[])), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[], None), f64::NEG_INFINITY);
    }
}
