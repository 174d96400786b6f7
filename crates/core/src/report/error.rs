//! Errors of reports.

use crate::dataset::DatasetError;
use crate::run::RunError;
use crate::task::TaskError;

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Task(#[from] TaskError),
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    #[error("cannot render HTML: {0}")]
    Template(#[from] minijinja::Error),
    #[error("{0}")]
    Unlike(String),
    /// Evals of the same prompts, scored with different schemas; re-scoring makes them comparable.
    #[error("{0}")]
    OtherSchemas(String),
    /// A sentence for people.
    #[error("{0}")]
    Other(String),
}
