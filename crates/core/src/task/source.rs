//! Reads a task's files.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::embedded::EmbeddedTask;
use super::error::Read;
use super::error::TASK_FILE;
use super::error::TaskError;
use super::toml_section::Section;
use crate::files;

/// Limit of `task.toml`, schemas and generators.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// Limit of the files below a folder.
const MAX_FOLDER_FILES: usize = 10_000;

/// Location of a task's files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Home {
    Folder(PathBuf),
    Embedded(&'static EmbeddedTask),
}

impl Home {
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Embedded(_) => None,
        }
    }

    pub(crate) fn read_files<N: AsRef<str>>(&self, names: &[N]) -> Read<Vec<(String, Vec<u8>)>> {
        let read = |name: &N| {
            let name = name.as_ref();
            Ok((
                name.to_owned(),
                self.read(name, files::MAX_WHOLE_FILE_BYTES)?.into_owned(),
            ))
        };
        names.iter().map(read).collect()
    }

    pub(crate) fn label(&self, file: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(file).display().to_string(),
            Self::Embedded(task) => format!("embedded task {}: {file}", task.name),
        }
    }

    pub(crate) fn path(&self, file: &str) -> Read<PathBuf> {
        let folder = match self {
            Self::Folder(folder) => folder,
            // Embedded files are looked up by name.
            Self::Embedded(_) => Path::new(""),
        };
        files::inside(folder, file)
            .map_err(|why| TaskError::outside(self.label(TASK_FILE), file, why))
    }

    pub(crate) fn file_of(
        &self,
        section: &Section<'_>,
        key: &str,
    ) -> Read<Option<(String, String)>> {
        let Some(file) = section.string(key)? else {
            return Ok(None);
        };
        let file = self.name(file)?;
        let text = self.read_text(&file)?;
        Ok(Some((file, text)))
    }

    /// Error for a missing key of `task.toml`.
    pub(crate) fn missing(&self, key: &str, example: &'static str) -> TaskError {
        TaskError::Missing {
            label: self.label(TASK_FILE),
            key: format!("`{key}`"),
            example,
        }
    }

    /// Normalizes a file name inside the task (no `.`, no doubled slashes). The file may not exist.
    pub(crate) fn name(&self, file: String) -> Read<String> {
        self.path(&file)?;
        let parts = file.split('/').filter(|part| !matches!(*part, "" | "."));
        Ok(parts.collect::<Vec<_>>().join("/"))
    }

    pub(crate) fn read(&self, file: &str, most_bytes: u64) -> Read<Cow<'static, [u8]>> {
        self.read_by(file, |path| files::read_at_most(path, most_bytes))
    }

    pub(crate) fn read_hidden(&self, file: &str) -> Read<Cow<'static, [u8]>> {
        self.read_by(file, files::read_hidden)
    }

    fn read_by(
        &self,
        file: &str,
        read: impl FnOnce(&Path) -> std::io::Result<Vec<u8>>,
    ) -> Read<Cow<'static, [u8]>> {
        let path = self.path(file)?;
        match self {
            Self::Folder(_) => read(&path)
                .map(Cow::Owned)
                .map_err(|source| self.unread(file, source)),
            Self::Embedded(task) => match task.files.iter().find(|(name, _)| *name == file) {
                Some((_, bytes)) => Ok(Cow::Borrowed(bytes)),
                None => Err(self.unread(file, std::io::ErrorKind::NotFound.into())),
            },
        }
    }

    pub(crate) fn open(&self, file: &str) -> Read<Box<dyn BufRead>> {
        match self {
            Self::Folder(_) => {
                let opened =
                    files::open(&self.path(file)?).map_err(|source| self.unread(file, source))?;
                Ok(Box::new(BufReader::with_capacity(1 << 16, opened)))
            }
            Self::Embedded(_) => Ok(Box::new(Cursor::new(self.read(file, u64::MAX)?))),
        }
    }

    /// A file, or the files below a folder, in order.
    ///
    /// # Errors
    /// Neither of them, a link to a folder, or more than [`MAX_FOLDER_FILES`].
    pub(crate) fn files_below(&self, name: &str) -> Read<Vec<String>> {
        let is_folder = match self {
            Self::Folder(_) => self.path(name)?.is_dir(),
            Self::Embedded(_) => false,
        };
        if !is_folder {
            return self.open(name).map(|_| vec![name.to_owned()]);
        }
        let failed = |source| self.unread(name, source);
        let entries = std::fs::read_dir(self.path(name)?).and_then(Iterator::collect);
        let mut entries: Vec<std::fs::DirEntry> = entries.map_err(failed)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let mut found = Vec::new();
        for entry in entries {
            // It may lead to a folder around it.
            if entry.file_type().map_err(failed)?.is_symlink() && entry.path().is_dir() {
                let why = format!("has a link to a folder, {:?}", entry.file_name());
                return Err(failed(std::io::Error::other(why)));
            }
            let file = format!("{name}/{}", entry.file_name().to_string_lossy());
            found.extend(self.files_below(&file)?);
            if found.len() > MAX_FOLDER_FILES {
                let why = format!("has more than {MAX_FOLDER_FILES} files");
                return Err(failed(std::io::Error::other(why)));
            }
        }
        Ok(found)
    }

    fn unread(&self, file: &str, source: std::io::Error) -> TaskError {
        TaskError::Read {
            label: self.label(file),
            source,
        }
    }

    pub(crate) fn read_text(&self, file: &str) -> Read<String> {
        let bytes = self.read(file, MAX_TEXT_BYTES)?.into_owned();
        files::text(bytes).map_err(|error| TaskError::Encoding {
            label: self.label(file),
            offset: error.valid_up_to(),
        })
    }

    pub(crate) fn parse_json(&self, file: &str, text: &str) -> Read<Value> {
        serde_json::from_str(text).map_err(|error| {
            let whole = error.to_string();
            let message = whole.split(" at line ").next().unwrap_or(&whole).to_owned();
            TaskError::Place {
                label: self.label(file),
                line: error.line(),
                column: error.column().max(1),
                message,
            }
        })
    }
}
