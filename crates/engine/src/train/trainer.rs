//! State of a training run, from its run directory: new, or exactly as of the last checkpoint.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::error::TrainError;
use super::gradient_shape::{Extent, retry_smaller};
use super::groups::{AdvantageRule, PolicyBatch, StepRollout, policy_batch};
use super::guide::Guide;
use super::prompt_sets::PromptSets;
use super::run_task::RunTask;
use super::setup::Setup;
use crate::checkpoint::{self, CheckpointError, StartModel, TrainerState};
use crate::config::{Method, SamplingCorrection, TrainConfig};
use crate::dataset::adaptive_order::AdaptiveOrder;
use crate::files::failpoint;
use crate::kernels::adamw::norm;
use crate::kernels::device::Engine;
use crate::model::{Decoder, Gradients, ModelError, Parameters, Shard, Trainable, Weights};
use crate::plan::{StepShape, longest_sequence, step_tokens};
use crate::policy::{Policy, Prompt, ScoredTask};
use crate::ranks::{RankError, Ranks};
use crate::rollout::{DraftHistory, RolloutMemory, Sampling, ThinkingLimit, ThreadPool};
use crate::run::{RolloutCompletion, RunDirectory, checkpoint_path, read_step};
use crate::task::PromptSet;
use crate::text::Tokenizer;
use crate::update::{LossSettings, Optimizer, OptimizerSettings, PolicySettings, StepOutcome};

/// A run in training, on one of its ranks.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) run: RunDirectory,
    pub(super) config: TrainConfig,
    /// Not empty.
    pub(super) tasks: Vec<RunTask>,
    pub(super) prompts: PromptSets,
    pub(super) policy: Policy,
    pub(super) optimizer: Optimizer,
    pub(super) state: TrainerState,
    pub(super) total_steps: u64,
    /// Shape of gradients, shrunk on out-of-memory; equal on all ranks.
    pub(super) shape: Cell<StepShape>,
    /// Guides by task, with `guided` or after recovering from a collapse; else empty.
    pub(super) guides: Vec<Guide>,
    /// A separate teacher.
    pub(super) teacher: Option<Decoder>,
    pub(super) ranks: Rc<Ranks>,
}

/// Consecutive steps without a finite gradient that end a run.
const MAX_SKIPPED_STEPS: u64 = 3;

impl Trainer {
    /// Loads the model and the last checkpoint. `has_recovered`: from a collapse.
    ///
    /// # Errors
    /// [`TrainError`] naming what is missing or wrong.
    pub(super) fn load(
        run: &RunDirectory,
        setup: Setup,
        ranks: Rc<Ranks>,
        has_recovered: bool,
    ) -> Result<Self, TrainError> {
        let shape = Cell::new(setup.shape());
        let Setup {
            tasks,
            config,
            start,
            teacher,
            prompts,
            total_steps,
            engine,
            threads,
            resumed_from,
            ..
        } = setup;
        let folder = resumed_from.map(|step| checkpoint_path(run.path(), step));
        let weights = start.model.merged()?.in_precision(config.base_precision);
        let trainable = Trainable::for_config(&config);
        let load = |trainable| {
            let trained = (trainable, ranks.rank());
            decoder(&start, &weights, &config, trained, &engine)
        };
        let model = load(trainable)?;
        let teacher = teacher
            .map(|teacher| teacher.decoder(None, &engine))
            .transpose()?;
        let reference = config
            .keeps_base()
            .then(|| load(Trainable::Frozen))
            .transpose()?;
        let mut policy = Policy {
            reference,
            ..Policy::new(engine.clone(), model, start.tokenizer, threads)
        };
        let settings = optimizer_settings(&config, total_steps);
        let (optimizer, mut state) =
            optimizer_and_state(&policy.model, settings, folder.as_deref())?;
        state.adaptive =
            adaptive_order(&config, &prompts, state.adaptive.take(), folder.as_deref())?;
        policy.memory = RolloutMemory::drafting_from(draft_history(run, &config, state.step));
        let is_guided = config.is_guided() || (config.learns_from_rewards() && has_recovered);
        let (run, guides) = (run.clone(), Vec::new());
        let mut trainer = Self {
            run,
            config,
            tasks,
            prompts,
            policy,
            optimizer,
            state,
            total_steps,
            shape,
            guides,
            teacher,
            ranks,
        };
        if is_guided {
            trainer.guide();
        }
        Ok(trainer)
    }

