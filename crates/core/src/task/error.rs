//! Errors of tasks.

use crate::files::PathError;

pub(crate) type Read<T> = Result<T, TaskError>;

pub const TASK_FILE: &str = "task.toml";

/// An invalid task: file, place, value, remedy.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("no task {text:?}: {advice}")]
    Unknown {
        text: String,
        /// The known tasks, or the nearest one.
        advice: String,
    },
    #[error("{label}: {source}{}", remedy(.label, .source))]
    Read {
        label: String,
        source: std::io::Error,
    },
    #[error("{label}: not UTF-8 text (byte {offset}); save it as UTF-8")]
    Encoding {
        label: String,
        /// Offset of the first invalid byte.
        offset: usize,
    },
    #[error("{label} line {line} column {column}: {message}")]
    Place {
        label: String,
        /// 1-based.
        line: usize,
        /// 1-based, in characters.
        column: usize,
        message: String,
    },
    #[error("{label}: missing {key}; add for example `{example}`")]
    Missing {
        label: String,
        key: String,
        example: &'static str,
    },
    #[error("{label}: {file:?} {}", outside(.why))]
    Outside {
        label: String,
        file: String,
        why: PathError,
    },
}

impl TaskError {
    /// The offending file, as shown in messages, and its line from 1; `None` for an unknown task.
    pub fn file_and_line(&self) -> Option<(&str, usize)> {
        match self {
            Self::Unknown { .. } => None,
            Self::Place { label, line, .. } => Some((label, *line)),
            Self::Read { label, .. }
            | Self::Encoding { label, .. }
            | Self::Missing { label, .. }
            | Self::Outside { label, .. } => Some((label, 1)),
        }
    }

    pub(crate) fn outside(label: String, file: &str, why: PathError) -> Self {
        Self::Outside {
            label,
            file: file.to_owned(),
            why,
        }
    }
}

fn outside(why: &PathError) -> String {
    let rule = "task files must be inside the task folder, so that a run can copy them";
    match why {
        PathError::Written => {
            format!(
                "is outside the task's folder; {rule}: copy the file into the folder and name the copy"
            )
        }
        PathError::Link(target) => {
            format!(
                "is a link to {target:?}, outside the task's folder; {rule}: replace the link by a copy of the file"
            )
        }
        PathError::Broken(target) => {
            format!(
                "is a link to {target:?}, which does not exist; create that file or remove the link"
            )
        }
    }
}

fn remedy(label: &str, source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::NotFound if !label.ends_with(TASK_FILE) => {
            "; write the file, or name another one in task.toml"
        }
        std::io::ErrorKind::NotFound => {
            "; a task is a folder with this file, and `grpo-tui init DIR` makes one"
        }
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
            "; put a regular file there"
        }
        std::io::ErrorKind::FileTooLarge => "; make it smaller",
        _ => "; make it readable",
    }
}
