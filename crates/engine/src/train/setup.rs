//! A run before loading weights: prompts, scorer, checkpoint to resume from, fit to the device.

use super::error::TrainError;
use super::prompt_sets::PromptSets;
use super::run_task::{RunTask, TaskPart};
use super::teacher::teacher_model;
use crate::checkpoint::{OpenModel, StartModel};
use crate::config::TrainConfig;
use crate::format::counted;
use crate::hub::{ModelConfig, ModelSource};
use crate::kernels::device::Engine;
use crate::model::ModelError;
use crate::plan::{
    CONTEXT_BYTES, CUBLAS_WORKSPACE_BYTES, DataShape, GpuMemory, GpuPlan, Memory, StepShape,
    cpu_memory, fit, memory_limit_bytes,
};
use crate::rollout::ThreadPool;
use crate::run::{Gpu, RunDirectory, RunFile, RunFolders, Settings, events, list_checkpoints};
use crate::text::Tokenizer;

/// The GPU memory forecast includes what the kernels reserve.
const _: () = assert!(CUBLAS_WORKSPACE_BYTES == crate::kernels::device::CUBLAS_WORKSPACE_BYTES);

/// A run without weights and optimizer.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) tasks: Vec<RunTask>,
    pub(super) config: TrainConfig,
    pub(super) start: StartModel,
    /// A separate teacher model; `None` also for self-distillation.
    pub(super) teacher: Option<OpenModel>,
    pub(super) prompts: PromptSets,
    pub(super) engine: Engine,
    pub(super) threads: ThreadPool,
    /// Display name.
    pub(super) device: String,
    /// `None` on a CPU.
    pub(super) gpu: Option<Gpu>,
    /// `None` on a CPU.
    pub(super) fit: Option<GpuPlan>,
    pub(super) total_steps: u64,
    pub(super) resumed_from: Option<u64>,
}

impl Setup {
    /// Reads the run's frozen tasks, model configuration and device. `ranks`: overrides the
    /// configuration.
    ///
    /// # Errors
    /// [`TrainError`] naming what is missing or wrong; [`TrainError::DoesNotFit`] if the GPU is too
    /// small.
    pub(super) fn read(
        run: &RunDirectory,
        run_folders: &RunFolders,
        engine: &Engine,
        ranks: Option<usize>,
    ) -> Result<Self, TrainError> {
        let file = run.file();
        let config = TrainConfig {
            ranks: ranks.unwrap_or(file.config.ranks),
            ..file.config.clone()
        };
        let setup = Self::of(
            TaskPart::of_run(run)?,
            config,
            Some(file),
            run_folders,
            engine,
        )?;
        Ok(Self {
            resumed_from: list_checkpoints(run.path())?.last().copied(),
            ..setup
        })
    }

    /// As [`Setup::read`]. `file`: of a created run, which fixes the model and the time that its
    /// prompts state.
    pub(super) fn of(
        tasks: Vec<TaskPart>,
        config: TrainConfig,
        file: Option<&RunFile>,
        run_folders: &RunFolders,
        engine: &Engine,
    ) -> Result<Self, TrainError> {
        let mut start = StartModel::find(&config.base_model, run_folders)?;
        if let Some(file) = file {
            start.tokenizer.set_time(file.created_ms);
        }
        let digest = file.map_or("", |file| &file.model_digest);
        let tasks = run_tasks(tasks, &start.tokenizer, &start.model.config, &config)?;
        if !digest.is_empty() && start.digest != digest {
            return Err(TrainError::OtherModel {
                base_model: config.base_model,
            });
        }
        let teacher = teacher_model(&config, &start.tokenizer, run_folders)?;
        let read_by = teacher.as_ref().map(|teacher| &teacher.config);
        let mut tasks = read_by_teacher(tasks, read_by);
        tasks.iter_mut().try_for_each(RunTask::load_judges)?;
        let prompts = PromptSets::prepare(&tasks, &start.tokenizer, read_by, &config)?;
        if config.gpu_memory_gib > 0 {
            engine.limit_memory((config.gpu_memory_gib << 30) as u64, CONTEXT_BYTES)?;
        }
        let fit = fit_device(&start.model.config, &config, &prompts.shape(), engine)?;
        let threads = ThreadPool::for_engine(engine, config.threads)?;
        let gpu = engine.uuid().and_then(|uuid| Gpu::by_uuid(&uuid));
        Ok(Self {
            device: device_name(engine, &threads, gpu.as_ref()),
            total_steps: config.steps_of_epochs(prompts.order.epoch_len()),
            resumed_from: None,
            tasks,
            config,
            start,
            teacher,
            prompts,
            engine: engine.clone(),
            threads,
            gpu,
            fit,
        })
    }

