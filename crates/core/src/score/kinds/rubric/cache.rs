//! A judge's grades by content of the question: a file per rubric in the user's cache.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::question::Grade;
use crate::files::{self, Access};

/// A larger file is started anew.
const MAX_FILE_BYTES: u64 = 512 << 20;

#[derive(Serialize, Deserialize)]
struct Line {
    /// SHA-256 in hex of server and request.
    question: String,
    /// Grades by answer, then by criterion.
    grades: Vec<Vec<Grade>>,
}

/// Thread-safe; other processes may append to the same file.
#[derive(Debug)]
pub(super) struct Cache {
    path: Option<PathBuf>,
    open: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    known: HashMap<String, Vec<Vec<Grade>>>,
    file: File,
    read_bytes: u64,
}

impl Cache {
    /// The file is opened on the first question.
    pub(super) fn new(rubric_digest: &str) -> Self {
        let folders = directories::ProjectDirs::from("", "", "grpo-tui");
        let path = folders.map(|folders| {
            folders
                .cache_dir()
                .join("judge")
                .join(format!("{rubric_digest}.jsonl"))
        });
        Self {
            path,
            open: Mutex::new(None),
        }
    }

    pub(super) fn find(&self, question: &str) -> Result<Option<Vec<Vec<Grade>>>, String> {
        self.with(|opened| Ok(opened.known.get(question).cloned()))
    }

    pub(super) fn insert(&self, question: &str, grades: &[Vec<Grade>]) -> Result<(), String> {
        let line = Line {
            question: question.to_owned(),
            grades: grades.to_vec(),
        };
        let text = serde_json::to_string(&line).map_err(|error| error.to_string())?;
        self.with(|opened| {
            // A single write keeps lines of several processes apart.
            opened
                .file
                .write_all(format!("{text}\n").as_bytes())
                .map_err(|error| self.problem(&error))?;
            opened.known.insert(line.question, line.grades);
            Ok(())
        })
    }

    fn with<R>(&self, work: impl FnOnce(&mut Opened) -> Result<R, String>) -> Result<R, String> {
        let mut open = self.open.lock();
        if open.is_none() {
            *open = Some(self.open_file()?);
        }
        match open.as_mut() {
            Some(opened) => work(opened),
            None => Err("the judge's cache is not open".to_owned()),
        }
    }

    fn open_file(&self) -> Result<Opened, String> {
        let path = self
            .path
            .as_deref()
            .ok_or("no folder for the judge's cache: set HOME or XDG_CACHE_HOME")?;
        let failed = |error: std::io::Error| self.problem(&error);
        if let Some(folder) = path.parent() {
            files::ensure_folder(folder, Access::Private).map_err(failed)?;
        }
        if std::fs::metadata(path).is_ok_and(|found| found.len() > MAX_FILE_BYTES) {
            std::fs::remove_file(path).map_err(failed)?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut opened = Opened {
            known: HashMap::new(),
            file,
            read_bytes: 0,
        };
        self.read_new(&mut opened)?;
        let is_torn = opened.file.metadata().map_err(failed)?.len() > opened.read_bytes;
        if is_torn {
            opened.file.write_all(b"\n").map_err(failed)?;
        }
        Ok(opened)
    }

    pub(super) fn refresh(&self) -> Result<(), String> {
        self.with(|opened| self.read_new(opened))
    }

    fn read_new(&self, opened: &mut Opened) -> Result<(), String> {
        let failed = |error: std::io::Error| self.problem(&error);
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        let length = opened.file.metadata().map_err(failed)?.len();
        if length <= opened.read_bytes {
            return Ok(());
        }
        let mut file = files::open(path).map_err(failed)?;
        file.seek(SeekFrom::Start(opened.read_bytes))
            .map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(length - opened.read_bytes)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let end = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in bytes[..end].split(|byte| *byte == b'\n') {
            if let Ok(Line { question, grades }) = serde_json::from_slice(line) {
                opened.known.insert(question, grades);
            }
        }
        opened.read_bytes += end as u64;
        Ok(())
    }

    fn problem(&self, error: &std::io::Error) -> String {
        let path = self
            .path
            .as_deref()
            .map_or_else(String::new, |path| path.display().to_string());
        format!("{path}: {error}: the judge's grades could not be kept")
    }
}
