//! The state of a training run, built from its run directory: new, or exactly as of the last checkpoint.

use std::cell::Cell;

use super::TrainError;
use super::alerts::Alerts;
use super::guide::Guide;
use super::oom_retry::{Extent, GpuFallbacks, retry_smaller};
use super::rank_work::{LatestReading, RankWork};
use super::setup::{PromptSets, Setup};
use crate::checkpoint::{self, TrainerState};
use crate::config::{Method, Schedule, TrainConfig};
use crate::kernels::device::Engine;
use crate::model::{Adapters, Decoder, Shard, Trainable};
use crate::plan::{StepShape, longest_sequence, step_tokens};
use crate::ranks::Ranks;
use crate::rollout::{
    Completion, DecodeCounts, DraftHistory, Request, RolloutContext, RolloutMemory, Sampling, ThreadPool,
};
use crate::run::events::RankStep;
use crate::run::{RunDirectory, RunState, checkpoint_path, list_checkpoints, read_step};
use crate::score::Scorer;
use crate::task::Task;
use crate::text::Tokenizer;
use crate::update::{LossSettings, Optimizer, OptimizerSettings, PolicySettings};

#[derive(Debug)]
pub(super) struct Job {
    pub(super) config: TrainConfig,
    pub(super) trainable: Trainable,
    pub(super) prompts: PromptSets,
    pub(super) scorer: Scorer,
    pub(super) tokenizer: Tokenizer,
    pub(super) model: Decoder,
    /// A copy of the start, for a KL in full fine-tuning; with adapters the same model without them serves.
    pub(super) frozen: Option<Decoder>,
    pub(super) optimizer: Optimizer,
    pub(super) threads: ThreadPool,
    pub(super) engine: Engine,
    /// The shape of gradients, which shrinks when memory runs out.
    pub(super) shape: Cell<StepShape>,
    pub(super) state: TrainerState,
    pub(super) total_steps: u64,
    pub(super) alerts: Alerts,
    /// The user resumed the run although its rest does not fit the disk.
    pub(super) ignores_disk_forecast: bool,
    pub(super) task: Task,
    pub(super) rollouts: RolloutMemory,
    pub(super) gpu_fallbacks: GpuFallbacks,
    pub(super) ahead: Option<Ahead>,
    /// On rank 0, with `guided`.
    pub(super) guide: Option<Guide>,
    /// The user has asked for an end after this step.
    pub(super) is_stopping: bool,
    pub(super) ranks: Ranks,
    pub(super) rank_work: RankWork,
    pub(super) reading: LatestReading,
    pub(super) resumed_from: Option<u64>,
}

/// Completions by request.
#[derive(Debug)]
pub(super) struct Sampled {
    pub(super) completions: Vec<Vec<Completion>>,
    /// Of all that was decoded together.
    pub(super) counts: DecodeCounts,
    /// Of what was decoded together, this part by its tokens.
    pub(super) seconds: f64,
    /// What each of several ranks did, with this part of the time.
    pub(super) ranks: Vec<RankStep>,
}

/// The rollout that was sampled with the last eval.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) requests: Vec<Request>,
    pub(super) sampling: Sampling,
    pub(super) sampled: Sampled,
}

/// Consecutive steps without a finite gradient that end a run.
const MAX_SKIPPED_STEPS: u64 = 3;

