//! gpt-oss's messages (OpenAI's harmony): a call is one to `functions.NAME`, in the header of the channel or of the role:
//! `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>`. Messages of the channel `analysis`
//! are reasoning, and those without a receiver are text.

use std::ops::Range;

use serde_json::Value;

use super::super::super::FailureClass;
use super::super::argument_types::ArgumentTypes;
use super::super::call_list::CallList;
use super::super::syntax::{
    CallLayout, CallSyntax, Read, after_white_space, copy_object, find_any, truncated, unreadable,
};
use crate::text::json_line;

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const RECEIVER: &str = "to=functions.";
const ENDS: [&str; 3] = ["<|call|>", "<|end|>", "<|return|>"];

#[derive(Debug)]
pub(in super::super) struct Harmony;

pub(in super::super) static HARMONY: Harmony = Harmony;

impl CallSyntax for Harmony {
    fn name(&self) -> &'static str {
        "harmony"
    }

    fn openings(&self) -> &'static [&'static str] {
        &[START, CHANNEL]
    }

    fn first_openings(&self) -> &'static [&'static str] {
        &[RECEIVER]
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
        let Some(name) = header
            .find(RECEIVER)
            .map(|found| at + found + RECEIVER.len())
        else {
            // Reasoning; other messages are no calls.
            return match header.contains("analysis") {
                true => find_any(text, start, &ENDS).map(|end| after_end(text, end)),
                false => Err(unreadable(
                    "a message to the user, no call",
                    at,
                    FailureClass::Prose,
                )),
            };
        };
        let name_end = name
            + text[name..content]
                .find([' ', '<'])
                .unwrap_or(content - name);
        calls.begin_named(text, name..name_end);
        let end = copy_object(text, after_white_space(text, start), calls)?;
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
                "{CHANNEL}commentary {RECEIVER}{name} <|constrain|>json{MESSAGE}{arguments}<|call|>"
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

    /// The message of the channel `final`.
    fn spoken(&self, text: &str, from: usize) -> Range<usize> {
        let said = text[from..]
            .rfind("<|channel|>final")
            .map(|found| from + found);
        let Some(start) = said.and_then(|said| find_any(text, said, &[MESSAGE]).ok()) else {
            return from..text.len();
        };
        let start = start + MESSAGE.len();
        start..find_any(text, start, &ENDS).unwrap_or(text.len())
    }
}

fn after_end(text: &str, at: usize) -> usize {
    at + ENDS
        .iter()
        .find(|end| text[at..].starts_with(**end))
        .map_or(0, |end| end.len())
}
