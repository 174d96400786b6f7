//! Penalties, top-k, top-p, min-p and alternatives of served requests, in the order and with the
//! definitions of transformers; never in training. Weights are integers, so that sums depend on no
//! order: both devices sample the same tokens, whatever else is in the batch.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::Real;
use super::sampler::{SampleParams, SampledToken, mask_words};

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
            || self.has_penalties()
    }

    fn has_penalties(&self) -> bool {
        self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.repetition_penalty != 1.0
    }

    /// The logit of a token of the prompt, or with `count` occurrences in the completion.
    fn penalized(&self, logit: f32, count: u32) -> f32 {
        let mut logit = f64::from(logit);
        if self.repetition_penalty != 1.0 {
            logit = match logit < 0.0 {
                true => logit * self.repetition_penalty,
                false => logit / self.repetition_penalty,
            };
        }
        if count > 0 {
            logit -= self.presence_penalty + self.frequency_penalty * f64::from(count);
        }
        logit as f32
    }
}

/// Tokens of a row that penalties lower, with their occurrences in the completion.
#[derive(Clone, Debug, Default)]
pub struct SeenTokens {
    counts: Vec<(u32, u32)>,
    /// Indices into `counts` by token.
    places: HashMap<u32, usize>,
}

impl SeenTokens {
    /// Before the first token; `None` without penalties.
    pub fn new(shaping: &Shaping, prompt: &[u32]) -> Option<Self> {
        let mut seen = shaping.has_penalties().then(Self::default)?;
        if shaping.repetition_penalty != 1.0 {
            prompt.iter().for_each(|id| seen.add(*id, 0));
        }
        Some(seen)
    }

    /// Adds a token of the completion.
    pub fn push(&mut self, id: u32) {
        self.add(id, 1);
    }

    fn add(&mut self, id: u32, count: u32) {
        let place = *self.places.entry(id).or_insert(self.counts.len());
        match self.counts.get_mut(place) {
            Some(known) => known.1 += count,
            None => self.counts.push((id, count)),
        }
    }
}

/// A row of a pass with [`Shaping`].
#[derive(Clone, Debug)]
pub struct ShapedRow {
    /// Row of the logits.
    pub row: usize,
    pub shaping: Arc<Shaping>,
    pub params: SampleParams,
    /// Set with penalties.
    pub seen: Option<Arc<SeenTokens>>,
    /// Index of the completion's newest token among the last pass's samples, if `seen` is without
    /// it.
    pub newest: Option<usize>,
    /// Stop tokens not yet allowed.
    pub suppressed: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ShapedToken {
    pub row: usize,
    /// `None`: the token sampled without shaping.
    pub token: Option<SampledToken>,
    /// Most likely first, with log-probs, nats.
    pub alternatives: Vec<(u32, f32)>,
}

/// `logits`: [rows, vocabulary], f32 on a GPU; `last`: the last pass's samples; `masks`: as in
/// [`super::sampler::sample_masked`], for all rows.
///
/// # Errors
/// Non-finite logits, or no token that is allowed.
pub fn sample_shaped(
    logits: &Tensor,
    rows: &[ShapedRow],
    last: &[SampledToken],
    masks: Option<&[u32]>,
) -> Result<Vec<ShapedToken>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    on_gpu!(logits => gpu::sample_shaped(logits, rows, last, masks));
    let (_, vocabulary) = logits.dims2()?;
    let width = mask_words(vocabulary);
    let shaped = |shaped: &ShapedRow| {
        let mask = masks.and_then(|masks| masks.get(shaped.row * width..)?.get(..width));
        let row = logits.narrow(0, shaped.row, 1)?.to_dtype(DType::F32)?;
        shaped.sample_from(row.flatten_all()?.to_vec1::<f32>()?, last, mask)
    };
    rows.par_iter().map(shaped).collect()
}

