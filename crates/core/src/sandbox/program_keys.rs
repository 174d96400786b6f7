//! `task.toml` keys common to all programs: limits, isolation, files.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::level::Level;
use crate::task::{Home, Read, Section};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProgramKeys {
    /// Limit per answer.
    pub(crate) seconds: f64,
    /// Limit for each process, and for all together; 0: none.
    pub(crate) memory_mib: u64,
    /// Processes and threads in total; `None`: the default.
    pub(crate) max_processes: Option<u64>,
    pub(crate) isolation: Option<Level>,
    /// Readable files and folders outside the task.
    pub(crate) read: Vec<PathBuf>,
}

impl ProgramKeys {
    /// `seconds`: default.
    pub(crate) fn read(block: &Section<'_>, seconds: f64) -> Read<Self> {
        Ok(Self {
            seconds: block.seconds("seconds", seconds)?,
            memory_mib: block.whole("memory_mib", 2_048, 0..=1 << 30)?,
            max_processes: max_processes(block)?,
            isolation: block.choice("isolation", Level::ALL.map(|level| (level.name(), level)))?,
            read: outside(block)?,
        })
    }
}

/// Task files of a program: arguments that name one, and `files`.
pub(crate) fn program_files<'a>(
    arguments: impl Iterator<Item = &'a String>,
    block: &Section<'_>,
    home: &Home,
) -> Read<Vec<String>> {
    let mut files = Vec::new();
    for argument in arguments.filter(|argument| !argument.starts_with('-')) {
        if let Ok(name) = home.name(argument.clone())
            && !name.is_empty()
            && home.open(&name).is_ok()
        {
            files.push(name);
        }
    }
    for file in block.quoted_strings("files")? {
        let name = home.name(file)?;
        files.extend(home.files_below(&name)?);
    }
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn max_processes(block: &Section<'_>) -> Read<Option<u64>> {
    match block.get("max_processes") {
        None => Ok(None),
        Some(_) => block.whole("max_processes", 1, 1..=1 << 20).map(Some),
    }
}

/// Paths of `read`: absolute, and not folders that a sandbox replaces.
fn outside(block: &Section<'_>) -> Read<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = block
        .quoted_strings("read")?
        .into_iter()
        .map(PathBuf::from)
        .collect();
    let is_own = |path: &PathBuf| {
        ["/", "/tmp", "/proc", "/dev", "/sys"]
            .map(Path::new)
            .contains(&path.as_path())
    };
    let is_plain = |path: &PathBuf| {
        path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
    };
    match paths.iter().find(|path| !is_plain(path) || is_own(path)) {
        None => Ok(paths),
        Some(wrong) => {
            let offset = block.get("read").map_or(0, |(_, offset)| offset);
            let message = format!(
                "takes absolute paths such as \"/data/words.txt\", not {:?}",
                wrong.display().to_string()
            );
            Err(block.error("read", offset, message))
        }
    }
}