    /// Guides groups without a success from now on.
    pub(super) fn guide(&mut self) {
        if self.guides.is_empty() {
            let guide = |(index, task): (usize, &RunTask)| {
                let rows = self.prompts.set(PromptSet::Train, index);
                let is_shown = rows.iter().any(|prompt| prompt.row.has_demonstration());
                Guide::new(task.task(), &self.policy.tokenizer, is_shown)
            };
            self.guides = self.tasks.iter().enumerate().map(guide).collect();
        }
    }

    pub(super) fn task_of(&self, prompt: &Prompt) -> &RunTask {
        &self.tasks[prompt.task]
    }

    pub(super) fn trainable(&self) -> Trainable {
        Trainable::for_config(&self.config)
    }

    /// How rewards of a training prompt's groups become advantages.
    pub(super) fn advantage_rule(&self, prompt: usize) -> AdvantageRule {
        let task = self.task_of(&self.prompts.train[prompt]);
        let is_off = !self.config.learns_from_rewards();
        AdvantageRule {
            kind: self.config.advantage,
            weights: task.scorer.part_weights(),
            is_off,
        }
    }

    /// The tasks, whose scorers know the current step.
    pub(super) fn scored_tasks(&self) -> Vec<ScoredTask<'_>> {
        let (step, max_steps) = (self.state.step, self.config.max_steps);
        for task in &self.tasks {
            task.scorer.set_progress(step, max_steps);
        }
        self.tasks.iter().map(RunTask::scored).collect()
    }

    pub(super) fn sampling(&self) -> Result<Sampling, TrainError> {
        sampling(&self.policy.tokenizer, &self.config)
    }

    /// Whether the base can be sampled: full training without KL keeps no copy of it.
    pub(super) fn has_base(&self) -> bool {
        self.policy.reference.is_some()
            || self.trainable() != Trainable::Full
            || self.state.updates == 0
    }

    /// Number of steps sampled together next.
    pub(super) fn next_steps(&self) -> u64 {
        let until = match self.is_supervised() && self.config.method == Method::SftGrpo {
            true => self.total_steps.min(self.config.sft_steps),
            false => self.total_steps,
        };
        self.config
            .weight_sync_interval
            .min(until - self.state.step)
    }

    /// Whether the next step is supervised.
    pub(super) fn is_supervised(&self) -> bool {
        self.config.is_supervised(self.state.step + 1)
    }

    /// Weight of the entropy bonus in the next step.
    pub(super) fn entropy_coef(&self) -> f64 {
        self.state
            .entropy_coef
            .filter(|_| self.config.entropy_target > 0.0)
            .unwrap_or(self.config.entropy_coef)
    }

    /// Adapts the entropy bonus after a step with mean `entropy`, nats/token.
    pub(super) fn adapt_entropy_coef(&mut self, entropy: Option<f64>) {
        let (target, most) = (self.config.entropy_target, 10.0 * self.config.entropy_coef);
        if let Some(entropy) = entropy.filter(|entropy| target > 0.0 && entropy.is_finite()) {
            let direction = if entropy < target { 0.1 } else { -0.1 };
            let moved = self.entropy_coef() + direction * self.config.entropy_coef;
            self.state.entropy_coef = Some(moved.clamp(0.0, most));
        }
    }

    /// Whether the next step weighs tokens between sampler and trainer.
    pub(super) fn corrects_sampling(&self) -> bool {
        match self.config.sampling_correction {
            SamplingCorrection::Auto => self.state.corrects_sampling,
            SamplingCorrection::On => true,
            SamplingCorrection::Off => false,
        }
    }

    pub(super) fn optimizer_settings(&self) -> OptimizerSettings {
        optimizer_settings(&self.config, self.total_steps)
    }

    pub(super) fn policy_settings(&self) -> PolicySettings {
        let mut settings = policy_settings(&self.config, self.shape.get());
        settings.loss.entropy_coef = self.entropy_coef();
        settings.loss.corrects_sampling = self.corrects_sampling();
        settings
    }

    /// Computes a gradient of `extent` in the current shape; shrinks on all ranks if any runs out
    /// of memory. `shape` keeps the one that worked.
    ///
    /// # Errors
    /// [`TrainError::OutOfMemory`] if the smallest shape does not fit; other errors of `attempt`.
    pub(super) fn shrink_together<R>(
        &self,
        extent: Extent,
        attempt: impl FnMut() -> candle_core::Result<R>,
    ) -> Result<R, TrainError> {
        let is_any = |own| Ok(self.ranks.any(own)?);
        retry_smaller(
            &self.shape,
            extent,
            is_any,
            || _ = self.policy.engine.trim_memory(),
            attempt,
        )
    }

    /// Applies the sum of all ranks' gradients. With sharding, each rank sums and updates its part,
    /// and all gather all weights.
    ///
    /// # Errors
    /// [`TrainError::RanksDiffer`] on rank 0; [`TrainError::Rank`] for a lost rank.
    pub(super) fn apply(&mut self, gradients: &Gradients) -> Result<StepOutcome, TrainError> {
        self.optimizer.set_steps(self.state.step);
        let parameters = self.policy.model.parameters();
        let applied = if parameters.shard().is_whole() {
            let sum = Gradients::from_flat(self.ranks.all_reduce(gradients.flat())?);
            self.optimizer.apply(parameters, &sum)?
        } else {
            let own = self.ranks.reduce_scatter(gradients.flat())?;
            let grad_norm = self.ranks.sum(norm(&own)?.powi(2))?.sqrt();
            failpoint("update.scattered", &self.ranks.rank().to_string());
            let applied = self.optimizer.apply_shard(parameters, &own, grad_norm)?;
            self.ranks.all_gather(parameters.read())?;
            applied
        };
        if self.ranks.size() > 1 {
            let norms = self.ranks.gather(weights_norm(parameters)?)?;
            if let Some(rank) = norms.iter().position(|other| *other != norms[0]) {
                return Err(TrainError::RanksDiffer {
                    rank,
                    step: self.state.step + 1,
                });
            }
        }
        Ok(applied)
    }

    /// Batch of a step's gradient on this rank.
    pub(super) fn policy_batch<'a>(
        &'a self,
        rollout: &'a StepRollout,
        entropy_coef: f64,
    ) -> PolicyBatch<'a> {
        policy_batch(&self.config, entropy_coef, &self.prompts, rollout)
    }

    pub(super) fn extent(&self) -> Extent {
        let data = self.prompts.shape();
        Extent {
            longest_sequence: longest_sequence(&self.config, &data),
            all: step_tokens(&self.config, &data),
        }
    }

    /// Counts a step that took `seconds`; `skipped`: non-finite gradient.
    pub(super) fn finish_step(&mut self, skipped: bool, seconds: f64) {
        self.state.step += 1;
        self.state.updates = self.optimizer.updates();
        self.state.seconds += seconds;
        self.state.skipped_in_a_row = if skipped {
            self.state.skipped_in_a_row + 1
        } else {
            0
        };
    }

    /// # Errors
    /// [`TrainError::NotFinite`] after [`MAX_SKIPPED_STEPS`] consecutive steps without a finite
    /// gradient.
    pub(super) fn check_skipped(&self) -> Result<(), TrainError> {
        if self.state.skipped_in_a_row < MAX_SKIPPED_STEPS {
            return Ok(());
        }
        Err(TrainError::NotFinite {
            step: self.state.step,
            what: format!("the gradient of {MAX_SKIPPED_STEPS} consecutive steps"),
        })
    }

    /// Sets keys from the next step on, as checked by [`crate::run::Verb::Set`].
    pub(super) fn set(&mut self, changes: &std::collections::BTreeMap<String, serde_json::Value>) {
        if let Some(rate) = changes
            .get("learning_rate")
            .and_then(serde_json::Value::as_f64)
        {
            self.config.learning_rate = rate;
            self.optimizer.set(self.optimizer_settings());
        }
        if let Some(temperature) = changes
            .get("temperature")
            .and_then(serde_json::Value::as_f64)
        {
            self.config.temperature = temperature;
        }
        if let Some(steps) = changes.get("max_steps").and_then(serde_json::Value::as_u64) {
            self.config.max_steps = steps;
            self.total_steps = self.config.steps_of_epochs(self.prompts.order.epoch_len());
            self.optimizer.set(self.optimizer_settings());
        }
    }
}

