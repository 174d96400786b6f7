//! The probability of a value among the few that the grammar allows: those of an `enum`, `true` and
//! `false`, `null`. All ways to write each as tokens are followed, the likeliest first.

use std::collections::BTreeMap;

use candle_core::Result;

use super::{GivenAnswer, Logits, Part, Walked, begins_value, is_set};
use crate::confidence::{LeafSpan, is_number_byte, leaf_spans};
use crate::constraint::Constraint;
use crate::kernels::log_probs::log_sum_exp;
use crate::update::{LogitRow, ReadingModel, pack, read_logits};

/// Tokens that may follow within a value of few, also as a share of the vocabulary; more follow in a
/// free text.
const MAX_CHOICES: usize = 1024;
const MAX_SHARE: usize = 4;
/// Share of the probability that is not followed: the largest error.
const LEFT_OUT: f64 = 1e-3;
/// Beginnings of values whose logits are computed.
const MAX_PASSES: usize = 64;
/// How many at once.
const TOGETHER: usize = 8;

/// The beginning of a value.
struct Beginning {
    /// Tokens from the value's first token on.
    tokens: Vec<u32>,
    value: Vec<u8>,
    /// Probability, not normalised.
    mass: f64,
}

struct Search<'a> {
    answer: &'a GivenAnswer<'a>,
    /// Bytes of the first token before the value.
    before: &'a [u8],
    /// Probability of each complete value.
    found: BTreeMap<Vec<u8>, f64>,
    open: Vec<Beginning>,
}

/// `None` if there are too many values, or they cannot be told apart in time.
pub(super) async fn share(
    reading: ReadingModel<'_>,
    answer: &GivenAnswer<'_>,
    walked: &Walked,
    leaf: &LeafSpan,
    parts: &[Part],
    logits: &Logits,
) -> Result<Option<f64>> {
    let value = &walked.bytes[leaf.bytes.clone()];
    let is_scalar = !leaf.is_number && !matches!(value[0], b'[' | b'{');
    let (Some(constraint), Some(first), true) = (answer.constraint, parts.first(), is_scalar)
    else {
        return Ok(None);
    };
    let token = answer.completion[first.position] as usize;
    let mut search = Search {
        answer,
        before: &answer.vocabulary.bytes[token][..first.before],
        found: BTreeMap::new(),
        open: Vec::new(),
    };
    let none = Beginning {
        tokens: Vec::new(),
        value: Vec::new(),
        mass: 1.0,
    };
    let mut next = vec![none];
    let mut passes = 0;
    loop {
        let (known, unknown): (Vec<_>, Vec<_>) = next.into_iter().partition(|beginning| {
            let position = first.position + beginning.tokens.len();
            answer.completion[first.position..].starts_with(&beginning.tokens)
                && logits.contains_key(&position)
        });
        for beginning in known {
            let position = first.position + beginning.tokens.len();
            if !search.expand(&beginning, &logits[&position], &walked.masks[&position]) {
                return Ok(None);
            }
        }
        passes += unknown.len();
        if passes > MAX_PASSES {
            return Ok(None);
        }
        let start = &answer.completion[..first.position];
        for (beginning, logits) in read(reading, answer, start, unknown).await? {
            let mask = mask_after(constraint, answer, [start, &beginning.tokens]);
            if !mask.is_some_and(|mask| search.expand(&beginning, &logits, &mask)) {
                return Ok(None);
            }
        }
        let all: f64 = search.found.values().sum();
        let open: f64 = search.open.iter().map(|beginning| beginning.mass).sum();
        if open <= LEFT_OUT * (all + open) {
            let own = search.found.get(value).copied().unwrap_or(0.0);
            return Ok((all > 0.0).then(|| own / all));
        }
        let by_mass = |one: &Beginning, other: &Beginning| other.mass.total_cmp(&one.mass);
        search.open.sort_by(by_mass);
        let rest = search.open.split_off(search.open.len().min(TOGETHER));
        next = std::mem::replace(&mut search.open, rest);
    }
}

