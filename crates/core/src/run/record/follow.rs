//! Follows a run: returns new events on a notification of the file system, and polls every two seconds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::history::RunState;
use super::reader::{Batch, EventReader};
use crate::run::error::RunError;
use crate::run::storage::folder::FolderWatch;

/// The polling interval besides notifications, which may be missed.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The polling interval without notifications.
const POLL: Duration = Duration::from_secs(1);

/// A worker writes several lines at once; they are returned together.
const GATHER: Duration = Duration::from_millis(50);

/// Follows one run's log. Torn lines, unknown kinds, gaps, truncation and a missing folder are reported in each
/// [`Batch`].
#[derive(Debug)]
pub struct Follower {
    run: PathBuf,
    reader: EventReader,
    watch: FolderWatch,
    last_look: Option<Instant>,
    was_gone: bool,
}

impl Follower {
    /// Returns a run's state as of its log now, and a follower of what is appended.
    pub fn open(run: &Path) -> Result<(RunState, Self), RunError> {
        let (state, reader) = RunState::open(run)?;
        Ok((state, Self::new(run, reader)))
    }

    pub fn new(run: &Path, reader: EventReader) -> Self {
        // The folder is watched, since the file may be replaced.
        Self {
            run: run.to_owned(),
            reader,
            watch: FolderWatch::new(run, |_| true),
            last_look: None,
            was_gone: false,
        }
    }

    /// Waits at most `patience` for new events; the batch is empty if there are none.
    pub fn next(&mut self, patience: Duration) -> Result<Batch, RunError> {
        let deadline = Instant::now() + patience;
        loop {
            let batch = self.poll()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !batch.is_empty() || left.is_zero() {
                return Ok(batch);
            }
            self.wait(left);
        }
    }

    fn poll(&mut self) -> Result<Batch, RunError> {
        self.last_look = Some(Instant::now());
        let mut batch = self.reader.read()?;
        let gone = batch.is_empty() && !self.run.is_dir();
        // Reported once; a watch on a removed folder sees nothing of a new one.
        batch.gone = gone && !self.was_gone;
        if self.was_gone && !gone {
            self.watch.renew(&self.run, |_| true);
        }
        self.was_gone = gone;
        Ok(batch)
    }

    /// Waits at most `left` for a change, then gathers what is written at once.
    fn wait(&mut self, left: Duration) {
        let longest = if self.watch.is_announced() {
            HEARTBEAT
        } else {
            POLL
        };
        if self.watch.wait(left.min(longest)) {
            let since = self.last_look.map_or(GATHER, |look| look.elapsed());
            std::thread::sleep(GATHER.saturating_sub(since).min(left));
            self.watch.wait(Duration::ZERO);
        }
    }
}
