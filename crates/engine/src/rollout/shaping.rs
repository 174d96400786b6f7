//! Penalties, top-k, top-p, min-p and alternatives for served requests, in the order and with the
//! definitions of transformers. Such tokens are sampled on the host from copied logits; never in
//! training.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::pinned_memory::{HostBuffer, copy_to_host};
use crate::kernels::sampler::{SampleParams, SampledToken, mask_words};

/// Sampling options of a served completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Shaping {
    /// Most likely tokens, including ties with the last; 0: all.
    pub top_k: usize,
    /// Nucleus: most likely tokens with this total probability, at least one; 1: all.
    pub top_p: f64,
    /// Minimum probability relative to the most likely, after top-k and top-p; 0: all.
    pub min_p: f64,
    /// Divides positive and multiplies negative logits of tokens in prompt and completion; 1: off.
    pub repetition_penalty: f64,
    /// Minimum before a stop token.
    pub min_tokens: usize,
    /// Subtracted from logits of tokens in the completion.
    pub presence_penalty: f64,
    /// Subtracted per occurrence in the completion.
    pub frequency_penalty: f64,
    /// Alternatives reported per token.
    pub alternatives: usize,
}

impl Default for Shaping {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            min_tokens: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            alternatives: 0,
        }
    }
}

impl Shaping {
    /// Whether the distribution changes.
    fn changes_distribution(&self) -> bool {
        self.top_k > 0
            || self.top_p < 1.0
            || self.min_p > 0.0
            || self.min_tokens > 0
            || self.repetition_penalty != 1.0
            || self.has_penalties()
    }

    fn has_penalties(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }
}

/// Parameters of a row sampled on the host.
#[derive(Debug)]
pub(super) struct ShapedParams {
    /// Index in the pass.
    index: usize,
    shaping: Arc<Shaping>,
    params: SampleParams,
    /// Occurrences in the completion; empty without penalties.
    counts: HashMap<u32, u32>,
    /// Tokens of prompt and completion; empty without repetition penalty.
    repeated: HashSet<u32>,
    /// Stop tokens not yet allowed.
    suppressed: Vec<u32>,
}

impl ShapedParams {
    pub(super) fn new(
        index: usize,
        shaping: &Arc<Shaping>,
        params: SampleParams,
        (prompt, token_ids): (&[u32], &[u32]),
        stop_ids: &[u32],
    ) -> Self {
        let mut counts = HashMap::new();
        for id in token_ids.iter().filter(|_| shaping.has_penalties()) {
            *counts.entry(*id).or_default() += 1;
        }
        let repeated = match shaping.repetition_penalty {
            1.0 => HashSet::new(),
            _ => prompt.iter().chain(token_ids).copied().collect(),
        };
        let suppressed = match token_ids.len() < shaping.min_tokens {
            true => stop_ids.to_vec(),
            false => Vec::new(),
        };
        Self {
            index,
            shaping: Arc::clone(shaping),
            params,
            counts,
            repeated,
            suppressed,
        }
    }
}

#[derive(Debug, PartialEq)]
pub(super) struct ShapedToken {
    pub(super) index: usize,
    /// `None`: the token sampled without shaping.
    pub(super) token: Option<SampledToken>,
    /// Most likely first, with log-probs, nats.
    pub(super) alternatives: Vec<(u32, f32)>,
}

