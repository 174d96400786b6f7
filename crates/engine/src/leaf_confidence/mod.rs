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
use crate::kernels::log_probs::log_sum_exp;
use crate::score::on_every_core;
use crate::update::{LogitRow, ReadingModel, pack, read_logits};

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

/// The answer left the grammar at some token.
const LEFT: &str = "the answer leaves the schema's grammar";
const OUTGROWN: &str = "the grammar became too complex while the answer was read";

/// Logits and allowed tokens by position in the completion.
type Logits = BTreeMap<usize, LogitRow>;

/// Confidence of each value of a JSON answer, in [0, 1]: the product over the tokens that write it.
///
/// A token that begins before a value is compared with those that begin with the same bytes before
/// it; one that ends a value counts with all that end it alike, whatever follows; a number is ended
/// by the token after it. A value of a few that the grammar allows is compared with all of these.
///
/// # Errors
/// A failed tensor operation.
pub async fn answer_confidence(
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
    let logits = logits_at(reading, answer, positions).await?;
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
            let among_values =
                values::share(reading, answer, &walked, &leaf, &parts, &logits).await?;
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

/// The logits at positions of a completion.
async fn logits_at(
    reading: ReadingModel<'_>,
    answer: &GivenAnswer<'_>,
    positions: Vec<usize>,
) -> Result<Logits> {
    let mut found = Logits::new();
    if positions.is_empty() {
        return Ok(found);
    }
    for packed in pack([(answer.prompt, vec![answer.completion])], usize::MAX) {
        let rows = read_logits(reading, &packed, std::slice::from_ref(&positions)).await?;
        found.extend(positions.iter().copied().zip(rows));
    }
    Ok(found)
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
        let logits = &logits[..vocabulary.bytes.len()];
        let token = &vocabulary.bytes[own as usize];
        let (before, kept) = (&token[..part.before], &token[..part.until]);
        let mask = self.masks.get(&part.position).map(Vec::as_slice);
        let is_allowed = |id: &u32| {
            mask.is_none_or(|mask| is_set(mask, *id))
                && (!part.is_first || begins_value(&vocabulary.bytes[*id as usize], part.before))
        };
        let log_sum = |ids: &mut dyn Iterator<Item = u32>| {
            let own: Vec<f32> = ids.map(|id| logits[id as usize]).collect();
            log_sum_exp(&own, None)
        };
        let starting_with = |bytes| vocabulary.starting_with(bytes).iter().copied();
        let beginnings = vocabulary.beginnings();
        let all = match (before, part.is_first) {
            ([], false) => log_sum_exp(logits, mask),
            ([], true) => log_sum_exp(logits, Some(&both(mask, &beginnings.value))),
            _ => log_sum(&mut starting_with(before).filter(is_allowed)),
        };
        let is_ended = |id: &u32| {
            let next = vocabulary.bytes[*id as usize].get(part.until);
            next.is_some_and(|next| !is_number_byte(*next))
        };
        let alike = match part.ends {
            Ends::No => f64::from(logits[own as usize]),
            Ends::WithLastByte => log_sum(&mut starting_with(kept).filter(is_allowed)),
            Ends::BeforeNext if kept.is_empty() => {
                let mut words = both(mask, &beginnings.after_number);
                // A stop token ends a number that is the whole answer.
                let stops = vocabulary.stop_ids.iter().filter(|id| is_allowed(id));
                for id in stops.chain([&own]) {
                    words[*id as usize / 32] |= 1 << (id % 32);
                }
                log_sum_exp(logits, Some(&words))
            }
            Ends::BeforeNext => {
                let mut ended = starting_with(kept).filter(is_allowed).filter(is_ended);
                log_sum(&mut ended)
            }
        };
        let share = (alike - all).exp();
        if share.is_finite() {
            share.min(1.0)
        } else {
            0.0
        }
    }
}

/// Bits that are set in both.
fn both(mask: Option<&[u32]>, other: &[u32]) -> Vec<u32> {
    match mask {
        Some(mask) => mask.iter().zip(other).map(|(one, two)| one & two).collect(),
        None => other.to_vec(),
    }
}

/// Whether a token has a value's first byte after `before` others.
fn begins_value(bytes: &[u8], before: usize) -> bool {
    bytes.get(before).is_some_and(|byte| !is_white_space(*byte))
}

fn is_set(mask: &[u32], id: u32) -> bool {
    mask.get(id as usize / 32)
        .is_some_and(|word| word & (1 << (id % 32)) != 0)
}
