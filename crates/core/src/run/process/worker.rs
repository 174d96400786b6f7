//! A run's worker: holds the lock, writes the state, accepts requests, and waits for its device.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::cleanup;
use super::damage::damage_of;
use super::worker_state::{State, StateWriter};
use crate::facts::{Cause, Status};
use crate::run::checkpoints::list_checkpoints;
use crate::run::control::{RequestListener, RequestQueue, record_left_over};
use crate::run::devices::device_slots::{Device, Slot};
use crate::run::error::RunError;
use crate::run::record::events::{End, EventBody};
use crate::run::record::history::RunState;
use crate::run::record::writer::{EventWriter, is_gone, lost_log};
use crate::run::slurm::enter_job;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::durable::open_append;
use crate::run::storage::lock::RunLock;

/// A worker's ownership of its run; dropping it releases the lock.
#[derive(Debug)]
pub struct Worker {
    // Dropped first: no request is accepted once the lock is free.
    listener: RequestListener,
    controls: RequestQueue,
    state: StateWriter,
    lock: RunLock,
    slurm_job: Option<u64>,
    damage: Vec<String>,
}

impl Worker {
    /// Locks `run` as its worker. Signals set `interrupted`: the run then stops after its step.
    ///
    /// # Errors
    /// [`RunError::InUse`] if another worker is alive or a Slurm job is queued for the run,
    /// [`RunError::Foreign`] and [`RunError::Loose`] if the folder is not private to this user,
    /// [`RunError::Edited`] if its configuration or task has changed, [`RunError::Io`].
    pub fn begin(run: &RunDirectory, interrupted: Arc<AtomicBool>) -> Result<Self, RunError> {
        run.check_private()?;
        run.check_unedited()?;
        let slurm_job = enter_job(run.path())?;
        // Read before the state is replaced; a torn line is reported when it is truncated.
        let damage = match RunState::read(run.path()) {
            Ok(history) => damage_of(run, State::written(run.path()).as_ref(), &history)
                .into_iter()
                .map(|(_, problem)| problem)
                .collect(),
            Err(error) => vec![error.to_string()],
        };
        let lock = RunLock::acquire(run.path())?;
        cleanup::clear(&lock)?;
        // Creates the log: if it is missing later, it was removed.
        drop(open_append(&run.events_path())?);
        record_left_over(&lock)?;
        let state = StateWriter::start(&lock)?;
        let controls = RequestQueue::new(interrupted);
        controls.persist_in(run.path());
        // The loop starts after this step.
        controls.compute_until(list_checkpoints(run.path())?.last().copied().unwrap_or(0));
        let listener = RequestListener::start(&lock, state.clone(), controls.clone())?;
        Ok(Self {
            listener,
            controls,
            state,
            lock,
            slurm_job,
            damage,
        })
    }

    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    pub fn lock(&self) -> &RunLock {
        &self.lock
    }

    /// Whether Slurm has signalled the end of this worker's job: preemption, time limit, or
    /// scancel.
    pub fn is_ended_by_slurm(&self) -> bool {
        self.slurm_job.is_some() && self.controls.is_signalled()
    }

    pub fn state(&self) -> StateWriter {
        self.state.clone()
    }

    pub fn controls(&self) -> &RequestQueue {
        &self.controls
    }

    pub fn notes(&self) -> &[String] {
        self.listener.notes()
    }

    /// Waits in `slots` for `count` of `devices` and shows this in the run's state; calls `on_wait`
    /// with a message whenever it changes. `None`: the run was stopped while waiting.
    ///
    /// # Errors
    /// [`RunError`] of the slots or of a full disk.
    pub fn wait_for(
        &self,
        slots: &Path,
        devices: &[Device],
        count: usize,
        mut on_wait: impl FnMut(&str),
    ) -> Result<Option<Slot>, RunError> {
        let mut last = String::new();
        let slot = Slot::wait(slots, devices, count, |waiting| {
            if self.controls.stop_requested().is_some() {
                return ControlFlow::Break(());
            }
            let sentence = waiting.described();
            if sentence != last {
                on_wait(&sentence);
                last = sentence;
            }
            // A full disk must not end the wait.
            let _ = self.state.wait(waiting);
            ControlFlow::Continue(())
        });
        match &slot {
            Ok(Some(_)) => drop(self.state.turn(Status::Starting, None)?),
            Ok(None) => self.end(
                Status::Interrupted,
                Cause::requested("stopped while waiting for a device"),
            )?,
            Err(error) => self.end(Status::Failed, error.to_string())?,
        }
        slot
    }

    /// Checks that the worker still has its folder and log; if not, records that where possible,
    /// and nothing more may be written.
    ///
    /// # Errors
    /// [`RunError::Lost`] with what has happened.
    pub fn check(&self) -> Result<(), RunError> {
        let path = self.lock.run();
        let log = path.join("events.jsonl");
        let lost = match self.lock.identity().check() {
            Ok(()) if !is_gone(&log) => return Ok(()),
            Ok(()) => lost_log(&log),
            Err(error) => error,
        };
        self.controls.mark_lost(lost.to_string());
        self.state.follow(&lost.to_string());
        // If the folder still exists.
        let _ = self
            .state
            .turn(Status::Failed, Some(lost.to_string().into()));
        Err(lost)
    }

    /// Records the end of a run whose loop could not: answers waiting requests, writes the end
    /// event and the state. Does nothing after an end.
    pub fn end(&self, status: Status, cause: impl Into<Cause>) -> Result<(), RunError> {
        self.check()?;
        let state = self.state.now();
        if state.status.is_ended() {
            return Ok(());
        }
        let cause = cause.into();
        let recorded = self.record_end(status, cause.clone(), state.step);
        self.state.turn(status, Some(cause))?;
        recorded
    }

    /// Cleans up a finished run whose worker was killed just before its exit: removes leftover
    /// files and sets the state. Does nothing to another user's run.
    pub fn tidy_finished(run: &RunDirectory) -> Result<(), RunError> {
        let is_said =
            State::written(run.path()).is_some_and(|state| state.status == Status::Finished);
        if is_said && !cleanup::has_left_over(run.path()) {
            return Ok(());
        }
        match Self::begin(run, Arc::default()) {
            Ok(worker) => worker.exit_finished(),
            // Files of another user and damaged files stay unchanged.
            Err(_) => Ok(()),
        }
    }

    /// Exits a finished run: records waiting requests and keeps the end in the log.
    pub fn exit_finished(&self) -> Result<(), RunError> {
        // The state may be stale: the worker may have been killed after its end event.
        let end = RunState::read(self.lock.run())?.end;
        let (step, cause) = end.map_or_else(
            || (self.state.now().step, "all steps done".into()),
            |end| (end.step, end.cause),
        );
        cleanup::clear_answers(&self.lock)?;
        let recorded = EventWriter::open(&self.lock)
            .and_then(|mut events| self.record_requests(&mut events, step));
        self.state
            .clone()
            .status(Status::Finished, step, Some(cause))?;
        recorded
    }

    fn record_requests(&self, events: &mut EventWriter, step: u64) -> Result<(), RunError> {
        for accepted in self.controls.take_last() {
            events.append(EventBody::from(accepted.event(step + 1)))?;
            self.controls.recorded(&accepted);
        }
        Ok(())
    }

    fn record_end(&self, status: Status, cause: Cause, step: u64) -> Result<(), RunError> {
        let mut events = EventWriter::open(&self.lock)?;
        self.record_requests(&mut events, step)?;
        events.append(End {
            status,
            cause,
            step,
            seconds: 0.0,
        })?;
        Ok(())
    }
}
