//! Checkpoints of a run: room for them first, then a copy of the numbers, which a thread makes durable while training goes on, then the keep rules.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::TrainError;
use super::job::Job;
use super::recorder::Recorder;
use crate::checkpoint::{self, CheckpointError, Snapshot};
use crate::kernels::pinned_memory::HostBuffer;
use crate::plan::memory_limit_bytes;
use crate::run::events::Checkpoint;
use crate::run::{
    EventWriter, RunDirectory, WaitOutcome, checkpoint_folder, checkpoint_path, checkpoints_to_delete, disk_forecast, list_checkpoints,
};

/// A checkpoint's bytes for each trained number: itself and two moments, f32.
const BYTES_PER_NUMBER: u64 = 12;
/// What comes with it: names, counters, the log's lines.
const BESIDES_BYTES: u64 = 1 << 20;
/// The largest checkpoint that is copied into this machine's memory; a larger one is written from the device, and training waits for it.
const MOST_COPIED_BYTES: u64 = 8 << 30;
/// The copy takes at most one part in so many of this machine's memory.
const MEMORY_PARTS: u64 = 16;

/// Writes a run's checkpoints, one at a time.
#[derive(Debug, Default)]
pub(super) struct CheckpointWriter {
    /// None where checkpoints are too large to be copied: then the training's thread writes them.
    writer: Option<Writer>,
    buffer: Option<HostBuffer>,
    /// The folder that is being written.
    busy: Option<PathBuf>,
}

/// PendingCheckpoint that the thread has come to the end of, and how.
type Done = (Box<PendingCheckpoint>, Result<(), TrainError>);

