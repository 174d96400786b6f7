//! Following a run live: what is new, as soon as the file system says so, and every two seconds whatever it says.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::RunError;
use super::folder::FolderWatch;
use super::history::RunState;
use super::reader::{Batch, EventReader};

/// How often the log is looked at although nobody said that it changed: a watcher may miss changes.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How often it is looked at where the file system tells nothing.
const POLL: Duration = Duration::from_secs(1);

/// A worker writes some lines at once; they are taken together.
const GATHER: Duration = Duration::from_millis(50);

/// Follows one run's log. It survives torn lines, unknown kinds, gaps, truncation and a folder that vanishes, and says
/// so in each [`Batch`].
#[derive(Debug)]
pub struct Follower {
    run: PathBuf,
    reader: EventReader,
    watch: FolderWatch,
    last_look: Option<Instant>,
    was_gone: bool,
}

impl Follower {
    /// A run's state as its log says now, and the follower of what comes.
    ///
    /// # Errors
    /// As [`EventReader::each`].
    pub fn open(run: &Path) -> Result<(RunState, Self), RunError> {
        let (state, reader) = RunState::open(run)?;
        Ok((state, Self::new(run, reader)))
    }

    /// Follows from where `reader` stands. Without a watcher (a network file system, or no more watches to be had) the
    /// log is polled.
    pub fn new(run: &Path, reader: EventReader) -> Self {
        // Of the folder, not of the file: the file may be replaced.
        Self { run: run.to_owned(), reader, watch: FolderWatch::new(run, |_| true), last_look: None, was_gone: false }
    }

    /// What is new. Waits for it, at most `patience`; an empty batch means that nothing came.
    ///
    /// # Errors
    /// As [`EventReader::each`].
    pub fn next(&mut self, patience: Duration) -> Result<Batch, RunError> {
        let deadline = Instant::now() + patience;
        loop {
            let batch = self.look()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !batch.is_empty() || left.is_zero() {
                return Ok(batch);
            }
            self.wait(left);
        }
    }

    fn look(&mut self) -> Result<Batch, RunError> {
        self.last_look = Some(Instant::now());
        let mut batch = self.reader.read()?;
        let gone = batch.is_empty() && !self.run.is_dir();
        // Said once; a watch on a vanished folder sees nothing of a new one.
        batch.gone = gone && !self.was_gone;
        if self.was_gone && !gone {
            self.watch.renew(&self.run, |_| true);
        }
        self.was_gone = gone;
        Ok(batch)
    }

    /// Until something may have changed, at most `left`; what is written at once is gathered.
    fn wait(&mut self, left: Duration) {
        let longest = if self.watch.is_announced() { HEARTBEAT } else { POLL };
        if self.watch.wait(left.min(longest)) {
            let since = self.last_look.map_or(GATHER, |look| look.elapsed());
            std::thread::sleep(GATHER.saturating_sub(since).min(left));
            self.watch.wait(Duration::ZERO);
        }
    }
}