/// Most likely tokens per row of logits, [rows, vocabulary], with log-probs, descending: as the
/// alternatives of [`sample_shaped`], in one pass and without candidates.
pub fn likeliest(logits: &Tensor, count: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    on_gpu!(logits => gpu::likeliest(logits, count));
    let rows = logits.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    rows.par_iter().map(|row| first_of(row, count)).collect()
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

/// A weight of 1 as an integer. The sum over 2^19 tokens fits.
const ONE: f64 = (1_u64 << 44) as f64;

/// A candidate for the next token.
#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Relative to the most likely.
    weight: f32,
}

impl Candidate {
    fn likelier(&self, other: &Self) -> Ordering {
        let by_logit = other.logit.total_cmp(&self.logit);
        by_logit.then(self.id.cmp(&other.id))
    }

    fn integer(&self) -> u64 {
        (f64::from(self.weight) * ONE) as u64
    }
}

impl ShapedRow {
    fn sample_from(
        &self,
        mut logits: Vec<f32>,
        last: &[SampledToken],
        mask: Option<&[u32]>,
    ) -> Result<ShapedToken> {
        let (shaping, params) = (&self.shaping, self.params);
        self.penalize(&mut logits, last);
        let is_greedy = params.temperature == 0.0 || params.uniform < 0.0;
        let inverse = match is_greedy {
            true => 1.0,
            false => (1.0 / params.temperature) as f32,
        };
        let (mut candidates, largest) = candidates(&logits, mask, inverse)?;
        if shaping.top_k > 0 {
            keep_first(&mut candidates, shaping.top_k);
        }
        if shaping.top_p < 1.0 {
            keep_likeliest(&mut candidates, shaping.top_p);
        }
        // The most likely has weight 1.
        candidates.retain(|candidate| f64::from(candidate.weight) >= shaping.min_p);
        let total: u64 = candidates.iter().map(Candidate::integer).sum();
        let log_total = (total as f64 / ONE).ln();
        let token = |candidate: &Candidate| SampledToken {
            token_id: candidate.id,
            log_prob: (f64::from(candidate.logit * inverse - largest) - log_total) as f32,
        };
        let sampled = || {
            let target = ((params.uniform * total as f64) as u64).min(total.saturating_sub(1));
            let mut sum = 0;
            // In id order, as in all sampling.
            let passed = candidates.iter().find(|candidate| {
                sum += candidate.integer();
                sum > target
            });
            let candidate = match is_greedy {
                true => candidates.iter().min_by(|a, b| a.likelier(b)),
                false => passed,
            };
            candidate.map(token)
        };
        let sampled = shaping.changes_distribution().then(sampled).flatten();
        let mut likeliest = candidates.clone();
        if likeliest.len() > shaping.alternatives {
            likeliest.select_nth_unstable_by(shaping.alternatives, Candidate::likelier);
            likeliest.truncate(shaping.alternatives);
        }
        likeliest.sort_unstable_by(Candidate::likelier);
        let pair = |token: SampledToken| (token.token_id, token.log_prob);
        Ok(ShapedToken {
            row: self.row,
            token: sampled,
            alternatives: likeliest.iter().map(|one| pair(token(one))).collect(),
        })
    }

