//! The only writer of `events.jsonl`: one `write` per line, sequence numbers that continue after a
//! resume, and truncation of torn tails.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::events::{Event, EventBody, Recovered};
use crate::run::clock::now_ms;
use crate::run::error::RunError;
use crate::run::storage::durable::{append_line, open_append, seal};
use crate::run::storage::lock::RunLock;

/// Maximum time until an event is synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Appends events; requires the run's lock.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
    next_seq: u64,
    syncer: Syncer,
}

impl EventWriter {
    /// Opens the log for appending. A torn last line is truncated and reported as a `recovered`
    /// event.
    pub fn open(lock: &RunLock) -> Result<Self, RunError> {
        Self::syncing_every(lock, SYNC_INTERVAL)
    }

    fn syncing_every(lock: &RunLock, interval: Duration) -> Result<Self, RunError> {
        let path = lock.run().join("events.jsonl");
        let file = open_append(&path)?;
        let (dropped_bytes, length) = seal(&file, &path)?;
        let next_seq = last_seq(&file, length).map_err(RunError::io("read", &path))? + 1;
        let syncer = file
            .try_clone()
            .and_then(|file| Syncer::start(file, interval))
            .map_err(RunError::io("open", &path))?;
        let mut writer = Self {
            file,
            path,
            next_seq,
            syncer,
        };
        if dropped_bytes > 0 {
            let text =
                format!("the last line of events.jsonl was torn: {dropped_bytes} bytes dropped");
            writer.append(Recovered {
                dropped_bytes,
                resumed_from: None,
                text,
            })?;
        }
        Ok(writer)
    }

    /// Appends an event and returns its sequence number. Kinds that others rely on are durable on
    /// return, the rest within five seconds.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file: a full or read-only disk, or an earlier event that could
    /// not be synced. The log still ends in whole lines.
    pub fn append(&mut self, body: impl Into<EventBody>) -> Result<u64, RunError> {
        if self
            .file
            .metadata()
            .map_err(RunError::io("read", &self.path))?
            .nlink()
            == 0
        {
            return Err(lost_log(&self.path));
        }
        let event = Event {
            seq: self.next_seq,
            time_ms: now_ms(),
            body: body.into(),
        };
        let line = event
            .to_line()
            .map_err(|error| RunError::malformed(&self.path, error))?;
        self.syncer
            .check()
            .map_err(RunError::io("sync", &self.path))?;
        append_line(&self.file, &self.path, &line, &line_name(&event.body))?;
        self.next_seq += 1;
        if event.body.must_be_durable() {
            self.syncer.owed.store(true, Ordering::SeqCst);
            self.sync()?;
        } else {
            self.syncer.owe();
        }
        Ok(event.seq)
    }

    /// Makes everything written so far durable.
    pub fn sync(&mut self) -> Result<(), RunError> {
        self.syncer
            .check()
            .map_err(RunError::io("sync", &self.path))?;
        if self.syncer.owed.swap(false, Ordering::SeqCst) {
            self.file
                .sync_data()
                .map_err(RunError::io("sync", &self.path))?;
        }
        Ok(())
    }
}

/// Whether the log is known to be missing; a file system that does not respond proves nothing.
pub(in crate::run) fn is_gone(log: &Path) -> bool {
    matches!(log.try_exists(), Ok(false))
}

/// The error for a removed log, in which further events would be lost.
pub(in crate::run) fn lost_log(path: &Path) -> RunError {
    RunError::Lost {
        path: path.parent().unwrap_or(path).to_owned(),
        why: "its events.jsonl was removed or replaced".to_owned(),
    }
}

/// The name of a line in tests: its kind, with the phase for phase events.
fn line_name(body: &EventBody) -> Cow<'_, str> {
    match body {
        EventBody::Phase(phase) => Cow::Owned(format!("phase-{}", phase.phase)),
        body => Cow::Borrowed(body.kind()),
    }
}

