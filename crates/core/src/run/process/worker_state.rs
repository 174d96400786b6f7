//! `state.json`: the worker's report of its state, replaced atomically.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::facts::{Cause, Status};
use crate::files::Checked;
use crate::run::devices::device_slots::Waiting;
use crate::run::error::RunError;
use crate::run::evals::eval_progress::EvalProgress;
use crate::run::storage::directory::{FORMAT_VERSION, host_name};
use crate::run::storage::durable::replace_sealed_json;
use crate::run::storage::lock::{FolderIdentity, RunLock};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub version: u64,
    pub status: Status,
    /// Process id, used only for signals.
    pub pid: u32,
    /// Process start in clock ticks since boot, which distinguishes it from a later process with
    /// the same id.
    pub start_ticks: u64,
    pub boot_id: String,
    pub host: String,
    pub step: u64,
    #[serde(flatten)]
    pub cause: Option<Cause>,
    /// The process that uses the device for which the run waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<u32>,
    /// Whether the run pauses at its next step, or when it starts; remains while it is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause_requested: bool,
    /// The running eval. Boxed, since states are moved as messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Box<EvalProgress>>,
    /// Milliseconds since 1970.
    pub updated_ms: u64,
}

impl State {
    pub fn without_worker(status: Status, step: u64) -> Self {
        Self {
            version: FORMAT_VERSION,
            status,
            pid: 0,
            start_ticks: 0,
            boot_id: String::new(),
            host: String::new(),
            step,
            cause: None,
            holder: None,
            pause_requested: false,
            eval: None,
            updated_ms: 0,
        }
    }

    /// Whether the run is to pause and is not paused yet.
    pub fn pauses_later(&self) -> bool {
        self.pause_requested && !self.status.is_ended() && self.status != Status::Paused
    }

    pub fn eval_under_way(&self) -> Option<&EvalProgress> {
        self.eval
            .as_deref()
            .filter(|_| matches!(self.status, Status::Running | Status::Stopping))
    }

    /// The contents of the file, possibly stale; see [`Self::observe`].
    pub fn written(run: &Path) -> Option<Self> {
        let text = crate::files::read(&run.join("state.json")).ok()?;
        serde_json::from_slice(&text)
            .ok()
            .filter(|_| crate::files::check(&text) != Checked::Damaged)
    }
}

pub(in crate::run) fn is_state_damaged(run: &Path) -> bool {
    run.join("state.json").exists() && State::written(run).is_none()
}

/// Writes `state.json`. Status changes are durable at once; progress is written at most once a
/// second. Clones share the state, so the loop, the control thread and the worker agree.
#[derive(Debug, Clone)]
pub struct StateWriter {
    shared: Arc<Mutex<StateFile>>,
}

#[derive(Debug)]
struct StateFile {
    path: PathBuf,
    identity: FolderIdentity,
    state: State,
    written: Option<Instant>,
}

impl StateWriter {
    pub fn start(lock: &RunLock) -> Result<Self, RunError> {
        let path = lock.run().join("state.json");
        // A run that waits to be resumed keeps its step.
        let step = State::written(lock.run()).map_or(0, |state| state.step);
        let state = State {
            pid: std::process::id(),
            start_ticks: start_ticks(std::process::id()).unwrap_or(0),
            boot_id: boot_id(),
            host: host_name(),
            ..State::without_worker(Status::Starting, step)
        };
        let writer = Self {
            shared: Arc::new(Mutex::new(StateFile {
                path,
                identity: lock.identity(),
                state,
                written: None,
            })),
        };
        writer.shared().write()?;
        Ok(writer)
    }

    pub fn status(
        &mut self,
        status: Status,
        step: u64,
        cause: Option<Cause>,
    ) -> Result<(), RunError> {
        let mut shared = self.shared();
        (shared.state.status, shared.state.step, shared.state.cause) = (status, step, cause);
        shared.write()
    }

