//! Why a task cannot score.

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
    /// A statement of an SQL schema.
    #[error("{label} line {line} column {column}: {message}")]
    Statement {
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        message: String,
    },
    /// A command that the user has not allowed to run.
    #[error(
        "{task}: scores by the command {commands}, not trusted on this machine: read it, then type `grpo-tui task trust {place}`{missing}"
    )]
    Untrusted {
        task: String,
        /// In backticks.
        commands: String,
        place: String,
        /// The rest of the sentence, if the machine also lacks the program.
        missing: String,
    },
    /// A command that this machine lacks.
    #[error("{task}: {missing}")]
    NotInstalled { task: String, missing: String },
    /// A command that asks for more isolation than this machine gives.
    #[error("{task}: isolation {text}")]
    NotIsolated { task: String, text: String },
    /// A judge that the user has not allowed to ask.
    #[error(
        "{task}: scores by a judge, which gets prompts and answers at {server}, not trusted on this machine: type `grpo-tui task trust {place}`"
    )]
    UntrustedJudge {
        task: String,
        server: String,
        place: String,
    },
    /// A judge that cannot be asked from here.
    #[error("{task}: {problem}")]
    NoJudge { task: String, problem: String },
    /// A schema file that `$ref` names.
    #[error("{label}: {message}")]
    Reference { label: String, message: String },
}

impl ScoreError {
    /// Whether the task is right, and only its command or judge may not be asked or is not there.
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
