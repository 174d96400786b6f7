//! A model's weights with the adapter of a run or PEFT folder; without tokenizer.

use std::path::Path;

use super::locate::{adapter_base, read_adapter};
use super::trainer_state::OPTIMIZER_FILE;
use super::{CheckpointError, ModelLocation, PeftAdapter, StartError};
use crate::config::BasePrecision;
use crate::hub::{ModelConfig, ModelSource};
use crate::kernels::device::Engine;
use crate::model::{Decoder, Trainable, Weights};
use crate::run::{
    RunDirectory, RunFolders, base_parameter_count, checkpoint_path, verify_checkpoint,
};

/// A model with its adapter, if any; tensors are read on demand.
#[derive(Debug)]
pub struct OpenModel {
    pub config: ModelConfig,
    /// Configuration and tokenizer.
    pub source: ModelSource,
    /// Weights in the element types of their files.
    weights: Weights,
    /// Element types of an export: of the weights, or of the base after full fine-tuning
    /// (checkpoints are f32).
    stored_as: Weights,
    adapter: Option<PeftAdapter>,
    /// Name in messages.
    label: String,
}

impl OpenModel {
    /// Opens model `name`: a folder, a Hugging Face name, `tiny`, the result of a run, or an
    /// adapter folder that names its base.
    ///
    /// # Errors
    /// [`StartError`] with what was tried and the remedy.
    pub fn find(name: &str, run_folders: &RunFolders) -> Result<Self, StartError> {
        Self::from_location(ModelLocation::find(name, run_folders)?, run_folders)
    }

    /// Opens a located model.
    pub fn from_location(
        located: ModelLocation,
        run_folders: &RunFolders,
    ) -> Result<Self, StartError> {
        match located {
            ModelLocation::Model(source) => {
                let (config, weights) = (source.config()?, Weights::open(&source)?);
                Ok(Self {
                    config,
                    stored_as: weights.clone(),
                    weights,
                    adapter: None,
                    label: source.name.clone(),
                    source,
                })
            }
            ModelLocation::Adapter(folder) => {
                let adapter = read_adapter(&folder)?;
                let base = adapter_base(&folder, &adapter, run_folders)?;
                let mut opened =
                    Self::from_location(base, run_folders)?.with_adapter(adapter, &folder.name)?;
                opened.source = opened.source.with_tokenizer_of(&folder);
                Ok(opened)
            }
            ModelLocation::Run { run, step } => Self::from_run(&run, step, run_folders),
        }
    }

    /// The result of a run at a checkpoint.
    fn from_run(
        run: &RunDirectory,
        step: u64,
        run_folders: &RunFolders,
    ) -> Result<Self, StartError> {
        let folder = checkpoint_path(run.path(), step);
        let label = format!("{}@{step}", run.id());
        verify_checkpoint(&folder, |name| name != OPTIMIZER_FILE).map_err(CheckpointError::from)?;
        let mut base = Self::find(&run.file().config.base_model, run_folders)?;
        base.source = base.source.at_time(run.file().created_ms);
        let unreadable = |file: &str, problem: String| {
            let problem = problem
                .split_once(": ")
                .map_or(problem.as_str(), |(_, rest)| rest);
            CheckpointError::Read {
                path: folder.join(file),
                problem: format!("incomplete safetensors file ({problem})"),
            }
        };
        if run.file().config.lora_rank > 0 {
            let adapter = PeftAdapter::read(&folder)
                .map_err(|error| unreadable("adapter_model.safetensors", error.to_string()))?;
            let weights = base
                .merged()?
                .in_precision(run.file().config.base_precision);
            return Ok(Self {
                weights,
                adapter: Some(adapter),
                label,
                ..base
            });
        }
        if base_parameter_count(&folder).is_some() {
            return Ok(Self {
                weights: base.merged()?,
                adapter: None,
                label,
                ..base
            });
        }
        let own = ModelSource::at(&label, &folder);
        let weights = Weights::open(&own)
            .map_err(|error| unreadable("model.safetensors", error.to_string()))?;
        let weights = weights.trained_from(base.merged()?);
        Ok(Self {
            weights,
            adapter: None,
            label,
            ..base
        })
    }

