//! Requests to any path of a server, whose answers are documents.

use std::time::Duration;

use serde_json::Value;

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
    let found: Result<Value, _> = serde_json::from_str(text);
    let found = found.map_err(|error| format!("the answer is not JSON ({error})"))?;
    match &found["error"] {
        Value::Null => Ok(found),
        error => Err(error["message"].as_str().unwrap_or("an error").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_document_or_an_error() {
        assert_eq!(document(" {\"a\": 1}"), Ok(serde_json::json!({"a": 1})));
        let error = document("{\"error\": {\"message\": \"out of memory\"}}");
        assert_eq!(error, Err("out of memory".to_owned()));
        assert!(document("<html>").is_err());
    }
}
