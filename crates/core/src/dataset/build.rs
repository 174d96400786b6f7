//! Generates a task's prompt files, row by row, deterministically.

use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::DatasetError;
use super::generator::{Generator, Stream};
use crate::files::{self, Access, Sync};
use crate::task::{PromptSet, TASK_FILE, TaskError, TaskFiles};

#[derive(Debug)]
pub struct Builder {
    generator: Generator,
    /// Train, eval, test.
    pub sets: Vec<BuiltSet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltSet {
    /// Name in the task's folder.
    pub file: String,
    pub stream: Stream,
    pub rows: u64,
}

impl BuiltSet {
    /// Path in the folder; an error if a link leads outside.
    pub fn path(&self, folder: &Path) -> Result<PathBuf, DatasetError> {
        let outside = |why| TaskError::outside(folder.display().to_string(), &self.file, why);
        Ok(files::inside(folder, &self.file).map_err(outside)?)
    }
}

impl Builder {
    /// Reads the task's generator, which must not overwrite `definition_files`.
    pub fn new(task: &TaskFiles, definition_files: &[&str]) -> Result<Self, DatasetError> {
        let generator = Generator::load(task)?;
        let streams = [
            (PromptSet::Train, Stream::Train),
            (PromptSet::Eval, Stream::Eval),
            (PromptSet::Test, Stream::Test),
        ];
        let sets = streams.into_iter().filter_map(|(set, stream)| {
            Some(BuiltSet {
                file: task.set_file(set)?.to_owned(),
                stream,
                rows: generator.rows(stream).unwrap_or(0),
            })
        });
        let sets: Vec<BuiltSet> = sets.collect();
        let prompts = &task.prompts;
        let others = [&prompts.generator, &prompts.completions]
            .into_iter()
            .flatten()
            .map(String::as_str);
        let sources = definition_files.iter().copied().chain(others);
        // By link target: a link may lead from one name to another.
        let mut taken = sources
            .map(|file| task.path(file))
            .collect::<Result<Vec<_>, _>>()?;
        for set in &sets {
            let path = task.path(&set.file)?;
            if taken.contains(&path) {
                let problem = format!(
                    "{:?} is named twice; each generated set needs its own file",
                    set.file
                );
                return Err(DatasetError::Generator {
                    label: task.label(TASK_FILE),
                    problem,
                });
            }
            taken.push(path);
        }
        Ok(Self { sets, generator })
    }

    /// Including line ends.
    pub fn lines<'a>(
        &'a self,
        set: &'a BuiltSet,
    ) -> impl Iterator<Item = Result<String, DatasetError>> + 'a {
        (0..set.rows).map(move |index| {
            let row = self.generator.row(set.stream, index)?.row;
            Ok(format!("{}\n", row.fields.text()))
        })
    }

    /// Writes a set's file atomically into a folder, created if missing; returns its path.
    pub fn write(&self, set: &BuiltSet, folder: &Path) -> Result<PathBuf, DatasetError> {
        let path = set.path(folder)?;
        let remedy = "check the free space and the permissions, or write elsewhere with --out DIR";
        let fail = |source: io::Error| DatasetError::File {
            path: path.display().to_string(),
            source,
            remedy,
        };
        files::ensure_folder(path.parent().unwrap_or(folder), Access::Umask).map_err(fail)?;
        let written = files::replace_file_with(&path, Access::Umask, Sync::Disk, |file| {
            let mut file = BufWriter::new(file);
            for line in self.lines(set) {
                file.write_all(line.map_err(io::Error::other)?.as_bytes())?;
            }
            file.flush()
        });
        written.map_err(|error| error.downcast().unwrap_or_else(fail))?;
        Ok(folder.join(&set.file))
    }

    /// First line (from 1) on which a stored file differs from the generator's output.
    pub fn first_difference(
        &self,
        set: &BuiltSet,
        mut stored: impl BufRead,
    ) -> Result<Option<usize>, DatasetError> {
        let mut buffer = Vec::new();
        let mut next = |buffer: &mut Vec<u8>| {
            buffer.clear();
            let remedy = "check that it can be read";
            stored
                .read_until(b'\n', buffer)
                .map_err(|source| DatasetError::File {
                    path: set.file.clone(),
                    source,
                    remedy,
                })
        };
        for (index, line) in self.lines(set).enumerate() {
            next(&mut buffer)?;
            if buffer != line?.as_bytes() {
                return Ok(Some(index + 1));
            }
        }
        let more = next(&mut buffer)?;
        Ok((more > 0).then_some(set.rows as usize + 1))
    }
}