impl Search<'_> {
    /// Follows each token that may come next; false if there are too many.
    fn expand(&mut self, beginning: &Beginning, logits: &[f32], mask: &[u32]) -> bool {
        let vocabulary = self.answer.vocabulary;
        let is_first = beginning.tokens.is_empty();
        let before = if is_first { self.before } else { &[] };
        let begins = |id: &u32| {
            let bytes = vocabulary.bytes.get(*id as usize);
            bytes.is_some_and(|bytes| !is_first || begins_value(bytes, before.len()))
        };
        let most = MAX_CHOICES.min(vocabulary.bytes.len() / MAX_SHARE);
        let choices: Vec<u32> = match before {
            [] => set_bits(mask).filter(begins).take(most + 1).collect(),
            _ => {
                let ids = vocabulary.starting_with(before).iter().copied();
                let ids = ids.filter(|id| is_set(mask, *id)).filter(begins);
                ids.take(most + 1).collect()
            }
        };
        if choices.len() > most {
            return false;
        }
        let all = log_sum_exp(logits, None);
        for id in choices {
            let mass = beginning.mass * (f64::from(logits[id as usize]) - all).exp();
            let own = &vocabulary.bytes[id as usize][before.len()..];
            let value = [beginning.value.as_slice(), own].concat();
            match end_of_value(&value) {
                Some(end) => *self.found.entry(value[..end].to_vec()).or_default() += mass,
                None if own.is_empty() => {}
                None => self.open.push(Beginning {
                    tokens: [beginning.tokens.as_slice(), &[id]].concat(),
                    value,
                    mass,
                }),
            }
        }
        true
    }
}

/// Ids of the tokens that a mask allows.
fn set_bits(mask: &[u32]) -> impl Iterator<Item = u32> {
    let bits = |(at, word): (u32, &u32)| {
        let word = *word;
        let set = (0..32).filter(move |bit| word >> bit & 1 == 1);
        set.map(move |bit| at * 32 + bit)
    };
    (0..)
        .zip(mask)
        .filter(|(_, word)| **word != 0)
        .flat_map(bits)
}

/// The length of a value that is complete. One of another kind is told apart by its first byte.
fn end_of_value(value: &[u8]) -> Option<usize> {
    let first = *value.first()?;
    if is_number_byte(first) || matches!(first, b'[' | b'{') {
        return Some(1);
    }
    let leaves = leaf_spans(value, 0).leaves;
    leaves.first().map(|leaf| leaf.bytes.end)
}

/// The logits after each beginning.
async fn read(
    reading: ReadingModel<'_>,
    answer: &GivenAnswer<'_>,
    start: &[u32],
    beginnings: Vec<Beginning>,
) -> Result<Vec<(Beginning, LogitRow)>> {
    // The last token predicts nothing: any does.
    let texts: Vec<Vec<u32>> = beginnings
        .iter()
        .map(|beginning| [start, &beginning.tokens, &[0]].concat())
        .collect();
    let mut found = Vec::with_capacity(texts.len());
    let positions: Vec<Vec<usize>> = texts.iter().map(|text| vec![text.len() - 1]).collect();
    let texts = texts.iter().map(Vec::as_slice).collect::<Vec<_>>();
    if !texts.is_empty() {
        for packed in pack([(answer.prompt, texts)], usize::MAX) {
            found.extend(read_logits(reading, &packed, &positions).await?);
        }
    }
    Ok(beginnings.into_iter().zip(found).collect())
}

fn mask_after(
    constraint: &Constraint,
    answer: &GivenAnswer<'_>,
    tokens: [&[u32]; 2],
) -> Option<Vec<u32>> {
    let mut progress = constraint.begin();
    for id in tokens.into_iter().flatten() {
        progress.push(*id).ok()?;
    }
    let mut mask = vec![0; answer.vocabulary.bytes.len().div_ceil(32)];
    progress.mask(&mut mask).ok().map(|()| mask)
}

#[cfg(test)]
mod tests {
    use super::end_of_value;

    #[test]
    fn a_value_is_complete_with_its_last_byte() {
        for (text, expected) in [
            (r#""a""#, Some(3)),
            (r#""a", "b"#, Some(3)),
            (r#""a\"b""#, Some(6)),
            (r#""a\"#, None),
            (r#"""#, None),
            (r#""""#, Some(2)),
            ("tru", None),
            ("true}", Some(4)),
            ("null", Some(4)),
            ("-1", Some(1)),
            ("{", Some(1)),
            ("", None),
        ] {
            assert_eq!(end_of_value(text.as_bytes()), expected, "{text}");
        }
    }
}
