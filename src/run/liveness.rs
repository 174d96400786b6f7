//! Whether a run's worker lives, and how to signal it: the lock decides, and a signal goes only to the very process
//! that wrote `state.json`.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::directory::host_name;
use super::error::RunError;
use super::events::now_ms;
use super::folder::FileSystem;
use super::lock::RunLock;
use super::worker_state::{State, Status, boot_id, start_ticks};

/// A worker writes its state at least this often.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// A heartbeat that is older says nothing any more.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// Whether a worker computes a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// Its lock is held.
    Alive,
    /// Nobody holds the lock, but it may not be seen from this host; how the run was last heard of.
    Perhaps(String),
    /// Nobody holds the lock; where the run stands.
    Gone(String),
}

/// A signal that a worker understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerSignal {
    /// Stop after the step; a second one ends the worker at once.
    Stop,
    /// The kernel ends the worker; the last checkpoint is whole.
    Kill,
}

impl Liveness {
    /// Ask the lock, and where that may not reach, the heartbeat.
    pub fn of(run: &Path) -> Self {
        if RunLock::is_held(run) {
            return Self::Alive;
        }
        let Some(state) = State::read(run) else { return Self::Gone("no worker has started yet".to_owned()) };
        if let Some(standing) = remote_heartbeat(run, &state) {
            return Self::Perhaps(standing);
        }
        let standing = match (state.status.is_ended(), &state.cause) {
            (true, Some(cause)) => format!("it is {}: {cause}", state.status.name()),
            (true, None) => format!("it is {}", state.status.name()),
            (false, _) => format!("the last worker (process {} on {}) died", state.pid, state.host),
        };
        Self::Gone(standing)
    }

    /// Whether it makes sense to ask the worker something.
    pub fn may_live(&self) -> bool {
        !matches!(self, Self::Gone(_))
    }
}

/// Where a free lock proves nothing: a network file system, another host, and a heartbeat that is fresh. In words.
pub(super) fn remote_heartbeat(run: &Path, state: &State) -> Option<String> {
    let age = Duration::from_millis(now_ms().saturating_sub(state.updated_ms));
    let afar = !state.status.is_ended() && state.status != Status::Created && state.host != host_name();
    let kind = FileSystem::of(run);
    (afar && kind.is_network() && age < SILENCE).then(|| {
        format!(
            "cannot see its lock ({} is a network file system); its worker on {} last wrote {} s ago",
            kind.name(),
            state.host,
            age.as_secs()
        )
    })
}

/// Signal a run's worker. The process is opened first and then compared with `state.json`, so that the signal cannot
/// reach a later process of its id.
///
/// # Errors
/// [`RunError::NoWorker`] where the worker is gone or runs elsewhere, [`RunError::Io`] where the system refuses.
pub fn signal_worker(run: &Path, signal: WorkerSignal) -> Result<(), RunError> {
    let gone = |standing: String| RunError::NoWorker { path: run.to_owned(), standing };
    let state = State::read(run).ok_or_else(|| gone("no worker has started yet".to_owned()))?;
    if state.host != host_name() {
        return Err(gone(format!("it runs on {}, and signals reach only this host", state.host)));
    }
    let vanished = || gone(format!("the last one (process {}) is gone", state.pid));
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::SRCH => vanished(),
        error => RunError::io("signal the worker of", run)(error.into()),
    };
    let pid = i32::try_from(state.pid).ok().and_then(Pid::from_raw).ok_or_else(vanished)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    let same = state.boot_id == boot_id() && start_ticks(state.pid) == Some(state.start_ticks) && RunLock::is_held(run);
    if !same {
        return Err(vanished());
    }
    let signal = match signal {
        WorkerSignal::Stop => Signal::TERM,
        WorkerSignal::Kill => Signal::KILL,
    };
    pidfd_send_signal(process, signal).map_err(failed)
}
