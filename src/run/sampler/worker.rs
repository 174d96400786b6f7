//! The sample worker's lock, state and request queue, and when it ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::run::cleanup;
use crate::run::control::{RequestListener, RequestQueue};
use crate::run::device_slots::{Device, Slot, slots_folder};
use crate::run::error::RunError;
use crate::run::folder::private_folder;
use crate::run::lock::RunLock;
use crate::run::worker::wait_for_slot;
use crate::run::worker_state::{StateWriter, Status};

/// How soon an idle worker notices that its device is wanted.
const ROUND: Duration = Duration::from_millis(250);

/// A sample worker's hold on its folder, released when dropped.
#[derive(Debug)]
pub struct SampleWorker {
    // Dropped in this order: no request is accepted once the lock is free.
    _listener: RequestListener,
    controls: RequestQueue,
    state: StateWriter,
    _lock: RunLock,
    idle: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextAction {
    Request,
    /// With the reason.
    End(String),
}

impl SampleWorker {
    /// Locks `folder` as its worker, which ends when `interrupted` is set by a signal, or after `idle` without a
    /// request.
    ///
    /// # Errors
    /// [`RunError::InUse`] if another worker is there, [`RunError::Unsafe`] if the folder is not private to this user,
    /// [`RunError::Io`].
    pub fn begin(folder: &Path, interrupted: Arc<AtomicBool>, idle: Duration) -> Result<Self, RunError> {
        private_folder(folder)?;
        let lock = RunLock::acquire(folder)?;
        cleanup::clear(&lock)?;
        let state = StateWriter::start(&lock)?;
        let controls = RequestQueue::new(interrupted);
        let listener = RequestListener::start(&lock, state.clone(), controls.clone())?;
        Ok(Self { _listener: listener, controls, state, _lock: lock, idle })
    }

    pub fn controls(&self) -> &RequestQueue {
        &self.controls
    }

    /// Waits for a device; `None`: stopped meanwhile, and has ended.
    ///
    /// # Errors
    /// [`RunError`] of the slots, or of a full disk.
    pub fn wait_for(&self, devices: &[Device], on_wait: impl FnMut(&str)) -> Result<Option<Slot>, RunError> {
        let slot = wait_for_slot(&slots_folder()?, (devices, 1), &self.controls, &self.state, on_wait)?;
        if slot.is_none() {
            self.end(Status::Interrupted, "stopped while waiting for a device")?;
        }
        Ok(slot)
    }

    /// Sets the state once the model is loaded. `serves`: the model's name.
    ///
    /// # Errors
    /// [`RunError::Io`] naming `state.json`.
    pub fn serve(&self, serves: &str) -> Result<(), RunError> {
        let cause = format!("serving {serves}; exits after {} idle", self.human_idle());
        self.state.turn(Status::Running, Some(cause)).map(drop)
    }

    /// Waits for a request, or for a reason to end: idle for long, the device wanted, the folder gone, or stopped.
    /// While the worker has answered nothing (`fresh`), a request takes precedence over those who wait for the device:
    /// two workers that wait for each other's device would otherwise both end.
    pub fn next(&self, slot: &Slot, fresh: bool) -> NextAction {
        let since = Instant::now();
        loop {
            if let Some(why) = self.controls.lost() {
                return NextAction::End(why);
            }
            if self.controls.stop_requested().is_some() {
                return NextAction::End("stopped at your request".to_owned());
            }
            let has_request = self.controls.has_request();
            if has_request && fresh {
                return NextAction::Request;
            }
            if slot.is_wanted() {
                let devices: Vec<String> = slot.devices().iter().map(Device::described).collect();
                return NextAction::End(format!("released {} to a waiting run", devices.join(", ")));
            }
            if has_request {
                return NextAction::Request;
            }
            if since.elapsed() >= self.idle {
                return NextAction::End(format!("idle for {}", self.human_idle()));
            }
            self.controls.wait_for_request(ROUND);
        }
    }

    fn human_idle(&self) -> String {
        match self.idle.as_secs() {
            seconds @ 0..120 => format!("{seconds} s"),
            seconds => format!("{:.0} minutes", seconds as f64 / 60.0),
        }
    }

    /// Records the end, once.
    ///
    /// # Errors
    /// [`RunError::Io`] naming `state.json`.
    pub fn end(&self, status: Status, cause: &str) -> Result<(), RunError> {
        if let Some(why) = self.controls.lost() {
            self.state.follow(&why);
            return Ok(());
        }
        self.state.turn(status, Some(cause.to_owned())).map(drop)
    }
}
