//! Parses the messages of a row and of its later turns.

use serde_json::{Map, Value};

use crate::text::Message;

/// Roles that chat templates know.
const ROLES: [&str; 5] = ["system", "user", "assistant", "tool", "developer"];

/// More would not fit any model's context.
const MAX_TURNS: usize = 256;

pub(super) fn messages(fields: &Map<String, Value>) -> Result<Vec<Message>, String> {
    messages_of(fields, "messages")
}

pub(super) fn messages_of(fields: &Map<String, Value>, key: &str) -> Result<Vec<Message>, String> {
    let turns = match fields.get(key) {
        Some(Value::Array(turns)) if turns.is_empty() => {
            return Err(format!("`{key}` is empty; it needs at least one turn"));
        }
        Some(Value::Array(turns)) => turns,
        Some(other) => {
            return Err(format!(
                "`{key}` is {}; it must be a list of {{\"role\", \"content\"}}",
                show(other)
            ));
        }
        None => {
            let near = [
                "prompt",
                "question",
                "text",
                "input",
                "conversations",
                "message",
            ]
            .into_iter()
            .find(|key| fields.contains_key(*key));
            let found = near.map_or(String::new(), |key| format!(" (it has {})", clip(key)));
            return Err(format!(
                "missing `messages`{found}; write {{\"messages\": [{{\"role\": \"user\", \"content\": \"…\"}}]}}"
            ));
        }
    };
    let turns = turns
        .iter()
        .enumerate()
        .map(|(place, turn)| message(place + 1, turn));
    let mut turns = turns.collect::<Result<Vec<_>, _>>()?;
    // Sets hold hundreds of thousands.
    turns.shrink_to_fit();
    Ok(turns)
}

fn message(place: usize, turn: &Value) -> Result<Message, String> {
    let text = |key: &str| match turn.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!(
            "turn {place}: `{key}` is {}; it must be a string",
            show(other)
        )),
        None => Err(format!(
            "turn {place} has no `{key}`: {}; write {{\"role\": \"user\", \"content\": \"…\"}}",
            show(turn)
        )),
    };
    let role = text("role")?;
    if !ROLES.contains(&role.as_str()) {
        return Err(format!(
            "turn {place}: role {} is unknown; write one of {}",
            clip(&role),
            ROLES.join(", ")
        ));
    }
    let fields = turn.as_object().into_iter().flatten();
    let is_other = |(key, value): &(&String, &Value)| {
        !matches!(key.as_str(), "role" | "content") && !value.is_null()
    };
    let mut other: Map<String, Value> = fields
        .filter(is_other)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let calls = match other.get_mut("tool_calls") {
        Some(calls) => tool_calls(calls).map_err(|problem| format!("turn {place}: {problem}"))?,
        None => 0,
    };
    let content = match turn.get("content") {
        None | Some(Value::Null) if calls > 0 => String::new(),
        _ => text("content")?,
    };
    let message = Message {
        other,
        ..Message::new(role, content)
    };
    Ok(match turn {
        Value::Object(turn) => message.written_as(turn),
        _ => message,
    })
}

/// Checks and counts a turn's calls. Parses arguments in a string (OpenAI's form) into the object
/// that chat templates expect.
fn tool_calls(calls: &mut Value) -> Result<usize, String> {
    const FORM: &str =
        "write [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {}}}]";
    let wrong = |found: &Value| format!("`tool_calls` has {}; {FORM}", show(found));
    let Some(list) = calls.as_array_mut() else {
        return Err(format!("`tool_calls` is {}; {FORM}", show(calls)));
    };
    for call in list.iter_mut() {
        let shown = call.clone();
        let function = if call.get("function").is_some() {
            call.get_mut("function")
        } else {
            Some(call)
        };
        let function = function
            .and_then(Value::as_object_mut)
            .ok_or_else(|| wrong(&shown))?;
        let arguments = function.get("arguments").ok_or_else(|| wrong(&shown))?;
        if let Some(text) = arguments.as_str() {
            let object = serde_json::from_str(text).map_err(|error| {
                format!(
                    "`arguments` {} of a call: {}; write an object",
                    clip(text),
                    json_fault(&error)
                )
            })?;
            function.insert("arguments".to_owned(), object);
        }
        let is_call = function.get("name").is_some_and(Value::is_string)
            && function.get("arguments").is_some_and(Value::is_object);
        if !is_call {
            return Err(wrong(&shown));
        }
    }
    Ok(list.len())
}

pub(super) fn check_turns(fields: &Map<String, Value>) -> Result<(), String> {
    const FORM: &str =
        "write [{\"messages\": [{\"role\": \"user\", \"content\": \"…\"}], \"expected\": …}]";
    let turns = match fields.get("turns") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(turns)) => turns,
        Some(other) => return Err(format!("`turns` is {}; {FORM}", show(other))),
    };
    if turns.len() >= MAX_TURNS {
        return Err(format!(
            "`turns` has {} items; at most {} turns follow the first",
            turns.len(),
            MAX_TURNS - 1
        ));
    }
    for (number, turn) in (2..).zip(turns) {
        let Value::Object(turn) = turn else {
            return Err(format!("`turns`: turn {number} is {}; {FORM}", show(turn)));
        };
        if turn.contains_key("turns") {
            return Err(format!(
                "`turns`: turn {number} has `turns` itself; list all turns one after the other"
            ));
        }
        messages(turn).map_err(|problem| format!("`turns`: turn {number}: {problem}"))?;
    }
    Ok(())
}

/// `not JSON at column 14 (expected value)`; the caller adds the line.
pub(super) fn json_fault(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    format!("not JSON at column {} ({message})", error.column())
}

pub(super) fn show(value: &Value) -> String {
    clip(&value.to_string())
}

pub(super) fn clip(text: &str) -> String {
    format!("`{}`", crate::format::shortened(text, 60))
}
