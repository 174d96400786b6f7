//! An OpenAI-compatible server: its definition with key and prices, and one request with retries, usage and latency.

mod client; // one request with retries
mod definition; // an endpoint from a TOML table
mod log_probs; // log-probs of an answer
mod probe; // any request of a server's, and streams

use serde_json::Value;

pub use log_probs::{LogProbs, WrittenToken};

pub use client::{Answer, Client, UnansweredQuestion};
pub use probe::{ProbeClient, ProbePath};

pub use definition::{Api, ENDPOINT_KEYS, Endpoint, Prices, ResponseFormat};

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    File(#[from] crate::task::TaskError),
    /// A sentence for people.
    #[error("{0}")]
    Other(String),
    #[error(
        "{label} `[{name}]`: the environment variable {variable} {problem}; export it with the endpoint's key"
    )]
    Key {
        label: String,
        name: String,
        variable: String,
        problem: &'static str,
    },
}

/// The text of a chat message; tool calls as the message that makes them; a refusal from its own
/// field. `None` if it is not a message.
pub fn message_text(message: &Value) -> Option<String> {
    let fields = message.as_object()?;
    if fields
        .get("tool_calls")
        .and_then(Value::as_array)
        .is_some_and(|calls| !calls.is_empty())
    {
        let said = fields
            .iter()
            .filter(|(name, _)| ["content", "tool_calls"].contains(&name.as_str()));
        return Some(
            Value::Object(
                said.map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            )
            .to_string(),
        );
    }
    match &message["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Null => Some(message["refusal"].as_str().unwrap_or_default().to_owned()),
        _ => None,
    }
}
