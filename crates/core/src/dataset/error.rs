//! Errors of prompt rows.

use crate::task::TaskError;

#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error("{label} line {line}: {problem}")]
    Line {
        label: String,
        /// From 1.
        line: usize,
        /// What is wrong, the value, and what to do.
        problem: String,
    },
    /// A file without rows.
    #[error(
        "{label}: no prompt rows; write one JSON object per line, for example {{\"messages\": [{{\"role\": \"user\", \"content\": \"…\"}}]}}"
    )]
    Empty { label: String },
    /// The task names no file for this set.
    #[error("task.toml has no `{set}` prompts; add `{set} = \"{set}.jsonl\"` under [prompts]")]
    NoSuchSet {
        /// The key under `[prompts]`.
        set: &'static str,
    },
    /// A file to import from.
    #[error("{label}: {problem}")]
    Import {
        label: String,
        /// What is wrong, the value, and what to do.
        problem: String,
    },
    /// Data without expected answers, from which a schema could be inferred.
    #[error(
        "{label}: no expected answers to infer a schema from; the prompt is {prompt}; columns: {columns}; use --map \"expected={free}\", or name a \
         schema or examples"
    )]
    NoExpected {
        label: String,
        /// Its column or template.
        prompt: String,
        columns: String,
        /// Columns that are no part of a row yet, as fields of the answer.
        free: String,
    },
    /// A folder that a new task would replace.
    #[error("{path} exists: choose another name, or --out DIR")]
    Exists { path: String },
    /// A file that cannot be read or written.
    #[error("{path}: {source}; {remedy}")]
    File {
        path: String,
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl DatasetError {
    /// The line of the file that is malformed, from 1.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Line { line, .. } => Some(*line),
            _ => None,
        }
    }
}
