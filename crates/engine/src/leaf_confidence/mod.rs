//! Confidence of an answer's values: its tokens are read again with the logits at each, and
//! renormalised over what the grammar allows there. So an answer may have been sampled without it.

mod values; // probability among all values that the grammar allows

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Result;
use rayon::prelude::*;

use crate::confidence::{
    Among, AnswerConfidence, LeafConfidence, LeafSpan, NOT_JSON, answer_start, is_number_byte,
    is_white_space, leaf_spans,
};
use crate::constraint::{Constraint, Vocabulary};
use crate::model::Decoder;
use crate::score::on_every_core;
use crate::update::{pack, read_logits};

/// A completion to read.
#[derive(Clone, Copy, Debug)]
pub struct GivenAnswer<'a> {
    pub prompt: &'a [u32],
    /// With the stop token, if there was one.
    pub completion: &'a [u32],
    pub vocabulary: &'a Vocabulary,
    /// `None`: nothing is known of what the answer may be.
    pub constraint: Option<&'a Constraint>,
}

/// A model with the adapter of the answers, as in [`read_logits`].
#[derive(Clone, Copy, Debug)]
pub struct ReadingModel<'a> {
    pub model: &'a Decoder,
    pub own: Option<(u32, usize)>,
}

/// The answer left the grammar at some token.
const LEFT: &str = "the answer leaves the schema's grammar";
const OUTGROWN: &str = "the grammar became too complex while the answer was read";

/// Logits and allowed tokens by position in the completion.
type Logits = BTreeMap<usize, Vec<f32>>;

/// Confidence of each value of a JSON answer, in [0, 1]: the product over the tokens that write it.
///
/// A token that begins before a value is compared with those that begin with the same bytes before
/// it; one that ends a value counts with all that end it alike, whatever follows; a number is ended
/// by the token after it. A value of a few that the grammar allows is compared with all of these.
///
/// # Errors
/// A failed tensor operation.
pub fn answer_confidence(
    reading: ReadingModel<'_>,
    answer: &GivenAnswer<'_>,
) -> Result<AnswerConfidence> {
    let mut walked = Walked::new(answer);
    let start = answer_start(&walked.bytes, [answer.vocabulary.marks]);
    let spans = leaf_spans(&walked.bytes, start);
    let parts: Vec<Vec<Part>> = spans.leaves.iter().map(|leaf| walked.parts(leaf)).collect();
    let mut positions: Vec<usize> = parts.iter().flatten().map(|part| part.position).collect();
    positions.dedup();
    if let Some(constraint) = answer.constraint {
        walked.walk(answer, constraint, &positions);
    }
    let is_read = |part: &Part| part.position < walked.allowed_tokens;
    positions.retain(|position| *position < walked.allowed_tokens);
    let logits = reading.logits(answer.prompt, answer.completion, positions)?;
    let mut leaves = Vec::with_capacity(parts.len());
    for (leaf, parts) in spans.leaves.into_iter().zip(parts) {
        let mut confidence = LeafConfidence {
            path: leaf.path.clone(),
            among: match answer.constraint {
                Some(_) => Among::Tokens,
                None => Among::Vocabulary,
            },
            ..LeafConfidence::default()
        };
        if !parts.is_empty() && parts.iter().all(is_read) {
            let among_values = values::share(reading, answer, &walked, &leaf, &parts, &logits)?;
            confidence.confidence = Some(match among_values {
                Some(share) => {
                    confidence.among = Among::Values;
                    share
                }
                None => {
                    let share = |part: &Part| walked.share(answer, part, &logits[&part.position]);
                    let shares: Vec<f64> = match reading.model.device().is_cpu() {
                        // Other threads read other answers.
                        true => parts.iter().map(share).collect(),
                        false => on_every_core(|| parts.par_iter().map(share).collect()),
                    };
                    shares.iter().product()
                }
            });
        }
        leaves.push(confidence);
    }
    let unknown = match walked.reason {
        None if !spans.is_whole => Some(NOT_JSON),
        reason => reason,
    };
    Ok(AnswerConfidence {
        leaves,
        unknown: unknown.map(str::to_owned),
    })
}

impl ReadingModel<'_> {
    /// The logits at positions of a completion.
    fn logits(&self, prompt: &[u32], completion: &[u32], positions: Vec<usize>) -> Result<Logits> {
        let mut found = Logits::new();
        if positions.is_empty() {
            return Ok(found);
        }
        for packed in pack([(prompt, vec![completion])], usize::MAX) {
            let take = |_, position, logits| _ = found.insert(position, logits);
            read_logits(
                self.model,
                &packed,
                self.own,
                std::slice::from_ref(&positions),
                take,
            )?;
        }
        Ok(found)
    }
}

/// How a token takes part in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// The token's index in the completion.
    position: usize,
    /// Its bytes before the value.
    before: usize,
    /// Its bytes up to the end of its part.
    until: usize,
    is_first: bool,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The value goes on in the next token.
    No,
    /// With its last byte, whatever follows.
    WithLastByte,
    /// What follows must not go on with a number.
    BeforeNext,
}

