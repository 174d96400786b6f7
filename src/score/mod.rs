//! Completion and row to score: tier, reward, and every reason with its place.

pub mod audit;
mod batch;
mod compare;
mod data_problems;
mod describe;
mod diagnose;
mod graded;
mod guard;
mod instance;
pub mod json;
mod prompts;
mod result;
mod schema;
mod scorer;
mod tolerant;

pub use batch::score_stream;
pub use data_problems::{DataProblem, data_problems, load_sets, repeated_prompts};
pub use describe::{Accepted, describe};
pub use diagnose::{Diagnosis, Fault, diagnose};
pub use prompts::{check_prompts, prompt_tokens, thinking_of, turns_of};
pub use result::{FailureClass, Ordered, Reason, Score, Tier};
pub use scorer::Scorer;

use crate::task::TaskError;

/// Why a task cannot score.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// A file of the task.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The schema is not a schema.
    #[error("{label} line {line} column {column} ({}): {message}", if pointer.is_empty() { "the whole schema" } else { pointer })]
    Schema {
        /// The schema's file.
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        /// JSON pointer into the schema.
        pointer: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A schema file that `$ref` names.
    #[error("{label}: {message}")]
    Reference {
        /// The file.
        label: String,
        /// What is wrong.
        message: String,
    },
}
