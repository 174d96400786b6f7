//! A run before its weights are read: its prompts, its scorer, where it continues from, and whether it fits its device.

use super::TrainError;
use crate::checkpoint::StartModel;
use crate::config::TrainConfig;
use crate::eval::{Lengths, Prompt, prepare};
use crate::hub::{ModelConfig, ModelSource};
use crate::kernels::device::Engine;
use crate::model::ModelError;
use crate::plan::{DataShape, GpuMemory, GpuPlan, StepShape, fit};
use crate::rollout::ThreadPool;
use crate::run::events::Memory;
use crate::run::{Gpu, RunDirectory, RunFolders, Settings, list_checkpoints};
use crate::score::Scorer;
use crate::task::{PromptSet, Task};
use crate::text::Tokenizer;

/// The prompts of a task, prepared for the model.
#[derive(Debug)]
pub(super) struct PromptSets {
    /// At least one; at most `max_rows`.
    pub(super) train: Vec<Prompt>,
    /// Watched during training; may be empty.
    pub(super) eval: Vec<Prompt>,
    /// Carries the claim; may be empty.
    pub(super) test: Vec<Prompt>,
}

/// What a run is, weights and optimizer aside.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) task: Task,
    pub(super) config: TrainConfig,
    pub(super) start: StartModel,
    pub(super) prompts: PromptSets,
    pub(super) scorer: Scorer,
    pub(super) threads: ThreadPool,
    /// The device in words.
    pub(super) device: String,
    /// On a GPU: what the driver tells of it.
    pub(super) gpu: Option<Gpu>,
    /// On a GPU: the plan that fits it.
    pub(super) fit: Option<GpuPlan>,
    pub(super) total_steps: u64,
    /// The checkpoint that the run continues from.
    pub(super) resumed_from: Option<u64>,
}

impl Setup {
    /// Reads the run's frozen task and looks at its model and its device.
    ///
    /// # Errors
    /// [`TrainError`] naming what is missing or wrong; [`TrainError::DoesNotFit`] where the GPU is too small.
    pub(super) fn read(run: &RunDirectory, places: &RunFolders, engine: &Engine) -> Result<Self, TrainError> {
        let file = run.file();
        let setup = Self::of(Task::load(&run.task_path())?, file.config.clone(), &file.model_digest, places, engine)?;
        Ok(Self { resumed_from: list_checkpoints(run.path())?.last().copied(), ..setup })
    }

    /// The same of a run that does not exist yet. `digest`: what the model must have; empty for any.
    ///
    /// # Errors
    /// As [`Setup::read`].
    pub(super) fn of(
        task: Task,
        config: TrainConfig,
        digest: &str,
        places: &RunFolders,
        engine: &Engine,
    ) -> Result<Self, TrainError> {
        let scorer = Scorer::new(&task)?;
        let start = StartModel::find(&config.base_model, places)?;
        if !digest.is_empty() && start.digest != digest {
            return Err(TrainError::OtherModel { base_model: config.base_model });
        }
        let prompts = prompt_sets(&task, &start.tokenizer, &start.config, &config)?;
        let fit = fit_device(&start.config, &config, &prompts.shape(&config), engine)?;
        let threads = ThreadPool::of_engine(engine, config.threads)?;
        let gpu = engine.uuid().and_then(|uuid| Gpu::of_uuid(&uuid));
        Ok(Self {
            device: device_name(engine, &threads, gpu.as_ref()),
            total_steps: config.total_steps(prompts.train.len()),
            resumed_from: None,
            task,
            config,
            start,
            prompts,
            scorer,
            threads,
            gpu,
            fit,
        })
    }

    /// The steps planned, by what has been `set` up to where the run continues.
    pub(super) fn set_goal(&mut self, settings: &Settings) {
        let until = self.resumed_from.unwrap_or(0) + 1;
        let mut goals = settings.range(..=until).filter_map(|(_, changes)| changes.get("max_steps")?.as_u64());
        if let Some(max_steps) = goals.next_back() {
            self.total_steps = TrainConfig { max_steps, ..self.config.clone() }.total_steps(self.prompts.train.len());
        }
    }

