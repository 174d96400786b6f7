//! Conversations with tools and prepared completions: demonstrations, and what pretraining learns.

use std::borrow::Cow;
use std::ops::ControlFlow;

use candle_core::{Error, Result};
use serde_json::{Value, json};

use super::tools::{Sampled, TaskTools, ToolSession};
use super::{Prompt, ScoredTask, Turn, render};
use crate::dataset::PromptRow;
use crate::environment::ToolCall;
use crate::prompts::{DemonstratedTurn, demonstrated_turns, reference_answer, tools_of, turns_of};
use crate::rollout::{Completion, StopReason};
use crate::score::{AskedCalls, Scorer, Task, asked_calls, text_before_calls, written_calls};
use crate::text::{CallFormat, CallSpacing, Message, TextError, Tokenizer, Transcript};

/// Tokens of each completion of a row's demonstration.
///
/// # Errors
/// A text that cannot be encoded.
pub fn demonstrated_tokens(
    task: &Task,
    tokenizer: &Tokenizer,
    row: &PromptRow,
) -> Result<Vec<usize>> {
    let demonstrated = demonstrated_turns(row);
    if demonstrated.is_empty() {
        return Ok(Vec::new());
    }
    let Some(tools) = TaskTools::of_task(task, tokenizer, usize::MAX)? else {
        return Ok(Vec::new());
    };
    let calls = tools.written_calls();
    let texts = demonstrated
        .into_iter()
        .map_while(|said| calls.text_of(said));
    let tokens = texts.map(|text| Ok(tokenizer.answer_ids(&text).map_err(Error::wrap)?.len()));
    tokens.collect()
}

/// Replays a demonstration with the task's tools and scores it, as if a model had sampled it,
/// without log-probs. `None` without turns, if a completion exceeds
/// `max_completion_tokens`, or if a limit or a failure ends the conversation earlier.
///
/// # Errors
/// Tools that cannot be opened; a chat template that rejects the conversation.
pub fn demonstrate(
    tokenizer: &Tokenizer,
    scored: &ScoredTask<'_>,
    prompt: &Prompt,
    demonstrated: Vec<DemonstratedTurn>,
    max_completion_tokens: usize,
) -> Result<Option<Turn>> {
    if demonstrated.is_empty() {
        return Ok(None);
    }
    let tools = TaskTools::of_task(scored.task, tokenizer, scored.max_prompt_tokens)?;
    let Some(tools) = tools else {
        return Ok(None);
    };
    let calls = tools.written_calls();
    let (mut session, mut read) = (ToolSession::default(), prompt.token_ids.clone());
    let last = demonstrated.len();
    for (count, said) in (1..).zip(demonstrated) {
        let Some(text) = calls.text_of(said) else {
            return Ok(None);
        };
        let token_ids = tokenizer.answer_ids(&text).map_err(Error::wrap)?;
        if token_ids.len() > max_completion_tokens {
            return Ok(None);
        }
        let sampled = Sampled {
            row: Cow::Borrowed(&prompt.row),
            prompt: read,
            completion: Completion::new(token_ids, Vec::new(), StopReason::Stop),
            count,
            is_last: true,
        };
        match tools.follow(prompt, &mut session, sampled)? {
            ControlFlow::Continue(next) => read = next,
            ControlFlow::Break(_) if (count as usize) < last => return Ok(None),
            ControlFlow::Break(mut answer) => {
                let tokens = answer.completion.token_ids.len();
                let ids = answer.completion.token_ids.as_slice();
                let asked = [(answer.text.as_str(), Some(&*answer.row), ids)];
                let scores = scored.scorer.score_sampled(&asked, || true);
                let Some(mut score) = scores.and_then(|mut scores| scores.pop()) else {
                    return Ok(None);
                };
                scored.scorer.add_length(&mut score, tokens);
                answer.completion.stop = StopReason::Guided;
                let steps = answer.tools.iter_mut().flat_map(|tools| &mut tools.steps);
                steps.for_each(|step| step.completion.stop = StopReason::Guided);
                return Ok(Some(Turn {
                    tools: answer.tools,
                    ..Turn::new(answer.completion, answer.text, score)
                }));
            }
        }
    }
    Ok(None)
}

