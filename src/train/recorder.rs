//! What a run leaves behind while it works: events, rollouts, evals, state; and whoever listens in this process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::TrainError;
use super::checkpointing::CheckpointWriter;
use super::device_monitor::{self, Watch};
use super::job::Job;
use super::rollout_groups::ScoredGroup;
use crate::run::events::{End, Group, Phase};
use crate::run::{
    DiskGuard, EventBody, EventWriter, Gpu, LiveState, RolloutCompletion, RolloutGroup, RolloutWriter, RunLock, RunState, StateWriter,
    Status, WaitOutcome, Worker,
};

/// Called with every event once it is in the log.
pub type Listener<'a> = &'a mut dyn FnMut(&EventBody);

/// The run's one writer.
pub(super) struct Recorder<'a> {
    /// Shared with the thread that watches the device.
    events: Arc<Mutex<EventWriter>>,
    watch: Option<Watch>,
    rollouts: Option<RolloutWriter>,
    history: LiveState,
    state: StateWriter,
    disk: DiskGuard,
    listener: Listener<'a>,
    pub(super) saver: CheckpointWriter,
}

/// What a line or a file of text needs at the least, for whoever frees some.
const A_LITTLE_BYTES: u64 = 1 << 20;

impl<'a> Recorder<'a> {
    pub(super) fn open(worker: &Worker, listener: Listener<'a>) -> Result<Self, TrainError> {
        Ok(Self {
            events: Arc::new(Mutex::new(EventWriter::open(worker.lock())?)),
            watch: None,
            rollouts: None,
            history: LiveState::open(worker.lock().run())?,
            state: worker.state(),
            disk: DiskGuard::new(worker),
            listener,
            saver: CheckpointWriter::default(),
        })
    }

    /// The log, for a thread that writes to it.
    pub(super) fn log(&self) -> Arc<Mutex<EventWriter>> {
        Arc::clone(&self.events)
    }

    /// Tells who listens of an event that is in the log already.
    pub(super) fn tell(&mut self, body: &EventBody) {
        (self.listener)(body);
    }

    /// Do a write of `what`, which needs about so many bytes. Where the disk has no room, the run holds, and the same is done again.
    pub(super) fn write<R, E: Into<TrainError>>(
        &mut self,
        what: &str,
        needed_bytes: u64,
        mut attempt: impl FnMut(&mut Self) -> Result<R, E>,
    ) -> Result<R, TrainError> {
        loop {
            match attempt(self).map_err(Into::into) {
                Err(error) if error.is_full_disk() => match self.wait_for_space(what, needed_bytes, true) {
                    WaitOutcome::Stop => return Err(TrainError::StoppedWithoutRoom { error: error.to_string() }),
                    WaitOutcome::Freed | WaitOutcome::Resumed => {}
                },
                result => return result,
            }
        }
    }

    /// Hold the run until there is room; `retry`: a write has failed.
    pub(super) fn wait_for_space(&mut self, what: &str, needed_bytes: u64, retry: bool) -> WaitOutcome {
        let (events, listener) = (Arc::clone(&self.events), &mut self.listener);
        let phase = EventBody::from(Phase { step: self.state.now().step, phase: "paused".to_owned() });
        self.disk.wait_for_space(what, needed_bytes, retry, || {
            // Best effort: where not even this fits, `state.json` or the answer to `status` tells.
            let _ = events.lock().unwrap_or_else(PoisonError::into_inner).append(phase.clone());
            listener(&phase);
        })
    }

    /// What the log says now.
    pub(super) fn history(&mut self) -> Result<&RunState, TrainError> {
        Ok(self.history.now()?)
    }