    /// What the plan says, as the run's record tells it; None on a CPU.
    pub(super) fn memory(&self) -> Option<Memory> {
        let GpuPlan { shape, memory, gpu } = self.fit.as_ref()?;
        Some(Memory {
            peak_bytes: memory.peak_bytes,
            usable_bytes: gpu.usable_bytes,
            total_bytes: gpu.total_bytes,
            parts: memory.parts.iter().map(|part| (part.name.to_owned(), part.bytes)).collect(),
            tokens_per_micro_batch: shape.tokens_per_micro_batch,
            recompute_activations: shape.recompute,
        })
    }

    /// How the gradient is computed.
    pub(super) fn shape(&self) -> StepShape {
        self.fit.as_ref().map_or_else(|| StepShape::of(&self.config), |fit| fit.shape)
    }
}

/// The plan of a run on a GPU; None on a CPU.
fn fit_device(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    engine: &Engine,
) -> Result<Option<GpuPlan>, TrainError> {
    let Some(memory) = engine.memory() else { return Ok(None) };
    let gpu = GpuMemory::when_opened(memory, engine.dtype.size_in_bytes());
    Ok(Some(fit(model, config, data, gpu)?))
}

/// The device as a record names it: a GPU with its driver, a CPU with its threads.
fn device_name(engine: &Engine, threads: &ThreadPool, gpu: Option<&Gpu>) -> String {
    match gpu {
        _ if engine.device.is_cpu() => format!("{}, {} threads", engine.name(), threads.count()),
        Some(gpu) => format!("{}, driver {}", engine.name(), gpu.driver),
        None => engine.name(),
    }
}

impl PromptSets {
    /// Lengths and counts; completions as long as the limit allows.
    pub(super) fn shape(&self, config: &TrainConfig) -> DataShape {
        let lengths = || self.train.iter().map(|prompt| prompt.token_ids.len());
        DataShape {
            train_rows: self.train.len(),
            mean_prompt_tokens: lengths().sum::<usize>() as f64 / self.train.len().max(1) as f64,
            longest_prompt_tokens: lengths().max().unwrap_or(0),
            eval_rows: self.eval.len(),
            test_rows: self.test.len(),
            mean_completion_tokens: config.max_completion_tokens as f64,
            least_completion_tokens: 0.0,
        }
    }
}

/// Reads everything that a run would read, weights aside, so that what is wrong is said with the user's own file names
/// before the run is made.
///
/// # Errors
/// [`TrainError`] naming file, line and remedy.
pub fn check(task: &Task, model: &ModelSource, config: &TrainConfig) -> Result<(), TrainError> {
    Scorer::new(task)?;
    let model_config = model.config().map_err(ModelError::from)?;
    prompt_sets(task, &Tokenizer::load(model)?, &model_config, config).map(|_| ())
}

/// The prompts of a task for a model, at most `max_rows`.
fn prompt_sets(
    task: &Task,
    tokenizer: &Tokenizer,
    model: &ModelConfig,
    config: &TrainConfig,
) -> Result<PromptSets, TrainError> {
    let lengths = Lengths {
        max_seq_len: Some(config.max_seq_len),
        max_completion_tokens: config.max_completion_tokens,
        positions: model.max_position_embeddings,
    };
    let set = |set| prepare(task, set, tokenizer, lengths);
    let mut train = set(PromptSet::Train)?;
    if config.max_rows > 0 {
        train.truncate(config.max_rows);
    }
    if train.is_empty() {
        return Err(TrainError::NoPrompts { task: task.label("task.toml") });
    }
    Ok(PromptSets { train, eval: set(PromptSet::Eval)?, test: set(PromptSet::Test)? })
}
