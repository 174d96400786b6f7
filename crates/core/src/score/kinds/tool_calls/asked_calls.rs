//! Tool calls of an answer in a conversation.

use serde_json::{Map, Value};

use super::block_reader::CallReader;
use super::known_formats::syntax_of;
use super::reader::AnswerPart;
use crate::environment::ToolCall;
use crate::text::CallFormat;

#[derive(Debug, Clone, PartialEq)]
pub enum AskedCalls {
    /// None: the conversation ends with this answer.
    None,
    Calls(Vec<ToolCall>),
    /// Begins a call that is malformed.
    Unreadable,
}

/// Reads the calls of an answer without reasoning. `tools`: in OpenAI's schema.
pub fn asked_calls(format: &CallFormat, tools: &Value, answer: &str) -> AskedCalls {
    let (syntax, mut reader) = (
        syntax_of(format),
        CallReader::new(format, tools, false, false),
    );
    let mut parts = reader.push(answer);
    parts.extend(reader.finish());
    let mut calls: Vec<(String, String)> = Vec::new();
    for part in parts {
        match part {
            AnswerPart::Name(name) => calls.push((name, String::new())),
            AnswerPart::Arguments(text) => {
                if let Some((_, arguments)) = calls.last_mut() {
                    arguments.push_str(&text);
                }
            }
            AnswerPart::Text(text) if syntax.next_opening(&text).is_some() => {
                return AskedCalls::Unreadable;
            }
            AnswerPart::Text(_) => {}
        }
    }
    if calls.is_empty() {
        return AskedCalls::None;
    }
    let call = |(name, arguments): (String, String)| {
        let arguments = serde_json::from_str::<Map<String, Value>>(&arguments).ok()?;
        Some(ToolCall { name, arguments })
    };
    let read: Option<Vec<ToolCall>> = calls.into_iter().map(call).collect();
    read.map_or(AskedCalls::Unreadable, AskedCalls::Calls)
}

/// An answer of these calls in a format; `None` where it cannot write them. Text before the calls is left out where it would
/// be read as something else.
pub fn written_calls(
    format: &CallFormat,
    tools: &Value,
    text: &str,
    calls: &[ToolCall],
) -> Option<String> {
    let arguments: Vec<Value> = calls
        .iter()
        .map(|call| call.arguments.clone().into())
        .collect();
    let named = calls.iter().map(|call| call.name.as_str()).zip(&arguments);
    let written = syntax_of(format).write(&named.collect::<Vec<_>>())?;
    let is_read =
        |answer: &String| asked_calls(format, tools, answer) == AskedCalls::Calls(calls.to_vec());
    let whole = (!text.is_empty()).then(|| format!("{text}\n{written}"));
    whole.into_iter().chain([written]).find(is_read)
}

/// Calls of a chat message as written by [`crate::api_client::message_text`]; of other text in
/// Hermes's format.
pub(crate) fn calls_of_message(tools: &Value, text: &str) -> AskedCalls {
    let message = serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let Some(Value::Array(calls)) = message.get("tool_calls") else {
        return asked_calls(CallFormat::hermes(), tools, text);
    };
    let read = |call: &Value| {
        let arguments = match &call["function"]["arguments"] {
            Value::String(text) if text.trim().is_empty() => Map::new(),
            Value::String(text) => serde_json::from_str(text).ok()?,
            Value::Object(arguments) => arguments.clone(),
            _ => return None,
        };
        Some(ToolCall {
            name: call["function"]["name"].as_str()?.to_owned(),
            arguments,
        })
    };
    calls
        .iter()
        .map(read)
        .collect::<Option<Vec<_>>>()
        .map_or(AskedCalls::Unreadable, AskedCalls::Calls)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_calls_answers_or_cannot_be_read() {
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}]);
        let call = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
        for (format, answer, expected) in [
            ("hermes", "It is done.".to_owned(), "none"),
            ("hermes", String::new(), "none"),
            ("hermes", call.to_owned(), "f{\"a\":1}"),
            ("hermes", format!("I look.\n{call}\n{call}"), "f{\"a\":1} f{\"a\":1}"),
            ("hermes", "{\"name\": \"f\", \"arguments\": {}}".to_owned(), "f{}"),
            ("hermes", "{\"total\": 5}".to_owned(), "none"),
            ("hermes", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}".to_owned(), "unreadable"),
            ("hermes", format!("{call}\n<tool_call>{{\"name\""), "unreadable"),
            ("hermes", "<tool_call>{\"name\": \"f\"}</tool_call>".to_owned(), "unreadable"),
            (
                "qwen-xml",
                "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>".to_owned(),
                "f{\"a\":1}",
            ),
            ("qwen-xml", "<tool_call>\n<function=f>\n<parameter=a>\n1".to_owned(), "unreadable"),
            ("mistral-args", "[TOOL_CALLS]f[ARGS]{\"a\": 1}".to_owned(), "f{\"a\":1}"),
            ("llama", "{\"name\": \"f\", \"parameters\": {\"a\": 1}}".to_owned(), "f{\"a\":1}"),
            ("llama", "No {braces} here.".to_owned(), "none"),
        ] {
            let found = match asked_calls(CallFormat::named(format).unwrap(), &tools, &answer) {
                AskedCalls::None => "none".to_owned(),
                AskedCalls::Unreadable => "unreadable".to_owned(),
                AskedCalls::Calls(calls) => {
                    let shown = calls.iter().map(|call| format!("{}{}", call.name, json!(call.arguments)));
                    shown.collect::<Vec<_>>().join(" ")
                }
            };
            assert_eq!(found, expected, "{format} {answer}");
        }
    }
}
