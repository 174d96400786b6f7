//! A run's log read into its state: from its index where it has one, then only what came since.

use std::path::{Path, PathBuf};

use super::error::RunError;
use super::history::RunState;
use super::index;
use super::reader::{Batch, EventReader, LogItem};

/// A run's state that is kept at hand: each look reads only what came since the one before.
#[derive(Debug)]
pub struct LiveState {
    run: PathBuf,
    state: RunState,
    reader: EventReader,
    /// How far the newest index goes that is known of.
    indexed_bytes: u64,
}

impl LiveState {
    /// What a run's log says now. A long log has an index beside it, so that only what came since is read; an index
    /// that is missing, stale or of another version is rebuilt.
    ///
    /// # Errors
    /// As [`EventReader::each`].
    pub fn open(run: &Path) -> Result<Self, RunError> {
        let log = run.join("events.jsonl");
        let (state, reader) = match index::load(run) {
            Some((state, position)) => (state, EventReader::at(&log, position)),
            None => (RunState::default(), EventReader::new(&log)),
        };
        let mut live = Self { run: run.to_owned(), state, indexed_bytes: reader.position().offset, reader };
        live.now()?;
        Ok(live)
    }

    /// What the log says now.
    ///
    /// # Errors
    /// As [`EventReader::each`].
    pub fn now(&mut self) -> Result<&RunState, RunError> {
        self.state.follow(&mut self.reader)?;
        let position = self.reader.position();
        if position.offset.saturating_sub(self.indexed_bytes) >= index::WORTH_BYTES && !self.reader.is_inside_a_line() {
            index::store(&self.run, &self.state, position);
            self.indexed_bytes = position.offset;
        }
        Ok(&self.state)
    }
}

impl RunState {
    /// What a run's log says now. A long log is not read whole: see [`LiveState::open`].
    ///
    /// # Errors
    /// As [`EventReader::each`].
    pub fn read(run: &Path) -> Result<Self, RunError> {
        Ok(LiveState::open(run)?.state)
    }

    /// As [`Self::read`], with the reader that stands behind the log's last whole line.
    ///
    /// # Errors
    /// As [`EventReader::each`].
    pub fn open(run: &Path) -> Result<(Self, EventReader), RunError> {
        LiveState::open(run).map(|live| (live.state, live.reader))
    }

    /// Take what a [`super::Follower`] found.
    pub fn take(&mut self, batch: Batch) {
        if batch.restarted {
            *self = Self::default();
        }
        self.skipped += batch.skipped.len();
        self.gaps = self.gaps.saturating_add(batch.gaps);
        batch.events.into_iter().for_each(|event| self.fold(event));
    }

    /// Take what is new in a log. A log that was replaced starts over.
    ///
    /// # Errors
    /// As [`EventReader::each`].
    pub fn follow(&mut self, reader: &mut EventReader) -> Result<(), RunError> {
        reader.each(|found| match found {
            LogItem::Restarted => *self = Self::default(),
            LogItem::Event(event) => self.fold(event),
            LogItem::Skipped(_) => self.skipped += 1,
            LogItem::Missing(count) => self.gaps = self.gaps.saturating_add(count),
        })
    }
}
