//! `state.json`: what a worker last said about itself, replaced as a whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::directory::{FORMAT_VERSION, host_name};
use super::durable::replace_file;
use super::error::RunError;
use super::lock::{FolderIdentity, RunLock};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Created; no worker has spoken yet.
    Created,
    /// Waits for its device.
    Waiting,
    /// Loads model and data.
    Starting,
    /// Computes.
    Running,
    /// Between two steps, or where its disk is full, until it is resumed.
    Paused,
    /// Finishes its step, then ends.
    Stopping,
    /// Reached its end.
    Finished,
    /// Ended by an error.
    Failed,
    /// Stopped before its end, or its worker is gone without recording its end; can be resumed.
    Interrupted,
}

impl Status {
    /// The status as one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The status of that word; `Failed` for a word that is none.
    pub fn from_name(name: &str) -> Self {
        let all = [
            Self::Created,
            Self::Waiting,
            Self::Starting,
            Self::Running,
            Self::Paused,
            Self::Stopping,
            Self::Finished,
            Self::Interrupted,
        ];
        all.into_iter().find(|status| status.name() == name).unwrap_or(Self::Failed)
    }

    /// Whether a run ended so because somebody wanted it, by the cause that its worker gave.
    pub fn was_asked_for(self, cause: Option<&str>) -> bool {
        self == Self::Interrupted && cause.is_some_and(|cause| cause.starts_with("stopped "))
    }

    /// Whether nothing more will come unless the run is resumed.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Interrupted)
    }
}

/// The contents of `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u64,
    pub status: Status,
    /// The worker's process id, for signals only.
    pub pid: u32,
    /// The process's start in clock ticks since boot, which tells it from a later process of the same id.
    pub start_ticks: u64,
    /// The boot in which that process lives.
    pub boot_id: String,
    pub host: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Why the run ended or waits, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When this was written, milliseconds since 1970.
    pub updated_ms: u64,
}

impl State {
    /// The file as it is, trustworthy or not; see [`Self::observe`].
    pub(super) fn read(run: &Path) -> Option<Self> {
        serde_json::from_slice(&crate::files::read(&run.join("state.json")).ok()?).ok()
    }
}

/// The worker's side: keeps `state.json` current. Changes of status are durable at once; mere progress is written at
/// most once a second. Clones write the same state, one at a time, so that the loop, the request listener and the
/// worker around them never contradict each other.
#[derive(Debug, Clone)]
pub struct StateWriter {
    shared: Arc<Mutex<Written>>,
}

#[derive(Debug)]
struct Written {
    path: PathBuf,
    identity: FolderIdentity,
    state: State,
    written: Option<Instant>,
}

impl StateWriter {
    /// Begin with `Starting`. The lock proves that no other process writes.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn start(lock: &RunLock) -> Result<Self, RunError> {
        let path = lock.run().join("state.json");
        let state = State {
            version: FORMAT_VERSION,
            status: Status::Starting,
            pid: std::process::id(),
            start_ticks: start_ticks(std::process::id()).unwrap_or(0),
            boot_id: boot_id(),
            host: host_name(),
            // So that a run that waits to continue does not look like a new one.
            step: State::read(lock.run()).map_or(0, |state| state.step),
            cause: None,
            updated_ms: 0,
        };
        let writer =
            Self { shared: Arc::new(Mutex::new(Written { path, identity: lock.identity(), state, written: None })) };
        writer.shared().write()?;
        Ok(writer)
    }

    /// Say where the run stands, durably. `cause`: a sentence, where there is one to tell.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn status(&mut self, status: Status, step: u64, cause: Option<String>) -> Result<(), RunError> {
        let mut shared = self.shared();
        (shared.state.status, shared.state.step, shared.state.cause) = (status, step, cause);
        shared.write()
    }

    /// Say where the run stands without a new step, unless it has already ended. Returns whether it was said.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn turn(&self, status: Status, cause: Option<String>) -> Result<bool, RunError> {
        let mut shared = self.shared();
        if shared.state.status.is_ended() {
            return Ok(false);
        }
        if shared.state.status != status || shared.state.cause != cause {
            (shared.state.status, shared.state.cause) = (status, cause);
            shared.write()?;
        }
        Ok(true)
    }

    /// Say that `step` is done.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn step(&mut self, step: u64) -> Result<(), RunError> {
        let mut shared = self.shared();
        shared.state.step = step;
        shared.write_after(Duration::from_secs(1))
    }

    /// Show that the worker lives, where nothing was written for `interval`. An ended run is left alone.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn beat(&self, interval: Duration) -> Result<(), RunError> {
        let mut shared = self.shared();
        if shared.state.status.is_ended() { Ok(()) } else { shared.write_after(interval) }
    }

    /// Records the end of a worker that has lost its folder, where that is now; whatever stands under its path is
    /// another's.
    pub(super) fn follow(&self, cause: &str) {
        let mut shared = self.shared();
        if shared.identity.check().is_ok() || shared.state.status.is_ended() {
            return;
        }
        if let Some(folder) = shared.identity.moved_to() {
            (shared.state.status, shared.state.cause) = (Status::Interrupted, Some(cause.to_owned()));
            shared.path = folder.join("state.json");
            shared.identity.release_to(folder);
            // Where it cannot be said, the log of the worker has it.
            let _ = shared.write();
        }
    }

    pub fn now(&self) -> State {
        self.shared().state.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Written> {
        // Every change is a plain assignment, so a thread that panicked has left nothing half-said.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn write_after(&mut self, interval: Duration) -> Result<(), RunError> {
        match self.written {
            Some(written) if written.elapsed() < interval => Ok(()),
            _ => self.write(),
        }
    }

    fn write(&mut self) -> Result<(), RunError> {
        self.identity.check()?;
        self.state.updated_ms = super::events::now_ms();
        let malformed = |error: serde_json::Error| RunError::Malformed {
            path: self.path.clone(),
            line: None,
            message: error.to_string(),
        };
        let mut text = serde_json::to_vec_pretty(&self.state).map_err(malformed)?;
        text.push(b'\n');
        replace_file(&self.path, &text)?;
        self.written = Some(Instant::now());
        Ok(())
    }
}

/// The kernel's id of this boot; empty where there is none.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`; the command's name before it may
/// hold blanks and parentheses.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start() {
        assert!(start_ticks(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert!(!boot_id().is_empty());
    }
}