    /// Adapts to several ranks: each on a GPU, or `ranks_per_host` on the same processors.
    pub(super) fn share_processors(&mut self, ranks_per_host: usize) -> Result<(), TrainError> {
        let ranks = self.config.ranks;
        if ranks > 1 && self.fit.is_some() {
            self.device = format!("{ranks} GPUs: {}", self.device);
        } else if ranks > 1 {
            let count = (ThreadPool::count_of(self.config.threads) / ranks_per_host).max(1);
            self.threads = ThreadPool::new(count)?;
            self.device = format!("cpu, {ranks} ranks of {}", counted(count, "thread"));
        }
        Ok(())
    }

    /// Sets the planned steps, by each `set` up to the resumed step.
    pub(super) fn set_goal(&mut self, settings: &Settings) {
        let until = self.resumed_from.unwrap_or(0) + 1;
        let mut goals = settings
            .range(..=until)
            .filter_map(|(_, changes)| changes.get("max_steps")?.as_u64());
        if let Some(max_steps) = goals.next_back() {
            let config = TrainConfig {
                max_steps,
                ..self.config.clone()
            };
            self.total_steps = config.steps_of_epochs(self.prompts.order.epoch_len());
        }
    }

    /// The memory plan for the log; `None` on a CPU.
    pub(super) fn memory(&self) -> Option<events::Memory> {
        let GpuPlan { shape, memory, gpu } = self.fit.as_ref()?;
        Some(events::Memory {
            peak_bytes: memory.peak_bytes,
            usable_bytes: gpu.usable_bytes,
            total_bytes: gpu.total_bytes,
            parts: memory
                .parts
                .iter()
                .map(|part| (part.name.to_owned(), part.bytes))
                .collect(),
            tokens_per_micro_batch: shape.tokens_per_micro_batch,
            recompute_activations: shape.recompute,
        })
    }

    pub(super) fn shape(&self) -> StepShape {
        self.fit
            .as_ref()
            .map_or_else(|| StepShape::for_config(&self.config), |fit| fit.shape)
    }
}

/// `None` on a CPU.
fn fit_device(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    engine: &Engine,
) -> Result<Option<GpuPlan>, TrainError> {
    let Some(memory) = engine.memory() else {
        return Ok(None);
    };
    let gpu = GpuMemory::when_opened(memory, engine.dtype.size_in_bytes());
    Ok(Some(fit(model, config, data, gpu)?))
}

/// A GPU with driver, or a CPU with threads.
fn device_name(engine: &Engine, threads: &ThreadPool, gpu: Option<&Gpu>) -> String {
    match gpu {
        _ if engine.device.is_cpu() => format!("{}, {} threads", engine.name(), threads.count()),
        Some(gpu) => format!("{}, driver {}", engine.name(), gpu.driver),
        None => engine.name(),
    }
}

/// A run whose task, tokenizer and prompts were read.
#[derive(Clone, Debug)]
pub struct Checked {
    pub model: ModelConfig,
    /// Completions count with their maximum length.
    pub data: DataShape,
}

impl Checked {
    /// Memory of the run on a CPU.
    pub fn cpu_memory(&self, config: &TrainConfig) -> Memory {
        let threads = ThreadPool::count_of(config.threads);
        cpu_memory(
            &self.model,
            config,
            &self.data,
            threads,
            memory_limit_bytes(),
        )
    }
}

/// Reads everything a run would except weights, so that errors name the user's own files before the
/// run is created.
///
/// # Errors
/// [`TrainError`] naming file, line and remedy.
pub fn check(
    tasks: &[TaskPart],
    model: &ModelSource,
    config: &TrainConfig,
    run_folders: &RunFolders,
) -> Result<Checked, TrainError> {
    let tokenizer = Tokenizer::load(model)?;
    let model_config = model.config().map_err(ModelError::from)?;
    let teacher = teacher_model(config, &tokenizer, run_folders)?;
    let read_by = teacher.as_ref().map(|teacher| &teacher.config);
    let tasks = read_by_teacher(
        run_tasks(tasks.to_vec(), &tokenizer, &model_config, config)?,
        read_by,
    );
    let data = PromptSets::prepare(&tasks, &tokenizer, read_by, config)?.shape();
    Ok(Checked {
        model: model_config,
        data,
    })
}

fn run_tasks(
    tasks: Vec<TaskPart>,
    tokenizer: &Tokenizer,
    model: &ModelConfig,
    config: &TrainConfig,
) -> Result<Vec<RunTask>, TrainError> {
    tasks
        .into_iter()
        .map(|part| RunTask::new(part, tokenizer, model, config))
        .collect()
}

/// Limits prompts to a teacher's context if smaller.
fn read_by_teacher(mut tasks: Vec<RunTask>, teacher: Option<&ModelConfig>) -> Vec<RunTask> {
    let most = teacher.map_or(usize::MAX, |teacher| teacher.max_position_embeddings);
    tasks
        .iter_mut()
        .for_each(|task| task.lengths.positions = task.lengths.positions.min(most));
    tasks
}