/// Syncs the log in the background after a line was written.
#[derive(Debug)]
struct Syncer {
    owed: Arc<AtomicBool>,
    failed: Arc<Mutex<Option<std::io::Error>>>,
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<u64>>,
}

impl Syncer {
    fn start(file: File, interval: Duration) -> std::io::Result<Self> {
        let (wake, woken) = channel();
        let (owed, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let shared = (Arc::clone(&owed), Arc::clone(&failed));
        let thread = std::thread::Builder::new()
            .name("event-sync".to_owned())
            .spawn(move || {
                let (owed, failed) = shared;
                let mut syncs = 0;
                while let Ok(()) = woken.recv() {
                    let until = Instant::now() + interval;
                    loop {
                        match woken.recv_timeout(until.saturating_duration_since(Instant::now())) {
                            Ok(()) => {}
                            Err(RecvTimeoutError::Timeout) => break,
                            // Dropping the writer syncs.
                            Err(RecvTimeoutError::Disconnected) => return syncs,
                        }
                    }
                    if owed.swap(false, Ordering::SeqCst) {
                        syncs += 1;
                        if let Err(error) = file.sync_data() {
                            *failed.lock() = Some(error);
                        }
                    }
                }
                syncs
            })?;
        Ok(Self {
            owed,
            failed,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Requests a sync; wakes the thread once per sync.
    fn owe(&self) {
        if !self.owed.swap(true, Ordering::SeqCst)
            && let Some(wake) = &self.wake
        {
            // The thread ends only with this writer.
            let _ = wake.send(());
        }
    }

    fn check(&self) -> std::io::Result<()> {
        self.failed.lock().take().map_or(Ok(()), Err)
    }

    fn stop(&mut self) -> u64 {
        self.wake = None;
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or(0)
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        // Errors cannot be returned here; a caller that needs them calls `sync`.
        let _ = self.sync();
        self.syncer.stop();
    }
}

/// The sequence number of the last event, 0 in an empty log. Reads backwards, so its cost is
/// independent of the log's length.
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
        // The first piece may be the end of a longer line, unless it is the start of the file.
        let whole = if start == 0 {
            0
        } else {
            tail.iter()
                .position(|byte| *byte == b'\n')
                .map_or(tail.len(), |at| at + 1)
        };
        let found = tail[whole..]
            .split(|byte| *byte == b'\n')
            .rev()
            .find_map(seq_of);
        if let Some(seq) = found {
            return Ok(seq);
        }
    }
    Ok(0)
}

/// Lines of newer versions count as well.
fn seq_of(line: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Head {
        seq: u64,
    }
    serde_json::from_slice::<Head>(line)
        .ok()
        .map(|head| head.seq)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::events::{Note, Phase};
    use super::*;
    use crate::facts::PhaseKind;

    #[test]
    fn a_last_line_is_synced_although_no_other_comes() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire(folder.path()).unwrap();
        let mut writer = EventWriter::syncing_every(&lock, Duration::from_millis(5)).unwrap();
        writer
            .append(Phase {
                step: 1,
                phase: PhaseKind::Rollout,
            })
            .unwrap();
        let start = Instant::now();
        while writer.syncer.owed.load(Ordering::SeqCst) && start.elapsed() < Duration::from_secs(60)
        {
            std::thread::yield_now();
        }
        assert_eq!(writer.syncer.stop(), 1);
    }

    #[test]
    fn lines_of_one_interval_are_synced_together() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire(folder.path()).unwrap();
        let mut writer = EventWriter::syncing_every(&lock, Duration::from_secs(3600)).unwrap();
        for number in 0..100 {
            writer
                .append(Note {
                    text: number.to_string(),
                })
                .unwrap();
        }
        writer.sync().unwrap();
        assert_eq!(
            (
                writer.syncer.stop(),
                writer.syncer.owed.load(Ordering::SeqCst)
            ),
            (0, false),
            "ends at once, with nothing owed"
        );
    }
}
