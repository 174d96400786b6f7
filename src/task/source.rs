//! Where a task's files lie, and how one of them is read.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::embedded::EmbeddedTask;
use super::error::Read;
use super::{TASK_FILE, TaskError};
use crate::files;

/// The largest `task.toml`, schema or recipe of a generator.
const LARGEST_TEXT_BYTES: u64 = 64 << 20;

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

    /// Where a file lies, with links followed: the one rule for whatever is read from a task or written into it.
    pub(super) fn path(&self, file: &str) -> Read<PathBuf> {
        let folder = match self {
            Self::Folder(folder) => folder,
            // Nothing is opened there: the files are looked up by name.
            Self::Embedded(_) => Path::new(""),
        };
        files::inside(folder, file).map_err(|why| TaskError::outside(self.label(TASK_FILE), file, why))
    }

    /// A file's name as it is kept: inside the task, without `.` and doubled slashes. Whether it exists is not asked.
    pub(super) fn name(&self, file: String) -> Read<String> {
        self.path(&file)?;
        let parts = file.split('/').filter(|part| !matches!(*part, "" | "."));
        Ok(parts.collect::<Vec<_>>().join("/"))
    }

    /// The bytes of a file; one outside the task is refused.
    pub(super) fn read(&self, file: &str, most_bytes: u64) -> Read<Cow<'static, [u8]>> {
        let path = self.path(file)?;
        match self {
            Self::Folder(_) => {
                files::read_at_most(&path, most_bytes).map(Cow::Owned).map_err(|source| self.unread(file, source))
            }
            Self::Embedded(task) => match task.files.iter().find(|(name, _)| *name == file) {
                Some((_, bytes)) => Ok(Cow::Borrowed(bytes)),
                None => Err(self.unread(file, std::io::ErrorKind::NotFound.into())),
            },
        }
    }

    /// A reader over a file: from the disk, nothing but a buffer is held in memory.
    pub(super) fn open(&self, file: &str) -> Read<Box<dyn BufRead>> {
        match self {
            Self::Folder(_) => {
                let opened = files::open(&self.path(file)?).map_err(|source| self.unread(file, source))?;
                Ok(Box::new(BufReader::with_capacity(1 << 16, opened)))
            }
            Self::Embedded(_) => Ok(Box::new(Cursor::new(self.read(file, u64::MAX)?))),
        }
    }

    fn unread(&self, file: &str, source: std::io::Error) -> TaskError {
        TaskError::Read { label: self.label(file), source }
    }

    /// A file as UTF-8.
    pub(super) fn read_text(&self, file: &str) -> Read<String> {
        let bytes = self.read(file, LARGEST_TEXT_BYTES)?.into_owned();
        String::from_utf8(bytes)
            .map_err(|error| TaskError::Encoding { label: self.label(file), offset: error.utf8_error().valid_up_to() })
    }

    pub(super) fn parse_json(&self, file: &str, text: &str) -> Read<Value> {
        serde_json::from_str(text).map_err(|error| {
            let whole = error.to_string();
            let message = whole.split(" at line ").next().unwrap_or(&whole).to_owned();
            TaskError::Place { label: self.label(file), line: error.line(), column: error.column().max(1), message }
        })
    }
}
