//! A located model with its tokenizer.

use super::{ModelLocation, OpenModel, StartError};
use crate::hub::{ModelConfig, ModelSource};
use crate::kernels::device::Engine;
use crate::model::{Decoder, Weights};
use crate::run::RunFolders;
use crate::text::Tokenizer;

/// The start model of a training, before its weights are loaded.
#[derive(Debug)]
pub struct StartModel {
    pub config: ModelConfig,
    /// Tokenizer with its chat template.
    pub tokenizer: Tokenizer,
    /// SHA-256 of its files.
    pub digest: String,
    /// Configuration and tokenizer.
    pub source: ModelSource,
    model: OpenModel,
}

impl StartModel {
    /// Finds M; runs are searched in `run_folders`.
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
        let digest = located.digest(run_folders)?;
        let model = OpenModel::from_location(located, run_folders)?;
        let (config, source) = (model.config.clone(), model.source.clone());
        Ok(Self {
            tokenizer: Tokenizer::load(&source)?,
            config,
            digest,
            source,
            model,
        })
    }

    /// Weights for a training, with the adapter merged on demand.
    ///
    /// # Errors
    /// An adapter that does not fit the weights.
    pub fn weights(&self) -> Result<Weights, StartError> {
        self.model.merged()
    }

    /// The model with unmerged adapters, and its tokenizer, for sampling.
    ///
    /// # Errors
    /// Weights or an adapter that do not fit the configuration.
    pub fn into_sampler(self, engine: &Engine) -> Result<(Decoder, Tokenizer), StartError> {
        Ok((self.model.decoder(None, engine)?, self.tokenizer))
    }
}
