//! A sample worker: its folder's lock, state and request queue, and when it ends.

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

/// How soon a worker without work sees that somebody waits for its device.
const ROUND: Duration = Duration::from_millis(250);

/// What a sample worker needs of its folder. Dropped, it says no more, and another worker may begin there.
#[derive(Debug)]
pub struct SampleWorker {
    // Dropped in this order: nobody is heard once the lock is free.
    _listener: RequestListener,
    controls: RequestQueue,
    state: StateWriter,
    _lock: RunLock,
    idle: Duration,
}

/// What there is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextAction {
    /// Somebody asks.
    Request,
    /// It is time to end, and why.
    End(String),
}

impl SampleWorker {
    /// Become the worker of a folder. `interrupted` is set by signals: the worker then ends. It also ends after `idle`
    /// without a request.
    ///
    /// # Errors
    /// [`RunError::InUse`] where another worker is there, [`RunError::Unsafe`] where the folder is not this user's
    /// alone, [`RunError::Io`].
    pub fn begin(folder: &Path, interrupted: Arc<AtomicBool>, idle: Duration) -> Result<Self, RunError> {
        private_folder(folder)?;
        let lock = RunLock::acquire(folder)?;
        cleanup::clear(&lock)?;
        let state = StateWriter::start(&lock)?;
        let controls = RequestQueue::new(interrupted);
        let listener = RequestListener::start(&lock, state.clone(), controls.clone())?;
        Ok(Self { _listener: listener, controls, state, _lock: lock, idle })
    }

    /// What the worker is asked.
    pub fn controls(&self) -> &RequestQueue {
        &self.controls
    }

    /// Waits for a device like any run; `None`: it was told to stop meanwhile, and has ended.
    ///
    /// # Errors
    /// [`RunError`] of the slots, or of a disk that cannot take the state.
    pub fn wait_for(&self, devices: &[Device], on_wait: impl FnMut(&str)) -> Result<Option<Slot>, RunError> {
        let slot = wait_for_slot(&slots_folder()?, devices, &self.controls, &self.state, on_wait)?;
        if slot.is_none() {
            self.end(Status::Interrupted, "stopped while waiting for a device")?;
        }
        Ok(slot)
    }

    /// The model is there. `serves`: its name, for the state.
    ///
    /// # Errors
    /// [`RunError::Io`] naming `state.json`.
    pub fn serve(&self, serves: &str) -> Result<(), RunError> {
        let cause = format!("serving {serves}; exits after {} idle", self.human_idle());
        self.state.turn(Status::Running, Some(cause)).map(drop)
    }

    /// Until there is a request, or it is time to end: nobody asked for long, somebody waits for the device, the folder
    /// is gone, or it was told to. While the worker has answered nobody (`fresh`), a request comes before those who
    /// wait: two workers that wait for each other's device would otherwise both come to nothing.
    pub fn next(&self, slot: &Slot, fresh: bool) -> NextAction {
        let since = Instant::now();
        loop {
            if let Some(why) = self.controls.lost() {
                return NextAction::End(why);
            }
            if self.controls.stop_requested().is_some() {
                return NextAction::End("stopped, as requested".to_owned());
            }
            let has_request = self.controls.has_request();
            if has_request && fresh {
                return NextAction::Request;
            }
            if slot.is_wanted() {
                return NextAction::End(format!("released {} to a waiting run", slot.device().described()));
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

    /// Records the end; after that, does nothing.
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