impl Job {
    /// Loads the model's weights and the last checkpoint, as `rank` of the configured ones. `history`: the run's state by
    /// its log.
    ///
    /// # Errors
    /// [`TrainError`] naming what is missing or wrong.
    pub(super) fn load(
        run: &RunDirectory,
        setup: Setup,
        engine: &Engine,
        history: &RunState,
        rank: usize,
    ) -> Result<Self, TrainError> {
        let (shape, has_recovered) = (setup.shape(), !history.collapses.is_empty());
        let Setup { task, config, start, prompts, scorer, threads, total_steps, .. } = setup;
        let weights = start.weights()?;
        let trainable = Trainable::for_config(&config);
        let decoder = |trainable| {
            let shard = shard_for_rank(&config, trainable, rank);
            Decoder::sharded(&start.config, &weights, (trainable, shard), config.seed, engine.dtype, &engine.device)
        };
        let model = decoder(trainable)?;
        let frozen =
            if config.kl_beta > 0.0 && trainable == Trainable::Full { Some(decoder(Trainable::Frozen)?) } else { None };
        let (optimizer, state, resumed_from) = optimizer_and_state(run, &config, total_steps, &model)?;
        let rollouts = RolloutMemory::drafting_from(draft_history(run, &config, state.step)?);
        let alerts = resumed_from.map_or_else(Alerts::default, |step| Alerts::resumed(history, step, &config));
        Ok(Self {
            guide: (rank == 0 && config.method != Method::Sft && (config.guided || has_recovered))
                .then(|| Guide::new(&task, &start.tokenizer)),
            total_steps,
            alerts,
            ignores_disk_forecast: false,
            task,
            threads,
            engine: engine.clone(),
            shape: Cell::new(shape),
            tokenizer: start.tokenizer,
            config,
            trainable,
            prompts,
            scorer,
            model,
            frozen,
            optimizer,
            state,
            resumed_from,
            rollouts,
            gpu_fallbacks: GpuFallbacks::default(),
            ahead: None,
            is_stopping: false,
            ranks: Ranks::alone(),
            rank_work: RankWork::default(),
            reading: LatestReading::default(),
        })
    }

    pub(super) fn sampling(&self) -> Sampling {
        sampling(&self.tokenizer, &self.config)
    }

    pub(super) fn rollout_context(&self) -> RolloutContext<'_> {
        RolloutContext {
            engine: &self.engine,
            model: &self.model,
            adapters: Adapters::On,
            tokenizer: &self.tokenizer,
            threads: &self.threads,
            memory: &self.rollouts,
        }
    }

    /// The steps that are sampled together next.
    pub(super) fn next_steps(&self) -> u64 {
        let until = match self.is_supervised() && self.config.method == Method::SftGrpo {
            true => self.total_steps.min(self.config.sft_steps),
            false => self.total_steps,
        };
        self.config.weight_sync_interval.min(until - self.state.step)
    }

    /// Whether the next step learns from answers that are given.
    pub(super) fn is_supervised(&self) -> bool {
        self.config.is_supervised(self.state.step + 1)
    }

    /// The weight of the entropy bonus in the next step.
    pub(super) fn entropy_coef(&self) -> f64 {
        self.state.entropy_coef.filter(|_| self.config.entropy_target > 0.0).unwrap_or(self.config.entropy_coef)
    }

    /// Moves the weight of the entropy bonus after a step whose completions had `entropy`, nats/token.
    pub(super) fn adapt_entropy_coef(&mut self, entropy: Option<f64>) {
        let (target, most) = (self.config.entropy_target, 10.0 * self.config.entropy_coef);
        if let Some(entropy) = entropy.filter(|entropy| target > 0.0 && entropy.is_finite()) {
            let direction = if entropy < target { 0.1 } else { -0.1 };
            let moved = self.entropy_coef() + direction * self.config.entropy_coef;
            self.state.entropy_coef = Some(moved.clamp(0.0, most));
        }
    }

    pub(super) fn optimizer_settings(&self) -> OptimizerSettings {
        optimizer_settings(&self.config, self.total_steps)
    }

    pub(super) fn policy_settings(&self) -> PolicySettings {
        let mut settings = policy_settings(&self.config, self.shape.get());
        settings.loss.entropy_coef = self.entropy_coef();
        settings
    }

    /// Computes a gradient of `extent` in the job's shape, and in smaller ones when memory runs out; `shape` keeps the
    /// one that worked.
    pub(super) fn retry_smaller<R>(
        &self,
        extent: Extent,
        attempt: impl FnMut() -> candle_core::Result<R>,
    ) -> Result<R, TrainError> {
        retry_smaller(&self.shape, extent, || _ = self.engine.trim_memory(), attempt)
    }

    pub(super) fn extent(&self) -> Extent {
        let data = self.prompts.shape(&self.config);
        Extent { longest_sequence: longest_sequence(&self.config, &data), all: step_tokens(&self.config, &data) }
    }

    /// Counts a step that took `seconds`; `skipped`: its gradient was not finite.
    pub(super) fn finish_step(&mut self, skipped: bool, seconds: f64) {
        self.state.step += 1;
        self.state.updates = self.optimizer.updates();
        self.state.seconds += seconds;
        self.state.skipped_in_a_row = if skipped { self.state.skipped_in_a_row + 1 } else { 0 };
    }

    /// # Errors
    /// [`TrainError::NotFinite`] once [`MAX_SKIPPED_STEPS`] steps in a row had no finite gradient.
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
        if let Some(rate) = changes.get("learning_rate").and_then(serde_json::Value::as_f64) {
            self.config.learning_rate = rate;
            self.optimizer.set(self.optimizer_settings());
        }
        if let Some(temperature) = changes.get("temperature").and_then(serde_json::Value::as_f64) {
            self.config.temperature = temperature;
        }
        if let Some(steps) = changes.get("max_steps").and_then(serde_json::Value::as_u64) {
            self.config.max_steps = steps;
            self.total_steps = self.config.total_steps(self.prompts.train.len());
            self.optimizer.set(self.optimizer_settings());
        }
    }

    /// The current model, or the base if it is in memory.
    pub(super) fn model_for(&self, base: bool) -> Option<(&Decoder, Adapters)> {
        match (base, &self.frozen, self.trainable) {
            (false, ..) => Some((&self.model, Adapters::On)),
            (true, Some(frozen), _) => Some((frozen, Adapters::Off)),
            (true, None, Trainable::Full) if self.state.updates > 0 => None,
            (true, None, _) => Some((&self.model, Adapters::Off)),
        }
    }

    /// The reference model of the KL, and whether its adapters are on.
    pub(super) fn reference(&self) -> (&Decoder, Adapters) {
        (self.frozen.as_ref().unwrap_or(&self.model), Adapters::Off)
    }
}

