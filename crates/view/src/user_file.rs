//! A TOML file that a user writes (theme, keymap, configuration), with line numbers for errors in it.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::format::line_column;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserFile {
    name: String,
    text: String,
}

impl UserFile {
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    /// It exists and cannot be read.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        let text = |bytes| {
            String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))
        };
        match crate::files::read_at_most(path, MAX_BYTES).and_then(text) {
            Ok(text) => Ok(Some(Self::new(path.display().to_string(), text))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
        }
    }

    ///
    /// # Errors
    /// It is not TOML; with the line.
    pub(super) fn table(&self) -> Result<DeTable<'_>, String> {
        let table = DeTable::parse(&self.text).map(Spanned::into_inner);
        table.map_err(|error| {
            self.problem(error.span().map_or(0, |span| span.start), error.message())
        })
    }

    pub(super) fn problem(&self, byte: usize, what: &str) -> String {
        format!(
            "{} line {}: {what}",
            self.name,
            line_column(&self.text, byte).0
        )
    }

    pub(super) fn problem_at(&self, value: &Spanned<DeValue<'_>>, what: &str) -> String {
        self.problem(value.span().start, what)
    }
}

pub(super) fn text<'a>(value: &'a Spanned<DeValue<'_>>) -> Option<&'a str> {
    value.get_ref().as_str()
}

pub(super) fn folder() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "grpo-tui")
        .map(|folders| folders.config_dir().to_owned())
}