    fn penalize(&self, logits: &mut [f32], last: &[SampledToken]) {
        let newest = self.newest.and_then(|newest| last.get(newest));
        let newest = newest.map(|token| token.token_id);
        let mut newest_count = 0;
        let mut lower = |id: u32, count: u32| {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = self.shaping.penalized(*logit, count);
            }
        };
        for &(id, count) in self.seen.iter().flat_map(|seen| &seen.counts) {
            match newest == Some(id) {
                true => newest_count = count,
                false => lower(id, count),
            }
        }
        if let Some(id) = newest.filter(|_| self.seen.is_some()) {
            lower(id, newest_count + 1);
        }
        for &id in &self.suppressed {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Candidates in id order, and the largest logit by `inverse`.
fn candidates(logits: &[f32], mask: Option<&[u32]>, inverse: f32) -> Result<(Vec<Candidate>, f32)> {
    let is_allowed = |id: usize| mask.is_none_or(|mask| mask[id / 32] >> (id % 32) & 1 == 1);
    let allowed = logits.iter().enumerate().filter(|(id, _)| is_allowed(*id));
    let (mut candidates, mut largest) = (Vec::new(), f32::NEG_INFINITY);
    for (id, &logit) in allowed {
        if logit.is_nan() || logit == f32::INFINITY {
            bail!("the model's logits are not finite")
        }
        if logit > f32::NEG_INFINITY {
            largest = largest.max(logit);
            candidates.push(Candidate {
                id: id as u32,
                logit,
                weight: 0.0,
            });
        }
    }
    if candidates.is_empty() {
        bail!("a mask allows no token")
    }
    let largest = largest * inverse;
    for candidate in &mut candidates {
        candidate.weight = (candidate.logit * inverse - largest).exponential();
    }
    Ok((candidates, largest))
}

/// Keeps the `count` most likely and ties with the last, in id order.
fn keep_first(candidates: &mut Vec<Candidate>, count: usize) {
    if count < candidates.len() {
        let mut logits: Vec<f32> = candidates.iter().map(|one| one.logit).collect();
        let (_, &mut least, _) = logits.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
        candidates.retain(|candidate| candidate.logit.total_cmp(&least).is_ge());
    }
}

/// Keeps the most likely with total probability `top_p`, in id order.
fn keep_likeliest(candidates: &mut Vec<Candidate>, top_p: f64) {
    let total: u64 = candidates.iter().map(Candidate::integer).sum();
    let target = ((top_p * total as f64).ceil() as u64).max(1);
    candidates.sort_unstable_by(Candidate::likelier);
    let mut sum = 0;
    let before = |candidate: &&Candidate| {
        let is_needed = sum < target;
        sum += candidate.integer();
        is_needed
    };
    let count = candidates.iter().take_while(before).count();
    candidates.truncate(count);
    candidates.sort_unstable_by_key(|candidate| candidate.id);
}

#[cfg(feature = "cuda")]
pub mod gpu; // launches

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::sampler::LIKELIEST;

    /// Probabilities 0.1, 0.5, 0.15, 0.25 in the second row.
    fn logits() -> Tensor {
        let row = [0.1_f32, 0.5, 0.15, 0.25].map(|probability| probability.ln() + 3.0);
        Tensor::new(&[[9.0, 0.0, 0.0, 0.0], row], &Device::Cpu).unwrap()
    }

    fn row(
        row: usize,
        shaping: &Arc<Shaping>,
        params: SampleParams,
        (prompt, completion): (&[u32], &[u32]),
    ) -> ShapedRow {
        let mut seen = SeenTokens::new(shaping, prompt);
        for id in completion {
            seen.iter_mut().for_each(|seen| seen.push(*id));
        }
        ShapedRow {
            row,
            shaping: Arc::clone(shaping),
            params,
            seen: seen.map(Arc::new),
            newest: None,
            suppressed: Vec::new(),
        }
    }

    fn sampled(
        shaping: Shaping,
        uniform: f64,
        temperature: f64,
        before: &[u32],
        mask: Option<u32>,
    ) -> ShapedToken {
        let params = SampleParams {
            uniform,
            temperature,
        };
        let row = row(1, &Arc::new(shaping), params, (&[], before));
        let masks = mask.map(|mask| [u32::MAX, mask]);
        sample_shaped(
            &logits(),
            &[row],
            &[],
            masks.as_ref().map(|masks| &masks[..]),
        )
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
        let rows = (0..4).map(|index| super::tests::row(index, &shaping, params, (&[], &[])));
        let shaped = sample_shaped(&logits, &rows.collect::<Vec<_>>(), &[], None).unwrap();
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
            "/../tests/parity/logits_processors.json"
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
                let mut row = row(0, &shaping, params, context);
                if case.completion.len() < case.min_tokens {
                    row.suppressed.clone_from(&case.stop_ids);
                }
                row.sample_from(case.logits.clone(), &[], None).unwrap()
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
