//! Writes a run's events, rollouts, evals and state, and notifies the listener.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::TrainError;
use super::checkpoint_writer::CheckpointWriter;
use super::device_monitor::{self, DeviceMonitor};
use super::job::Job;
use super::metrics::{StepUpdate, frequent_answer, rollout_metrics, update_metrics};
use super::oom_retry::shrunk;
use super::rank_work::{LatestReading, rank_metrics};
use super::rollout_groups::{ScoredGroup, StepRollout};
use crate::plan::CONTEXT_BYTES;
use crate::rollout::ScoredCompletion;
use crate::run::events::{End, Group, Phase, RankStep, Step};
use crate::run::{
    DiskGuard, EventBody, EventWriter, Gpu, LiveState, RolloutCompletion, RolloutGroup, RolloutWriter, RunLock,
    RunState, StateWriter, Status, WaitOutcome, Worker,
};
use crate::update::StepOutcome;

/// Called with every event once it is in the log.
pub type Listener<'a> = &'a mut dyn FnMut(&EventBody);

pub(super) struct Recorder<'a> {
    /// Shared with the device monitor.
    events: Arc<Mutex<EventWriter>>,
    monitor: Option<DeviceMonitor>,
    rollouts: Option<RolloutWriter>,
    history: LiveState,
    state: StateWriter,
    disk: DiskGuard,
    listener: Listener<'a>,
    pub(super) saver: CheckpointWriter,
}

/// The space requested for small writes.
const A_LITTLE_BYTES: u64 = 1 << 20;

impl<'a> Recorder<'a> {
    pub(super) fn open(worker: &Worker, listener: Listener<'a>) -> Result<Self, TrainError> {
        Ok(Self {
            events: Arc::new(Mutex::new(EventWriter::open(worker.lock())?)),
            monitor: None,
            rollouts: None,
            history: LiveState::open(worker.lock().run())?,
            state: worker.state(),
            disk: DiskGuard::new(worker),
            listener,
            saver: CheckpointWriter::default(),
        })
    }

    /// For threads that append to the log.
    pub(super) fn log(&self) -> Arc<Mutex<EventWriter>> {
        Arc::clone(&self.events)
    }

    /// Notifies the listener of an event that is already in the log.
    pub(super) fn notify(&mut self, body: &EventBody) {
        (self.listener)(body);
    }

    /// Writes `what`, of about `needed_bytes`. While the disk is full, the run is paused, and the write is then
    /// retried.
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

    /// Pauses the run until there is space; `retry`: a write has failed.
    pub(super) fn wait_for_space(&mut self, what: &str, needed_bytes: u64, retry: bool) -> WaitOutcome {
        let (events, listener) = (Arc::clone(&self.events), &mut self.listener);
        let phase = EventBody::from(Phase { step: self.state.now().step, phase: "paused".to_owned() });
        self.disk.wait_for_space(what, needed_bytes, retry, || {
            // If this does not fit, `state.json` or the answer to `status` has it.
            let _ = events.lock().unwrap_or_else(PoisonError::into_inner).append(phase.clone());
            listener(&phase);
        })
    }

    pub(super) fn history(&mut self) -> Result<&RunState, TrainError> {
        Ok(self.history.now()?)
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes()
    }

    /// Voids the records after `step`, which will be redone. Keeps the rollouts of `keep_steps` steps (0: all).
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

    /// Records the end, without waiting for a full disk.
    pub(super) fn end(&mut self, end: End) -> Result<(), TrainError> {
        self.disk.release_reserve();
        let (status, step, cause) = (Status::from_name(&end.status), end.step, end.cause.clone());
        let body = EventBody::from(end);
        let recorded = self.writer().append(body.clone());
        // The state may fit where the log does not.
        self.state.status(status, step, Some(cause))?;
        recorded?;
        (self.listener)(&body);
        Ok(())
    }

    /// Starts recording the GPU's condition, in the log and in `reading`.
    pub(super) fn watch(&mut self, gpu: Gpu, reading: LatestReading) {
        let events = Arc::clone(&self.events);
        let record = move |now: crate::run::events::Device| {
            reading.set(now.clone());
            // A full disk is reported by the worker's own next event.
            let _ = events.lock().unwrap_or_else(PoisonError::into_inner).append(now);
        };
        self.monitor = Some(DeviceMonitor::start(device_monitor::EVERY, move || gpu.condition(), record));
    }

    pub(super) fn stop_watching(&mut self) {
        self.monitor = None;
    }

    /// Compresses the last rollouts.
    pub(super) fn finish_rollouts(&mut self) -> Result<(), TrainError> {
        // What cannot be compressed for lack of space stays plain.
        Ok(self.rollouts.take().map_or(Ok(()), RolloutWriter::finish)?)
    }