/// `logits`: [rows, vocabulary]; `masks`: as in `sample_masked`, for all rows.
pub(super) fn sample_shaped(
    logits: &Tensor,
    params: &[ShapedParams],
    masks: Option<&[u32]>,
) -> Result<Vec<ShapedToken>> {
    let (_, vocabulary) = logits.dims2()?;
    let width = mask_words(vocabulary);
    let bytes = vocabulary * size_of::<f32>();
    // Candle's `to_vec1` would copy the logits of all rows for each of these.
    let mut buffer = HostBuffer::new(bytes * params.len(), logits.device());
    for (params, bytes) in params.iter().zip(buffer.bytes_mut().chunks_exact_mut(bytes)) {
        copy_to_host(&logits.get(params.index)?.to_dtype(DType::F32)?, bytes)?;
    }
    let rows = params.par_iter().zip(buffer.bytes().par_chunks_exact(bytes));
    let shaped = |(params, bytes): (&ShapedParams, &[u8])| {
        let mask = masks.and_then(|masks| masks.get(params.index * width..)?.get(..width));
        let number = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        let row: Vec<f32> = bytes.as_chunks().0.iter().map(number).collect();
        params.sample_from(&row, mask)
    };
    rows.map(shaped).collect()
}

/// Most likely tokens per row of logits, [rows, vocabulary], with log-probs, descending: as the
/// alternatives of [`sample_shaped`], in one pass and without candidates.
pub(crate) fn likeliest(logits: &Tensor, count: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let rows = logits.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    rows.iter().map(|row| first_of(row, count)).collect()
}

fn first_of(logits: &[f32], count: usize) -> Result<Vec<(u32, f32)>> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights = logits
        .iter()
        .map(|logit| f64::from((logit - largest).exp()));
    let total = weights.sum::<f64>().ln();
    if !total.is_finite() {
        bail!("the model's logits are not finite")
    }
    // Of equal ones the first.
    let mut first: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (id, &logit) in logits.iter().enumerate() {
        let is_known_less = first.len() == count && first.last().is_none_or(|last| logit <= last.1);
        if !is_known_less {
            let at = first.partition_point(|known| known.1 >= logit);
            first.insert(at, (id as u32, logit));
            first.truncate(count);
        }
    }
    let log_prob = |logit: f32| (f64::from(logit) - f64::from(largest) - total) as f32;
    Ok(first
        .into_iter()
        .map(|(id, logit)| (id, log_prob(logit)))
        .collect())
}

/// A candidate for the next token.
#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    scaled: f64,
    /// Relative to the most likely.
    weight: f64,
}

impl Candidate {
    fn likelier(&self, other: &Self) -> Ordering {
        let by_logit = other.scaled.total_cmp(&self.scaled);
        by_logit.then(self.id.cmp(&other.id))
    }
}

impl ShapedParams {
    fn sample_from(&self, logits: &[f32], mask: Option<&[u32]>) -> Result<ShapedToken> {
        let Self {
            index,
            shaping,
            params,
            ..
        } = self;
        let is_greedy = params.temperature == 0.0 || params.uniform < 0.0;
        let temperature = if is_greedy { 1.0 } else { params.temperature };
        let mut candidates = self.candidates(logits, mask, temperature)?;
        if shaping.top_k > 0 {
            keep_first(&mut candidates, shaping.top_k);
        }
        if shaping.top_p < 1.0 {
            keep_likeliest(&mut candidates, shaping.top_p);
        }
        // The most likely has weight 1.
        candidates.retain(|candidate| candidate.weight >= shaping.min_p);
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        if !total.is_finite() || total <= 0.0 {
            bail!("the model's logits are not finite")
        }
        let log_prob = |candidate: &Candidate| (candidate.weight / total).ln() as f32;
        let sampled = || {
            let (mut sum, target) = (0.0, params.uniform * total);
            // In id order, as in all sampling.
            let passed = candidates.iter().find(|candidate| {
                sum += candidate.weight;
                sum > target
            });
            let likeliest = || candidates.iter().min_by(|a, b| a.likelier(b));
            let candidate = match is_greedy {
                true => likeliest(),
                false => passed.or_else(|| candidates.last()),
            };
            candidate.map(|candidate| SampledToken {
                token_id: candidate.id,
                log_prob: log_prob(candidate),
            })
        };
        let token = shaping.changes_distribution().then(sampled).flatten();
        let mut likeliest = candidates.clone();
        if likeliest.len() > shaping.alternatives {
            likeliest.select_nth_unstable_by(shaping.alternatives, Candidate::likelier);
            likeliest.truncate(shaping.alternatives);
        }
        likeliest.sort_unstable_by(Candidate::likelier);
        let alternatives = likeliest.iter().map(|one| (one.id, log_prob(one)));
        Ok(ShapedToken {
            index: *index,
            token,
            alternatives: alternatives.collect(),
        })
    }