    /// Sets the status unless the run has ended; returns whether it was set.
    pub fn turn(&self, status: Status, cause: Option<Cause>) -> Result<bool, RunError> {
        self.shared().turn(status, cause, None)
    }

    pub fn wait(&self, waiting: &Waiting) -> Result<bool, RunError> {
        let holder = waiting.holder.as_ref().and_then(|holder| holder.process);
        self.shared()
            .turn(Status::Waiting, Some(waiting.described().into()), holder)
    }

    pub(in crate::run) fn request_pause(&self, is_requested: bool) -> Result<(), RunError> {
        let mut shared = self.shared();
        let was = std::mem::replace(&mut shared.state.pause_requested, is_requested);
        if was == is_requested || shared.state.status.is_ended() {
            return Ok(());
        }
        shared.write()
    }

    pub fn step(&mut self, step: u64) -> Result<(), RunError> {
        let mut shared = self.shared();
        shared.state.step = step;
        shared.write_after(Duration::from_secs(1))
    }

    /// Sets the progress of the running eval; `None` once there is none. Start and end are written
    /// at once.
    pub fn eval(&self, progress: Option<EvalProgress>) -> Result<(), RunError> {
        let mut shared = self.shared();
        let begins_or_ends = shared.state.eval.is_some() != progress.is_some();
        // If the worker dies soon, its state still has the scores of an earlier worker's answers.
        let has_counted_kept = progress
            .as_ref()
            .is_some_and(|eval| eval.kept > 0 && eval.answers == eval.kept);
        shared.state.eval = progress.map(Box::new);
        shared.write_after(if begins_or_ends || has_counted_kept {
            Duration::ZERO
        } else {
            Duration::from_secs(1)
        })
    }

    /// Writes the heartbeat if nothing was written for `interval` and the run has not ended.
    pub fn beat(&self, interval: Duration) -> Result<(), RunError> {
        let mut shared = self.shared();
        if shared.state.status.is_ended() {
            Ok(())
        } else {
            shared.write_after(interval)
        }
    }

    /// Records the end of a worker that lost its folder, at the folder's new path.
    pub(in crate::run) fn follow(&self, cause: &str) {
        let mut shared = self.shared();
        if shared.identity.check().is_ok() || shared.state.status.is_ended() {
            return;
        }
        if let Some(folder) = shared.identity.moved_to() {
            (shared.state.status, shared.state.cause) = (Status::Interrupted, Some(cause.into()));
            shared.path = folder.join("state.json");
            shared.identity.release_to(folder);
            // If it cannot be written, it is in `worker.log`.
            let _ = shared.write();
        }
    }

    pub fn now(&self) -> State {
        self.shared().state.clone()
    }

    fn shared(&self) -> MutexGuard<'_, StateFile> {
        // Every change is a plain assignment, so a panicked thread leaves a valid state.
        self.shared.lock()
    }
}

impl StateFile {
    fn turn(
        &mut self,
        status: Status,
        cause: Option<Cause>,
        holder: Option<u32>,
    ) -> Result<bool, RunError> {
        let state = &mut self.state;
        if state.status.is_ended() {
            return Ok(false);
        }
        if (state.status, &state.cause, state.holder) != (status, &cause, holder) {
            (state.status, state.cause, state.holder) = (status, cause, holder);
            self.write()?;
        }
        Ok(true)
    }

    fn write_after(&mut self, interval: Duration) -> Result<(), RunError> {
        match self.written {
            Some(written) if written.elapsed() < interval => Ok(()),
            _ => self.write(),
        }
    }

    fn write(&mut self) -> Result<(), RunError> {
        self.identity.check()?;
        if self.state.status.is_ended() {
            (self.state.eval, self.state.pause_requested) = (None, false);
        }
        self.state.updated_ms = crate::run::clock::now_ms();
        replace_sealed_json(&self.path, &self.state)?;
        self.written = Some(Instant::now());
        Ok(())
    }
}

/// Empty if the kernel does not report it.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// A process's start in clock ticks since boot: field 22 of `/proc/PID/stat`. The command name
/// before it may contain spaces and parentheses.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
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
