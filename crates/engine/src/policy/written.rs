//! Conversations with tools and prepared completions, for pretraining.

use candle_core::{Error, Result};

use super::render;
use super::tools::{TaskTools, ToolSession};
use crate::dataset::PromptRow;
use crate::prompts::turns_of;
use crate::score::{AskedCalls, Task, asked_calls};
use crate::text::{Tokenizer, Transcript};

/// The prompt, and each completion with its stop token, preceded by the tokens read since the
/// previous one.
pub type WrittenTokens = (Vec<u32>, Vec<(Vec<u32>, Vec<u32>)>);

/// Answers the calls of a row's completions, except the last one's.
///
/// # Errors
/// Tools that cannot be opened; a chat template that rejects the conversation.
pub fn written_conversation(
    task: &Task,
    tokenizer: &Tokenizer,
    row: &PromptRow,
    completions: &[&str],
) -> Result<WrittenTokens> {
    let prompt = render(task, row.clone(), tokenizer).map_err(Error::wrap)?;
    let tools = TaskTools::of_task(task, tokenizer, usize::MAX)?;
    let mut session = ToolSession::default();
    let mut transcript = Transcript::new(
        turns_of(task, Some(tokenizer), &row.messages).map_err(Error::wrap)?,
        prompt.text,
        prompt.token_ids.clone(),
    );
    let (mut written, mut read) = (Vec::new(), prompt.token_ids.len());
    for (number, text) in completions.iter().enumerate() {
        let mut token_ids = tokenizer.encode(text).map_err(Error::wrap)?;
        token_ids.extend(tokenizer.turn_end_id());
        let follows = transcript.token_ids()[read..].to_vec();
        read = transcript.token_ids().len() + token_ids.len();
        written.push((follows, token_ids));
        let Some((tools, (_, sampled))) = tools.as_ref().zip(written.last()) else {
            break;
        };
        let calls = match asked_calls(tools.format, &tools.definitions, text) {
            AskedCalls::Calls(calls) if number + 1 < completions.len() => calls,
            _ => break,
        };
        let answered = session.call(tools, row, calls).map_err(Error::msg)?;
        tools.push_replies(&mut transcript, row, sampled, &answered)?;
    }
    Ok((prompt.token_ids, written))
}