    /// Candidates in id order.
    fn candidates(
        &self,
        logits: &[f32],
        mask: Option<&[u32]>,
        temperature: f64,
    ) -> Result<Vec<Candidate>> {
        let Shaping {
            presence_penalty,
            frequency_penalty,
            repetition_penalty,
            ..
        } = *self.shaping;
        let is_allowed = |id: usize| {
            mask.is_none_or(|mask| mask[id / 32] >> (id % 32) & 1 == 1)
                && !self.suppressed.contains(&(id as u32))
        };
        let repeated = |id: u32, logit: f64| match self.repeated.contains(&id) {
            true if logit < 0.0 => logit * repetition_penalty,
            true => logit / repetition_penalty,
            false => logit,
        };
        let candidate = |(id, &logit): (usize, &f32)| {
            let id = id as u32;
            let penalty = self.counts.get(&id).map_or(0.0, |count| {
                presence_penalty + frequency_penalty * f64::from(*count)
            });
            Candidate {
                id,
                scaled: (repeated(id, f64::from(logit)) - penalty) / temperature,
                weight: 0.0,
            }
        };
        let allowed = logits.iter().enumerate().filter(|(id, _)| is_allowed(*id));
        let mut candidates: Vec<Candidate> = allowed.map(candidate).collect();
        let scaled = candidates.iter().map(|candidate| candidate.scaled);
        let Some(largest) = scaled.max_by(f64::total_cmp) else {
            bail!("a mask allows no token")
        };
        for candidate in &mut candidates {
            candidate.weight = (candidate.scaled - largest).exp();
        }
        candidates.retain(|candidate| candidate.weight != 0.0);
        Ok(candidates)
    }
}

/// Keeps the `count` most likely and ties with the last, in id order.
fn keep_first(candidates: &mut Vec<Candidate>, count: usize) {
    if count < candidates.len() {
        let mut values: Vec<f64> = candidates.iter().map(|one| one.scaled).collect();
        let (_, &mut least, _) = values.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
        candidates.retain(|candidate| candidate.scaled >= least);
    }
}

