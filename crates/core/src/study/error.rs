//! Errors of sweeps.

use crate::config::ConfigError;
use crate::report::ReportError;
use crate::run::RunError;
use crate::task::TaskError;

#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "nothing varies: give a key several values, as in --set learning_rate=1e-5,3e-5 or --set seed=0..2"
    )]
    NothingVaries,
    #[error(
        "{runs} runs are more than {most}: give fewer values, or the number to start with --max-runs N"
    )]
    TooMany { runs: usize, most: usize },
    /// A sentence for people.
    #[error("{0}")]
    Other(String),
    #[error(
        "task {task} has changed since the sweep `{name}` began (digest {then} then, {now} now): its runs would not be comparable. Restore the task, or start a new sweep"
    )]
    TaskChanged {
        task: String,
        name: String,
        then: String,
        now: String,
    },
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Task(#[from] TaskError),
}
