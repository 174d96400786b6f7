//! Whether a run's worker is alive, and signals to it, which reach only the process that wrote `state.json`.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::worker_state::{State, boot_id, start_ticks};
use crate::facts::Status;
use crate::run::clock::now_ms;
use crate::run::error::RunError;
use crate::run::slurm::job::{JobPhase, SlurmJob};
use crate::run::storage::directory::host_name;
use crate::run::storage::folder::FileSystem;
use crate::run::storage::lock::RunLock;
use crate::run::storage::pulled::Pulled;

/// How often a worker writes its state at least.
pub(in crate::run) const HEARTBEAT: Duration = Duration::from_secs(15);

/// The age at which a heartbeat no longer counts.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// Its lock is held.
    Alive,
    /// The lock is free, but may be invisible from this host; the text says when the worker last wrote.
    Perhaps(String),
    /// The lock is free; the text says how the run ended, the rest of a sentence about it.
    Gone(String),
}

impl Liveness {
    /// Decides by the lock, and by the heartbeat if the lock may be invisible.
    pub fn for_run(run: &Path) -> Self {
        if RunLock::is_held(run) {
            return Self::Alive;
        }
        if let Some(copy) = Pulled::for_run(run) {
            return Self::Gone(copy.standing());
        }
        let state = State::written(run);
        if let Some(standing) = state
            .as_ref()
            .and_then(|state| remote_heartbeat(run, state))
        {
            return Self::Perhaps(standing);
        }
        if let Some(job) = SlurmJob::read(run).filter(|job| job.phase() == JobPhase::Pending) {
            return Self::Gone(format!("waits for {}", job.waits()));
        }
        let Some(state) = state else {
            return Self::Gone("has no worker yet".to_owned());
        };
        let standing = match (state.status.is_ended(), &state.cause) {
            (true, Some(cause)) => format!("is {}: {cause}", state.status.name()),
            (true, None) => format!("is {}", state.status.name()),
            (false, _) => format!(
                "has lost its worker (process {} on {})",
                state.pid, state.host
            ),
        };
        Self::Gone(standing)
    }

    pub fn may_live(&self) -> bool {
        !matches!(self, Self::Gone(_))
    }
}

/// A recent heartbeat from another host on a network file system, where a free lock proves nothing; as text.
pub(super) fn remote_heartbeat(run: &Path, state: &State) -> Option<String> {
    let age = Duration::from_millis(now_ms().saturating_sub(state.updated_ms));
    let afar =
        !state.status.is_ended() && state.status != Status::Created && state.host != host_name();
    let kind = FileSystem::for_path(run);
    (afar && kind.is_network() && age < SILENCE).then(|| {
        format!(
            "cannot see its lock ({} is a network file system); its worker on {} last wrote {} s ago",
            kind.name(),
            state.host,
            age.as_secs()
        )
    })
}

/// Signals a run's worker. The process is opened and then compared with `state.json`, so that no later process with the
/// same id is signalled. TERM: stop after the step, and on a second one at once; KILL: the last checkpoint is complete.
///
/// # Errors
/// [`RunError::NoWorker`] if the worker has exited or runs elsewhere, [`RunError::Io`].
pub fn signal_worker(run: &Path, signal: Signal) -> Result<(), RunError> {
    let gone = |standing: String| RunError::NoWorker {
        path: run.to_owned(),
        standing,
    };
    let state = State::written(run).ok_or_else(|| gone("has no worker yet".to_owned()))?;
    if state.host != host_name() {
        return Err(gone(format!(
            "runs on {}, and signals reach only this host",
            state.host
        )));
    }
    let vanished = || gone(format!("has no worker: process {} is gone", state.pid));
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::SRCH => vanished(),
        error => RunError::io("signal the worker of", run)(error.into()),
    };
    let pid = i32::try_from(state.pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(vanished)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
    let same = state.boot_id == boot_id()
        && start_ticks(state.pid) == Some(state.start_ticks)
        && RunLock::is_held(run);
    if !same {
        return Err(vanished());
    }
    pidfd_send_signal(process, signal).map_err(failed)
}
