//! What a run leaves behind while it works: events, rollouts, evals, state; and whoever listens in this process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::TrainError;
use super::job::Job;
use super::step::ScoredGroup;
use super::watch::{self, Watch};
use crate::run::events::{Group, Phase};
use crate::run::{EventBody, EventWriter, Gpu, RolloutCompletion, RolloutGroup, RolloutWriter, RunLock, StateWriter, Status, Worker};

/// Called with every event once it is in the log.
pub type Listener<'a> = &'a mut dyn FnMut(&EventBody);

/// The run's one writer.
pub(super) struct Recorder<'a> {
    /// Shared with the thread that watches the device.
    events: Arc<Mutex<EventWriter>>,
    watch: Option<Watch>,
    rollouts: Option<RolloutWriter>,
    state: StateWriter,
    listener: Listener<'a>,
}

impl<'a> Recorder<'a> {
    pub(super) fn open(worker: &Worker, listener: Listener<'a>) -> Result<Self, TrainError> {
        Ok(Self {
            events: Arc::new(Mutex::new(EventWriter::open(worker.lock())?)),
            watch: None,
            rollouts: None,
            state: worker.state(),
            listener,
        })
    }

    /// Drops what was recorded of later steps than `step`: they will be redone. The rollouts of `keep_steps` steps stay (0: all).
    pub(super) fn rewind(&mut self, lock: &RunLock, step: u64, keep_steps: u64) -> Result<(), TrainError> {
        self.rollouts = Some(RolloutWriter::resume(lock, step)?.keeping(keep_steps));
        Ok(())
    }

    pub(super) fn event(&mut self, body: impl Into<EventBody>) -> Result<(), TrainError> {
        let body = body.into();
        self.writer().append(body.clone())?;
        (self.listener)(&body);
        Ok(())
    }

    /// From now on the GPU's condition is an event every few seconds.
    pub(super) fn watch(&mut self, gpu: Gpu) {
        self.watch = Some(Watch::start(Arc::clone(&self.events), watch::EVERY, move || gpu.condition()));
    }

    /// No condition comes after this.
    pub(super) fn stop_watching(&mut self) {
        self.watch = None;
    }

    /// Nothing more is sampled: the last rollouts are compressed.
    pub(super) fn finish_rollouts(&mut self) -> Result<(), TrainError> {
        Ok(self.rollouts.take().map_or(Ok(()), RolloutWriter::finish)?)
    }

    fn writer(&self) -> MutexGuard<'_, EventWriter> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&mut self, step: u64, phase: &str) -> Result<(), TrainError> {
        self.event(Phase { step, phase: phase.to_owned() })
    }

    pub(super) fn status(&mut self, status: Status, step: u64, cause: Option<String>) -> Result<(), TrainError> {
        Ok(self.state.status(status, step, cause)?)
    }

    pub(super) fn step_done(&mut self, step: u64) -> Result<(), TrainError> {
        Ok(self.state.step(step)?)
    }

    /// Everything written so far is on disk when this returns; called before a checkpoint claims its step.
    pub(super) fn sync(&mut self) -> Result<(), TrainError> {
        if let Some(rollouts) = &mut self.rollouts {
            rollouts.sync()?;
        }
        Ok(self.writer().sync()?)
    }

    /// One group: its texts into the rollouts, its numbers into the events.
    pub(super) fn group(&mut self, job: &Job, step: u64, group: &ScoredGroup) -> Result<(), TrainError> {
        let prompt = &job.prompts.train[group.prompt];
        let mut completions = Vec::with_capacity(group.completions.len());
        for (index, completion) in group.completions.iter().enumerate() {
            completions.push(RolloutCompletion {
                text: group.texts[index].clone(),
                token_ids: completion.token_ids.clone(),
                log_probs: completion.log_probs.clone(),
                stop_reason: stop_reason(completion),
                reward: Some(group.rewards[index]),
                score: serde_json::to_value(&group.scores[index])?,
                advantage: group.advantages[index],
            });
        }
        let record = RolloutGroup { step, prompt_id: prompt.row.id.clone(), prompt: prompt.text.clone(), completions };
        let Some(rollouts) = &mut self.rollouts else { return Ok(()) };
        let place = rollouts.append(&record)?;
        self.event(Group {
            step,
            prompt_id: record.prompt_id,
            rewards: group.rewards.clone(),
            tiers: group.scores.iter().map(|score| score.tier.name().to_owned()).collect(),
            advantages: group.advantages.clone(),
            token_counts: group.completions.iter().map(|completion| completion.token_ids.len()).collect(),
            stop_reasons: group.completions.iter().map(stop_reason).collect(),
            dead: group.dead,
            file: place.file,
            line: place.line,
        })
    }
}

fn stop_reason(completion: &crate::rollout::Completion) -> String {
    match completion.stop {
        crate::rollout::StopReason::Stop => "stop".to_owned(),
        crate::rollout::StopReason::Length => "length".to_owned(),
    }
}