    /// Free on the run's disk.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes()
    }

    /// Drops what was recorded of later steps than `step`: they will be redone. The rollouts of `keep_steps` steps stay (0: all).
    pub(super) fn rewind(&mut self, lock: &RunLock, step: u64, keep_steps: u64) -> Result<(), TrainError> {
        self.rollouts = Some(RolloutWriter::resume(lock, step)?.with_retention(keep_steps));
        Ok(())
    }

    pub(super) fn event(&mut self, body: impl Into<EventBody>) -> Result<(), TrainError> {
        let body = body.into();
        self.write("the log", A_LITTLE_BYTES, |recorder| recorder.writer().append(body.clone()))?;
        (self.listener)(&body);
        Ok(())
    }

    /// The last word. Where there is no room for it, nobody waits.
    pub(super) fn end(&mut self, end: End) -> Result<(), TrainError> {
        self.disk.release_reserve();
        let (status, step, cause) = (Status::from_name(&end.status), end.step, end.cause.clone());
        let body = EventBody::from(end);
        let recorded = self.writer().append(body.clone());
        // What the log cannot take, the state may.
        self.state.status(status, step, Some(cause))?;
        recorded?;
        (self.listener)(&body);
        Ok(())
    }

    /// From now on the GPU's condition is an event every few seconds.
    pub(super) fn watch(&mut self, gpu: Gpu) {
        self.watch = Some(Watch::start(Arc::clone(&self.events), device_monitor::EVERY, move || gpu.condition()));
    }

    /// No condition comes after this.
    pub(super) fn stop_watching(&mut self) {
        self.watch = None;
    }

    /// Nothing more is sampled: the last rollouts are compressed.
    pub(super) fn finish_rollouts(&mut self) -> Result<(), TrainError> {
        // What finds no room to be compressed stays plain.
        Ok(self.rollouts.take().map_or(Ok(()), RolloutWriter::finish)?)
    }

    fn writer(&self) -> MutexGuard<'_, EventWriter> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&mut self, step: u64, phase: &str) -> Result<(), TrainError> {
        self.event(Phase { step, phase: phase.to_owned() })
    }

    pub(super) fn status(&mut self, status: Status, step: u64, cause: Option<String>) -> Result<(), TrainError> {
        self.write("state.json", A_LITTLE_BYTES, |recorder| recorder.state.status(status, step, cause.clone()))
    }

    pub(super) fn step_done(&mut self, step: u64) -> Result<(), TrainError> {
        self.write("state.json", A_LITTLE_BYTES, |recorder| recorder.state.step(step))
    }

    /// Everything written so far is on disk when this returns; called before a checkpoint claims its step.
    pub(super) fn sync(&mut self) -> Result<(), TrainError> {
        if let Some(rollouts) = &mut self.rollouts {
            rollouts.sync()?;
        }
        Ok(self.writer().sync()?)
    }

    /// One group: its texts into the rollouts, its numbers into the events.
    /// `replaced`: others took its place, and the step did not learn from it.
    pub(super) fn group(&mut self, job: &Job, step: u64, group: &ScoredGroup, replaced: bool) -> Result<(), TrainError> {
        let prompt = &job.prompts.train[group.prompt];
        let mut completions = Vec::with_capacity(group.completions.len());
        for (index, completion) in group.completions.iter().enumerate() {
            completions.push(RolloutCompletion {
                text: group.texts[index].clone(),
                token_ids: completion.token_ids.clone(),
                log_probs: completion.log_probs.clone(),
                stop_reason: completion.stop.name().to_owned(),
                reward: Some(group.rewards[index]),
                score: serde_json::to_value(&group.scores[index])?,
                advantage: group.advantages[index],
            });
        }
        let record = RolloutGroup { step, prompt_id: prompt.row.id.clone(), prompt: prompt.text.clone(), replaced, completions };
        let append = |recorder: &mut Self| recorder.rollouts.as_mut().map(|rollouts| rollouts.append(&record)).transpose();
        let Some(place) = self.write("the rollouts", A_LITTLE_BYTES, append)? else { return Ok(()) };
        self.event(Group {
            step,
            prompt_id: record.prompt_id,
            rewards: group.rewards.clone(),
            tiers: group.scores.iter().map(|score| score.tier.name().to_owned()).collect(),
            advantages: group.advantages.clone(),
            token_counts: group.completions.iter().map(|completion| completion.token_ids.len()).collect(),
            stop_reasons: group.completions.iter().map(|completion| completion.stop.name().to_owned()).collect(),
            signal: group.signal,
            replaced,
            file: place.file,
            line: place.line,
        })
    }
}