/// What `rank` moves: its part where every weight is trained; of adapters, which are small, each rank moves all.
pub(super) fn shard_for_rank(config: &TrainConfig, trainable: Trainable, rank: usize) -> Shard {
    if trainable == Trainable::Full { Shard { rank, ranks: config.ranks } } else { Shard::WHOLE }
}

/// How a configuration samples.
pub(super) fn sampling(tokenizer: &Tokenizer, config: &TrainConfig) -> Sampling {
    let TrainConfig { temperature, max_completion_tokens, seed, draft_tokens, .. } = *config;
    Sampling { draft_tokens, ..Sampling::new(tokenizer, temperature, max_completion_tokens, seed) }
}

/// The history that the run had after `step`.
fn draft_history(run: &RunDirectory, config: &TrainConfig, step: u64) -> Result<DraftHistory, TrainError> {
    let (mut history, kept) = (DraftHistory::default(), config.keep_rollouts);
    if config.draft_tokens > 0 {
        for step in DraftHistory::first_step(step, kept)..=step {
            let groups = read_step(run.path(), step)?;
            let completions = groups.iter().flat_map(|group| &group.completions);
            history.add(step, completions.map(|completion| completion.token_ids.as_slice()), kept);
        }
    }
    Ok(history)
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
    };
    PolicySettings {
        loss,
        temperature: config.temperature,
        tokens_per_micro_batch: shape.tokens_per_micro_batch,
        recompute: shape.recompute,
    }
}

fn optimizer_and_state(
    run: &RunDirectory,
    config: &TrainConfig,
    total_steps: u64,
    model: &Decoder,
) -> Result<(Optimizer, TrainerState, Option<u64>), TrainError> {
    let settings = optimizer_settings(config, total_steps);
    let Some(&step) = list_checkpoints(run.path())?.last() else {
        let optimizer = Optimizer::new(settings, model.parameters(), model.device())?;
        return Ok((optimizer, TrainerState::start(config.digest()), None));
    };
    let (moments, state) = checkpoint::load(&checkpoint_path(run.path(), step), model.parameters())?;
    Ok((Optimizer::restored(settings, moments, state.updates), state, Some(step)))
}

fn optimizer_settings(config: &TrainConfig, total_steps: u64) -> OptimizerSettings {
    OptimizerSettings {
        learning_rate: config.learning_rate,
        warmup_steps: config.warmup_steps,
        cosine_steps: if config.learning_rate_schedule == Schedule::Cosine { total_steps } else { 0 },
        beta1: config.adam_beta1,
        beta2: config.adam_beta2,
        epsilon: config.adam_epsilon,
        weight_decay: config.weight_decay,
        decay_norms_and_biases: config.decay_norms_and_biases,
        grad_clip_norm: config.grad_clip_norm,
    }
}
