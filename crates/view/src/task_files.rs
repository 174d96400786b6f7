//! Writes into a task's folder: atomically, after a copy if the task is embedded.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::{Assignments, ConfigError};
use crate::files::{self, Access};
use crate::score::Task;
use crate::task::TASK_FILE;

/// Modification time and length of a file.
pub type Stamp = (Option<SystemTime>, u64);

#[derive(Debug)]
pub struct Home {
    pub task: Task,
    pub folder: PathBuf,
    /// Whether it was created just now, as a copy of an embedded task.
    pub is_copy: bool,
}

#[derive(Debug)]
pub enum SaveError {
    Changed(String),
    Failed(String),
}

/// A task's folder; an embedded task is copied into the data directory first, under a free name.
pub fn home(task: &Task, data: &Path) -> Result<Home, String> {
    if let Some(folder) = task.folder() {
        return Ok(Home {
            task: task.clone(),
            folder: folder.to_owned(),
            is_copy: false,
        });
    }
    let task_files = task.files().map_err(|error| error.to_string())?;
    let tasks = data.join("tasks");
    private_folder(&tasks)?;
    let names = std::iter::once(task.name.clone())
        .chain((2..1000).map(|number| format!("{}-{number}", task.name)));
    let free = names
        .map(|name| tasks.join(name))
        .find(|folder| std::fs::symlink_metadata(folder).is_err());
    let folder = free.ok_or_else(|| {
        format!(
            "{}: too many copies of {}; remove some",
            tasks.display(),
            task.name
        )
    })?;
    // Renamed when complete: a crash leaves no half task that the next start would open.
    let fail = |path: &Path, error| format!("{}: {error}", path.display());
    files::create_folder_with(&folder, Access::Private, fail, |new| {
        task_files
            .iter()
            .try_for_each(|(name, bytes)| write_private(&new.join(name), bytes))
    })?;
    let task = Task::load(&folder).map_err(|error| error.to_string())?;
    Ok(Home {
        task,
        folder,
        is_copy: true,
    })
}

pub fn copy_of(name: &str, data: &Path) -> Option<PathBuf> {
    let folder = data.join("tasks").join(name);
    folder
        .join(crate::task::TASK_FILE)
        .is_file()
        .then_some(folder)
}

/// The task's `[train]`, or why it cannot be read.
pub fn train_table(task: &Task) -> Result<Assignments, String> {
    let bytes = task.read(TASK_FILE).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    Assignments::from_task(&task.label(TASK_FILE), &text)
        .map_err(|error: ConfigError| error.to_string())
}

/// Writes the text of a file of the task if that still contains `saved`.
///
/// # Errors
/// [`SaveError::Changed`] if it does not.
pub fn save_text(
    task: &Task,
    data: &Path,
    file: &str,
    saved: &str,
    text: &str,
) -> Result<Home, SaveError> {
    if task.folder().is_some() {
        let there = task
            .read(file)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
        // A deleted file is written again.
        if let Some(there) = there.filter(|there| there != saved && there != text) {
            return Err(SaveError::Changed(there));
        }
    }
    let home = home(task, data).map_err(SaveError::Failed)?;
    let path = home
        .task
        .path(file)
        .map_err(|error| SaveError::Failed(error.to_string()))?;
    write(&path, text.as_bytes()).map_err(SaveError::Failed)?;
    Ok(home)
}

/// Replaces a file of a task: readers see the old bytes or the new ones. Its mode stays; a symbolic link is followed.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = std::fs::metadata(&target)
        .ok()
        .map(|found| found.permissions().mode());
    replace(&target, bytes)
        .map_err(|error| format!("{error}; nothing was changed, your text is still open"))?;
    match mode {
        Some(mode) => std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))
            .map_err(|error| format!("{}: {error}", target.display())),
        None => Ok(()),
    }
}

/// Replaces a private file, and creates its folder if missing. A symbolic link is refused.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), String> {
    path.parent().map(private_folder).transpose()?;
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(format!(
            "{} is a symlink: remove it (links are not followed)",
            path.display()
        ));
    }
    replace(path, bytes)
}

pub fn remove(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

pub fn stamps(task: &Task) -> Vec<(PathBuf, Option<Stamp>)> {
    let Some(folder) = task.folder() else {
        return Vec::new();
    };
    let paths = task.file_names().into_iter().map(|file| folder.join(file));
    paths.map(|path| (path.clone(), stamp(&path))).collect()
}

/// The stamp of a file; `None` if it does not exist.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok(), found.len()))
}

fn private_folder(folder: &Path) -> Result<(), String> {
    files::ensure_folder(folder, Access::Private)
        .map_err(|error| format!("{}: {error}", folder.display()))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    files::replace_file(path, bytes, Access::Private)
        .map_err(|error| format!("{}: {error}", path.display()))
}