    /// Adds an adapter; an existing one is merged.
    fn with_adapter(self, adapter: PeftAdapter, label: &str) -> Result<Self, StartError> {
        let weights = self.merged()?;
        Ok(Self {
            weights,
            adapter: Some(adapter),
            label: label.to_owned(),
            ..self
        })
    }

    /// Rounds the matrices to the precision of a base.
    #[must_use]
    pub(super) fn in_precision(self, precision: BasePrecision) -> Self {
        Self {
            weights: self.weights.in_precision(precision),
            ..self
        }
    }

    /// The decoder with several adapters, its own first if any; and the rank of each slot.
    ///
    /// # Errors
    /// [`StartError`] for weights or an adapter that do not fit.
    pub(super) fn decoder_with(
        &self,
        others: Vec<PeftAdapter>,
        engine: &Engine,
    ) -> Result<(Decoder, usize), StartError> {
        let all: Vec<PeftAdapter> = self.adapter.iter().cloned().chain(others).collect();
        all.iter()
            .try_for_each(|adapter| adapter.check_fits(&self.config))?;
        let (adapter, slot) = PeftAdapter::side_by_side(&all, &self.config)?;
        Ok((self.built(&self.weights, Some(&adapter), engine)?, slot))
    }

    fn built(
        &self,
        weights: &Weights,
        adapter: Option<&PeftAdapter>,
        engine: &Engine,
    ) -> Result<Decoder, StartError> {
        let (trainable, seed) = (adapter.map_or(Trainable::Frozen, PeftAdapter::trainable), 0);
        let (dtype, device) = (engine.dtype, &engine.device);
        let model = Decoder::new(&self.config, weights, trainable, seed, dtype, device)?;
        if let Some(adapter) = adapter {
            adapter.apply(model.parameters())?;
        }
        Ok(model)
    }

    /// Whether it is neither a run's result nor has an adapter.
    pub fn is_plain(&self) -> bool {
        self.adapter.is_none() && self.label == self.source.name
    }

    pub fn stored_as(&self) -> &Weights {
        &self.stored_as
    }

    pub fn adapter(&self) -> Option<&PeftAdapter> {
        self.adapter.as_ref()
    }

    /// Weights with the adapter merged on demand.
    ///
    /// # Errors
    /// An adapter that does not fit the weights.
    pub fn merged(&self) -> Result<Weights, StartError> {
        let weights = self.weights.clone();
        Ok(match &self.adapter {
            Some(adapter) => adapter.merged_into(weights, &self.config, &self.label)?,
            None => weights,
        })
    }

    /// Weights beside an adapter that stays apart: its own, or the folder `adapter`, with which its
    /// own is merged.
    ///
    /// # Errors
    /// As [`OpenModel::merged`].
    pub fn base_of(&self, adapter: Option<&Path>) -> Result<Weights, StartError> {
        match adapter {
            Some(_) => self.merged(),
            None => Ok(self.weights.clone()),
        }
    }

    /// As [`OpenModel::merged`], with another adapter folder on top.
    ///
    /// # Errors
    /// [`StartError`] for an adapter that is unreadable or does not fit the weights.
    pub fn merged_with(&self, adapter: Option<&Path>) -> Result<Weights, StartError> {
        let weights = self.merged()?;
        Ok(match adapter {
            Some(folder) => PeftAdapter::read(folder)?.merged_into(
                weights,
                &self.config,
                &folder.display().to_string(),
            )?,
            None => weights,
        })
    }

    /// The decoder with unmerged adapters, optionally including an adapter folder.
    ///
    /// # Errors
    /// [`StartError`] for weights or an adapter that do not fit.
    pub fn decoder(&self, adapter: Option<&Path>, engine: &Engine) -> Result<Decoder, StartError> {
        match adapter.map(PeftAdapter::read).transpose()? {
            Some(adapter) => self.built(&self.merged()?, Some(&adapter), engine),
            None => self.built(&self.weights, self.adapter.as_ref(), engine),
        }
    }
}
