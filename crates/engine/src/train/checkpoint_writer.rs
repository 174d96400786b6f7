//! The thread that makes checkpoints durable while training continues: writes the files, then the event, then applies
//! the keep rules.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::TrainError;
use super::trainer::Trainer;
use crate::checkpoint::{self, CheckpointError, Snapshot};
use crate::kernels::pinned_memory::HostBuffer;
use crate::plan::memory_limit_bytes;
use crate::run::events::Checkpoint;
use crate::run::{EventWriter, checkpoint_path};

/// Larger checkpoints are not copied to host memory but written from the device while training waits.
const MAX_COPIED_BYTES: u64 = 8 << 30;
/// A copy may take at most this fraction of the machine's memory.
const MEMORY_PARTS: u64 = 16;

#[derive(Debug, Default)]
pub(super) struct CheckpointWriter {
    /// `None` if checkpoints are too large to be copied: the training thread writes them.
    thread: Option<WriterThread>,
    /// Of the last checkpoint, for reuse.
    pub(super) buffer: Option<HostBuffer>,
    /// The folder being written.
    busy: Option<PathBuf>,
}

/// A checkpoint with the result of the thread's attempt to complete it.
pub(super) struct Completed {
    pub(super) checkpoint: Box<PendingCheckpoint>,
    pub(super) result: Result<(), TrainError>,
}

#[derive(Debug)]
struct WriterThread {
    /// Receives the buffer once it is allocated.
    buffer: Receiver<HostBuffer>,
    /// `None` after the last checkpoint.
    pending: Option<Sender<Box<PendingCheckpoint>>>,
    completed: Receiver<Completed>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for WriterThread {
    /// Joins the thread: nothing is written to the log after its end.
    fn drop(&mut self) {
        self.pending = None;
        let _ = self.handle.take().map(JoinHandle::join);
    }
}

/// A checkpoint to complete: files, event, keep rules. Completed parts are not repeated.
#[derive(Debug)]
pub(super) struct PendingCheckpoint {
    pub(super) run: PathBuf,
    /// `None` if the files were written from the device.
    pub(super) snapshot: Option<Snapshot>,
    /// Without a size until the files are written.
    pub(super) event: Checkpoint,
    pub(super) is_logged: bool,
    pub(super) to_remove: Vec<u64>,
    pub(super) begun: Instant,
    /// Seconds for which training has waited, and since when it waits again.
    pub(super) blocked: (f64, Option<Instant>),
    pub(super) log: Arc<Mutex<EventWriter>>,
    pub(super) needed_bytes: u64,
}

impl CheckpointWriter {
    /// Starts the thread for checkpoints of this run, which allocates the buffer.
    pub(super) fn prepare(&mut self, trainer: &Trainer) {
        let bytes = Snapshot::buffer_bytes(trainer.policy.model.parameters());
        let most = memory_limit_bytes().map_or(MAX_COPIED_BYTES, |memory| MAX_COPIED_BYTES.min(memory / MEMORY_PARTS));
        if bytes as u64 > most {
            return;
        }
        let ((made, buffer), (pending, received), (done, completed)) =
            (channel(), channel::<Box<PendingCheckpoint>>(), channel());
        let device = trainer.policy.engine.device.clone();
        let write = move || {
            let _ = made.send(HostBuffer::new(bytes, &device));
            // A second buffer is not needed.
            drop(made);
            for mut checkpoint in received {
                let result = checkpoint.proceed();
                if done.send(Completed { checkpoint, result }).is_err() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        self.thread =
            started.ok().map(|handle| WriterThread { buffer, pending: Some(pending), completed, handle: Some(handle) });
    }

    /// `None` if checkpoints are not copied.
    pub(super) fn take_buffer(&mut self) -> Option<HostBuffer> {
        self.buffer.take().or_else(|| self.thread.as_ref()?.buffer.recv().ok())
    }

    /// Has the thread complete a checkpoint; returns it if there is no thread any more.
    pub(super) fn hand_over(&mut self, checkpoint: Box<PendingCheckpoint>) -> Result<(), Box<PendingCheckpoint>> {
        let folder = checkpoint.folder();
        let Some(pending) = self.thread.as_ref().and_then(|thread| thread.pending.as_ref()) else {
            return Err(checkpoint);
        };
        pending.send(checkpoint).map_err(|error| error.0)?;
        self.busy = Some(folder);
        Ok(())
    }

    /// What the thread has completed; `None` if it is idle or, unless `wait`, still busy.
    pub(super) fn completed(&mut self, wait: bool) -> Option<Result<Completed, TrainError>> {
        let (path, thread) = self.busy.clone().zip(self.thread.as_ref())?;
        let completed = match wait {
            true => thread.completed.recv().ok(),
            false => match thread.completed.try_recv() {
                Err(TryRecvError::Empty) => return None,
                completed => completed.ok(),
            },
        };
        self.busy = None;
        let died = || CheckpointError::Write { path, source: std::io::Error::other("the checkpoint thread died") };
        Some(completed.ok_or_else(|| died().into()))
    }
}

impl PendingCheckpoint {
    fn folder(&self) -> PathBuf {
        checkpoint_path(&self.run, self.event.step)
    }

    /// For messages.
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
            self.event.blocked_seconds = Some(before + since.map_or(0.0, |since| (now - since).as_secs_f64()));
            self.log.lock().unwrap_or_else(PoisonError::into_inner).append(self.event.clone())?;
            self.is_logged = true;
        }
        while let Some(&step) = self.to_remove.last() {
            checkpoint::remove(&checkpoint_path(&self.run, step))?;
            self.to_remove.pop();
        }
        Ok(())
    }
}
