//! The record of a run: rank 0 writes events, rollouts, evals and state, and notifies the listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::checkpoint_writer::CheckpointWriter;
use super::device_monitor::{self, DeviceMonitor};
use super::error::TrainError;
use super::gradient_shape::shrunk;
use super::groups::{AnsweredTurn, Group, GroupTurn, StepRollout};
use super::metrics::{StepUpdate, prompt_metrics, rollout_metrics, task_metrics, update_metrics};
use super::next_action::Requests;
use super::rank_steps::rank_metrics;
use super::run_alerts::RunAlerts;
use super::trainer::Trainer;
use crate::config::{SAMPLING_GAP, SamplingCorrection};
use crate::facts::PhaseKind;
use crate::kernels::device::Engine;
use crate::plan::CONTEXT_BYTES;
use crate::policy::{ToolTurn, Turn};
use crate::rollout::GpuFallback;
use crate::run::events::{self, Alert, End, Phase, RankStep, Step};
use crate::run::{
    DiskGuard, EventBody, EventWriter, Gpu, LiveState, RolloutCompletion, RolloutGroup,
    RolloutWriter, RunState, StateWriter, Status, WaitOutcome, Worker,
};
use crate::update::StepOutcome;

/// Called with every logged event.
pub type Listener<'a> = &'a mut dyn FnMut(&EventBody);

/// A rank's part of the record: the recorder on rank 0, otherwise only the device's condition.
pub(super) struct Record<'a> {
    recorder: Option<Recorder<'a>>,
    monitor: DeviceMonitor,
}

pub(super) struct Recorder<'a> {
    /// Shared with device monitor and checkpoint writer.
    events: Arc<Mutex<EventWriter>>,
    rollouts: Option<RolloutWriter>,
    history: LiveState,
    /// Writes `state.json`.
    pub(super) state: StateWriter,
    pub(super) disk: DiskGuard,
    listener: Listener<'a>,
    pub(super) saver: CheckpointWriter,
    pub(super) alerts: RunAlerts,
    /// The user resumed the run although the rest does not fit the disk.
    pub(super) ignores_disk_forecast: bool,
    pub(super) requests: Requests<'a>,
}

/// Space reserved for small writes.
const A_LITTLE_BYTES: u64 = 1 << 20;

impl<'a> Record<'a> {
    /// Has a recorder on rank 0.
    pub(super) fn new(recorder: Option<Recorder<'a>>, engine: &Engine) -> Self {
        Self {
            recorder,
            monitor: DeviceMonitor::named(engine.name()),
        }
    }

