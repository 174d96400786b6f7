//! Errors of reports.

use std::path::PathBuf;

use crate::dataset::DatasetError;
use crate::run::RunError;
use crate::task::{SetName, TaskError};

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Task(#[from] TaskError),
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    /// A defect of the program.
    #[error("cannot render HTML: {0}")]
    Template(#[from] minijinja::Error),
    /// Evals of different prompts or tasks.
    #[error("{0}")]
    Unlike(String),
    /// Evals of the same prompts, scored with different schemas; re-scoring makes them comparable.
    #[error("{0}")]
    OtherSchemas(String),
    /// A folder without evals of base and trained model on the same set.
    #[error("{} has no base and trained eval on one set yet: evals run at the start, every eval_every steps and at the end", .folder.display())]
    NothingToCompare { folder: PathBuf },
    /// An eval on prompts that were not saved.
    #[error("prompts of {set} are missing in {}: answers cannot be compared", .folder.display())]
    NoPrompts {
        /// The run or eval.
        folder: PathBuf,
        set: SetName,
    },
}
