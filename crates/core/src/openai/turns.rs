//! Converts the turns of a request into messages for chat templates.

use serde_json::Value as Json;

use super::ApiError;
use super::fields::{known, unsupported, without_nulls, wrong};
use crate::text::Message;

/// Answer fields that do not belong in a prompt; ignored if empty.
const EMPTY_FIELDS: [&str; 5] = [
    "audio",
    "function_call",
    "images",
    "reasoning_details",
    "thinking_blocks",
];

/// `at`: position in the body, for messages.
pub fn message(at: &str, turn: &Json) -> Result<Message, ApiError> {
    let Json::Object(turn) = turn else {
        return Err(wrong(at, "an object"));
    };
    let mut turn = without_nulls(turn);
    let is_empty = |value: &Json| {
        value.as_array().is_some_and(Vec::is_empty)
            || value
                .as_object()
                .is_some_and(|fields| fields.values().all(Json::is_null))
    };
    turn.retain(|name, value| match name.as_str() {
        // lm-evaluation-harness 0.4.9 writes `text` into each turn, Responses items have `message`.
        "type" => *value != "text" && *value != "message",
        name => !EMPTY_FIELDS.contains(&name) || !is_empty(value),
    });
    known(
        &turn,
        at,
        &[
            "annotations",
            "provider_specific_fields",
            "role",
            "content",
            "name",
            "tool_calls",
            "tool_call_id",
            "refusal",
            "reasoning_content",
            "audio",
        ],
    )?;
    let role = match turn.get("role").and_then(Json::as_str) {
        // OpenAI's newer name, unknown to templates.
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        _ => {
            return Err(wrong(
                &format!("{at}.role"),
                "system, developer, user, assistant or tool",
            ));
        }
    };
    let content = match turn.get("content") {
        None | Some(Json::Null) if role == "assistant" => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(Json::Array(parts)) => {
            let text = |part: &'_ Json| {
                let is_text = part.get("type").is_some_and(|kind| kind == "text");
                part.get("text")
                    .filter(|_| is_text)
                    .and_then(Json::as_str)
                    .map(str::to_owned)
            };
            let parts: Option<Vec<String>> = parts.iter().map(text).collect();
            parts
                .ok_or_else(|| {
                    wrong(
                        &format!("{at}.content"),
                        "text: other parts are not supported",
                    )
                })?
                .concat()
        }
        _ => {
            return Err(wrong(
                &format!("{at}.content"),
                "a text or a list of text parts",
            ));
        }
    };
    let mut message = Message::new(role, content);
    for name in ["name", "tool_call_id", "reasoning_content"] {
        match turn.get(name) {
            None | Some(Json::Null) => {}
            Some(value @ Json::String(_)) => {
                _ = message.other.insert(name.to_owned(), value.clone())
            }
            Some(_) => return Err(wrong(&format!("{at}.{name}"), "a text")),
        }
    }
    match turn.get("audio") {
        None | Some(Json::Null) => {}
        Some(_) => return Err(unsupported(&format!("{at}.audio"))),
    }
    match turn.get("tool_calls") {
        None | Some(Json::Null) => {}
        Some(Json::Array(calls)) => {
            let calls = calls
                .iter()
                .map(|call| tool_call(&format!("{at}.tool_calls"), call));
            message.other.insert(
                "tool_calls".to_owned(),
                Json::Array(calls.collect::<Result<_, _>>()?),
            );
        }
        Some(_) => return Err(wrong(&format!("{at}.tool_calls"), "a list")),
    }
    Ok(message.written_as(&turn))
}

/// Call fields of answers and streams that do not belong in a prompt.
const CALL_FIELDS: [&str; 2] = ["index", "provider_specific_fields"];

/// Parses the arguments, since templates expect JSON instead of a string.
fn tool_call(at: &str, call: &Json) -> Result<Json, ApiError> {
    let expected = || {
        wrong(
            at,
            "a list of {\"type\": \"function\", \"function\": {\"name\": …, \"arguments\": \"{…}\"}}",
        )
    };
    let mut call = call.clone();
    if let Json::Object(fields) = &mut call {
        fields.retain(|name, value| !value.is_null() && !CALL_FIELDS.contains(&name.as_str()));
    }
    let function = call
        .get_mut("function")
        .and_then(Json::as_object_mut)
        .ok_or_else(expected)?;
    function.retain(|name, value| !value.is_null() && !CALL_FIELDS.contains(&name.as_str()));
    if !function.get("name").is_some_and(Json::is_string) {
        return Err(expected());
    }
    match function.get_mut("arguments") {
        Some(arguments @ Json::String(_)) => {
            let text = arguments.as_str().unwrap_or_default();
            if let Ok(object @ Json::Object(_)) = serde_json::from_str(text) {
                *arguments = object;
            }
        }
        Some(Json::Object(_)) => {}
        _ => return Err(expected()),
    }
    Ok(call)
}