    /// Runs `write` on rank 0; default elsewhere.
    pub(super) fn on_rank_0<T: Default>(
        &mut self,
        write: impl FnOnce(&mut Recorder<'a>) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        self.recorder
            .as_mut()
            .map_or_else(|| Ok(T::default()), write)
    }

    /// Starts monitoring the GPU, on rank 0 into the log.
    pub(super) fn watch(&mut self, gpu: Option<Gpu>) {
        let (Some(gpu), log) = (gpu, self.recorder.as_ref().map(Recorder::log)) else {
            return;
        };
        self.monitor.start(
            device_monitor::EVERY,
            move || gpu.condition(),
            move |now| {
                // A full disk is reported by the worker's own next event.
                if let Some(log) = &log {
                    let _ = log.lock().append(now);
                }
            },
        );
    }

    pub(super) fn stop_watching(&mut self) {
        self.monitor.stop();
    }

    pub(super) fn phase(&mut self, step: u64, phase: PhaseKind) -> Result<(), TrainError> {
        self.on_rank_0(|recorder| recorder.phase(step, phase))
    }

    pub(super) fn alerts(
        &mut self,
        alerts: impl IntoIterator<Item = Alert>,
    ) -> Result<(), TrainError> {
        self.on_rank_0(|recorder| recorder.events(alerts))
    }

    /// Ends a GRPO step: counts it, and records groups, metrics and alerts.
    pub(super) fn step(
        &mut self,
        trainer: &mut Trainer,
        rollout: StepRollout,
        mut update: StepUpdate,
    ) -> Result<(), TrainError> {
        update.forward_seconds = rollout.forward_seconds;
        update.end(&trainer.ranks);
        update.rank.sampled_tokens = rollout.answers().map(Turn::sampled_tokens).sum();
        update.rank.rollout_seconds = rollout.rollout_seconds;
        self.draft_from(trainer, &rollout)?;
        update.sampling_seconds = rollout
            .all()
            .map(|rank| rank.rollout_seconds + rank.score_seconds)
            .fold(0.0, f64::max);
        update.rank.trained_tokens = update.statistics.rows;
        let metrics = self.on_rank_0(|recorder| {
            let mut metrics = rollout_metrics(&rollout, &trainer.config);
            metrics.extend(task_metrics(trainer, &rollout));
            metrics.extend(
                trainer
                    .state
                    .adaptive
                    .iter()
                    .flat_map(|adaptive| prompt_metrics(adaptive, &rollout)),
            );
            recorder.alerts.see_answers(trainer, &rollout);
            recorder.groups(trainer, rollout)?;
            Ok(metrics)
        })?;
        self.finish_step(trainer, update, metrics)
    }

    /// Adds the answers of all ranks to the draft history, in recording order.
    fn draft_from(&self, trainer: &mut Trainer, rollout: &StepRollout) -> Result<(), TrainError> {
        if trainer.config.draft_tokens == 0 {
            return Ok(());
        }
        let (step, kept) = (trainer.state.step + 1, trainer.config.keep_rollouts);
        let history = &mut trainer.policy.memory.history;
        if trainer.ranks.size() == 1 {
            let completions = rollout.answers().flat_map(Turn::completions);
            history.add(
                step,
                completions.map(|completion| completion.token_ids.as_slice()),
                kept,
            );
            return Ok(());
        }
        let turns = rollout
            .group_turns()
            .into_iter()
            .chain(rollout.replaced_turns());
        let answers = turns.flat_map(GroupTurn::answers);
        let completions = answers.flat_map(Turn::completions);
        let tokens: Vec<Vec<u32>> = completions
            .map(|completion| completion.token_ids.clone())
            .collect();
        let tokens = trainer.ranks.broadcast(tokens)?;
        history.add(step, tokens.iter().map(Vec::as_slice), kept);
        Ok(())
    }

    /// Counts a step and records its metrics.
    pub(super) fn finish_step(
        &mut self,
        trainer: &mut Trainer,
        mut update: StepUpdate,
        metrics: BTreeMap<String, f64>,
    ) -> Result<(), TrainError> {
        let (seconds, ranks) = (update.seconds(), &trainer.ranks);
        let step = RankStep {
            host: ranks.host(),
            condition: self.monitor.latest(),
            ..update.rank.clone()
        };
        let reports = ranks.gather((update.statistics.clone(), step))?;
        trainer.finish_step(update.applied == Some(StepOutcome::NotFinite), seconds);
        let measured = self.on_rank_0(|recorder| {
            let (entropy, mut ranks) = (metrics.get("completions/entropy").copied(), Vec::new());
            for (rank, (statistics, step)) in reports.into_iter().enumerate() {
                if rank > 0 {
                    update.statistics.add(statistics);
                }
                ranks.push(step);
            }
            if trainer.ranks.size() == 1 {
                ranks.clear();
            }
            let gap = update.statistics.mean_sampling_difference();
            recorder.finish_step(trainer, &update, metrics, ranks)?;
            Ok((entropy, gap))
        })?;
        let config = &trainer.config;
        let is_auto = config.sampling_correction == SamplingCorrection::Auto;
        if config.entropy_target > 0.0 || (is_auto && !trainer.state.corrects_sampling) {
            let (entropy, gap) = trainer.ranks.broadcast(measured)?;
            trainer.adapt_entropy_coef(entropy);
            trainer.state.corrects_sampling |= is_auto && gap > SAMPLING_GAP;
        }
        trainer.check_skipped()
    }
}

impl<'a> Recorder<'a> {
    pub(super) fn open(worker: &'a Worker, listener: Listener<'a>) -> Result<Self, TrainError> {
        let mut history = LiveState::open(worker.lock().run())?;
        let last_step = history.now()?.last_step;
        Ok(Self {
            events: Arc::new(Mutex::new(EventWriter::open(worker.lock())?)),
            rollouts: None,
            history,
            state: worker.state(),
            disk: DiskGuard::new(worker),
            listener,
            saver: CheckpointWriter::default(),
            alerts: RunAlerts::default(),
            ignores_disk_forecast: false,
            requests: Requests::new(worker, last_step),
        })
    }

    /// The log, for threads that append to it.
    pub(super) fn log(&self) -> Arc<Mutex<EventWriter>> {
        Arc::clone(&self.events)
    }

    /// Notifies the listener of a logged event.
    pub(super) fn notify(&mut self, body: &EventBody) {
        (self.listener)(body);
    }

    /// Writes `what`, of about `needed_bytes`. On a full disk pauses the run, then retries.
    pub(super) fn write<R, E: Into<TrainError>>(
        &mut self,
        what: &str,
        needed_bytes: u64,
        mut attempt: impl FnMut(&mut Self) -> Result<R, E>,
    ) -> Result<R, TrainError> {
        loop {
            match attempt(self).map_err(Into::into) {
                Err(error) if error.is_full_disk() => {
                    match self.wait_for_space(what, needed_bytes, true) {
                        WaitOutcome::Stop => {
                            return Err(TrainError::StoppedWithoutRoom {
                                error: error.to_string(),
                            });
                        }
                        WaitOutcome::Freed | WaitOutcome::Resumed => {}
                    }
                }
                result => return result,
            }
        }
    }

