//! A model to look at or to write out: its weights, and perhaps an adapter's folder beside them. It needs no tokenizer.

use std::path::Path;

use candle_core::{DType, Device};

use super::start::is_run;
use super::{PeftAdapter, StartError, StartModel};
use crate::hub::{ModelConfig, ModelSource, find_model};
use crate::model::{Decoder, Trainable, Weights};
use crate::run::RunPlaces;

/// A model's files and tensors.
#[derive(Debug)]
pub struct OpenModel {
    /// Its configuration.
    pub config: ModelConfig,
    /// Its tensors, in the element types of their files.
    pub weights: Weights,
    /// Where its configuration and tokenizer lie.
    pub source: ModelSource,
}

impl OpenModel {
    /// The model `name`: a folder, a Hugging Face name, `tiny`, the result of a run, or an adapter's folder that names its base.
    ///
    /// # Errors
    /// [`StartError`] with what was tried and what to do.
    pub fn find(name: &str, places: &RunPlaces) -> Result<Self, StartError> {
        match find_model(name) {
            Ok(source) if !is_run(&source) && !PeftAdapter::stands_in(&source) => {
                Ok(Self { config: source.config()?, weights: Weights::load(&source, &Device::Cpu)?, source })
            }
            _ => {
                let StartModel { config, weights, source, .. } = StartModel::find(name, places)?;
                Ok(Self { config, weights, source })
            }
        }
    }

    /// The decoder in f32 on the CPU, the adapter of a folder on it, if one is named.
    ///
    /// # Errors
    /// [`StartError`] for weights that do not fit the configuration, and for an adapter that does not fit the weights.
    pub fn decoder(&self, adapter: Option<&Path>) -> Result<Decoder, StartError> {
        let adapter = adapter.map(PeftAdapter::read).transpose()?;
        let trainable = adapter.as_ref().map_or(Trainable::Frozen, PeftAdapter::trainable);
        let model = Decoder::new(&self.config, &self.weights, trainable, 0, DType::F32, &Device::Cpu)?;
        if let Some(adapter) = adapter {
            adapter.apply(model.parameters())?;
        }
        Ok(model)
    }
}