/// The thread that writes.
#[derive(Debug)]
struct Writer {
    buffer: Receiver<HostBuffer>,
    /// None once no more comes.
    work: Option<Sender<Box<PendingCheckpoint>>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    /// Nothing is written to the log after its end, however the run came to it.
    fn drop(&mut self) {
        self.work = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A checkpoint on its way: its files, then its line in the log, then what the keep rules take away. What was done is not done again.
#[derive(Debug)]
struct PendingCheckpoint {
    run: PathBuf,
    /// None where the files were written from the device.
    snapshot: Option<Snapshot>,
    written: bool,
    told: bool,
    event: Checkpoint,
    to_remove: Vec<u64>,
    begun: Instant,
    /// Seconds that training stood still before, and since when it stands still again.
    blocked: (f64, Option<Instant>),
    log: Arc<Mutex<EventWriter>>,
    what: String,
    needed_bytes: u64,
}

impl CheckpointWriter {
    /// Starts the thread for checkpoints of this job, and has it make the buffer meanwhile.
    pub(super) fn prepare(&mut self, job: &Job) {
        let bytes = Snapshot::buffer_bytes(job.model.parameters());
        let most = memory_limit_bytes().map_or(MOST_COPIED_BYTES, |memory| MOST_COPIED_BYTES.min(memory / MEMORY_PARTS));
        if bytes as u64 > most {
            return;
        }
        let ((made, buffer), (work, works), (finished, done)) = (channel(), channel::<Box<PendingCheckpoint>>(), channel());
        let device = job.engine.device.clone();
        let write = move || {
            let _ = made.send(HostBuffer::new(bytes, &device));
            // There is one: who asks for another is not kept waiting.
            drop(made);
            for mut work in works {
                let result = work.proceed();
                if finished.send((work, result)).is_err() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        self.writer = started.ok().map(|thread| Writer { buffer, work: Some(work), done, thread: Some(thread) });
    }

    fn take_buffer(&mut self) -> Option<HostBuffer> {
        self.buffer.take().or_else(|| self.writer.as_ref()?.buffer.recv().ok())
    }

    /// Has the thread do it; gives it back where there is no thread any more.
    fn hand_over(&mut self, work: Box<PendingCheckpoint>) -> Result<(), Box<PendingCheckpoint>> {
        let folder = checkpoint_path(&work.run, work.event.step);
        let Some(sender) = self.writer.as_ref().and_then(|writer| writer.work.as_ref()) else { return Err(work) };
        sender.send(work).map_err(|error| error.0)?;
        self.busy = Some(folder);
        Ok(())
    }

    /// What the thread has finished; None where it has nothing to do, or, unless `wait`, is still at it.
    fn finished(&mut self, wait: bool) -> Option<Result<Done, TrainError>> {
        let (path, writer) = self.busy.clone().zip(self.writer.as_ref())?;
        let done = match wait {
            true => writer.done.recv().ok(),
            false => match writer.done.try_recv() {
                Err(std::sync::mpsc::TryRecvError::Empty) => return None,
                done => done.ok(),
            },
        };
        self.busy = None;
        let died = || CheckpointError::Write { path, source: std::io::Error::other("the checkpoint thread died") };
        Some(done.ok_or_else(|| died().into()))
    }
}

impl PendingCheckpoint {
    /// Does what is left to do.
    fn proceed(&mut self) -> Result<(), TrainError> {
        if let (false, Some(snapshot)) = (self.written, &self.snapshot) {
            self.event.bytes = snapshot.write(&checkpoint_path(&self.run, self.event.step))?;
            self.written = true;
        }
        if !self.told {
            let (before, since) = self.blocked;
            let now = Instant::now();
            self.event.seconds = Some((now - self.begun).as_secs_f64());
            self.event.blocked_seconds = Some(before + since.map_or(0.0, |since| (now - since).as_secs_f64()));
            self.log.lock().unwrap_or_else(PoisonError::into_inner).append(self.event.clone())?;
            self.told = true;
        }
        while let Some(&step) = self.to_remove.last() {
            checkpoint::remove(&checkpoint_path(&self.run, step))?;
            self.to_remove.pop();
        }
        Ok(())
    }
}

/// A checkpoint of the step, then the keep rules. It is durable when this returns where somebody waits for it; those of an interval, an eval and the start
/// are written while training goes on, and their event says when they are durable.
pub(super) fn save(run: &RunDirectory, job: &mut Job, recorder: &mut Recorder<'_>, why: &str) -> Result<(), TrainError> {
    let begun = Instant::now();
    finish(recorder)?;
    let step = job.state.step;
    // A whole checkpoint of this step is this very state; to write it again would take it away first.
    if list_checkpoints(run.path())?.last() == Some(&step) {
        return Ok(());
    }
    recorder.phase(step, "checkpoint")?;
    recorder.sync()?;
    let (what, needed) =
        (format!("the checkpoint of step {step}"), job.model.parameters().count() as u64 * BYTES_PER_NUMBER + BESIDES_BYTES);
    wait_for_room(run, job, recorder, (&what, needed))?;
    let (folder, base) = (checkpoint_path(run.path(), step), &job.config.base_model);
    let (parameters, optimizer, state) = (job.model.parameters(), &job.optimizer, &job.state);
    let snapshot = match recorder.saver.take_buffer() {
        Some(buffer) => Some(Snapshot::take(buffer, parameters, optimizer, state, job.trainable, base)?),
        None => None,
    };
    let mut event = Checkpoint { step, path: checkpoint_folder(step), why: why.to_owned(), ..Checkpoint::default() };
    if snapshot.is_none() {
        let write = |_: &mut Recorder<'_>| checkpoint::save(&folder, parameters, optimizer, state, job.trainable, base);
        event.bytes = recorder.write(&what, needed, write)?;
    }
    let mut steps = list_checkpoints(run.path())?;
    steps.push(step);
    let best = recorder.history()?.best_step_by(&steps, job.config.keep_best_by);
    let end = (step == job.total_steps).then_some(step);
    event.removed = checkpoints_to_delete(&steps, job.config.keep_checkpoints, best, end);
    let waits = snapshot.is_none() || !matches!(why, "start" | "interval" | "eval");
    let work = Box::new(PendingCheckpoint {
        run: run.path().to_owned(),
        written: snapshot.is_none(),
        blocked: if waits { (0.0, Some(begun)) } else { (begun.elapsed().as_secs_f64(), None) },
        snapshot,
        told: false,
        to_remove: event.removed.clone(),
        event,
        begun,
        log: recorder.log(),
        what,
        needed_bytes: needed,
    });
    match recorder.saver.hand_over(work) {
        Err(mut work) => {
            let result = work.proceed();
            complete(recorder, work, result)
        }
        Ok(()) if waits => finish(recorder),
        Ok(()) => Ok(()),
    }
}

/// Waits until the checkpoint under way is durable, if there is one.
pub(super) fn finish(recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    match recorder.saver.finished(true) {
        Some(done) => done.and_then(|(work, result)| complete(recorder, work, result)),
        None => Ok(()),
    }
}

/// Takes note of a checkpoint that became durable since, or holds the run where it could not be written.
pub(super) fn look(recorder: &mut Recorder<'_>) -> Result<(), TrainError> {
    match recorder.saver.finished(false) {
        Some(done) => done.and_then(|(work, result)| complete(recorder, work, result)),
        None => Ok(()),
    }
}

/// The run ends, well or not: what is being written comes to its end, and nobody is held for it. Returns what became of a checkpoint that failed.
pub(super) fn leave(recorder: &mut Recorder<'_>) -> Option<String> {
    match recorder.saver.finished(true)? {
        Ok((work, Ok(()))) => {
            recorder.tell(&work.event.into());
            None
        }
        Ok((work, Err(error))) => Some(format!("{} was not saved: {error}", work.what)),
        Err(error) => Some(error.to_string()),
    }
}

/// The thread is done: what found no room is tried again once there is some, from the same copy.
fn complete(recorder: &mut Recorder<'_>, mut work: Box<PendingCheckpoint>, result: Result<(), TrainError>) -> Result<(), TrainError> {
    // What found the disk full may be long ago: space may have been freed since.
    let result = match result {
        Err(error) if error.is_full_disk() => {
            work.blocked.1.get_or_insert_with(Instant::now);
            work.proceed()
        }
        result => result,
    };
    let (mut first, what, needed) = (Some(result), work.what.clone(), work.needed_bytes);
    recorder.write(&what, needed, |_| first.take().unwrap_or_else(|| work.proceed()))?;
    recorder.saver.buffer = work.snapshot.map(Snapshot::into_buffer);
    recorder.tell(&work.event.into());
    Ok(())
}

/// Holds the run while this checkpoint does not fit its disk, or, unless somebody has said to go on regardless, the rest of the run does not.
fn wait_for_room(run: &RunDirectory, job: &mut Job, recorder: &mut Recorder<'_>, (what, needed): (&str, u64)) -> Result<(), TrainError> {
    if recorder.free_bytes().is_some_and(|free| free < needed) {
        // To stop now is to try it all the same: the write tells, and a checkpoint that fits saves the step.
        let _ = recorder.wait_for_space(what, needed, false);
    }
    if job.goes_on_regardless {
        return Ok(());
    }
    let forecast = disk_forecast(run.path(), recorder.history()?, &job.config);
    if let (false, Some(rest)) = (forecast.fits(), forecast.needed_bytes) {
        job.goes_on_regardless = recorder.wait_for_space("the rest of the run", rest, false) == WaitOutcome::Resumed;
    }
    Ok(())
}
