//! The list of all runs; a run is read again only after a change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::run_report::Report;
use super::run_row::RunRow;
use crate::run::{
    RunDirectory, RunError, RunFolders, SLURM_FILE, State, Status, ask_slurm, name_path, tags_path,
};

/// Slurm is asked no more often.
const SLURM_INTERVAL: Duration = Duration::from_secs(10);

/// The runs of a folder, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    entries: Vec<Entry>,
    /// The number of runs that the last refresh had to read.
    pub read: usize,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub path: PathBuf,
    pub row: Result<Arc<RunRow>, String>,
    stamp: Stamp,
}

/// Sizes and times of a run's files, to detect changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([Option<(u64, SystemTime)>; 7]);

impl Listing {
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reads changed runs, and asks Slurm about those that wait for it. `so_far` gets the list every few runs that were read; if it returns false, the rest is
    /// omitted.
    #[must_use]
    pub fn refreshed(
        &self,
        run_folders: &RunFolders,
        so_far: &mut dyn FnMut(&Self) -> bool,
    ) -> Self {
        let before: HashMap<&Path, &Entry> = self
            .entries
            .iter()
            .map(|entry| (entry.path.as_path(), entry))
            .collect();
        let mut found = Self::default();
        let mut folders = run_folders.folders();
        // Without an answer the runs show the last one, with its time.
        let _ = ask_slurm(folders.iter().cloned(), SLURM_INTERVAL);
        // Ids begin with their time: the newest runs are read first.
        folders.sort_by(|a, b| b.file_name().cmp(&a.file_name()));
        for path in folders {
            let Some(stamp) = Stamp::for_run(&path) else {
                continue;
            };
            let read_before = found.read;
            match before.get(path.as_path()) {
                Some(entry) if entry.stamp == stamp => found.entries.push(entry.observed()),
                _ => match read(&path) {
                    Ok(None) => {}
                    Ok(Some(row)) => found.push(Entry {
                        path,
                        row: Ok(Arc::new(row)),
                        stamp,
                    }),
                    Err(error) => found.push(Entry {
                        path,
                        row: Err(error),
                        stamp,
                    }),
                },
            }
            if found.read > read_before && found.read.is_multiple_of(8) && !so_far(&found) {
                break;
            }
        }
        let created = |entry: &Entry| {
            entry
                .row
                .as_ref()
                .map_or(0, |row| row.directory.file().created_ms)
        };
        found.entries.sort_by_key(created);
        found
    }

    fn push(&mut self, entry: Entry) {
        self.read += 1;
        self.entries.push(entry);
    }
}

impl Entry {
    pub fn id(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// Checks the lock: a worker can die without writing anything.
    fn observed(&self) -> Self {
        let mut entry = self.clone();
        if let Ok(row) = &mut entry.row
            && !row.status.is_ended()
        {
            let state = State::observe(&self.path);
            let status = state.as_ref().map_or(Status::Created, |state| state.status);
            let cause = state.as_ref().and_then(|state| state.cause.as_ref());
            if status != row.status || cause.is_some_and(|cause| row.cause.as_ref() != Some(cause))
            {
                let row = Arc::make_mut(row);
                row.status = status;
                row.worker = state.as_ref().map(|state| state.pid);
                row.cause = state.and_then(|state| state.cause);
            }
        }
        entry
    }
}

impl Stamp {
    /// `None` without `run.toml`.
    fn for_run(run: &Path) -> Option<Self> {
        let of = |path: PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        };
        let file = of(run.join("run.toml"));
        file?;
        let written = ["events.jsonl", "state.json", SLURM_FILE, "checkpoints"]
            .map(|name| of(run.join(name)));
        let [events, state, slurm, checkpoints] = written;
        Some(Self([
            file,
            events,
            state,
            slurm,
            checkpoints,
            of(tags_path(run)),
            of(name_path(run)),
        ]))
    }
}

fn read(path: &Path) -> Result<Option<RunRow>, String> {
    let directory = match RunDirectory::open(path) {
        Err(RunError::NotARun { .. }) => return Ok(None),
        outcome => outcome.map_err(|error| error.to_string())?,
    };
    Report::read(directory)
        .map(|report| Some(RunRow::from_report(&report)))
        .map_err(|error| error.to_string())
}
