//! Tokenizes guard prompts.

use crate::dataset::guard_rows;
use crate::policy::{Lengths, PromptError};
use crate::prompts::template_options;
use crate::score::Task;
use crate::text::Tokenizer;

#[derive(Clone, Debug)]
pub struct GuardPrompt {
    /// Not empty.
    pub prompt: Vec<u32>,
    /// Tokens of an answer, including the end of turn.
    pub reference: Vec<u32>,
    /// Text of an answer; `None` for plain text.
    pub answer: Option<String>,
}

/// The task's guard prompts, without its system prompt.
///
/// # Errors
/// [`PromptError`] naming file, line and row.
pub fn prepare_guard(
    task: &Task,
    tokenizer: &Tokenizer,
    lengths: Lengths,
) -> Result<Vec<GuardPrompt>, PromptError> {
    let label = task
        .prompts
        .guard
        .as_ref()
        .map_or_else(String::new, |file| task.label(file));
    let (mut prompts, options) = (Vec::new(), template_options(task));
    for row in guard_rows(task)? {
        let place = format!("{label} line {} (`{}`)", row.line, row.id);
        let failed = |source| PromptError::Text {
            place: place.clone(),
            source,
        };
        let mut reference = tokenizer.encode(&row.reference).map_err(failed)?;
        let (prompt, answer) = if row.messages.is_empty() {
            let mut prompt = tokenizer.special_prefix(&row.reference).map_err(failed)?;
            if prompt.is_empty() {
                // The first token has no predecessor.
                let rest = reference.split_off(1.min(reference.len()));
                prompt = std::mem::replace(&mut reference, rest);
            }
            (prompt, None)
        } else {
            let prompt = tokenizer
                .prompt_ids(&row.messages, None, &options)
                .map_err(failed)?;
            reference.extend(tokenizer.turn_end_id());
            (prompt, Some(row.reference))
        };
        let lengths = Lengths {
            max_completion_tokens: lengths.max_completion_tokens.max(reference.len()),
            ..lengths
        };
        if prompt.len() > lengths.prompt_limit() {
            return Err(PromptError::TooLong {
                place,
                tokens: prompt.len(),
                lengths,
            });
        }
        prompts.push(GuardPrompt {
            prompt,
            reference,
            answer,
        });
    }
    Ok(prompts)
}
