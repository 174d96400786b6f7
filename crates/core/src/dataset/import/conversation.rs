//! Conversations in a cell: OpenAI's form (`role`, `content`, `tool_calls`) and ShareGPT's (`from`,
//! `value`), whose calls are turns of their own or Hermes' tags in the text.

use serde_json::{Map, Value, json};

use crate::exact_json;
use crate::format::shortened;
use crate::text::Message;

/// Hermes' tags around a call and a result.
const CALL: [&str; 2] = ["<tool_call>", "</tool_call>"];
const RESULT: [&str; 2] = ["<tool_response>", "</tool_response>"];

pub(super) fn turns(value: &Value) -> Result<Vec<Message>, String> {
    let turns = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |value: &Value| {
        turn(value).ok_or_else(|| {
            format!(
                "prompt: `{}` is not a turn; write {{\"role\": \"user\", \"content\": \"…\"}}",
                shortened(&value.to_string(), 60)
            )
        })
    };
    turns.iter().map(read).collect()
}

pub(super) fn has_calls(turns: &[Message]) -> bool {
    let mut after = turns.iter().rev().take_while(|turn| turn.role != "user");
    after.any(|turn| !turn.tool_calls().is_empty())
}

pub(super) fn turn(value: &Value) -> Option<Message> {
    let text = |keys: [&str; 2]| {
        keys.into_iter()
            .find_map(|key| value.get(key)?.as_str())
            .map(str::to_owned)
    };
    let from = text(["role", "from"])?;
    let is_sharegpt = value.get("from").is_some();
    let role = match from.as_str() {
        "human" => "user",
        "gpt" | "function_call" => "assistant",
        "observation" | "function_response" => "tool",
        role if ["system", "user", "assistant", "tool", "developer"].contains(&role) => role,
        _ => return None,
    };
    // Chat templates read further fields, such as the reasoning of an earlier turn.
    let is_other = |(key, value): &(&String, &Value)| {
        !["role", "from", "content", "value"].contains(&key.as_str()) && !value.is_null()
    };
    let other = value.as_object()?.iter().filter(is_other);
    let mut other: Map<String, Value> = other
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut content = text(["content", "value"])
        .or_else(|| joined_parts(value.get("content")?))
        .or_else(|| other.contains_key("tool_calls").then(String::new))?;
    if is_sharegpt {
        let calls = match (from.as_str(), role) {
            ("function_call", _) => calls_of(&[content.as_str()])?,
            (_, "assistant") => calls_of(&tagged(&content, CALL))?,
            _ => Vec::new(),
        };
        if !calls.is_empty() {
            let end = content.find(CALL[0]).unwrap_or(0);
            content.truncate(end);
            content.truncate(content.trim_end().len());
            other.insert("tool_calls".to_owned(), calls.into());
        }
        if let ("tool", [result]) = (role, &*tagged(&content, RESULT)) {
            content = (*result).to_owned();
        }
    }
    Some(Message {
        other,
        ..Message::new(role.to_owned(), content)
    })
}

/// The text of a content in parts, `[{"type": "text", "text": ..}]` or texts; `None` with other parts, such as pictures.
fn joined_parts(content: &Value) -> Option<String> {
    let text = |part: &Value| {
        let text = part.as_str().or_else(|| part.get("text")?.as_str());
        text.map(str::to_owned)
    };
    content.as_array()?.iter().map(text).collect()
}

/// Whether a value is a list of turns, at least one.
pub(super) fn is_conversation(value: &Value) -> bool {
    let turns = value.as_array().map(Vec::as_slice).unwrap_or_default();
    !turns.is_empty() && turns.iter().all(|value| turn(value).is_some())
}

/// A conversation that a table stores as JSON text.
pub(super) fn stored_as_text(text: &str) -> Option<Value> {
    let text = text.trim();
    let value = text
        .starts_with('[')
        .then(|| exact_json::parse(text).ok())??;
    is_conversation(&value).then_some(value)
}

/// The user's turn; refuses a conversation in Python's notation, as an export of a table writes a column of lists.
pub(super) fn asked(content: String) -> Result<Message, String> {
    let begin = content.trim_start().strip_prefix("[{'").unwrap_or_default();
    let keys = ["role': '", "from': '", "content': ", "value': "];
    match keys.iter().any(|key| begin.starts_with(key)) {
        true => Err(
            "prompt: a conversation as Python prints it; write it as JSON, with `json.dumps`"
                .to_owned(),
        ),
        false => Ok(Message::new("user", content)),
    }
}

fn tagged<'t>(text: &'t str, [open, close]: [&str; 2]) -> Vec<&'t str> {
    let parts = text.split(open).skip(1);
    let inner = parts.map(|part| {
        part.split_once(close)
            .map_or(part, |(inner, _)| inner)
            .trim()
    });
    inner.collect()
}

/// Calls in OpenAI's form of JSON objects or lists of `name` and `arguments`.
fn calls_of(texts: &[&str]) -> Option<Vec<Value>> {
    let mut calls = Vec::new();
    for text in texts {
        let read = match serde_json::from_str(text).ok()? {
            Value::Array(list) => list,
            one => vec![one],
        };
        for call in read {
            let (name, arguments) = (call.get("name")?.clone(), call.get("arguments")?.clone());
            calls.push(
                json!({"type": "function", "function": {"name": name, "arguments": arguments}}),
            );
        }
    }
    Some(calls)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn conversations_of_sharegpt_are_those_of_openai() {
        let openai = json!([
            {"role": "user", "content": "Pay 7."},
            {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "function": {"name": "pay", "arguments": {"number": 7}}}]},
            {"role": "tool", "content": "{\"changed\": 1}"},
            {"role": "assistant", "content": "Paid."},
        ]);
        // LLaMA-Factory's, then Hermes'.
        let factory = json!([
            {"from": "human", "value": "Pay 7."},
            {"from": "function_call", "value": "{\"name\": \"pay\", \"arguments\": {\"number\": 7}}"},
            {"from": "observation", "value": "{\"changed\": 1}"},
            {"from": "gpt", "value": "Paid."},
        ]);
        let hermes = json!([
            {"from": "human", "value": "Pay 7."},
            {"from": "gpt", "value": "<tool_call>\n{\"name\": \"pay\", \"arguments\": {\"number\": 7}}\n</tool_call>"},
            {"from": "tool", "value": "<tool_response>\n{\"changed\": 1}\n</tool_response>"},
            {"from": "gpt", "value": "Paid."},
        ]);
        let expected = turns(&openai).unwrap();
        assert!(has_calls(&expected) && !has_calls(&expected[..1]));
        for form in [factory, hermes] {
            assert_eq!(json!(turns(&form).unwrap()), json!(expected));
        }
        let broken = json!([{"from": "function_call", "value": "pay(7)"}]);
        let error = turns(&broken).unwrap_err();
        assert!(error.contains("is not a turn"), "{error}");
    }
    #[test]
    fn parts_are_joined_and_pythons_notation_is_refused() {
        for content in [json!(["a", "b"]), json!([{"type": "text", "text": "ab"}])] {
            let turn = turn(&json!({"role": "user", "content": content})).unwrap();
            assert_eq!(turn.content, "ab");
        }
        for (text, is_refused) in [
            ("[{'role': 'user', 'content': 'a'}]", true),
            ("[{'content': \"it's\", 'role': 'user'}]", true),
            ("[{'a': 1}]", false),
            ("Read: [{'role': 'user'}]", false),
        ] {
            assert_eq!(asked(text.to_owned()).is_err(), is_refused, "{text}");
        }
    }
}
