//! The thread that makes checkpoints durable while training continues: its files, then its line in the log, then what
//! the keep rules take away.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::TrainError;
use super::job::Job;
use crate::checkpoint::{self, CheckpointError, Snapshot};
use crate::kernels::pinned_memory::HostBuffer;
use crate::plan::memory_limit_bytes;
use crate::run::events::Checkpoint;
use crate::run::{EventWriter, checkpoint_path};

/// The largest checkpoint that is copied into this machine's memory; a larger one is written from the device, and
/// training waits for it.
const MOST_COPIED_BYTES: u64 = 8 << 30;
/// The copy takes at most one part in so many of this machine's memory.
const MEMORY_PARTS: u64 = 16;

/// Writes a run's checkpoints, one at a time.
#[derive(Debug, Default)]
pub(super) struct CheckpointWriter {
    /// None where checkpoints are too large to be copied: then the training's thread writes them.
    thread: Option<WriterThread>,
    /// Of the last checkpoint, for the next one's copy.
    pub(super) buffer: Option<HostBuffer>,
    /// The folder that is being written.
    busy: Option<PathBuf>,
}

/// A checkpoint that the thread has tried to complete, and what came of it.
pub(super) type Completed = (Box<PendingCheckpoint>, Result<(), TrainError>);

#[derive(Debug)]
struct WriterThread {
    /// Brings the one buffer once it is made.
    buffer: Receiver<HostBuffer>,
    /// None once no more comes.
    pending: Option<Sender<Box<PendingCheckpoint>>>,
    completed: Receiver<Completed>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for WriterThread {
    /// Nothing is written to the log after its end, however the run came to it.
    fn drop(&mut self) {
        self.pending = None;
        let _ = self.handle.take().map(JoinHandle::join);
    }
}

/// A checkpoint on its way: its files, then its line in the log, then what the keep rules take away. What was done is
/// not done again.
#[derive(Debug)]
pub(super) struct PendingCheckpoint {
    pub(super) run: PathBuf,
    /// None where the files were written from the device.
    pub(super) snapshot: Option<Snapshot>,
    /// Its line in the log. No bytes: the files are not written.
    pub(super) event: Checkpoint,
    pub(super) is_logged: bool,
    pub(super) to_remove: Vec<u64>,
    pub(super) begun: Instant,
    /// Seconds that training stood still before, and since when it stands still again.
    pub(super) blocked: (f64, Option<Instant>),
    pub(super) log: Arc<Mutex<EventWriter>>,
    pub(super) needed_bytes: u64,
}

impl CheckpointWriter {
    /// Starts the thread for checkpoints of this job, and has it make the buffer meanwhile.
    pub(super) fn prepare(&mut self, job: &Job) {
        let bytes = Snapshot::buffer_bytes(job.model.parameters());
        let most =
            memory_limit_bytes().map_or(MOST_COPIED_BYTES, |memory| MOST_COPIED_BYTES.min(memory / MEMORY_PARTS));
        if bytes as u64 > most {
            return;
        }
        let ((made, buffer), (pending, received), (done, completed)) =
            (channel(), channel::<Box<PendingCheckpoint>>(), channel());
        let device = job.engine.device.clone();
        let write = move || {
            let _ = made.send(HostBuffer::new(bytes, &device));
            // There is one: who asks for another is not kept waiting.
            drop(made);
            for mut checkpoint in received {
                let result = checkpoint.proceed();
                if done.send((checkpoint, result)).is_err() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        self.thread =
            started.ok().map(|handle| WriterThread { buffer, pending: Some(pending), completed, handle: Some(handle) });
    }

    /// None where checkpoints are not copied.
    pub(super) fn take_buffer(&mut self) -> Option<HostBuffer> {
        self.buffer.take().or_else(|| self.thread.as_ref()?.buffer.recv().ok())
    }

    /// Has the thread do what is left; gives the checkpoint back where there is no thread any more.
    pub(super) fn hand_over(&mut self, checkpoint: Box<PendingCheckpoint>) -> Result<(), Box<PendingCheckpoint>> {
        let folder = checkpoint.folder();
        let Some(pending) = self.thread.as_ref().and_then(|thread| thread.pending.as_ref()) else {
            return Err(checkpoint);
        };
        pending.send(checkpoint).map_err(|error| error.0)?;
        self.busy = Some(folder);
        Ok(())
    }

    /// What the thread has completed; None where it has nothing to do, or, unless `wait`, is still at it.
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

    /// As messages name it.
    pub(super) fn label(&self) -> String {
        format!("the checkpoint of step {}", self.event.step)
    }

    /// Does what is left to do.
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
