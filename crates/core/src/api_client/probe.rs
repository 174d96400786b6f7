//! Requests to any path of a server, whose answers are documents; a stream is joined into one.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{ApiError, Client, Endpoint, UnansweredQuestion};

#[derive(Debug)]
pub struct ProbeClient(Client);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbePath {
    Models,
    Chat,
    Completions,
    /// vLLM's and ours, with `messages` or `prompt`; llama.cpp's, with `content`.
    Tokenize,
    /// llama.cpp's.
    ApplyTemplate,
}

impl ProbeClient {
    /// # Errors
    /// [`ApiError`] of the address or the certificates.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ApiError> {
        Client::new(endpoint).map(Self)
    }

    pub fn endpoint(&self) -> &Endpoint {
        self.0.endpoint()
    }

    /// `index` and `pause` as in [`Client::ask`].
    pub fn ask(
        &self,
        index: usize,
        path: ProbePath,
        body: &str,
        pause: impl Fn(Duration) -> bool,
    ) -> Result<Value, UnansweredQuestion> {
        let url = self.0.endpoint().request_url();
        let root = url.strip_suffix("/v1").unwrap_or(url);
        let url = match path {
            ProbePath::Models => format!("{url}/models"),
            ProbePath::Chat => format!("{url}/chat/completions"),
            ProbePath::Completions => format!("{url}/completions"),
            ProbePath::Tokenize => format!("{root}/tokenize"),
            ProbePath::ApplyTemplate => format!("{root}/apply-template"),
        };
        self.0.ask_at(index, &url, body, document, pause)
    }
}

fn document(text: &str) -> Result<Value, String> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let found = match text.starts_with("data:") || text.starts_with(':') {
        true => Ok(joined(text)),
        false => serde_json::from_str(text),
    };
    let found = found.map_err(|error| format!("the answer is not JSON ({error})"))?;
    match &found["error"] {
        Value::Null => Ok(found),
        error => Err(error["message"].as_str().unwrap_or("an error").to_owned()),
    }
}

/// The whole answer of a stream, as if it had not been streamed. Chunks that are not JSON are counted in
/// `broken_chunks`; `done` says whether the stream was ended.
fn joined(text: &str) -> Value {
    let (mut message, mut plain) = (Map::new(), String::new());
    let mut calls: Vec<Value> = Vec::new();
    let (mut finish, mut usage, mut error) = (Value::Null, Value::Null, Value::Null);
    let (mut broken, mut is_done) = (0, false);
    let add = |message: &mut Map<String, Value>, name: &str, text: &Value| {
        if let Some(text) = text.as_str() {
            let known = message
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default();
            message.insert(name.to_owned(), format!("{known}{text}").into());
        }
    };
    for line in text.lines().filter_map(|line| line.strip_prefix("data:")) {
        let line = line.trim();
        if line == "[DONE]" {
            is_done = true;
            continue;
        }
        let Ok(chunk) = serde_json::from_str::<Value>(line) else {
            broken += 1;
            continue;
        };
        if !chunk["error"].is_null() {
            error = chunk["error"].clone();
        }
        if !chunk["usage"].is_null() {
            usage = chunk["usage"].clone();
        }
        let choice = &chunk["choices"][0];
        plain += choice["text"].as_str().unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
        for name in ["content", "reasoning_content", "reasoning", "refusal"] {
            add(&mut message, name, &choice["delta"][name]);
        }
        for part in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let last = calls.len().saturating_sub(1) as u64;
            let at = part["index"].as_u64().unwrap_or(last).min(127) as usize;
            if calls.len() <= at {
                calls.resize(at + 1, json!({"type": "function", "function": {}}));
            }
            if let Some(call) = calls[at]["function"].as_object_mut() {
                add(call, "name", &part["function"]["name"]);
                add(call, "arguments", &part["function"]["arguments"]);
            }
        }
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), calls.into());
    }
    message.entry("content").or_insert(Value::Null);
    let choice = json!({"message": message, "text": plain, "finish_reason": finish});
    json!({"choices": [choice], "usage": usage, "error": error, "broken_chunks": broken, "done": is_done})
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_joined_into_one_answer() {
        let events = [
            json!({"choices": [{"delta": {"role": "assistant", "content": "{\"a\""}}]}),
            json!({"choices": [{"delta": {"content": ": 1}"}}]}),
            json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "pay", "arguments": "{\"to"}}]}}]}),
            json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "\": 1}"}}]}, "finish_reason": "tool_calls"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 3}}),
        ];
        let text: String = events
            .iter()
            .map(|event| format!("data: {event}\n\n"))
            .collect();
        let whole = document(&format!("{text}data: [DONE]\n\n")).unwrap();
        let choice = &whole["choices"][0];
        assert_eq!(choice["message"]["content"], "{\"a\": 1}");
        assert_eq!(
            choice["message"]["tool_calls"][0]["function"],
            json!({"name": "pay", "arguments": "{\"to\": 1}"})
        );
        assert_eq!(
            (
                &choice["finish_reason"],
                &whole["usage"]["prompt_tokens"],
                &whole["done"]
            ),
            (&json!("tool_calls"), &json!(3), &json!(true))
        );
        let cut = document(&format!("{text}data: {{\"choices\"\n\n")).unwrap();
        assert_eq!(
            (&cut["broken_chunks"], &cut["done"]),
            (&json!(1), &json!(false))
        );
        let error = document("data: {\"error\": {\"message\": \"out of memory\"}}\n\n");
        assert_eq!(error, Err("out of memory".to_owned()));
        assert!(document("<html>").is_err());
    }
}
