//! Finds the task of a command line.

use std::path::{Path, PathBuf};

use super::embedded::{self, EmbeddedTask};
use super::error::{Read, TASK_FILE, TaskError};
use super::source::Home;
use crate::format::nearest;

/// Finds a task by path, by name in the nearest workspace above `here`, or among the embedded
/// tasks.
pub(crate) fn find_home(text: &str, here: &Path) -> Read<Home> {
    match (find_folder(text, here)?, embedded::find(text)) {
        (Some(folder), _) => Ok(Home::Folder(folder)),
        (None, Some(task)) => Ok(Home::Embedded(task)),
        (None, None) => Err(unknown(text, known_names(here), here)),
    }
}

pub(crate) fn find_embedded(name: &str) -> Read<&'static EmbeddedTask> {
    embedded::find(name).ok_or_else(|| {
        unknown(
            name,
            embedded::names().map(str::to_owned).collect(),
            Path::new("."),
        )
    })
}

pub fn folder_of(text: &str, here: &Path) -> Option<PathBuf> {
    find_folder(text, here).ok().flatten()
}

/// The folder with a `task.toml` of that path or name; `None` if it can only be an embedded task.
fn find_folder(text: &str, here: &Path) -> Result<Option<PathBuf>, TaskError> {
    let path = here.join(text);
    if path.is_file() && path.file_name().is_some_and(|name| name == TASK_FILE) {
        return Ok(Some(display_path(
            text,
            path.parent().unwrap_or(here),
            here,
        )));
    }
    if path.join(TASK_FILE).is_file() {
        return Ok(Some(display_path(text, &path, here)));
    }
    let is_path = text.contains(['/', '\\']) || text.starts_with('.');
    if is_path {
        let advice = if path.is_dir() {
            format!("the folder has no {TASK_FILE}")
        } else {
            "no such folder".to_owned()
        };
        return Err(TaskError::Unknown {
            text: text.to_owned(),
            advice: format!("{advice}; `grpo-tui init DIR` makes a workspace with a task to edit"),
        });
    }
    Ok(workspace_task(text, here))
}

fn display_path(text: &str, folder: &Path, here: &Path) -> PathBuf {
    let written = PathBuf::from(text);
    if std::env::current_dir().is_ok_and(|current| current == here) && written.is_dir() {
        written
    } else {
        folder.to_owned()
    }
}

fn workspace_task(name: &str, here: &Path) -> Option<PathBuf> {
    here.ancestors()
        .map(|folder| folder.join("tasks").join(name))
        .find(|folder| folder.join(TASK_FILE).is_file())
}

pub fn known_names(here: &Path) -> Vec<String> {
    let entries = here
        .ancestors()
        .find_map(|folder| std::fs::read_dir(folder.join("tasks")).ok());
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(TASK_FILE).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.extend(
        embedded::names()
            .map(str::to_owned)
            .filter(|name| !names.contains(name))
            .collect::<Vec<_>>(),
    );
    names
}

fn unknown(text: &str, known: Vec<String>, here: &Path) -> TaskError {
    let advice = match nearest(text, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if here.join(text).is_dir() => format!(
            "the folder has no {TASK_FILE}; known tasks: {}",
            known.join(", ")
        ),
        None => format!(
            "known tasks: {}; a task's folder can be named by its path",
            known.join(", ")
        ),
    };
    TaskError::Unknown {
        text: text.to_owned(),
        advice,
    }
}
