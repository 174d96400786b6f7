//! Reading `events.jsonl` while it grows: whole lines only, whatever else stands in the file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::RunError;
use super::events::{BadLine, EVENT_VERSION, Event};

/// How much is read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A position in a growing log. [`EventReader::read`] returns what came since the last time.
#[derive(Debug, Clone)]
pub struct EventReader {
    path: PathBuf,
    offset: u64,
    line: usize,
    inode: Option<u64>,
    last_seq: u64,
}

/// What one reading found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Whole events, in the file's order; unknown kinds included.
    pub events: Vec<Event>,
    /// Lines that are no events.
    pub skipped: Vec<Skipped>,
    /// Sequence numbers that are missing between events.
    pub gaps: u64,
    /// The file shrank or was replaced: everything known from before is void and `events` starts from the beginning.
    pub restarted: bool,
}

/// A line that is no event.
#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    /// Its number, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl EventReader {
    /// Start at the beginning of the log at `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, line: 0, inode: None, last_seq: 0 }
    }

    /// Everything new. A torn last line is left for the next time; a missing file is an empty one.
    ///
    /// # Errors
    /// [`RunError::Newer`] at a line of a newer program, [`RunError::Io`] where reading fails.
    pub fn read(&mut self) -> Result<Batch, RunError> {
        let mut batch = Batch::default();
        self.each(|found| match found {
            Found::Restarted => batch.restarted = true,
            Found::Event(event) => batch.events.push(event),
            Found::Skipped(skipped) => batch.skipped.push(skipped),
            Found::Missing(count) => batch.gaps += count,
        })?;
        Ok(batch)
    }

    /// As [`Self::read`], one thing at a time, so that a long log needs no memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn each(&mut self, mut take: impl FnMut(Found)) -> Result<(), RunError> {
        let path = self.path.clone();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RunError::io("read", &path)(error)),
        };
        let metadata = file.metadata().map_err(RunError::io("read", &path))?;
        let replaced = self.inode.is_some_and(|inode| inode != metadata.ino());
        if replaced || metadata.len() < self.offset {
            *self = Self::new(&path);
            take(Found::Restarted);
        }
        self.inode = Some(metadata.ino());
        file.seek(SeekFrom::Start(self.offset)).map_err(RunError::io("read", &path))?;
        let mut pending = Vec::new();
        loop {
            let before = pending.len();
            pending.resize(before + CHUNK_BYTES, 0);
            let count = loop {
                match file.read(&mut pending[before..]) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    outcome => break outcome.map_err(RunError::io("read", &path))?,
                }
            };
            pending.truncate(before + count);
            if count == 0 {
                return Ok(());
            }
            let mut done = 0;
            while let Some(length) = pending[done..].iter().position(|byte| *byte == b'\n') {
                self.line(&pending[done..done + length], &mut take)?;
                done += length + 1;
                self.offset += length as u64 + 1;
                self.line += 1;
            }
            pending.drain(..done);
        }
    }

    /// Take one whole line.
    fn line(&mut self, line: &[u8], take: &mut impl FnMut(Found)) -> Result<(), RunError> {
        let parsed = match std::str::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => Err(BadLine::Malformed("an empty line".to_owned())),
            Ok(text) => Event::from_line(text),
            Err(error) => Err(BadLine::Malformed(error.to_string())),
        };
        match parsed {
            Ok(event) => {
                let missing = event.seq.saturating_sub(self.last_seq.saturating_add(1));
                if missing > 0 {
                    take(Found::Missing(missing));
                }
                self.last_seq = self.last_seq.max(event.seq);
                take(Found::Event(event));
            }
            Err(BadLine::Newer(found)) => return Err(RunError::Newer { path: self.path.clone(), found, known: EVENT_VERSION }),
            Err(BadLine::Malformed(reason)) => take(Found::Skipped(Skipped { line: self.line + 1, reason })),
        }
        Ok(())
    }
}

/// One thing found while reading.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The file shrank or was replaced: everything known from before is void.
    Restarted,
    /// A whole event.
    Event(Event),
    /// A line that is no event.
    Skipped(Skipped),
    /// So many sequence numbers are missing here.
    Missing(u64),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::events::{EventBody, Note, Recovered};
    use super::super::history::RunState;
    use super::*;

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let folder = tempfile::tempdir().unwrap();
        let note = || EventBody::from(Note { text: "a".to_owned() });
        let recovered = || EventBody::from(Recovered { dropped_bytes: u64::MAX, ..Recovered::default() });
        let events = [(u64::MAX, note()), (u64::MAX, note()), (7, recovered()), (8, recovered())];
        let lines: Vec<u8> = events.into_iter().flat_map(|(seq, body)| Event { seq, time_ms: u64::MAX, body }.to_line().unwrap()).collect();
        std::fs::write(folder.path().join("events.jsonl"), lines).unwrap();
        let state = RunState::read(folder.path()).unwrap();
        assert_eq!((state.notes.len(), state.skipped, state.gaps, state.dropped_bytes), (2, 0, u64::MAX - 1, u64::MAX));
    }
}
