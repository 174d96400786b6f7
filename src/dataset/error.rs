//! Why prompts cannot be read or made, with the place and what to do.

use crate::task::TaskError;

/// Why prompts cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A line that is no prompt row.
    #[error("{label} line {line}: {problem}")]
    Line {
        /// The file as shown to the user.
        label: String,
        /// 1-based.
        line: usize,
        /// What is wrong, the value, and what to do.
        problem: String,
    },
    /// A file without a single row.
    #[error(
        "{label}: no prompt rows; write one JSON object per line, for example {{\"messages\": [{{\"role\": \"user\", \"content\": \"…\"}}]}}"
    )]
    Empty {
        /// The file as shown to the user.
        label: String,
    },
    /// The task names no file for this set.
    #[error("task.toml names no `{set}` prompts; add `{set} = \"{set}.jsonl\"` under [prompts]")]
    NoSuchSet {
        /// The key under `[prompts]`.
        set: &'static str,
    },
    /// The task has no generator.
    #[error(
        "task.toml names no generator; add `generator = \"generator.toml\"` under [prompts], or write the prompt files by hand"
    )]
    NoGenerator,
    /// The generator's file is wrong.
    #[error("{label}: {problem}")]
    Generator {
        /// The file as shown to the user.
        label: String,
        /// What is wrong, the value, and what to do.
        problem: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}; {remedy}")]
    File {
        path: String,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The task's own files cannot be read.
    #[error(transparent)]
    Task(#[from] TaskError),
}
