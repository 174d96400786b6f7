//! M, and perhaps an adapter's folder, as weights and a decoder. A model without a tokenizer will do.

use std::path::Path;

use candle_core::{DType, Device};

use crate::checkpoint::{PeftAdapter, StartModel};
use crate::cli::Failure;
use crate::hub::{ModelConfig, ModelSource, find_model};
use crate::model::{Decoder, Trainable, Weights};
use crate::run::RunPlaces;

/// A model's files and tensors.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: ModelConfig,
    pub(super) weights: Weights,
    /// Where its configuration and tokenizer lie.
    pub(super) source: ModelSource,
}

/// The model `name`: a folder, a Hugging Face name, `tiny`, or the result of a run.
pub(super) fn load(name: &str) -> Result<Loaded, Failure> {
    match find_model(name) {
        Ok(source) if !is_run(&source) => Ok(Loaded { config: source.config()?, weights: Weights::load(&source, &Device::Cpu)?, source }),
        _ => {
            let places = RunPlaces::discover(None, &std::env::current_dir()?);
            let StartModel { config, weights, source, .. } = StartModel::find(name, &places)?;
            Ok(Loaded { config, weights, source })
        }
    }
}

impl Loaded {
    /// The decoder in f32 on the CPU, the adapter of a folder on it, if one is named.
    pub(super) fn decoder(&self, adapter: Option<&Path>) -> Result<Decoder, Failure> {
        let adapter = adapter.map(PeftAdapter::read).transpose()?;
        let trainable = adapter.as_ref().map_or(Trainable::Frozen, PeftAdapter::trainable);
        let model = Decoder::new(&self.config, &self.weights, trainable, 0, DType::F32, &Device::Cpu)?;
        if let Some(adapter) = adapter {
            adapter.apply(model.parameters())?;
        }
        Ok(model)
    }
}

fn is_run(source: &ModelSource) -> bool {
    source.folder().is_some_and(|folder| folder.join("run.toml").is_file())
}