    /// Pauses the run until there is space; `retry`: a write has failed.
    pub(super) fn wait_for_space(
        &mut self,
        what: &str,
        needed_bytes: u64,
        retry: bool,
    ) -> WaitOutcome {
        let (events, listener) = (Arc::clone(&self.events), &mut self.listener);
        let phase = EventBody::from(Phase {
            step: self.state.now().step,
            phase: PhaseKind::Paused,
        });
        self.disk.wait_for_space(what, needed_bytes, retry, || {
            // If this does not fit, `state.json` or the answer to `status` has it.
            let _ = events.lock().append(phase.clone());
            listener(&phase);
        })
    }

    pub(super) fn history(&mut self) -> Result<&RunState, TrainError> {
        Ok(self.history.now()?)
    }

    /// Invalidates records after `step`, to be redone. Keeps rollouts of `keep_steps` steps (0:
    /// all).
    pub(super) fn rewind(&mut self, step: u64, keep_steps: u64) -> Result<(), TrainError> {
        let lock = self.requests.worker.lock();
        self.rollouts = Some(RolloutWriter::resume(lock, step)?.with_retention(keep_steps));
        Ok(())
    }

    pub(super) fn event(&mut self, body: impl Into<EventBody>) -> Result<(), TrainError> {
        let body = body.into();
        self.write("the log", A_LITTLE_BYTES, |recorder| {
            recorder.events.lock().append(body.clone())
        })?;
        (self.listener)(&body);
        Ok(())
    }

    pub(super) fn events(
        &mut self,
        bodies: impl IntoIterator<Item = impl Into<EventBody>>,
    ) -> Result<(), TrainError> {
        bodies.into_iter().try_for_each(|body| self.event(body))
    }

    /// Records the end, without waiting on a full disk.
    pub(super) fn end(&mut self, end: End) -> Result<(), TrainError> {
        self.disk.release_reserve();
        let body = EventBody::from(end.clone());
        let recorded = self.events.lock().append(body.clone());
        // The state may fit where the log does not.
        self.state.status(end.status, end.step, Some(end.cause))?;
        recorded?;
        (self.listener)(&body);
        Ok(())
    }

    /// Records alerts of GPU fallbacks.
    pub(super) fn fallbacks(
        &mut self,
        step: u64,
        found: impl IntoIterator<Item = GpuFallback>,
    ) -> Result<(), TrainError> {
        let alerts = self.alerts.run.fallbacks.alerts(step, found);
        self.events(alerts)
    }

    /// Restores the alerts open at the resumed step.
    pub(super) fn resume_alerts(
        &mut self,
        resumed_from: Option<u64>,
        trainer: &Trainer,
    ) -> Result<(), TrainError> {
        self.alerts = RunAlerts::new(&trainer.tasks);
        if let Some(step) = resumed_from {
            self.alerts
                .resume(self.history.now()?, step, &trainer.config);
        }
        Ok(())
    }

    /// Compresses the last rollouts.
    pub(super) fn finish_rollouts(&mut self) -> Result<(), TrainError> {
        // Remains uncompressed if space is lacking.
        Ok(self.rollouts.take().map_or(Ok(()), RolloutWriter::finish)?)
    }

    pub(super) fn phase(&mut self, step: u64, phase: PhaseKind) -> Result<(), TrainError> {
        self.event(Phase { step, phase })
    }

    pub(super) fn status(
        &mut self,
        status: Status,
        step: u64,
        cause: Option<String>,
    ) -> Result<(), TrainError> {
        self.write("state.json", A_LITTLE_BYTES, |recorder| {
            recorder
                .state
                .status(status, step, cause.clone().map(Into::into))
        })
    }

    /// Makes everything so far durable; called before a checkpoint.
    pub(super) fn sync(&mut self) -> Result<(), TrainError> {
        if let Some(rollouts) = &mut self.rollouts {
            rollouts.sync()?;
        }
        Ok(self.events.lock().sync()?)
    }

    /// # Errors
    /// Too many answers without a score.
    pub(super) fn check_scores(
        &self,
        trainer: &Trainer,
        rollouts: &[StepRollout],
    ) -> Result<(), TrainError> {
        for (index, task) in trainer.tasks.iter().enumerate() {
            let is_its = |group: &&Group| trainer.prompts.train[group.prompt].task == index;
            let groups = rollouts
                .iter()
                .flat_map(StepRollout::all)
                .flat_map(StepRollout::sampled_groups);
            let answers = groups
                .filter(is_its)
                .flat_map(Group::turns)
                .flat_map(GroupTurn::answers);
            task.scorer
                .check_errors(answers.map(|answer| &answer.score))?;
        }
        Ok(())
    }

