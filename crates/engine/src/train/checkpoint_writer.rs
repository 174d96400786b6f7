//! Thread that makes checkpoints durable during training: writes files, then the event, then
//! applies keep rules.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;

use super::error::TrainError;
use super::trainer::Trainer;
use crate::checkpoint::{self, CheckpointError, Snapshot};
use crate::kernels::pinned_memory::HostBuffer;
use crate::plan::memory_limit_bytes;
use crate::run::events::Checkpoint;
use crate::run::{EventWriter, checkpoint_path};

/// Larger checkpoints are written from the device while training waits, instead of copied to host
/// memory.
const MAX_COPIED_BYTES: u64 = 8 << 30;
/// Maximum fraction of the machine's memory for a copy.
const MEMORY_PARTS: u64 = 16;

/// Buffer for a checkpoint copy, and the writing thread.
#[derive(Debug, Default)]
pub(super) struct CheckpointWriter {
    /// Set until the first checkpoint; allocation is slow.
    allocating: Option<JoinHandle<HostBuffer>>,
    /// Reused. Without a buffer the training thread writes checkpoints.
    pub(super) buffer: Option<HostBuffer>,
    writing: Option<Writing>,
}

/// A checkpoint with the result of completing it.
pub(super) struct Completed {
    pub(super) checkpoint: Box<PendingCheckpoint>,
    pub(super) result: Result<(), TrainError>,
}

#[derive(Debug)]
struct Writing {
    folder: PathBuf,
    thread: JoinHandle<Option<Completed>>,
}

impl Drop for CheckpointWriter {
    /// Joins the thread, so that nothing is logged after its end.
    fn drop(&mut self) {
        let _ = self.writing.take().map(|writing| writing.thread.join());
    }
}

/// A checkpoint to complete: files, event, keep rules. Completed parts are not repeated.
#[derive(Debug)]
pub(super) struct PendingCheckpoint {
    pub(super) run: PathBuf,
    /// `None` if the files were written from the device.
    pub(super) snapshot: Option<Snapshot>,
    /// Has no size until the files are written.
    pub(super) event: Checkpoint,
    pub(super) is_logged: bool,
    pub(super) to_remove: Vec<u64>,
    pub(super) begun: Instant,
    /// Seconds that training has waited, and since when it waits again.
    pub(super) blocked: (f64, Option<Instant>),
    pub(super) log: Arc<Mutex<EventWriter>>,
    pub(super) needed_bytes: u64,
}

impl CheckpointWriter {
    /// Allocates the buffer for this run's checkpoints, if they are copied.
    pub(super) fn prepare(&mut self, trainer: &Trainer) {
        let bytes = Snapshot::buffer_bytes(trainer.policy.model.parameters());
        let most = memory_limit_bytes().map_or(MAX_COPIED_BYTES, |memory| {
            MAX_COPIED_BYTES.min(memory / MEMORY_PARTS)
        });
        if bytes as u64 <= most {
            let device = trainer.policy.engine.device.clone();
            self.allocating = Builder::new()
                .spawn(move || HostBuffer::new(bytes, &device))
                .ok();
        }
    }

    /// `None` if checkpoints are not copied.
    pub(super) fn take_buffer(&mut self) -> Option<HostBuffer> {
        self.buffer
            .take()
            .or_else(|| self.allocating.take()?.join().ok())
    }

    /// Starts a thread to complete a copied checkpoint; none may be running. Returns it if no
    /// thread can be started.
    pub(super) fn hand_over(
        &mut self,
        checkpoint: Box<PendingCheckpoint>,
    ) -> Result<(), Box<PendingCheckpoint>> {
        let folder = checkpoint.folder();
        let (sender, receiver) = channel::<Box<PendingCheckpoint>>();
        let complete = move || {
            let mut checkpoint = receiver.recv().ok()?;
            let result = checkpoint.proceed();
            Some(Completed { checkpoint, result })
        };
        let Ok(thread) = Builder::new().name("checkpoint".to_owned()).spawn(complete) else {
            return Err(checkpoint);
        };
        self.writing = Some(Writing { folder, thread });
        sender.send(checkpoint).map_err(|unsent| unsent.0)
    }

    /// The completed checkpoint; `None` if there is none or, unless `wait`, it is still being
    /// written.
    pub(super) fn completed(&mut self, wait: bool) -> Option<Result<Completed, TrainError>> {
        let Writing { folder, thread } = self
            .writing
            .take_if(|writing| wait || writing.thread.is_finished())?;
        let completed = thread.join().ok().flatten();
        let died = || CheckpointError::Write {
            path: folder,
            source: std::io::Error::other("the checkpoint thread died"),
        };
        Some(completed.ok_or_else(|| died().into()))
    }
}

impl PendingCheckpoint {
    fn folder(&self) -> PathBuf {
        checkpoint_path(&self.run, self.event.step)
    }

    /// Name in messages.
    pub(super) fn label(&self) -> String {
        format!("the checkpoint of step {}", self.event.step)
    }

    /// Does the remaining parts.
    pub(super) fn proceed(&mut self) -> Result<(), TrainError> {
        if let (0, Some(snapshot)) = (self.event.bytes, &self.snapshot) {
            self.event.bytes = snapshot.write(&self.folder())?;
        }
        if !self.is_logged {
            let (before, since) = self.blocked;
            let now = Instant::now();
            self.event.seconds = Some((now - self.begun).as_secs_f64());
            self.event.blocked_seconds =
                Some(before + since.map_or(0.0, |since| (now - since).as_secs_f64()));
            self.log.lock().append(self.event.clone())?;
            self.is_logged = true;
        }
        while let Some(&step) = self.to_remove.last() {
            checkpoint::remove(&checkpoint_path(&self.run, step))?;
            self.to_remove.pop();
        }
        Ok(())
    }
}