/// Keeps the most likely with total probability `top_p`, in id order.
fn keep_likeliest(candidates: &mut Vec<Candidate>, top_p: f64) {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    // All less likely ones together have less than 1 - top_p, so need no sorting.
    let least = (1.0 - top_p) * total / candidates.len() as f64;
    let weights = candidates.iter().map(|candidate| candidate.weight);
    let largest = weights.fold(0.0, f64::max);
    candidates.retain(|candidate| candidate.weight >= least.min(largest));
    candidates.sort_unstable_by(Candidate::likelier);
    let mut sum = 0.0;
    let before = |candidate: &&Candidate| {
        let is_needed = sum < top_p * total;
        sum += candidate.weight;
        is_needed
    };
    let count = candidates.iter().take_while(before).count().max(1);
    candidates.truncate(count);
    candidates.sort_unstable_by_key(|candidate| candidate.id);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::kernels::sampler::LIKELIEST;

    /// Probabilities 0.1, 0.5, 0.15, 0.25 in the second row.
    fn logits() -> Tensor {
        let row = [0.1_f32, 0.5, 0.15, 0.25].map(|probability| probability.ln() + 3.0);
        Tensor::new(&[[9.0, 0.0, 0.0, 0.0], row], &Device::Cpu).unwrap()
    }

    fn sampled(
        shaping: Shaping,
        uniform: f64,
        temperature: f64,
        before: &[u32],
        mask: Option<u32>,
    ) -> ShapedToken {
        let params = ShapedParams::new(
            1,
            &Arc::new(shaping),
            SampleParams {
                uniform,
                temperature,
            },
            (&[], before),
            &[],
        );
        let masks = mask.map(|mask| [u32::MAX, mask]);
        sample_shaped(&logits(), &[params], masks.as_ref().map(|masks| &masks[..]))
            .unwrap()
            .remove(0)
    }

    #[test]
    fn the_likeliest_are_the_alternatives_of_shaped_rows() {
        // Equal logits, too.
        let row = |row: usize| (0..300).map(move |id| ((id * 37 + row * 11) % 97) as f32 / 10.0);
        let values: Vec<f32> = (0..4).flat_map(row).collect();
        let logits = Tensor::from_vec(values, (4, 300), &Device::Cpu).unwrap();
        let shaping = Arc::new(Shaping {
            alternatives: 7,
            ..Shaping::default()
        });
        let params = SampleParams {
            uniform: LIKELIEST,
            temperature: 1.0,
        };
        let rows = (0..4).map(|row| ShapedParams::new(row, &shaping, params, (&[], &[]), &[]));
        let shaped = sample_shaped(&logits, &rows.collect::<Vec<_>>(), None).unwrap();
        let found = likeliest(&logits, 7).unwrap();
        for (found, shaped) in found.iter().zip(&shaped) {
            let ids = |row: &[(u32, f32)]| row.iter().map(|one| one.0).collect::<Vec<_>>();
            assert_eq!(ids(found), ids(&shaped.alternatives));
            for (one, other) in found.iter().zip(&shaped.alternatives) {
                assert!((one.1 - other.1).abs() < 1e-5, "{one:?} {other:?}");
            }
        }
        assert_eq!(likeliest(&logits, 0).unwrap(), vec![Vec::new(); 4]);
        let nothing = Tensor::full(f32::NAN, (1, 300), &Device::Cpu).unwrap();
        assert!(likeliest(&nothing, 2).is_err());
    }

    #[test]
    fn top_p_draws_from_the_likeliest_alone() {
        let check = |top_p: f64, uniform: f64, mask: Option<u32>, id: u32, probability: f64| {
            let token = sampled(
                Shaping {
                    top_p,
                    ..Shaping::default()
                },
                uniform,
                1.0,
                &[],
                mask,
            )
            .token
            .unwrap();
            assert_eq!(token.token_id, id, "{top_p} {uniform}");
            assert!(
                (f64::from(token.log_prob) - probability.ln()).abs() < 1e-5,
                "{top_p} {uniform}: {}",
                token.log_prob
            );
        };
        check(0.7, 0.0, None, 1, 0.5 / 0.75);
        check(0.7, 0.6, None, 1, 0.5 / 0.75);
        check(0.7, 0.7, None, 3, 0.25 / 0.75);
        check(0.7, 0.999_999, None, 3, 0.25 / 0.75);
        check(0.8, 0.6, None, 2, 0.15 / 0.9);
        check(0.0, 0.99, None, 1, 1.0);
        check(0.999_999, 0.0, None, 0, 0.1);
        // Among the allowed: 0, 2 and 3.
        check(0.6, 0.2, Some(0b1101), 2, 0.15 / 0.4);
        check(0.7, LIKELIEST, None, 1, 0.5 / 0.75);
    }

    #[test]
    fn penalties_lower_what_was_said_and_alternatives_are_of_what_is_drawn_from() {
        let penalized = Shaping {
            presence_penalty: 1.0,
            frequency_penalty: 0.5,
            alternatives: 2,
            ..Shaping::default()
        };
        // 0.5 / e^2 is less than 0.25.
        let found = sampled(penalized.clone(), 0.5, 0.0, &[1, 1], None);
        assert_eq!(found.token.unwrap().token_id, 3);
        assert_eq!(
            found
                .alternatives
                .iter()
                .map(|(id, _)| *id)
                .collect::<Vec<_>>(),
            [3, 2]
        );
        assert_eq!(
            sampled(penalized, 0.5, 0.0, &[], None)
                .token
                .unwrap()
                .token_id,
            1
        );
        let told = sampled(
            Shaping {
                alternatives: 9,
                ..Shaping::default()
            },
            0.5,
            0.5,
            &[],
            None,
        );
        // At temperature 0.5 probabilities are squared; the sampled token is unchanged.
        assert_eq!(told.token, None);
        let sum = [0.1_f64, 0.5, 0.15, 0.25]
            .iter()
            .map(|probability| probability * probability)
            .sum::<f64>();
        let expected = [(1, 0.5), (3, 0.25), (2, 0.15), (0, 0.1)];
        assert_eq!(told.alternatives.len(), 4);
        for ((id, log_prob), (expected, probability)) in told.alternatives.iter().zip(expected) {
            let probability: f64 = probability;
            assert_eq!(*id, expected);
            assert!((f64::from(*log_prob) - (probability * probability / sum).ln()).abs() < 1e-5);
        }
        // Excluded tokens have no log-prob.
        assert_eq!(
            sampled(
                Shaping {
                    top_p: 0.6,
                    alternatives: 9,
                    ..Shaping::default()
                },
                0.5,
                1.0,
                &[],
                None
            )
            .alternatives
            .len(),
            2
        );
    }

    /// Logits left by `transformers`, and the resulting probabilities.
    #[test]
    fn every_processor_leaves_the_distribution_of_transformers() {
        #[derive(serde::Deserialize)]
        struct Case {
            logits: Vec<f32>,
            temperature: f64,
            top_k: usize,
            top_p: f64,
            min_p: f64,
            repetition_penalty: f64,
            min_tokens: usize,
            prompt: Vec<u32>,
            completion: Vec<u32>,
            stop_ids: Vec<u32>,
            probabilities: Vec<f64>,
        }
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/parity/logits_processors.json"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() > 20);
        for (number, case) in cases.iter().enumerate() {
            let shaping = Arc::new(Shaping {
                top_k: case.top_k,
                top_p: case.top_p,
                min_p: case.min_p,
                repetition_penalty: case.repetition_penalty,
                min_tokens: case.min_tokens,
                alternatives: case.logits.len(),
                ..Shaping::default()
            });
            let sampled = |uniform: f64| {
                let params = SampleParams {
                    uniform,
                    temperature: case.temperature,
                };
                let context = (&case.prompt[..], &case.completion[..]);
                let params = ShapedParams::new(0, &shaping, params, context, &case.stop_ids);
                params.sample_from(&case.logits, None).unwrap()
            };
            let expected = &case.probabilities;
            let alternatives = sampled(0.5).alternatives;
            let possible = expected.iter().filter(|probability| **probability > 0.0);
            assert_eq!(alternatives.len(), possible.count(), "case {number}");
            for (id, log_prob) in alternatives {
                let difference = f64::from(log_prob) - expected[id as usize].ln();
                assert!(difference.abs() < 1e-5, "case {number}, token {id}");
            }
            // The pass's own token stays.
            if !shaping.changes_distribution() {
                assert_eq!(sampled(0.5).token, None, "case {number}");
                continue;
            }
            // Evenly spaced uniforms over [0, 1) sample by the probabilities.
            let draws = 2000;
            let mut counts = vec![0; expected.len()];
            for draw in 0..draws {
                let uniform = (f64::from(draw) + 0.5) / f64::from(draws);
                if let Some(token) = sampled(uniform).token {
                    counts[token.token_id as usize] += 1;
                    let own = expected[token.token_id as usize].ln();
                    assert!((f64::from(token.log_prob) - own).abs() < 1e-5);
                }
            }
            for (id, (count, probability)) in counts.iter().zip(expected).enumerate() {
                let difference = f64::from(*count) - probability * f64::from(draws);
                assert!(
                    difference.abs() <= 1.0,
                    "case {number}, token {id}: {count}"
                );
            }
        }
    }
}
