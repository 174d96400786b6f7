//! `state.json`: what a worker last said about itself, replaced as a whole.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::directory::{FORMAT_VERSION, host_name};
use super::durable::replace_file;
use super::error::RunError;
use super::lock::RunLock;

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
    /// Holds between steps until it is told to go on.
    Paused,
    /// Finishes its step, then ends.
    Stopping,
    /// Reached its end.
    Finished,
    /// Ended by an error.
    Failed,
    /// Stopped before its end, or its worker is gone without a last word; can be resumed.
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
    /// Where the run stands.
    pub status: Status,
    /// The worker's process id, for signals only.
    pub pid: u32,
    /// The process's start in clock ticks since boot, which tells it from a later process of the same id.
    pub start_ticks: u64,
    /// The boot in which that process lives.
    pub boot_id: String,
    /// The worker's host.
    pub host: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Why the run ended or waits, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The control socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// When this was written, milliseconds since 1970.
    pub updated_ms: u64,
}

impl State {
    /// Read a run's state as a viewer should see it: a status that claims a live worker although nobody holds the lock becomes `Interrupted`. `None`
    /// before any worker has spoken, or where the file cannot be understood.
    pub fn observe(run: &Path) -> Option<Self> {
        // The lock is asked first: a worker that ends in between has then already written its last word.
        let held = RunLock::is_held(run);
        let mut state: Self = serde_json::from_slice(&std::fs::read(run.join("state.json")).ok()?).ok()?;
        if !held && !state.status.is_ended() {
            state.cause = Some(format!("the worker (process {} on {}) is gone without a last word", state.pid, state.host));
            state.status = Status::Interrupted;
        }
        Some(state)
    }
}

/// The worker's side: keeps `state.json` current. Changes of status are durable at once; mere progress is written at most once a second.
#[derive(Debug)]
pub struct StateWriter {
    path: PathBuf,
    state: State,
    written: Option<Instant>,
}

impl StateWriter {
    /// Begin with `Starting`. The lock proves that nobody else writes.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn start(lock: &RunLock) -> Result<Self, RunError> {
        let state = State {
            version: FORMAT_VERSION,
            status: Status::Starting,
            pid: std::process::id(),
            start_ticks: start_ticks().unwrap_or(0),
            boot_id: boot_id(),
            host: host_name(),
            step: 0,
            cause: None,
            socket: None,
            updated_ms: 0,
        };
        let mut writer = Self { path: lock.run().join("state.json"), state, written: None };
        writer.write()?;
        Ok(writer)
    }

    /// Say where the run stands, durably. `cause`: a sentence, where there is one to tell.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn status(&mut self, status: Status, step: u64, cause: Option<String>) -> Result<(), RunError> {
        (self.state.status, self.state.step, self.state.cause) = (status, step, cause);
        self.write()
    }

    /// Say that `step` is done.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn step(&mut self, step: u64) -> Result<(), RunError> {
        self.state.step = step;
        match self.written {
            Some(written) if written.elapsed() < Duration::from_secs(1) => Ok(()),
            _ => self.write(),
        }
    }

    /// Name the control socket.
    ///
    /// # Errors
    /// [`RunError::Io`] naming the file.
    pub fn socket(&mut self, socket: Option<PathBuf>) -> Result<(), RunError> {
        self.state.socket = socket;
        self.write()
    }

    fn write(&mut self) -> Result<(), RunError> {
        self.state.updated_ms = super::events::now_ms();
        let malformed = |error: serde_json::Error| RunError::Malformed { path: self.path.clone(), line: None, message: error.to_string() };
        let mut text = serde_json::to_vec_pretty(&self.state).map_err(malformed)?;
        text.push(b'\n');
        replace_file(&self.path, &text)?;
        self.written = Some(Instant::now());
        Ok(())
    }
}

/// The kernel's id of this boot; empty where there is none.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Field 22 of `/proc/self/stat`; the command's name before it may hold blanks and parentheses.
fn start_ticks() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start() {
        assert!(start_ticks().is_some_and(|ticks| ticks > 0));
        assert!(!boot_id().is_empty());
    }
}