/// The model with a rank's trained parameters.
pub(super) fn decoder(
    start: &StartModel,
    weights: &Weights,
    config: &TrainConfig,
    (trainable, rank): (Trainable, usize),
    engine: &Engine,
) -> Result<Decoder, ModelError> {
    let shard = shard_for_rank(config, trainable, rank);
    let trained = (trainable, shard);
    let device = &engine.device;
    Decoder::sharded(
        &start.model.config,
        weights,
        trained,
        config.seed,
        engine.dtype,
        device,
    )
}

/// Parameters updated by `rank`: a shard in full training; all adapters, which are small.
fn shard_for_rank(config: &TrainConfig, trainable: Trainable, rank: usize) -> Shard {
    if trainable == Trainable::Full {
        Shard {
            rank,
            ranks: config.ranks,
        }
    } else {
        Shard::WHOLE
    }
}

/// Sampling parameters of a configuration.
pub(super) fn sampling(
    tokenizer: &Arc<Tokenizer>,
    config: &TrainConfig,
) -> Result<Sampling, TrainError> {
    let TrainConfig {
        temperature,
        max_completion_tokens,
        seed,
        draft_tokens,
        ..
    } = *config;
    let thinking = config
        .thinking_budget()
        .map(|budget| ThinkingLimit::new(tokenizer, budget))
        .transpose()?;
    Ok(Sampling {
        draft_tokens,
        thinking,
        ..Sampling::new(tokenizer, temperature, max_completion_tokens, seed)
    })
}

