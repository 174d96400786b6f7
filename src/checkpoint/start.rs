//! The model that M names: a folder, a Hugging Face name, `tiny`, or the result of a run.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::trainer::read_tensors;
use super::{CheckpointError, PeftAdapter};
use crate::hub::{HubError, ModelConfig, ModelSource, find_model};
use crate::model::{Decoder, ModelError, Trainable, Weights};
use crate::run::{RunDirectory, RunError, RunPlaces, RunReference, checkpoint_path};
use crate::text::{TextError, Tokenizer};

/// Why M cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The model's files.
    #[error("{0}")]
    Hub(#[from] HubError),
    /// The model's tensors.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// The tokenizer.
    #[error("{0}")]
    Text(#[from] TextError),
    /// The run.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The run's checkpoint.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// Neither a model nor a run.
    #[error("`{name}` is neither a model ({model}) nor a run ({run})")]
    Neither {
        /// What was asked for.
        name: String,
        /// Why it is no model.
        model: HubError,
        /// Why it is no run.
        run: RunError,
    },
}

/// A model with everything that it takes to prompt it.
#[derive(Debug)]
pub struct StartModel {
    /// Its configuration.
    pub config: ModelConfig,
    /// Its tokenizer and chat template.
    pub tokenizer: Tokenizer,
    /// Its weights; a run's adapters are merged into them, in f32.
    pub weights: Weights,
    /// SHA-256 of the files that it came from.
    pub digest: String,
    /// The source of its configuration and tokenizer.
    pub source: ModelSource,
}

impl StartModel {
    /// Finds M; runs are looked for in `places`.
    ///
    /// # Errors
    /// [`StartError`] with what was tried and what to do.
    pub fn find(name: &str, places: &RunPlaces) -> Result<Self, StartError> {
        let reference = RunReference::parse(name);
        let model_error = match find_model(name) {
            Ok(source) if PeftAdapter::stands_in(&source) => return Self::of_adapter(&source, places),
            Ok(source) if !is_run(&source) => return Self::read(source),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        match (places.find_checkpoint(&reference), model_error) {
            (Ok((run, step)), _) => Self::of_run(&run, step, places),
            (Err(run), Some(model)) if !reference.explicit => Err(StartError::Neither { name: name.to_owned(), model, run }),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// The result of a run at a checkpoint.
    pub fn of_run(run: &RunDirectory, step: u64, places: &RunPlaces) -> Result<Self, StartError> {
        let config = &run.file().config;
        let mut start = Self::find(&config.base_model, places)?;
        let folder = checkpoint_path(run.path(), step);
        let tensors = read_tensors(&folder)?;
        let named: Vec<(String, Tensor)> = if config.lora_rank == 0 {
            tensors.into_iter().collect()
        } else {
            let lora = Trainable::Lora { rank: config.lora_rank, alpha: config.lora_alpha };
            let model = Decoder::new(&start.config, &start.weights, lora, 0, DType::F32, &Device::Cpu)?;
            super::load_parameters(&folder, model.parameters())?;
            model.merged().map_err(ModelError::from)?
        };
        start.digest = crate::run::sha256(format!("{} {}@{step}", start.digest, run.id()).as_bytes());
        start.weights = Weights::from_tensors(named, &format!("{}@{step}", run.id()));
        Ok(start)
    }

    /// The model that an adapter's folder names as its base, with the adapter merged into it.
    fn of_adapter(folder: &ModelSource, places: &RunPlaces) -> Result<Self, StartError> {
        let adapter = PeftAdapter::read(folder.folder().unwrap_or(Path::new(&folder.name)))?;
        let mut start = Self::find(adapter.base_name()?, places)?;
        let model = Decoder::new(&start.config, &start.weights, adapter.trainable(), 0, DType::F32, &Device::Cpu)?;
        adapter.apply(model.parameters())?;
        let mut bytes = start.digest.into_bytes();
        bytes.extend_from_slice(&folder.read("adapter_config.json")?);
        bytes.extend_from_slice(&folder.read("adapter_model.safetensors")?);
        start.digest = crate::run::sha256(&bytes);
        start.weights = Weights::from_tensors(model.merged().map_err(ModelError::from)?, &folder.name);
        Ok(start)
    }

    fn read(source: ModelSource) -> Result<Self, StartError> {
        Ok(Self {
            config: source.config()?,
            tokenizer: Tokenizer::load(&source)?,
            weights: Weights::load(&source, &Device::Cpu)?,
            digest: source.digest()?,
            source,
        })
    }
}

pub(super) fn is_run(source: &ModelSource) -> bool {
    source.folder().is_some_and(|folder| Path::new(folder).join("run.toml").is_file())
}
