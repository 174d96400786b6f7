//! A model's vocabulary for grammars: bytes of each token, and where think blocks end in them.

use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::ConstraintError;
use crate::confidence::{is_number_byte, is_white_space};
use crate::text::catch_panic::catch_panic;
use crate::text::{ThinkMarks, Tokenizer};

/// Parser items at one position: 1,000 optional properties take up to 5,000, several alternatives
/// add up.
const MAX_ROW_ITEMS: usize = 10_000;
/// Limit over all positions reached by the tokens of one mask.
const MAX_STEP_ITEMS: usize = 200_000;

/// A tokenizer's vocabulary, prepared once for all grammars.
pub struct Vocabulary {
    pub(super) factory: ParserFactory,
    /// Bytes by id; empty for tokens without text.
    pub(crate) bytes: Vec<Vec<u8>>,
    pub(crate) marks: &'static ThinkMarks,
    /// Tokens that complete an end mark, by the number of its bytes that the text ends with.
    pub(super) ending: Vec<Vec<u32>>,
    pub(crate) stop_ids: Vec<u32>,
    beginnings: OnceLock<Beginnings>,
}

/// Tokens by their first bytes; bits as in a mask.
#[derive(Debug)]
pub(crate) struct Beginnings {
    /// Ids in the order of their bytes.
    sorted: Vec<u32>,
    /// A JSON value may begin with them.
    pub(crate) value: Vec<u32>,
    /// A number before them ends.
    pub(crate) after_number: Vec<u32>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Vocabulary")
            .field("tokens", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// # Errors
    /// [`ConstraintError`] if the tokens' bytes are unknown, or nothing ends a completion.
    pub fn new(tokenizer: &Tokenizer) -> Result<Arc<Self>, ConstraintError> {
        let mut bytes = tokenizer.token_bytes()?;
        let stop_ids: Vec<u32> = tokenizer
            .stop_ids()
            .iter()
            .copied()
            .filter(|id| (*id as usize) < bytes.len())
            .collect();
        if stop_ids.is_empty() {
            return Err(ConstraintError::NoStopToken);
        }
        for (id, token) in (0..).zip(&mut bytes) {
            // 0xFF is not part of text, and marks special tokens in the trie.
            if stop_ids.contains(&id) || token.first() == Some(&0xFF) {
                token.clear();
            }
        }
        let marks = tokenizer.think_marks();
        let completing = |before| {
            let completes =
                |(id, token): (u32, &Vec<u8>)| completes(marks.end(), before, token).then_some(id);
            (0..).zip(&bytes).filter_map(completes).collect()
        };
        let ending = (0..marks.end().len()).map(completing).collect();
        let built = catch_panic(|| {
            let trie = TokTrie::from(&TokRxInfo::new(bytes.len() as u32, stop_ids[0]), &bytes);
            let environment: TokEnv =
                Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&stop_ids)));
            ParserFactory::new_simple(&environment)
        });
        let mut factory = match built {
            Ok(Ok(factory)) => factory,
            Ok(Err(_)) | Err(_) => {
                return Err(ConstraintError::Vocabulary(
                    "its tokens make no trie".to_owned(),
                ));
            }
        };
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        (limits.max_items_in_row, limits.step_max_items) = (MAX_ROW_ITEMS, MAX_STEP_ITEMS);
        Ok(Arc::new(Self {
            factory,
            bytes,
            marks,
            ending,
            stop_ids,
            beginnings: OnceLock::new(),
        }))
    }

    /// Ids of the tokens that begin with these bytes.
    pub(crate) fn starting_with(&self, start: &[u8]) -> &[u32] {
        let sorted = &self.beginnings().sorted;
        let bytes = |id: &u32| self.bytes[*id as usize].as_slice();
        let from = sorted.partition_point(|id| bytes(id) < start);
        let count = sorted[from..].partition_point(|id| bytes(id).starts_with(start));
        &sorted[from..from + count]
    }

    pub(crate) fn beginnings(&self) -> &Beginnings {
        self.beginnings.get_or_init(|| {
            let bits = |is_set: fn(u8) -> bool| {
                let mut words = vec![0; self.bytes.len().div_ceil(32)];
                for (id, bytes) in self.bytes.iter().enumerate() {
                    let bit = bytes.first().is_some_and(|byte| is_set(*byte));
                    words[id / 32] |= u32::from(bit) << (id % 32);
                }
                words
            };
            let mut sorted: Vec<u32> = (0..self.bytes.len() as u32).collect();
            sorted.sort_by_key(|id| self.bytes[*id as usize].as_slice());
            Beginnings {
                sorted,
                value: bits(|byte| !is_white_space(byte)),
                after_number: bits(|byte| !is_number_byte(byte)),
            }
        })
    }
}

/// Matched bytes of a mark after `byte`, given those before; restarts once complete.
pub(super) fn advance(mark: &str, before: usize, byte: u8) -> usize {
    let (mark, before) = (mark.as_bytes(), before % mark.len());
    let continues =
        |length: &usize| mark[*length] == byte && mark[..before].ends_with(&mark[..*length]);
    (0..=before)
        .rev()
        .find(continues)
        .map_or(0, |length| length + 1)
}

fn completes(mark: &str, before: usize, token: &[u8]) -> bool {
    let mut matched = before;
    token.iter().any(|&byte| {
        matched = advance(mark, matched, byte);
        matched == mark.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_complete_the_end_of_a_think_block_are_found() {
        for (mark, before, token, expected) in [
            ("</think>", 0, "</think>", true),
            ("</think>", 0, " a</think>b", true),
            ("</think>", 0, "</think", false),
            ("</think>", 7, ">", true),
            ("</think>", 7, "<</think>", true),
            ("</think>", 2, "think>\n", true),
            ("</think>", 2, "thin", false),
            ("</think>", 1, "<</think>", true),
            ("</think>", 3, "/think>", false),
            ("<channel|>", 0, "<channel|>", true),
            ("<channel|>", 9, ">", true),
            ("<channel|>", 0, "<|channel>", false),
            // Its suffix may begin it again.
            ("<|channel|>final<|message|>", 16, "<|message|>", true),
            (
                "<|channel|>final<|message|>",
                18,
                "channel|>final<|message|>",
                true,
            ),
            ("<|channel|>final<|message|>", 18, "message|>", true),
            ("<|channel|>final<|message|>", 17, "<|message|>", false),
        ] {
            assert_eq!(
                completes(mark, before, token.as_bytes()),
                expected,
                "{mark} {before} {token}"
            );
        }
    }
}
