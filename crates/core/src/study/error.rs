//! Errors of sweeps and studies.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::report::ReportError;
use crate::run::RunError;
use crate::task::TaskError;

#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("--set {text}: {problem}")]
    Values { text: String, problem: String },
    #[error(
        "nothing varies: give a key several values, as in --set learning_rate=1e-5,3e-5 or --set seed=0..2"
    )]
    NothingVaries,
    #[error(
        "{runs} runs are more than {most}: give fewer values, or the number to start with --max-runs N"
    )]
    TooMany { runs: usize, most: usize },
    #[error("{0}")]
    Unfit(String),
    #[error(
        "`{name}` is not a valid sweep name: a letter or digit, then also - _ . (at most {most} characters)"
    )]
    Name { name: String, most: usize },
    #[error("there is a sweep `{name}` in {}: resume it with --resume {name}, or choose another --name", .folder.display())]
    Exists { name: String, folder: PathBuf },
    #[error("no sweep `{name}` in {}{}", .folder.display(), listed(.known))]
    NotFound {
        name: String,
        folder: PathBuf,
        known: Vec<String>,
    },
    #[error("{} line {line}: {message}; restore the file, or start a new sweep", .path.display())]
    Malformed {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{} has format version {found}, newer than this program's {known}; open it with a newer grpo-tui", .path.display())]
    Newer {
        path: PathBuf,
        found: u64,
        known: u64,
    },
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

fn listed(known: &[String]) -> String {
    match known {
        [] => "; there is none yet: start one with `grpo-tui sweep TASK --set KEY=VALUE,VALUE`"
            .to_owned(),
        known => format!("; there are {}", known.join(", ")),
    }
}
