//! Completion and row to score: tier, reward, and every reason with its place.

pub mod audit;
mod batch;
mod budget;
mod compare;
mod completion_line;
mod data_problems;
mod describe;
mod diagnose;
mod graded;
mod guard;
mod instance;
pub mod json;
mod pattern;
mod prompts;
mod result;
mod rewrite;
mod schema;
mod scorer;
mod threads;
mod tolerant;

pub use batch::score_stream;
pub use completion_line::completion_line;
pub use data_problems::{DataProblem, data_problems, load_sets, repeated_prompts};
pub use describe::{Accepted, describe};
pub use diagnose::{Diagnosis, Fault, diagnose};
pub use prompts::{check_prompts, prompt_tokens, thinking_of, turns_of};
pub use result::{FailureClass, OrderedMap, Reason, Score, Tier};
pub use scorer::Scorer;
pub use threads::{given_threads, on_every_core, take_threads_from_environment};

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
