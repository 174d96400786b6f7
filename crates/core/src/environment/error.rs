//! Why a conversation gets no tools or no answer about its state: never the model's fault.

use crate::task::TaskError;

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error(
        "{task} runs {command} as {role}, which is not trusted: read it, then allow it with `grpo-tui task trust {place}`{missing}"
    )]
    Untrusted {
        task: String,
        role: &'static str,
        command: String,
        place: String,
        missing: String,
    },
    #[error("{task}: {missing}")]
    NotInstalled { task: String, missing: String },
    #[error("{task}: the {program} does not run: {text}")]
    NotIsolated {
        task: String,
        program: String,
        text: String,
    },
    /// A program that does not start, or a server that does not list its tools.
    #[error("the tool {tool:?} {why}")]
    Tool { tool: String, why: String },
    /// A row that a tool cannot start with.
    #[error("row {row}: {why}")]
    Row { row: String, why: String },
    #[error("the final state: {why}")]
    State { why: String },
    /// A final state that is not recorded, in replay.
    #[error("{why}")]
    NotRecorded { why: String },
}