/// A completion's bytes, with what the grammar allows at each token.
struct Walked {
    bytes: Vec<u8>,
    /// By token.
    ranges: Vec<Range<usize>>,
    /// Of the tokens that write values, as [`crate::constraint::Progress::mask`] sets them; empty
    /// without a grammar.
    masks: BTreeMap<usize, Vec<u32>>,
    /// Tokens up to where the grammar is left.
    allowed_tokens: usize,
    reason: Option<&'static str>,
}

impl Walked {
    fn new(answer: &GivenAnswer<'_>) -> Self {
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        for id in answer.completion {
            let start = bytes.len();
            let own = answer.vocabulary.bytes.get(*id as usize);
            bytes.extend(own.into_iter().flatten());
            ranges.push(start..bytes.len());
        }
        Self {
            bytes,
            ranges,
            masks: BTreeMap::new(),
            allowed_tokens: answer.completion.len(),
            reason: None,
        }
    }

    /// Follows the grammar as far as it goes; keeps the masks of `positions`, ascending.
    fn walk(&mut self, answer: &GivenAnswer<'_>, constraint: &Constraint, positions: &[usize]) {
        let mut progress = constraint.begin();
        let mut mask = vec![0; answer.vocabulary.bytes.len().div_ceil(32)];
        for (position, id) in answer.completion.iter().enumerate() {
            let known = progress.mask(&mut mask);
            let fault = match known {
                Err(_) => Some(OUTGROWN),
                Ok(()) if !is_set(&mask, *id) => Some(LEFT),
                Ok(()) => progress.push(*id).err().map(|_| OUTGROWN),
            };
            if fault.is_some() {
                (self.allowed_tokens, self.reason) = (position, fault);
                return;
            }
            if positions.binary_search(&position).is_ok() {
                self.masks.insert(position, mask.clone());
            }
        }
    }

    /// The tokens that write a value.
    fn parts(&self, leaf: &LeafSpan) -> Vec<Part> {
        let (start, end) = (leaf.bytes.start, leaf.bytes.end);
        let mut parts: Vec<Part> = Vec::new();
        for (position, token) in self.ranges.iter().enumerate() {
            if token.end <= start || token.is_empty() {
                continue;
            }
            if token.start >= end {
                break;
            }
            let ends = match (leaf.is_number, token.end.cmp(&end)) {
                (_, std::cmp::Ordering::Less) => Ends::No,
                (false, _) => Ends::WithLastByte,
                (true, std::cmp::Ordering::Equal) => Ends::No,
                (true, std::cmp::Ordering::Greater) => Ends::BeforeNext,
            };
            parts.push(Part {
                position,
                before: start.saturating_sub(token.start),
                until: end.min(token.end) - token.start,
                is_first: parts.is_empty(),
                ends,
            });
        }
        // A number that ends with its token is ended by the next one.
        let last = parts
            .last()
            .filter(|part| leaf.is_number && part.ends == Ends::No);
        if let Some(position) = last.map(|part| part.position + 1)
            && position < self.ranges.len()
        {
            parts.push(Part {
                position,
                before: 0,
                until: 0,
                is_first: false,
                ends: Ends::BeforeNext,
            });
        }
        parts
    }

    /// The probability of a token's part, given what precedes it.
    fn share(&self, answer: &GivenAnswer<'_>, part: &Part, logits: &[f32]) -> f64 {
        let (own, vocabulary) = (answer.completion[part.position], answer.vocabulary);
        let token = &vocabulary.bytes[own as usize];
        let (before, kept) = (&token[..part.before], &token[..part.until]);
        let mask = self.masks.get(&part.position);
        let (mut most, mut allowed) = (f32::NEG_INFINITY, Vec::new());
        for ((id, logit), bytes) in (0..).zip(logits).zip(&vocabulary.bytes) {
            if mask.is_some_and(|mask| !is_set(mask, id)) || !has_start(bytes, before) {
                continue;
            }
            if part.is_first && !begins_value(bytes, part.before) {
                continue;
            }
            let is_ended = || match bytes.get(part.until) {
                Some(next) => !is_number_byte(*next),
                // A stop token ends a number that is the whole answer.
                None => part.until == 0 && vocabulary.stop_ids.contains(&id),
            };
            let is_alike = id == own
                || match part.ends {
                    Ends::No => false,
                    Ends::WithLastByte => has_start(bytes, kept),
                    Ends::BeforeNext => has_start(bytes, kept) && is_ended(),
                };
            most = most.max(*logit);
            allowed.push((*logit, is_alike));
        }
        let (mut alike, mut all) = (0.0, 0.0);
        for (logit, is_alike) in allowed {
            let weight = f64::from(logit - most).exp();
            all += weight;
            alike += if is_alike { weight } else { 0.0 };
        }
        if all > 0.0 { alike / all } else { 0.0 }
    }
}

/// Whether a token has a value's first byte after `before` others.
fn begins_value(bytes: &[u8], before: usize) -> bool {
    bytes.get(before).is_some_and(|byte| !is_white_space(*byte))
}

/// As `starts_with`, which calls `memcmp` for each token of the vocabulary, mostly with an empty
/// `start`.
fn has_start(bytes: &[u8], start: &[u8]) -> bool {
    bytes.len() >= start.len() && bytes.iter().zip(start).all(|(one, other)| one == other)
}

fn is_set(mask: &[u32], id: u32) -> bool {
    mask.get(id as usize / 32)
        .is_some_and(|word| word & (1 << (id % 32)) != 0)
}
