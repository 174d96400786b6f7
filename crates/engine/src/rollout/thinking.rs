//! Limits think blocks: a row whose block is still open ends, or continues with closing tokens.

use std::ops::Range;
use std::sync::Arc;

use crate::config::{ThinkingBudget, ThinkingEnd};
use crate::text::{TextError, Tokenizer};

/// Trailing prompt tokens examined for an open block.
const PROMPT_END: usize = 32;

/// Maximum think-block tokens, and what follows an open block (budget forcing: arXiv 2501.19393).
pub struct ThinkingLimit {
    tokenizer: Arc<Tokenizer>,
    pub max_tokens: usize,
    /// Appended instead of sampled; empty: the row ends.
    pub closing: Vec<u32>,
}

impl std::fmt::Debug for ThinkingLimit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ThinkingLimit")
            .field("max_tokens", &self.max_tokens)
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ThinkingLimit {
    fn eq(&self, other: &Self) -> bool {
        (self.max_tokens, &self.closing) == (other.max_tokens, &other.closing)
    }
}

impl ThinkingLimit {
    /// # Errors
    /// A closing text that the tokenizer cannot encode.
    pub fn new(tokenizer: &Arc<Tokenizer>, budget: ThinkingBudget) -> Result<Arc<Self>, TextError> {
        let closing = match budget.end {
            ThinkingEnd::Truncate => Vec::new(),
            ThinkingEnd::Force => tokenizer.encode(tokenizer.think_marks().closing)?,
        };
        Ok(Arc::new(Self {
            tokenizer: Arc::clone(tokenizer),
            max_tokens: budget.max_tokens,
            closing,
        }))
    }

    /// What a row does after `completion` of [`Self::max_tokens`].
    fn decide(&self, prompt: &[u32], completion: &[u32]) -> ThinkBlock {
        // Undecodable tokens count as closed: scoring reports them.
        let text = |ids: &[u32]| self.tokenizer.decode(ids, false).unwrap_or_default();
        let start = text(&prompt[prompt.len().saturating_sub(PROMPT_END)..]);
        let (answer, marks) = (text(completion), self.tokenizer.think_marks());
        let is_opened = marks.is_opened_by(&start) || answer.trim_start().starts_with(marks.open);
        if !is_opened || answer.is_empty() || answer.contains(marks.close) {
            return ThinkBlock::Free;
        }
        if self.closing.is_empty() {
            return ThinkBlock::Ended;
        }
        // Complete a character that spans several tokens.
        let is_whole = !answer.ends_with(char::REPLACEMENT_CHARACTER);
        match is_whole || completion.len() >= self.max_tokens + 3 {
            true => ThinkBlock::Closing(0..self.closing.len()),
            false => ThinkBlock::Below(completion.len() + 1),
        }
    }
}

/// A row's think-block state and limit.
pub(super) struct RowThinking {
    limit: Option<Arc<ThinkingLimit>>,
    block: ThinkBlock,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ThinkBlock {
    /// No limit, or past it.
    Free,
    /// Token limit.
    Below(usize),
    /// The next tokens of [`ThinkingLimit::closing`] are inserted, not sampled.
    Closing(Range<usize>),
    /// Truncated.
    Ended,
}

impl RowThinking {
    pub(super) fn new(limit: Option<&Arc<ThinkingLimit>>) -> Self {
        let block = |limit: &Arc<ThinkingLimit>| ThinkBlock::Below(limit.max_tokens);
        Self {
            limit: limit.cloned(),
            block: limit.map_or(ThinkBlock::Free, block),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.block == ThinkBlock::Ended
    }

    /// Tokens that may be sampled from `length` on before the block's end is decided.
    pub(super) fn free_tokens(&self, length: usize) -> usize {
        match self.block {
            ThinkBlock::Free => usize::MAX,
            ThinkBlock::Below(most) => most.saturating_sub(length),
            ThinkBlock::Closing(_) | ThinkBlock::Ended => 0,
        }
    }

    /// The next token, if forced.
    pub(super) fn forced(&self) -> Option<u32> {
        match &self.block {
            ThinkBlock::Closing(left) => self.limit.as_ref()?.closing.get(left.start).copied(),
            _ => None,
        }
    }

    /// Updates the state after another token.
    pub(super) fn advance(&mut self, prompt: &[u32], completion: &[u32]) {
        let Some(limit) = &self.limit else { return };
        match &mut self.block {
            ThinkBlock::Below(most) if completion.len() >= *most => {
                self.block = limit.decide(prompt, completion)
            }
            ThinkBlock::Closing(left) if left.len() == 1 => self.block = ThinkBlock::Free,
            ThinkBlock::Closing(left) => left.start += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::text::train_tokenizer;

    #[test]
    fn a_block_is_closed_by_the_marks_of_the_model() {
        const GEMMA: &str = "<|channel> <channel|>";
        const GPT_OSS: &str = "<|channel|>analysis";
        for (template, prompt, completion, closing) in [
            ("", "<think>\n", "so", Some("\n</think>\n\n")),
            ("", "user", "<think>so", Some("\n</think>\n\n")),
            ("", "user", "<think>so</think>", None),
            ("", "<|channel>thought\n", "so", None),
            (GEMMA, "<|channel>thought\n", "so", Some("\n<channel|>")),
            (GEMMA, "user", "<|channel>thought\nso", Some("\n<channel|>")),
            (GEMMA, "user", "<|channel>thought\nso<channel|>a", None),
            (GEMMA, "<think>\n", "so", None),
            (
                GPT_OSS,
                "<|start|>assistant",
                "<|channel|>analysis<|message|>so",
                Some("<|end|><|start|>assistant<|channel|>final<|message|>"),
            ),
            (
                GPT_OSS,
                "<|start|>assistant",
                "<|channel|>analysis<|message|>so<|end|>",
                None,
            ),
            (
                GPT_OSS,
                "<|start|>assistant",
                "<|channel|>final<|message|>so",
                None,
            ),
        ] {
            let texts = ["so it is".to_owned()].into_iter().cycle().take(20);
            let files = train_tokenizer(texts, 300, template).unwrap();
            let tokenizer = Arc::new(Tokenizer::from_files(&files).unwrap());
            let budget = ThinkingBudget {
                max_tokens: 1,
                end: ThinkingEnd::Force,
            };
            let limit = ThinkingLimit::new(&tokenizer, budget).unwrap();
            let ids = |text| tokenizer.encode(text).unwrap();
            let found = limit.decide(&ids(prompt), &ids(completion));
            let closed = (found == ThinkBlock::Closing(0..limit.closing.len()))
                .then(|| tokenizer.decode(&limit.closing, false).unwrap());
            assert_eq!(
                closed.as_deref(),
                closing,
                "{template} {prompt} {completion}"
            );
        }
    }
}
