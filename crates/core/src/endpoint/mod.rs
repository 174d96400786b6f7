//! Prompts -> answers of an OpenAI-compatible server: checks before sending, and records. Nothing
//! is sent unless a target names the endpoint.

mod answers; // questions in parallel
mod conversation; // conversation about a row, and its record
mod conversations; // rows turn by turn
mod questions; // rows as requests
mod with_tools; // calls answered by the task's tools

use crate::api_client::ApiError;
use crate::environment::EnvironmentError;
use crate::run::RunError;
use crate::score::ScorerErrors;
use crate::text::TextError;

pub use crate::api_client::{Answer, Api, Endpoint, Prices, ResponseFormat, UnansweredQuestion};
pub use answers::ask;
pub use conversations::{Progress, records};
pub use questions::{Question, RequestForm, Sampling};

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(
        "{place}: {secret}, which was not sent: remove it, or allow it with --allow-secret {id}"
    )]
    Secret {
        place: String,
        id: String,
        secret: String,
    },
    /// A sentence for people.
    #[error("{0}")]
    Other(String),
    #[error(transparent)]
    Tools(Box<EnvironmentError>),
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Scorer(#[from] ScorerErrors),
    #[error("an answer cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