impl TaskTools<'_> {
    fn written_calls(&self) -> WrittenCalls<'_> {
        WrittenCalls {
            format: self.format,
            definitions: &self.definitions,
            spacing: self.tokenizer.call_spacing(&self.definitions),
        }
    }
}

/// How calls are written for a model.
struct WrittenCalls<'t> {
    format: &'static CallFormat,
    definitions: &'t Value,
    spacing: Option<CallSpacing<'t>>,
}

impl WrittenCalls<'_> {
    /// The completion of a turn; `None` if its format cannot write the calls.
    fn text_of(&self, said: DemonstratedTurn) -> Option<String> {
        if said.calls.is_empty() {
            return Some(said.text);
        }
        let written = written_calls(self.format, self.definitions, &said.text, &said.calls)?;
        let spaced = self.spaced(&written, said.text, &said.calls);
        Some(spaced.unwrap_or(written))
    }

    /// `written` with the template's white space; `None` if it cannot be read as the same calls.
    fn spaced(&self, written: &str, text: String, calls: &[ToolCall]) -> Option<String> {
        let listed = calls.iter().map(|call| {
            json!({"type": "function", "function": {"name": call.name, "arguments": call.arguments}})
        });
        let listed: Vec<Value> = listed.collect();
        let mut turn = Message::new("assistant", text);
        turn.other.insert("tool_calls".to_owned(), listed.into());
        let spaced = self.spacing.as_ref()?.apply(written, &turn)?;
        let read = asked_calls(self.format, self.definitions, &spaced);
        (read == AskedCalls::Calls(calls.to_vec())).then_some(spaced)
    }
}

/// The row's [`reference_answer`]; one that is written from the calls of `expected` has the white space of
/// the model's template.
///
/// # Errors
/// As [`reference_answer`]; tools of the row that are malformed.
pub fn answer_to_learn(
    task: &Task,
    scorer: &Scorer,
    tokenizer: &Tokenizer,
    row: &PromptRow,
) -> std::result::Result<Option<String>, TextError> {
    let answer = reference_answer(task, scorer, row)?;
    let is_own = row.fields.get("completion").is_some_and(Value::is_string);
    let tools = match answer {
        Some(_) if task.calls_functions() && !is_own => tools_of(task, Some(row))?,
        _ => None,
    };
    let (Some(written), Some(definitions)) = (&answer, &tools) else {
        return Ok(answer);
    };
    let format = tokenizer.call_format_of(task.call_format());
    let AskedCalls::Calls(calls) = asked_calls(format, definitions, written) else {
        return Ok(answer);
    };
    let spacing = tokenizer.call_spacing(definitions);
    let all = WrittenCalls {
        format,
        definitions,
        spacing,
    };
    let text = text_before_calls(written).to_owned();
    let spaced = all.spaced(written, text, &calls);
    Ok(spaced.or(answer))
}

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::find_model;
    use crate::task::PromptSet;

    #[test]
    fn expected_calls_are_learned_with_the_white_space_of_the_template() {
        let tokenizer = Tokenizer::load(&find_model("tiny-tools").unwrap()).unwrap();
        let task = crate::score::for_model(&Task::embedded("tool-calls").unwrap(), &tokenizer);
        let scorer = Scorer::new(&task).unwrap();
        let rows = crate::dataset::load(&task, PromptSet::Train).unwrap();
        for row in &rows[..20] {
            let written = reference_answer(&task, &scorer, row).unwrap().unwrap();
            let learned = answer_to_learn(&task, &scorer, &tokenizer, row);
            let learned = learned.unwrap().unwrap();
            assert!(written.starts_with("<tool_call>\n{"), "{written}");
            assert!(learned.starts_with("<tool_call>{\"name\": "), "{learned}");
            assert!(scorer.score(&learned, Some(row)).is_max(), "{learned}");
        }
    }
}