    fn writer(&self) -> MutexGuard<'_, EventWriter> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&mut self, step: u64, phase: &str) -> Result<(), TrainError> {
        self.event(Phase { step, phase: phase.to_owned() })
    }

    /// What `state.json` says.
    pub(super) fn state(&self) -> &StateWriter {
        &self.state
    }

    pub(super) fn status(&mut self, status: Status, step: u64, cause: Option<String>) -> Result<(), TrainError> {
        self.write("state.json", A_LITTLE_BYTES, |recorder| recorder.state.status(status, step, cause.clone()))
    }

    /// Makes everything written so far durable; called before a checkpoint.
    pub(super) fn sync(&mut self) -> Result<(), TrainError> {
        if let Some(rollouts) = &mut self.rollouts {
            rollouts.sync()?;
        }
        Ok(self.writer().sync()?)
    }

    /// Records a GRPO step: its groups, metrics and alerts.
    pub(super) fn step(&mut self, job: &mut Job, rollout: StepRollout, update: StepUpdate) -> Result<(), TrainError> {
        let step = job.state.step + 1;
        let forward_seconds = rollout.forward_seconds;
        let update_seconds = forward_seconds + update.start.elapsed().as_secs_f64();
        let sampling_seconds = rollout.rollout_seconds + rollout.score_seconds;
        let mut metrics = rollout_metrics(&rollout);
        job.alerts.frequent_answer = frequent_answer(&rollout.groups);
        let ranks = rollout.ranks;
        for (groups, replaced) in [(rollout.groups, false), (rollout.replaced, true)] {
            groups.into_iter().try_for_each(|group| self.group(job, step, group, replaced))?;
        }
        let step_seconds = sampling_seconds + forward_seconds + update.start.elapsed().as_secs_f64();
        metrics.extend(update_metrics(&update, update_seconds, step_seconds));
        self.finish_step(job, &update, metrics, &ranks, step_seconds)
    }

    /// Counts a step and records its metrics. `sampled`: by rank.
    pub(super) fn finish_step(
        &mut self,
        job: &mut Job,
        update: &StepUpdate,
        mut metrics: BTreeMap<String, f64>,
        sampled: &[RankStep],
        seconds: f64,
    ) -> Result<(), TrainError> {
        job.finish_step(update.applied == Some(StepOutcome::NotFinite), seconds);
        let step = job.state.step;
        metrics.extend(
            job.engine.peak_memory().map(|bytes| ("memory/peak_bytes".to_owned(), (bytes + CONTEXT_BYTES) as f64)),
        );
        let ranks = job.rank_work.take(sampled);
        metrics.extend(rank_metrics(&ranks));
        if job.config.entropy_target > 0.0 {
            metrics.insert("entropy_coef".to_owned(), job.entropy_coef());
        }
        job.adapt_entropy_coef(metrics.get("completions/entropy").copied());
        let mut alerts = match job.config.is_supervised(step) {
            false => job.alerts.observe(step, &metrics, &job.config),
            true => Vec::new(),
        };
        alerts.extend(shrunk(step, update.shape, job.shape.get()));
        alerts.extend(job.gpu_fallbacks.alerts(step));
        self.event(Step { step, seconds, metrics, ranks })?;
        alerts.into_iter().try_for_each(|alert| self.event(alert))?;
        self.write("state.json", A_LITTLE_BYTES, |recorder| recorder.state.step(step))?;
        job.check_skipped()
    }

    /// Records a group: texts into the rollouts, numbers into the events. `replaced`: the step does not train on it.
    fn group(&mut self, job: &Job, step: u64, group: ScoredGroup, replaced: bool) -> Result<(), TrainError> {
        let ScoredGroup { prompt, own_prompts, completions, advantages, signal } = group;
        let prompt = &job.prompts.train[prompt];
        let prompt_id = own_prompts.first().map_or(&prompt.row.id, |own| &own.row.id).clone();
        let mut event = Group { step, prompt_id: prompt_id.clone(), signal, replaced, ..Group::default() };
        let mut record = RolloutGroup {
            step,
            prompt_id,
            prompt: if own_prompts.is_empty() { prompt.text.clone() } else { String::new() },
            replaced,
            completions: Vec::with_capacity(completions.len()),
        };
        let mut own_prompts = own_prompts.into_iter();
        for (ScoredCompletion { completion, text, score }, &advantage) in completions.into_iter().zip(&advantages) {
            let stop_reason = completion.stop.name().to_owned();
            event.rewards.push(score.reward);
            event.tiers.push(score.tier.name().to_owned());
            event.token_counts.push(completion.token_ids.len());
            event.stop_reasons.push(stop_reason.clone());
            record.completions.push(RolloutCompletion {
                prompt: own_prompts.next().map(|prompt| prompt.text),
                text,
                token_ids: completion.token_ids,
                log_probs: completion.log_probs,
                stop_reason,
                reward: Some(score.reward),
                score: serde_json::to_value(&score)?,
                advantage,
            });
        }
        let append =
            |recorder: &mut Self| recorder.rollouts.as_mut().map(|rollouts| rollouts.append(&record)).transpose();
        let Some(place) = self.write("the rollouts", A_LITTLE_BYTES, append)? else { return Ok(()) };
        self.event(Group { advantages, file: place.file, line: place.line, ..event })
    }
}
