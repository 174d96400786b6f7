//! Matches a request with earlier ones of its conversation: if it extends a request and our answer,
//! its prompt is that prompt, the sampled tokens and new text, without re-tokenizing.

use serde_json::{Value as Json, json};

use crate::generation::{AskedModel, prompts, template_options};
use crate::openai::{ApiError, Prompt};
use crate::rollout::Completion;
use crate::text::{Message, TemplateInput, TemplateOptions, Tokenizer, Transcript};

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) prompt: AskedPrompt,
    pub(super) answer: Option<Answered>,
}

#[derive(Debug)]
pub(super) struct Answered {
    pub(super) completion: Completion,
    /// Message sent to the client; for a text API the text.
    pub(super) message: Message,
}

/// A request's prompt and its origin.
#[derive(Debug)]
pub(super) struct AskedPrompt {
    pub(super) token_ids: Vec<u32>,
    pub(super) follows: Option<usize>,
    /// Why it follows none, though its messages do.
    pub(super) split: Option<String>,
    /// Leading tokens taken from the request it follows.
    pub(super) shared_ids: usize,
    /// All messages; for a text API one with the text.
    messages: Vec<Message>,
    /// Messages of the request it follows, with its answer.
    shared_messages: usize,
    /// Tools and template: different ones begin a branch. Empty for a text API.
    key: String,
    transcript: Option<Transcript>,
}

impl AskedPrompt {
    /// Messages beyond those of the request it follows.
    pub(super) fn new_messages(&self) -> Vec<Message> {
        self.messages[self.shared_messages..].to_vec()
    }
}

/// A request's prompt, spliced if it continues one of `earlier`.
pub(super) fn prompt_of(
    model: &AskedModel,
    earlier: &[Asked],
    prompt: &Prompt,
    add_special: bool,
) -> Result<AskedPrompt, ApiError> {
    // Finished even if the client leaves.
    let whole = || prompts(model, prompt, add_special, &|| Ok(()));
    let read = || whole().map(|prompts| prompts.into_iter().next().unwrap_or_default());
    let Prompt::Chat {
        messages,
        tools,
        template,
    } = prompt
    else {
        let (ids, text) = read()?;
        return Ok(text_prompt(earlier, ids, text));
    };
    let options = template_options(model, template);
    let tools = tools.as_ref().map(|tools| &tools.list);
    let key = format!("{} {options:?}", json!(tools));
    let (mut split, mut spliced) = (None, None);
    if let Some((number, continued)) = continued(earlier, messages, &key) {
        let new = &messages[continued..];
        match splice(&model.tokenizer, &earlier[number], (tools, &options), new) {
            Ok(transcript) => spliced = Some((number, continued, transcript)),
            Err(why) => split = Some(why),
        }
    }
    let (follows, shared_messages, transcript) = match spliced {
        Some((number, continued, transcript)) => (Some(number), continued, transcript),
        None => {
            let (ids, text) = read()?;
            (None, 0, Transcript::new(messages.clone(), text, ids))
        }
    };
    Ok(AskedPrompt {
        token_ids: transcript.token_ids().to_vec(),
        follows,
        split,
        shared_ids: follows.map_or(0, |number| length_after(&earlier[number])),
        messages: messages.clone(),
        shared_messages,
        key,
        transcript: Some(transcript),
    })
}

/// A raw prompt follows the request whose tokens and completion are its prefix.
fn text_prompt(earlier: &[Asked], token_ids: Vec<u32>, text: String) -> AskedPrompt {
    let begins = |asked: &Asked| {
        let sampled = asked.answer.as_ref()?.completion.token_ids.as_slice();
        token_ids
            .strip_prefix(asked.prompt.token_ids.as_slice())?
            .strip_prefix(sampled)
    };
    let all = earlier.iter().enumerate();
    let followed = all.filter(|(_, asked)| begins(asked).is_some());
    let longest = followed.max_by_key(|(_, asked)| length_after(asked));
    AskedPrompt {
        token_ids,
        follows: longest.map(|(number, _)| number),
        split: None,
        shared_ids: longest.map_or(0, |(_, asked)| length_after(asked)),
        messages: vec![Message::new("user", text)],
        shared_messages: 0,
        key: String::new(),
        transcript: None,
    }
}

/// Tokens of prompt and completion.
fn length_after(asked: &Asked) -> usize {
    let sampled = asked.answer.as_ref();
    let sampled = sampled.map_or(0, |answer| answer.completion.token_ids.len());
    asked.prompt.token_ids.len() + sampled
}

/// The request that these messages extend the furthest, and the number of messages it covers with
/// its answer.
fn continued(earlier: &[Asked], messages: &[Message], key: &str) -> Option<(usize, usize)> {
    let length = |asked: &Asked| {
        let (asked_before, answer) = (&asked.prompt.messages, asked.answer.as_ref()?);
        let is_continued = asked.prompt.key == key
            && !asked_before.is_empty()
            && messages.len() > asked_before.len()
            && asked_before
                .iter()
                .zip(messages)
                .all(|(one, other)| is_same(one, other))
            && is_same(&answer.message, &messages[asked_before.len()]);
        is_continued.then_some(asked_before.len() + 1)
    };
    let all = earlier.iter().enumerate();
    let lengths = all.filter_map(|(number, asked)| Some((length(asked)?, number)));
    lengths.max().map(|(length, number)| (number, length))
}

/// Whether a client repeats a message. It may omit what only we know: reasoning, call ids.
fn is_same(known: &Message, other: &Message) -> bool {
    known.role == other.role && known.content == other.content && calls(known).eq(calls(other))
}

fn calls(message: &Message) -> impl Iterator<Item = (&str, &Json)> {
    message.tool_calls().iter().filter_map(|call| {
        let function = call.get("function")?;
        Some((function.get("name")?.as_str()?, function.get("arguments")?))
    })
}

/// The transcript of a request with its answer and the new messages.
///
/// # Errors
/// Why the tokens cannot be continued.
fn splice(
    tokenizer: &Tokenizer,
    asked: &Asked,
    (tools, options): (Option<&Json>, &TemplateOptions),
    new: &[Message],
) -> Result<Transcript, String> {
    let (Some(transcript), Some(answer)) = (&asked.prompt.transcript, &asked.answer) else {
        return Err("it has no messages".to_owned());
    };
    let mut sampled = answer.completion.token_ids.clone();
    let stop_ids = tokenizer.stop_ids();
    if !sampled.last().is_some_and(|id| stop_ids.contains(id)) {
        // Ended by a limit or `stop`: append the end of turn that was not sampled.
        let end = tokenizer.turn_end_id();
        sampled.push(end.ok_or("the model has no token that ends a turn")?);
    }
    let functions: Vec<&str> = calls(&answer.message).map(|(name, _)| name).collect();
    let mut transcript = transcript.clone();
    let input = TemplateInput { tools, options };
    let pushed = transcript.push(tokenizer, input, (&sampled, &functions), new);
    pushed.map_err(|error| error.to_string())?;
    Ok(transcript)
}
