//! Errors that prevent scoring.

use crate::task::TaskError;

#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("{label} line {line} column {column} ({}): {message}", if pointer.is_empty() { "the whole schema" } else { pointer })]
    Schema {
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        /// JSON pointer into the schema.
        pointer: String,
        message: String,
    },
    #[error("{label} line {line} column {column}: {message}")]
    Statement {
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        message: String,
    },
    #[error(
        "{task}: scores by the command {commands}, not trusted on this machine: read it, then type `grpo-tui task trust {place}`{missing}"
    )]
    Untrusted {
        task: String,
        commands: String,
        place: String,
        /// Continues the sentence if the program is also missing.
        missing: String,
    },
    #[error("{task}: {missing}")]
    NotInstalled { task: String, missing: String },
    #[error("{task}: isolation {text}")]
    NotIsolated { task: String, text: String },
    #[error(
        "{task}: scores by a judge, which gets prompts and answers at {server}, not trusted on this machine: type `grpo-tui task trust {place}`"
    )]
    UntrustedJudge {
        task: String,
        server: String,
        place: String,
    },
    #[error("{task}: {problem}")]
    NoJudge { task: String, problem: String },
    /// A schema file named by `$ref`.
    #[error("{label}: {message}")]
    Reference { label: String, message: String },
}

impl ScoreError {
    /// Whether the task is correct and only its command or judge is missing or untrusted.
    pub fn is_of_command(&self) -> bool {
        matches!(
            self,
            Self::Untrusted { .. }
                | Self::NotInstalled { .. }
                | Self::NotIsolated { .. }
                | Self::UntrustedJudge { .. }
                | Self::NoJudge { .. }
        )
    }
}
