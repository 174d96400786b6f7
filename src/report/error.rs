//! Errors of reports, with their messages.

use std::path::PathBuf;

use crate::dataset::DatasetError;
use crate::run::RunError;
use crate::task::TaskError;

/// Something could not be compared or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Task(#[from] TaskError),
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    /// A template of a page that does not fit what it is given: a defect of the program.
    #[error("cannot render HTML: {0}")]
    Template(#[from] minijinja::Error),
    /// Evals that are not of the same prompts and the same task.
    #[error("{0}")]
    Unlike(String),
    /// Evals of the same prompts that were scored by other schemas: scored again under one, they can be compared.
    #[error("{0}")]
    OtherSchemas(String),
    /// A folder without an eval of the base and one of the trained model on the same set.
    #[error("{} has no base and trained eval on one set yet: evals run at the start, every eval_every steps and at the end", .folder.display())]
    NothingToCompare { folder: PathBuf },
    /// An eval on prompts that were not saved.
    #[error("prompts of {set} are missing in {}: answers cannot be compared", .folder.display())]
    NoPrompts {
        /// The run or eval.
        folder: PathBuf,
        set: String,
    },
}
