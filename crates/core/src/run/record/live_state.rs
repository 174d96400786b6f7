//! Folds a run's log into its state, from its index on if there is one.

use std::path::{Path, PathBuf};

use super::history::RunState;
use super::index;
use super::reader::{Batch, EventReader, LogItem};
use crate::run::error::RunError;

/// A run's state that can be brought up to date; only new events are read.
#[derive(Debug)]
pub struct LiveState {
    run: PathBuf,
    state: RunState,
    reader: EventReader,
    /// The position of the newest known index.
    indexed_bytes: u64,
}

impl LiveState {
    /// Reads a run's state from its log and the index beside it, which is rebuilt if missing, stale or of another
    /// version.
    pub fn open(run: &Path) -> Result<Self, RunError> {
        let log = run.join("events.jsonl");
        let (state, reader) = match index::load(run) {
            Some((state, position)) => (state, EventReader::at(&log, position)),
            None => (RunState::default(), EventReader::new(&log)),
        };
        let mut live = Self {
            run: run.to_owned(),
            state,
            indexed_bytes: reader.position().offset,
            reader,
        };
        live.now()?;
        Ok(live)
    }

    pub fn now(&mut self) -> Result<&RunState, RunError> {
        self.state.follow(&mut self.reader)?;
        let position = self.reader.position();
        if position.offset.saturating_sub(self.indexed_bytes) >= index::WORTH_BYTES
            && !self.reader.is_inside_a_line()
        {
            index::store(&self.run, &self.state, position);
            self.indexed_bytes = position.offset;
        }
        Ok(&self.state)
    }
}

impl RunState {
    /// Reads a run's state from all of its log, without its index; returns as well whether all of its events have a
    /// checksum.
    pub(in crate::run) fn verified(run: &Path) -> Result<(Self, bool), RunError> {
        let mut reader = EventReader::new(&run.join("events.jsonl"));
        let mut state = Self::default();
        state.follow(&mut reader)?;
        Ok((state, reader.has_only_checked()))
    }

    /// Reads a run's state, as [`LiveState::open`] does.
    pub fn read(run: &Path) -> Result<Self, RunError> {
        Ok(LiveState::open(run)?.state)
    }

    pub fn open(run: &Path) -> Result<(Self, EventReader), RunError> {
        LiveState::open(run).map(|live| (live.state, live.reader))
    }

    pub fn apply(&mut self, batch: Batch) {
        if batch.restarted {
            *self = Self::default();
        }
        batch.skipped.into_iter().for_each(|line| self.skip(line));
        self.gaps = self.gaps.saturating_add(batch.gaps);
        batch.events.into_iter().for_each(|event| self.fold(event));
    }

    /// Folds what was appended. A replaced log starts over.
    pub fn follow(&mut self, reader: &mut EventReader) -> Result<(), RunError> {
        reader.each(|found| match found {
            LogItem::Restarted => *self = Self::default(),
            LogItem::Event(event) => self.fold(*event),
            LogItem::SkippedLine(line) => self.skip(line),
            LogItem::Missing(count) => self.gaps = self.gaps.saturating_add(count),
        })
    }
}
