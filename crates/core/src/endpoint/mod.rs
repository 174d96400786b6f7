//! Prompts -> answers of an OpenAI-compatible server: what may be sent, retries, usage and cost. Nothing is sent unless
//! a target names the endpoint; its key comes from the environment and is shown nowhere.

mod answers; // many questions, so many at once
mod client; // one question: retries, and what an answer is
mod conversations; // turn by turn, and the records
mod definition; // endpoints.toml
mod log_probs; // where the server gives them
mod questions; // rows as requests

use crate::format::counted;
use crate::run::RunError;
use crate::score::ScorerErrors;
use crate::task::TaskError;
use crate::text::TextError;

pub use answers::ask;
pub use client::{Answer, UnansweredQuestion};
pub use conversations::{Progress, records};
pub use definition::{Api, Endpoint, Prices, ResponseFormat};
pub use questions::{Question, RequestForm, Sampling};

/// Why an endpoint cannot be asked, or answered nothing.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A fault of `endpoints.toml`.
    #[error(transparent)]
    File(#[from] TaskError),
    #[error("no endpoint `{name}` in {label}: {advice}")]
    Unknown { name: String, label: String, advice: String },
    /// The variable that should hold the key.
    #[error("{label} `[{name}]`: the environment variable {variable} {problem}; export it with the endpoint's key")]
    Key { label: String, name: String, variable: String, problem: &'static str },
    #[error("SSL_CERT_FILE: {path}: {source}; name a PEM file of certificate authorities, or unset it")]
    Certificates { path: String, source: std::io::Error },
    #[error("{place}: {secret}; nothing was sent: remove it from the prompt, or allow it with --allow-secret {id}")]
    Secret { place: String, id: String, secret: String },
    #[error("endpoint `{name}`: {problem}")]
    Unfit { name: String, problem: String },
    /// Other questions would get no other answer.
    #[error("endpoint `{name}`: {reason}")]
    Refused { name: String, reason: String },
    #[error(
        "endpoint `{name}` gave no answer to {}, after {} at the first: {reason}",
        counted(*questions, "prompt"), counted(*attempts as usize, "attempt")
    )]
    NoAnswer { name: String, questions: usize, attempts: u32, reason: String },
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Scorer(#[from] ScorerErrors),
    #[error("an answer cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
