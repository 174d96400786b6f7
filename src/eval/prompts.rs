//! Prompt rows as the model reads them: the task's system text joined, the chat template applied, tokens counted.

use crate::dataset::{DatasetError, PromptRow, load};
use crate::task::{PromptSet, Task};
use crate::text::{TextError, Thinking, Tokenizer, conversation};

/// A row and its prompt.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The row.
    pub row: PromptRow,
    /// The prompt as text, special tokens included.
    pub text: String,
    /// The prompt's tokens.
    pub token_ids: Vec<u32>,
}

/// Why a set cannot be used with a model.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The file.
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    /// Template or tokenizer.
    #[error("{place}: {source}")]
    Text {
        /// File, line and row.
        place: String,
        /// What went wrong.
        source: TextError,
    },
    /// A prompt leaves no room for an answer.
    #[error(
        "{place}: the prompt has {tokens} tokens, the most is {limit} (max_seq_len {max_seq_len} less max_completion_tokens {max_completion_tokens}); shorten it, or raise max_seq_len"
    )]
    TooLong {
        /// File, line and row.
        place: String,
        /// Its tokens.
        tokens: usize,
        /// The most it may have.
        limit: usize,
        /// The configuration's limit of both together.
        max_seq_len: usize,
        /// Of which the completion may take.
        max_completion_tokens: usize,
    },
}

/// Reads a set of the task and prepares every row; a task without that set has none.
///
/// # Errors
/// [`PromptError`] naming file, line and row.
pub fn prepare(
    task: &Task,
    set: PromptSet,
    tokenizer: &Tokenizer,
    max_seq_len: usize,
    max_completion_tokens: usize,
) -> Result<Vec<Prompt>, PromptError> {
    let Some(file) = task.set_file(set) else { return Ok(Vec::new()) };
    let label = task.label(file);
    let limit = max_seq_len.saturating_sub(max_completion_tokens);
    let prepared = load(task, set)?.into_iter().map(|row| {
        let place = format!("{label} line {} (`{}`)", row.line, row.id);
        let prompt = render(task, row, tokenizer).map_err(|source| PromptError::Text { place: place.clone(), source })?;
        let tokens = prompt.token_ids.len();
        if tokens > limit {
            return Err(PromptError::TooLong { place, tokens, limit, max_seq_len, max_completion_tokens });
        }
        Ok(prompt)
    });
    prepared.collect()
}

fn render(task: &Task, row: PromptRow, tokenizer: &Tokenizer) -> Result<Prompt, TextError> {
    let thinking = if task.thinking { Thinking::On } else { Thinking::Off };
    let messages = conversation(task.system.as_deref(), &row.messages, thinking, tokenizer.has_thinking_switch());
    let text = tokenizer.render(&messages, thinking)?;
    Ok(Prompt { token_ids: tokenizer.encode(&text)?, text, row })
}
