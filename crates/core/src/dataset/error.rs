//! Errors of prompt rows.

use crate::task::{PromptSet, TaskError};

#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error("{label} line {line}: {problem}")]
    Line {
        label: String,
        /// 1-based.
        line: usize,
        problem: String,
    },
    #[error(
        "{label}: no prompt rows; write one JSON object per line, for example {{\"messages\": [{{\"role\": \"user\", \"content\": \"…\"}}]}}"
    )]
    Empty { label: String },
    #[error("task.toml has no `{set}` prompts; add `{set} = \"{set}.jsonl\"` under [prompts]")]
    NoSuchSet {
        /// Key under `[prompts]`.
        set: PromptSet,
    },
    #[error("{label}: {problem}")]
    Import { label: String, problem: String },
    /// A schema cannot be inferred without expected answers.
    #[error(
        "{label}: no expected answers to infer a schema from; the prompt is {prompt}; columns: {columns}; use --map \"expected={free}\", or name a \
         schema or examples"
    )]
    NoExpected {
        label: String,
        /// Column or template.
        prompt: String,
        columns: String,
        /// Columns not yet used in rows, as fields of the answer.
        free: String,
    },
    #[error("{path} exists: choose another name, or --out DIR")]
    Exists { path: String },
    #[error("{path}: {source}; {remedy}")]
    File {
        path: String,
        source: std::io::Error,
        remedy: &'static str,
    },
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl DatasetError {
    /// The malformed line, from 1.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Line { line, .. } => Some(*line),
            _ => None,
        }
    }
}