    fn finish_step(
        &mut self,
        trainer: &Trainer,
        update: &StepUpdate,
        mut metrics: BTreeMap<String, f64>,
        ranks: Vec<RankStep>,
    ) -> Result<(), TrainError> {
        let (step, seconds) = (trainer.state.step, update.seconds());
        if !trainer.config.is_supervised(step) {
            metrics.extend(update_metrics(update));
        }
        let peak = trainer.policy.engine.peak_memory();
        metrics.extend(peak.map(|bytes| {
            (
                "memory/peak_bytes".to_owned(),
                (bytes + CONTEXT_BYTES) as f64,
            )
        }));
        metrics.extend(rank_metrics(&ranks));
        if trainer.config.entropy_target > 0.0 {
            metrics.insert("entropy_coef".to_owned(), trainer.entropy_coef());
        }
        let mut alerts = self.alerts.observe(step, &metrics, &trainer.config);
        alerts.extend(shrunk(step, update.shape, trainer.shape.get()));
        self.event(Step {
            step,
            seconds,
            metrics,
            ranks,
        })?;
        self.events(alerts)?;
        self.write("state.json", A_LITTLE_BYTES, |recorder| {
            recorder.state.step(step)
        })
    }

    /// Records groups of all ranks: texts in rollouts, figures in events.
    fn groups(&mut self, trainer: &Trainer, rollout: StepRollout) -> Result<(), TrainError> {
        let StepRollout {
            groups, replaced, ..
        } = rollout.merged();
        groups
            .into_iter()
            .try_for_each(|group| self.group(trainer, group, false))?;
        replaced
            .into_iter()
            .try_for_each(|group| self.group(trainer, group, true))
    }

    /// `replaced`: the step does not train on it.
    fn group(&mut self, trainer: &Trainer, group: Group, replaced: bool) -> Result<(), TrainError> {
        let (step, prompt) = (trainer.state.step + 1, &trainer.prompts.train[group.prompt]);
        for (turn, AnsweredTurn { signal, answers }) in group.into_turns().enumerate() {
            let later = answers.iter().find_map(|answer| answer.prompt.as_ref());
            let prompt_id = later.map_or(&prompt.row.id, |later| &later.id).clone();
            let text = if turn == 0 {
                prompt.text.clone()
            } else {
                String::new()
            };
            let task = trainer.task_of(prompt).part.name.clone();
            let event = events::Group {
                step,
                task: task.clone(),
                prompt_id: prompt_id.clone(),
                signal,
                replaced,
                ..Default::default()
            };
            let record = RolloutGroup {
                step,
                task,
                prompt_id,
                prompt: text,
                replaced,
                completions: Vec::new(),
            };
            self.answers(event, record, answers)?;
        }
        Ok(())
    }

    fn answers(
        &mut self,
        mut event: events::Group,
        mut record: RolloutGroup,
        answers: Vec<Turn>,
    ) -> Result<(), TrainError> {
        event.solved = Some(answers.iter().filter(|answer| answer.is_solved()).count());
        for answer in answers {
            let sampled_tokens = answer.sampled_tokens();
            let chain = answer.tools.as_ref().map(ToolTurn::chain);
            let Turn {
                prompt,
                tools,
                completion,
                text,
                score,
                advantage,
            } = answer;
            let stop_reason = completion.stop;
            event.rewards.push(score.reward);
            event.tiers.push(score.tier);
            event.token_counts.push(sampled_tokens);
            event.stop_reasons.push(stop_reason);
            event.advantages.push(advantage);
            event
                .call_seconds
                .extend(tools.map(|tools| tools.call_seconds));
            record.completions.push(RolloutCompletion {
                prompt: prompt.map(|prompt| prompt.text),
                chain,
                text,
                token_ids: completion.token_ids,
                log_probs: completion.log_probs,
                forced: completion.forced,
                stop_reason,
                reward: Some(score.reward),
                score: serde_json::to_value(&score)?,
                advantage,
            });
        }
        let append = |recorder: &mut Self| match &mut recorder.rollouts {
            Some(rollouts) => rollouts.append(&record).map(Some),
            None => Ok(None),
        };
        let Some(place) = self.write("the rollouts", A_LITTLE_BYTES, append)? else {
            return Ok(());
        };
        self.event(events::Group {
            file: place.file,
            line: place.line,
            ..event
        })
    }
}
