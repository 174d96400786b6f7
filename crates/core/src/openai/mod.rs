//! OpenAI's HTTP API, server side: parses requests, writes answers and errors as JSON. Does not
//! sample or listen.

mod answer;
mod fields;
mod request;
mod response_items;
mod turns;

pub use answer::{Answer, Api, Content, Finish, TokenLogProb, ToolCall, Usage};
pub use request::{
    AnswerSchema, GenerationRequest, Prompt, RequestedTemplate, ResponseFormat, TextPrompt,
    TokenizeRequest, ToolChoice, Tools,
};
pub use response_items::ResponseItems;
pub use turns::message as chat_message;

use serde_json::{Value as Json, json};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: u16,
    /// `invalid_request_error`, `authentication_error`, ...
    pub kind: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    pub parameter: Option<String>,
    /// Value of `Retry-After`.
    pub retry_seconds: Option<u32>,
}

impl ApiError {
    pub fn invalid(parameter: &str, message: impl Into<String>) -> Self {
        let parameter = (!parameter.is_empty()).then(|| parameter.to_owned());
        Self {
            parameter,
            ..Self::new(400, "invalid_request_error", None, message)
        }
    }

    pub fn new(
        status: u16,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            message: message.into(),
            parameter: None,
            retry_seconds: None,
        }
    }

    pub fn json(&self) -> Json {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.parameter, "code": self.code}})
    }
}
