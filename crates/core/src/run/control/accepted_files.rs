//! Accepted requests that are not in the log yet: one file per request, synced to disk before it is accepted and
//! removed once the log has it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::protocol::FOLDER;
use super::verb::Verb;
use crate::facts::VerbName;
use crate::run::clock::now_ms;
use crate::run::error::RunError;
use crate::run::process::worker_state::State;
use crate::run::record::events::{Control, Note};
use crate::run::record::history::RunState;
use crate::run::record::writer::EventWriter;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::durable::{create_file, sync_folder};
use crate::run::storage::folder::user_id;
use crate::run::storage::lock::RunLock;

const ENDING: &str = ".accepted.json";

#[derive(Debug)]
pub(super) struct AcceptedFiles {
    folder: PathBuf,
    written: AtomicU64,
}

impl AcceptedFiles {
    pub(super) fn for_run(run: &Path) -> Self {
        Self {
            folder: run.join(FOLDER),
            written: AtomicU64::new(0),
        }
    }

    pub(super) fn write(&self, mut control: Control) -> Result<String, RunError> {
        // Names sort in the order of acceptance and are unique across workers.
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        control.request = format!("{number:06}-{}-{}", now_ms(), std::process::id());
        let path = self.path(&control.request);
        let bytes =
            serde_json::to_vec(&control).map_err(|error| RunError::malformed(&path, error))?;
        let written = create_file(&path, &bytes).and_then(|()| sync_folder(&self.folder));
        if written.is_err() {
            // A partial file would be ignored by the next worker.
            let _ = std::fs::remove_file(&path);
        }
        written.map(|()| control.request)
    }

    /// Called once the log has the request. If removal fails, the next worker removes the file.
    pub(super) fn remove(&self, request: &str) {
        let _ = std::fs::remove_file(self.path(request));
    }

    fn path(&self, request: &str) -> PathBuf {
        self.folder.join(format!("{request}{ENDING}"))
    }
}

/// Records the requests that an earlier worker accepted but did not record.
pub(in crate::run) fn record_left_over(lock: &RunLock) -> Result<(), RunError> {
    let left = left_over(&lock.run().join(FOLDER));
    if left.is_empty() {
        return Ok(());
    }
    let history = RunState::read(lock.run())?;
    let recorded: BTreeSet<&str> = history
        .controls
        .iter()
        .map(|control| control.request.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    let mut log = EventWriter::open(lock)?;
    for path in left {
        // An incomplete file was never accepted: `accepted` is sent once the file is on disk.
        let control = crate::files::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Control>(&bytes).ok());
        if let Some(control) =
            control.filter(|control| !recorded.contains(control.request.as_str()))
        {
            record(&mut log, control)?;
        }
        std::fs::remove_file(&path).map_err(RunError::io("remove", &path))?;
    }
    log.sync()
}

/// Records a note in the log of a run without a worker, holding the run's lock.
///
/// # Errors
/// [`RunError::Foreign`] and [`RunError::Loose`] if the run is not private to this user, [`RunError::InUse`] if a
/// worker has just started.
pub(super) fn note_without_worker(run: &Path, note: &Verb) -> Result<(), RunError> {
    RunDirectory::open(run)?.check_private()?;
    let step = State::observe(run).map_or(0, |state| state.step);
    let lock = RunLock::acquire(run)?;
    record_left_over(&lock)?;
    let mut log = EventWriter::open(&lock)?;
    let (verb, user_id) = (note.name(), user_id());
    record(
        &mut log,
        Control {
            verb,
            arguments: note.arguments(),
            user_id,
            step,
            ..Control::default()
        },
    )?;
    log.sync()
}

fn record(log: &mut EventWriter, control: Control) -> Result<(), RunError> {
    let text = control
        .arguments
        .get("text")
        .and_then(|text| text.as_str())
        .filter(|_| control.verb == VerbName::Annotate);
    let note = text.map(|text| Note {
        text: text.to_owned(),
    });
    log.append(control)?;
    note.map_or(Ok(0), |note| log.append(note)).map(|_| ())
}

fn left_over(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut left: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ENDING))
        .collect();
    left.sort();
    left
}
