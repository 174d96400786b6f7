//! The one writer of `events.jsonl`: a `write` a line, sequence numbers that go on after a resume, torn tails sealed first.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::durable::{append_line, open_append, seal};
use super::error::RunError;
use super::events::{Event, EventBody, Recovered, now_ms};
use super::lock::RunLock;

/// The longest time that an event may wait for the disk.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Appends events. Needs the run's lock, so that there is one at a time.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
    next_seq: u64,
    last_sync: Instant,
    unsynced: bool,
}

impl EventWriter {
    /// Open the log for appending. A torn last line is cut off and reported as a `recovered` event; the sequence goes on after the last whole event.
    ///
    /// # Errors
    /// [`RunError`] naming the file.
    pub fn open(lock: &RunLock) -> Result<Self, RunError> {
        let path = lock.run().join("events.jsonl");
        let file = open_append(&path)?;
        let (dropped_bytes, length) = seal(&file, &path)?;
        let next_seq = last_seq(&file, length).map_err(RunError::io("read", &path))? + 1;
        let mut writer = Self { file, path, next_seq, last_sync: Instant::now(), unsynced: false };
        if dropped_bytes > 0 {
            let text = format!("the last line of events.jsonl was torn; {dropped_bytes} bytes were dropped");
            writer.append(Recovered { dropped_bytes, resumed_from: None, text })?;
        }
        Ok(writer)
    }

    /// Append one event and return its sequence number. Kinds that others rely on are durable before this returns, the rest within five seconds of
    /// the next event.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file: a full or read-only disk. The log then still ends in whole lines.
    pub fn append(&mut self, body: impl Into<EventBody>) -> Result<u64, RunError> {
        let event = Event { seq: self.next_seq, time_ms: now_ms(), body: body.into() };
        let malformed = |error: serde_json::Error| RunError::Malformed { path: self.path.clone(), line: None, message: error.to_string() };
        let line = event.to_line().map_err(malformed)?;
        append_line(&self.file, &self.path, &line)?;
        self.next_seq += 1;
        self.unsynced = true;
        if event.body.must_be_durable() || self.last_sync.elapsed() >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(event.seq)
    }

    /// Make everything written so far durable.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn sync(&mut self) -> Result<(), RunError> {
        if self.unsynced {
            self.file.sync_data().map_err(RunError::io("sync", &self.path))?;
        }
        (self.last_sync, self.unsynced) = (Instant::now(), false);
        Ok(())
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        // A destructor has nobody to tell; whoever must know calls `sync`.
        let _ = self.sync();
    }
}

/// The sequence number of the last line that is an event, 0 in an empty log. Reads backwards, so that a long log costs no more than a short one.
fn last_seq(file: &File, length: u64) -> std::io::Result<u64> {
    let mut start = length;
    let mut tail: Vec<u8> = Vec::new();
    while start > 0 {
        let step = start.min(64 * 1024);
        start -= step;
        let mut chunk = vec![0u8; step as usize];
        file.read_exact_at(&mut chunk, start)?;
        chunk.append(&mut tail);
        tail = chunk;
        // The first piece may be the end of a longer line; it counts only at the file's start.
        let whole = if start == 0 { 0 } else { tail.iter().position(|byte| *byte == b'\n').map_or(tail.len(), |at| at + 1) };
        let found = tail[whole..].split(|byte| *byte == b'\n').rev().find_map(seq_of);
        if let Some(seq) = found {
            return Ok(seq);
        }
    }
    Ok(0)
}

/// Lines of newer versions count too: their numbers are taken.
fn seq_of(line: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Head {
        seq: u64,
    }
    serde_json::from_slice::<Head>(line).ok().map(|head| head.seq)
}
