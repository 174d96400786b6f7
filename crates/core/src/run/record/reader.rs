//! Reads the whole lines of a growing `events.jsonl`.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::events::{BadLine, EVENT_VERSION, Event};
use crate::files::{Checked, check};
use crate::run::error::RunError;

const CHUNK_BYTES: u64 = 1 << 20;

/// Longer lines are skipped without being held in memory.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Reads a growing log; [`EventReader::read`] returns what was appended since the last call.
#[derive(Debug, Clone)]
pub struct EventReader {
    path: PathBuf,
    position: Position,
    inode: Option<u64>,
    /// Whether the rest of an overlong line is being skipped.
    overlong: bool,
    /// Number of events without a checksum.
    unchecked: usize,
}

/// A position in a log, always at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub offset: u64,
    pub line: usize,
    pub last_seq: u64,
    /// Whether an earlier line has a checksum; all later ones then have one.
    pub has_checksums: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Events in file order, including unknown kinds.
    pub events: Vec<Event>,
    pub skipped: Vec<SkippedLine>,
    /// Number of missing sequence numbers.
    pub gaps: u64,
    /// Whether the file shrank or was replaced: earlier state is void, and `events` starts from the
    /// beginning.
    pub restarted: bool,
    /// Whether the run's folder does not exist.
    pub gone: bool,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.skipped.is_empty()
            && self.gaps == 0
            && !self.restarted
            && !self.gone
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SkippedLine {
    pub line: usize,
    pub reason: String,
    /// The kind that the line claims, if its checksum does not match.
    #[serde(default)]
    pub kind: Option<String>,
}

impl EventReader {
    pub fn new(path: &Path) -> Self {
        Self::at(path, Position::default())
    }

    pub(super) fn at(path: &Path, position: Position) -> Self {
        Self {
            path: path.to_owned(),
            position,
            inode: None,
            overlong: false,
            unchecked: 0,
        }
    }