/// Bits of the norm of all weights on this rank.
pub(super) fn weights_norm(parameters: &Parameters) -> candle_core::Result<u64> {
    let all = if parameters.shard().is_whole() {
        parameters.flat()
    } else {
        parameters.read()
    };
    Ok(norm(all)?.to_bits())
}

/// Wraps rank errors inside a tensor operation.
pub(super) fn tensor_error(error: RankError) -> candle_core::Error {
    match error {
        RankError::Cancelled => ThreadPool::cancelled(),
        error => candle_core::Error::wrap(error),
    }
}

/// The draft history after `step`.
fn draft_history(run: &RunDirectory, config: &TrainConfig, step: u64) -> DraftHistory {
    let (mut history, kept) = (DraftHistory::default(), config.keep_rollouts);
    if config.draft_tokens > 0 {
        for step in DraftHistory::first_step(step, kept)..=step {
            // Drafts only affect speed: ignore damaged records.
            let groups = read_step(run.path(), step).unwrap_or_default();
            let completions = groups.iter().flat_map(|group| &group.completions);
            history.add(step, completions.flat_map(RolloutCompletion::sampled), kept);
        }
    }
    history
}

pub(super) fn policy_settings(config: &TrainConfig, shape: StepShape) -> PolicySettings {
    let loss = LossSettings {
        policy_loss: config.policy_loss,
        clip_low: config.eps_clip,
        clip_high: config.eps_clip_high,
        cispo_cap: config.cispo_cap,
        kl_beta: config.kl_beta,
        kl_estimator: config.kl_estimator,
        kl_importance: config.kl_importance,
        max_completion_tokens: config.max_completion_tokens,
        entropy_coef: config.entropy_coef,
        distill_coef: config.distill_coef,
        corrects_sampling: false,
    };
    PolicySettings {
        loss,
        temperature: config.temperature,
        tokens_per_micro_batch: shape.tokens_per_micro_batch,
        recompute: shape.recompute,
    }
}

/// `folder`: of the last checkpoint.
fn optimizer_and_state(
    model: &Decoder,
    settings: OptimizerSettings,
    folder: Option<&Path>,
) -> Result<(Optimizer, TrainerState), TrainError> {
    let Some(folder) = folder else {
        return Ok((
            Optimizer::new(settings, model.parameters(), model.device())?,
            TrainerState::start(),
        ));
    };
    let (moments, state) = checkpoint::load(folder, model.parameters())?;
    Ok((Optimizer::restored(settings, moments, state.updates), state))
}

/// `saved`: from the checkpoint in `folder`.
fn adaptive_order(
    config: &TrainConfig,
    prompts: &PromptSets,
    saved: Option<AdaptiveOrder>,
    folder: Option<&Path>,
) -> Result<Option<AdaptiveOrder>, CheckpointError> {
    if !config.is_adaptive() {
        return Ok(None);
    }
    let tasks = prompts.train.last().map_or(0, |prompt| prompt.task + 1);
    let rows: Vec<usize> = (0..tasks)
        .map(|task| prompts.set(PromptSet::Train, task).len())
        .collect();
    match (saved, folder) {
        (Some(saved), _) if saved.fits(&rows) => Ok(Some(saved)),
        (_, None) => Ok(Some(AdaptiveOrder::new(tasks))),
        (_, Some(folder)) => Err(CheckpointError::Read {
            path: folder.join("trainer.json"),
            problem: "`adaptive` is missing or of other prompts (prompt_sampling = \"adaptive\")"
                .to_owned(),
        }),
    }
}

fn optimizer_settings(config: &TrainConfig, total_steps: u64) -> OptimizerSettings {
    OptimizerSettings {
        learning_rate: config.learning_rate,
        warmup_steps: config.warmup_steps,
        schedule: config.learning_rate_schedule,
        total_steps,
        floor: config.learning_rate_floor,
        beta1: config.adam_beta1,
        beta2: config.adam_beta2,
        epsilon: config.adam_epsilon,
        weight_decay: config.weight_decay,
        decay_norms_and_biases: config.decay_norms_and_biases,
        grad_clip_norm: config.grad_clip_norm,
    }
}
