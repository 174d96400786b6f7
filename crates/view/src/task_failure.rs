//! Why a task could not be read, and where.

use std::path::PathBuf;

use crate::score::Task;
use crate::task::TaskError;

#[derive(Debug, Clone)]
pub struct TaskFailure {
    pub error: String,
    /// The file at fault, and a line of it from 1.
    pub place: Option<(PathBuf, usize)>,
    /// Its `task.toml` as a text to edit; `None` where there is none.
    pub toml: Option<Box<Task>>,
    pub name: Option<String>,
}

/// The same text failed in the same way.
impl PartialEq for TaskFailure {
    fn eq(&self, other: &Self) -> bool {
        let text = |failure: &Self| {
            failure
                .toml
                .as_ref()
                .map(|toml| toml.definition_text.clone())
        };
        (&self.error, &self.place, &self.name) == (&other.error, &other.place, &other.name)
            && text(self) == text(other)
    }
}

impl TaskFailure {
    /// `name`: what was to be opened; `folder`: where it is.
    pub fn new(name: Option<String>, error: &TaskError, folder: Option<PathBuf>) -> Self {
        let place = folder
            .as_ref()
            .and(error.file_and_line())
            .map(|(file, line)| (PathBuf::from(file), line));
        Self {
            error: error.to_string(),
            place,
            toml: folder
                .and_then(|folder| Task::unread(&folder).ok())
                .map(Box::new),
            name,
        }
    }

    /// Whether it is this task that cannot be read any more.
    pub fn is_of(&self, task: &Task) -> bool {
        let is_there = |folder: &std::path::Path| {
            self.name.as_ref() == Some(&folder.display().to_string())
                || self
                    .toml
                    .as_ref()
                    .is_some_and(|toml| toml.folder() == Some(folder))
        };
        task.folder().is_some_and(is_there)
    }
}
