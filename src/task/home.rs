//! Where a task's files lie, and how one of them is read.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::embedded::EmbeddedTask;
use super::error::Read;
use super::{TASK_FILE, TaskError};

/// A folder, or the program itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Home {
    Folder(PathBuf),
    Embedded(&'static EmbeddedTask),
}

impl Home {
    /// A file's path as errors show it.
    pub(super) fn label(&self, file: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(file).display().to_string(),
            Self::Embedded(task) => format!("embedded task {}: {file}", task.name),
        }
    }

    /// The bytes of a file; one outside the task is refused.
    pub(super) fn read(&self, file: &str) -> Read<Cow<'static, [u8]>> {
        if Path::new(file).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(TaskError::Outside { label: self.label(TASK_FILE), file: file.to_owned() });
        }
        match self {
            Self::Folder(folder) => {
                std::fs::read(folder.join(file)).map(Cow::Owned).map_err(|source| TaskError::Read { label: self.label(file), source })
            }
            Self::Embedded(task) => match task.files.iter().find(|(name, _)| *name == file) {
                Some((_, bytes)) => Ok(Cow::Borrowed(bytes)),
                None => Err(TaskError::Read { label: self.label(file), source: std::io::ErrorKind::NotFound.into() }),
            },
        }
    }

    /// A file as UTF-8.
    pub(super) fn read_text(&self, file: &str) -> Read<String> {
        let bytes = self.read(file)?.into_owned();
        String::from_utf8(bytes).map_err(|error| TaskError::Encoding { label: self.label(file), offset: error.utf8_error().valid_up_to() })
    }

    /// A file's text as JSON.
    pub(super) fn parse_json(&self, file: &str, text: &str) -> Read<Value> {
        serde_json::from_str(text).map_err(|error| {
            let whole = error.to_string();
            let message = whole.split(" at line ").next().unwrap_or(&whole).to_owned();
            TaskError::Place { label: self.label(file), line: error.line(), column: error.column().max(1), message }
        })
    }
}