    pub(in crate::run) fn has_only_checked(&self) -> bool {
        self.unchecked == 0
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub(super) fn is_inside_a_line(&self) -> bool {
        self.overlong
    }

    /// Reads what was appended, without a torn last line; a missing file counts as empty.
    ///
    /// # Errors
    /// [`RunError::Newer`] for a line of a newer program, [`RunError::Io`].
    pub fn read(&mut self) -> Result<Batch, RunError> {
        let mut batch = Batch::default();
        self.each(|found| match found {
            LogItem::Restarted => batch.restarted = true,
            LogItem::Event(event) => batch.events.push(*event),
            LogItem::SkippedLine(skipped) => batch.skipped.push(skipped),
            LogItem::Missing(count) => batch.gaps += count,
        })?;
        Ok(batch)
    }

    /// Like [`Self::read`], but passes single items, so that a long log needs no memory.
    pub fn each(&mut self, mut take: impl FnMut(LogItem)) -> Result<(), RunError> {
        let path = self.path.clone();
        let mut file = match crate::files::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RunError::io("read", &path)(error)),
        };
        let metadata = file.metadata().map_err(RunError::io("read", &path))?;
        let replaced = self.inode.is_some_and(|inode| inode != metadata.ino());
        if replaced || metadata.len() < self.position.offset {
            *self = Self::new(&path);
            take(LogItem::Restarted);
        }
        self.inode = Some(metadata.ino());
        if metadata.len() == self.position.offset {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.position.offset))
            .map_err(RunError::io("read", &path))?;
        let mut pending = Vec::new();
        loop {
            let count = Read::take(&mut file, CHUNK_BYTES)
                .read_to_end(&mut pending)
                .map_err(RunError::io("read", &path))?;
            let done = self.lines(&pending, count, &mut take)?;
            pending.drain(..done);
            if pending.len() > MAX_LINE_BYTES {
                self.position.offset += pending.len() as u64;
                self.overlong = true;
                pending.clear();
            }
            if (count as u64) < CHUNK_BYTES {
                return Ok(());
            }
        }
    }

    /// Parses the whole lines of `pending`, whose last `fresh` bytes are new; returns their size.
    fn lines(
        &mut self,
        pending: &[u8],
        fresh: usize,
        take: &mut impl FnMut(LogItem),
    ) -> Result<usize, RunError> {
        let (mut done, mut search) = (0, pending.len() - fresh);
        while let Some(length) = pending[search..].iter().position(|byte| *byte == b'\n') {
            let end = search + length;
            if std::mem::take(&mut self.overlong) {
                let reason = format!("a line of more than {} MiB", MAX_LINE_BYTES >> 20);
                take(LogItem::SkippedLine(SkippedLine {
                    line: self.position.line + 1,
                    reason,
                    kind: None,
                }));
            } else {
                self.line(&pending[done..end], take)?;
            }
            self.position.offset += (end + 1 - done) as u64;
            self.position.line += 1;
            (done, search) = (end + 1, end + 1);
        }
        if self.overlong {
            self.position.offset += (pending.len() - done) as u64;
            done = pending.len();
        }
        Ok(done)
    }

    fn line(&mut self, line: &[u8], take: &mut impl FnMut(LogItem)) -> Result<(), RunError> {
        let parsed = match std::str::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => Err(BadLine::malformed("an empty line")),
            Ok(text) => Event::from_line(text),
            Err(error) => Err(BadLine::malformed(error.to_string())),
        };
        let (is_checked, before) = (check(line) == Checked::Intact, self.position);
        self.position.has_checksums |= is_checked;
        let parsed = parsed.and_then(|event| match () {
            () if before.has_checksums && !is_checked => Err(BadLine::malformed(
                "the line has no checksum, though earlier ones have one",
            )),
            () if is_checked && event.seq <= before.last_seq => Err(BadLine::malformed(format!(
                "the line repeats event {} or is out of order",
                event.seq
            ))),
            () => Ok(event),
        });
        match parsed {
            Ok(event) => {
                self.unchecked += usize::from(!is_checked);
                let missing = event
                    .seq
                    .saturating_sub(self.position.last_seq.saturating_add(1));
                if missing > 0 {
                    take(LogItem::Missing(missing));
                }
                self.position.last_seq = self.position.last_seq.max(event.seq);
                take(LogItem::Event(Box::new(event)));
            }
            Err(BadLine::Newer(found)) => {
                return Err(RunError::Newer {
                    path: self.path.clone(),
                    found,
                    known: EVENT_VERSION,
                });
            }
            Err(BadLine::Malformed { reason, kind }) => take(LogItem::SkippedLine(SkippedLine {
                line: self.position.line + 1,
                reason,
                kind,
            })),
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum LogItem {
    /// The file shrank or was replaced: earlier state is void.
    Restarted,
    Event(Box<Event>),
    SkippedLine(SkippedLine),
    /// Number of sequence numbers missing here.
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
        let note = || {
            EventBody::from(Note {
                text: "a".to_owned(),
            })
        };
        let recovered = || {
            EventBody::from(Recovered {
                dropped_bytes: u64::MAX,
                ..Recovered::default()
            })
        };
        let events = [
            (u64::MAX, note()),
            (u64::MAX, note()),
            (7, recovered()),
            (8, recovered()),
        ];
        // Older programs wrote no checksums.
        let lines: Vec<u8> = events
            .into_iter()
            .flat_map(|(seq, body)| {
                let event = Event {
                    seq,
                    time_ms: u64::MAX,
                    body,
                };
                let line = String::from_utf8(event.to_line().unwrap()).unwrap();
                let (line, _) = line.split_once(",\"xxh3\"").unwrap();
                format!("{line}}}\n").into_bytes()
            })
            .collect();
        std::fs::write(folder.path().join("events.jsonl"), lines).unwrap();
        let state = RunState::read(folder.path()).unwrap();
        assert_eq!(
            (
                state.notes.len(),
                state.skipped,
                state.gaps,
                state.dropped_bytes
            ),
            (2, 0, u64::MAX - 1, u64::MAX)
        );
    }

    /// An overlong line is one skipped line, even if it arrives in pieces.
    #[test]
    fn a_whole_line_with_an_unknown_word_is_of_another_version() {
        let reason = |line: &[u8]| match Event::from_line(std::str::from_utf8(line).unwrap()) {
            Err(BadLine::Malformed { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let line = br#"{"v":1,"seq":1,"kind":"control","verb":"teleport"}"#.to_vec();
        let mut sealed = line.clone();
        crate::files::seal_line(&mut sealed);
        let (bare, whole) = (reason(&line), reason(&sealed));
        assert!(bare.starts_with("unknown variant"), "{bare}");
        let about = "the line is whole, with a word of another version of grpo-tui: unknown variant `teleport`";
        assert!(whole.starts_with(about), "{whole}");
    }

    #[test]
    fn an_overlong_line_is_skipped_whole() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut file = std::fs::File::create(&path).unwrap();
        let note = |seq| {
            Event {
                seq,
                time_ms: 1,
                body: Note {
                    text: "a".to_owned(),
                }
                .into(),
            }
            .to_line()
            .unwrap()
        };
        let mut reader = EventReader::new(&path);
        file.write_all(&note(1)).unwrap();
        file.write_all(&vec![b'x'; MAX_LINE_BYTES + 5]).unwrap();
        assert_eq!(reader.read().unwrap().events.len(), 1);
        file.write_all(b"yyy").unwrap();
        assert!(reader.read().unwrap().is_empty());
        file.write_all(b"z\n").unwrap();
        file.write_all(&note(2)).unwrap();
        let found = reader.read().unwrap();
        assert_eq!(
            (
                found.events.len(),
                found.skipped.len(),
                found.skipped[0].line,
                found.gaps
            ),
            (1, 1, 2, 0)
        );
        assert_eq!(
            reader.position(),
            Position {
                offset: std::fs::metadata(&path).unwrap().len(),
                line: 3,
                last_seq: 2,
                has_checksums: true
            }
        );
        assert_eq!(EventReader::new(&path).read().unwrap().skipped.len(), 1);
    }
}
