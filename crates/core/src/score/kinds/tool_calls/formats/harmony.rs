//! gpt-oss (OpenAI's harmony): a call is a message to `functions.NAME`, in the channel's or role's
//! header: `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>`.
//! Messages of channel `analysis` are reasoning; those without receiver are text, such as a
//! preamble in `commentary`.

use std::ops::Range;

use serde_json::Value;

use crate::score::kinds::tool_calls::syntax::{
    ArgumentTypes, CallLayout, CallList, CallSyntax, Read, after_white_space, copy_object,
    find_any, truncated, unreadable,
};
use crate::score::verdict::FailureClass;
use crate::text::json_line;

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const RECEIVER: &str = "to=";
const FUNCTIONS: &str = "functions.";
const ENDS: [&str; 3] = ["<|call|>", "<|end|>", "<|return|>"];

#[derive(Debug)]
pub(crate) struct Harmony;

pub(crate) static HARMONY: Harmony = Harmony;

impl CallSyntax for Harmony {
    fn name(&self) -> &'static str {
        "harmony"
    }

    fn openings(&self) -> &'static [&'static str] {
        &[START, CHANNEL]
    }

    fn first_openings(&self) -> &'static [&'static str] {
        &["to=functions."]
    }

    fn first_call(&self, text: &str) -> Option<usize> {
        let (header, _) = messages(text).find(|(header, _)| receiver(text, header).is_some())?;
        let found = text[header.clone()]
            .find(START)
            .or_else(|| text[header.clone()].find(CHANNEL));
        Some(header.start + found?)
    }

    fn read_block(
        &self,
        text: &str,
        at: usize,
        _types: &ArgumentTypes,
        calls: &mut CallList,
    ) -> Read<usize> {
        let content = find_any(text, at, &[MESSAGE])?;
        let header = &text[at..content];
        let start = content + MESSAGE.len();
        let Some(name) = receiver(text, &(at..content)) else {
            // Reasoning; other messages are not calls.
            return match header.contains("analysis") {
                true => find_any(text, start, &ENDS).map(|end| after_end(text, end)),
                false => Err(unreadable(
                    "a message to the user, no call",
                    at,
                    FailureClass::Prose,
                )),
            };
        };
        if !text[name.clone()].starts_with(FUNCTIONS) {
            let to = &text[name.clone()];
            return Err(unreadable(
                format!("the message is to `{to}`; a call is to `{FUNCTIONS}NAME`"),
                name.start,
                FailureClass::Syntax,
            ));
        }
        calls.begin_named(text, name.start + FUNCTIONS.len()..name.end);
        let start = after_white_space(text, start);
        let end = if ENDS.iter().any(|end| text[start..].starts_with(end)) {
            calls.literal("null", start);
            start
        } else {
            copy_object(text, start, calls)?
        };
        calls.end_call(end);
        // A stop token is not part of the text.
        let end = after_white_space(text, end);
        let rest = &text[end..];
        match ENDS
            .iter()
            .any(|mark| !rest.is_empty() && mark.starts_with(rest) && *mark != rest)
        {
            true => Err(truncated(text)),
            false => Ok(after_end(text, end)),
        }
    }

    fn layout(&self) -> Option<CallLayout> {
        // Its calls end with a stop token.
        None
    }

    fn write(&self, calls: &[(&str, &Value)]) -> Option<String> {
        let call = |(name, arguments): &(&str, &Value)| {
            let arguments = json_line(arguments).ok()?;
            Some(format!(
                "{CHANNEL}commentary {RECEIVER}{FUNCTIONS}{name} <|constrain|>json{MESSAGE}{arguments}<|call|>"
            ))
        };
        Some(
            calls
                .iter()
                .map(call)
                .collect::<Option<Vec<_>>>()?
                .join("<|start|>assistant"),
        )
    }

    /// The last message to the user.
    fn spoken(&self, text: &str, from: usize) -> Range<usize> {
        let rest = &text[from..];
        let said = messages(rest)
            .filter(|(header, _)| !rest[header.clone()].contains("analysis"))
            .last();
        said.map_or(from..text.len(), |(_, content)| {
            from + content.start..from + content.end
        })
    }
}

pub(crate) fn has_messages(text: &str) -> bool {
    text.contains(START) || text.contains(CHANNEL)
}

pub(crate) fn has_call(text: &str) -> bool {
    messages(text)
        .any(|(header, _)| has_messages(&text[header.clone()]) && receiver(text, &header).is_some())
}

fn messages(text: &str) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let content = find_any(text, at, &[MESSAGE]).ok()?;
        let (header, start) = (at..content, content + MESSAGE.len());
        let end = find_any(text, start, &ENDS).unwrap_or(text.len());
        at = after_end(text, end);
        Some((header, start..end))
    })
}

fn receiver(text: &str, header: &Range<usize>) -> Option<Range<usize>> {
    let start = header.start + text[header.clone()].find(RECEIVER)? + RECEIVER.len();
    let end = text[start..header.end].find([' ', '<']);
    Some(start..end.map_or(header.end, |end| start + end))
}

fn after_end(text: &str, at: usize) -> usize {
    at + ENDS
        .iter()
        .find(|end| text[at..].starts_with(**end))
        .map_or(0, |end| end.len())
}
