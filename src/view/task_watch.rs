//! The open task on disk: what has changed is read again, and what cannot be read is tried again.

use std::path::PathBuf;
use std::sync::Arc;

use super::message::{Change, Command, Work};
use super::schema_draft::Stamp;
use super::shared::{self, OpenTask, Shared};
use super::task_files;
use crate::task::{Task, TaskError};

/// Why a task could not be read.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskFailure {
    pub error: String,
    /// The file at fault, and a line of it from 1.
    pub place: Option<(PathBuf, usize)>,
    /// Its `task.toml` as a text to edit; `None` where there is none.
    pub toml: Option<Task>,
    /// What was to be opened.
    name: Option<String>,
}

impl TaskFailure {
    /// `name`: what was to be opened; `folder`: where it is.
    pub fn new(name: Option<String>, error: &TaskError, folder: Option<PathBuf>) -> Self {
        let place = folder.as_ref().and(error.file_and_line()).map(|(file, line)| (PathBuf::from(file), line));
        Self { error: error.to_string(), place, toml: folder.and_then(|folder| Task::unread(&folder).ok()), name }
    }

    /// Whether it is the open task that cannot be read any more.
    fn is_of(&self, open: &OpenTask) -> bool {
        let folder = open.task.folder().map(|folder| folder.display().to_string());
        folder.is_some()
            && (folder == self.name || self.toml.as_ref().is_some_and(|toml| toml.folder() == open.task.folder()))
    }
}

/// The outcome of opening a task. Of one that is open already, what was read before stays beside the failure.
pub fn opened(shared: &mut Shared, found: Result<OpenTask, TaskFailure>) -> Vec<Command> {
    match found {
        Ok(task) => {
            if shared.task_error.take().is_some() {
                shared.say(format!("task {} opened", task.task.name));
            }
            shared.task = Some(Arc::new(task));
            vec![Command::Changed(Change::Task)]
        }
        Err(failure) if shared.task_error.as_ref() == Some(&failure) => Vec::new(),
        Err(failure) => {
            shared.complain(failure.error.clone());
            if shared.task.as_ref().is_some_and(|open| !failure.is_of(open)) {
                return Vec::new();
            }
            shared.task_error = Some(failure);
            vec![Command::Changed(Change::TaskUnreadable)]
        }
    }
}

/// Once a second: looks for changes of the task's files, or tries again to read it.
pub fn look(shared: &Shared) -> Vec<Command> {
    if ["task", "task.watch", "task.save", "task.rows"].into_iter().any(|key| shared.is_busy(key)) {
        return Vec::new();
    }
    if let Some(failure) = &shared.task_error {
        return shared::open_task(shared, failure.name.clone());
    }
    let Some(open) = shared.task.clone().filter(|open| !open.stamps.is_empty()) else { return Vec::new() };
    vec![Work::once(
        "task.watch",
        move || {
            let changed: Vec<PathBuf> =
                open.stamps.iter().filter(|file| is_changed(file)).map(|(path, _)| path.clone()).collect();
            (open, changed)
        },
        |_: &mut (), shared: &mut Shared, (open, changed)| {
            let is_open = shared.task.as_ref().is_some_and(|now| Arc::ptr_eq(now, &open));
            if changed.is_empty()
                || !is_open
                || ["task", "task.save", "task.rows"].into_iter().any(|key| shared.is_busy(key))
            {
                return Vec::new();
            }
            let names: Vec<_> =
                changed.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()).collect();
            shared.say(format!("{} changed on disk: reading the task again", names.join(", ")));
            vec![Command::Changed(Change::Files(changed))]
        },
    )]
}

fn is_changed((path, stamp): &(PathBuf, Option<Stamp>)) -> bool {
    task_files::stamp(path) != *stamp
}

/// The files of a task in a folder as they are now.
pub fn stamps(task: &Task) -> Vec<(PathBuf, Option<Stamp>)> {
    let Some(folder) = task.folder() else { return Vec::new() };
    let paths = task.file_names().into_iter().map(|file| folder.join(file));
    paths.map(|path| (path.clone(), task_files::stamp(&path))).collect()
}
