//! The model that M names, with everything that it takes to prompt it.

use super::{Located, OpenModel, StartError};
use crate::hub::{ModelConfig, ModelSource};
use crate::kernels::device::Engine;
use crate::model::{Decoder, Weights};
use crate::run::RunFolders;
use crate::text::Tokenizer;

/// A model, its tokenizer, and what tells it from others.
#[derive(Debug)]
pub struct StartModel {
    pub config: ModelConfig,
    /// Its tokenizer and chat template.
    pub tokenizer: Tokenizer,
    /// SHA-256 of the files that it came from.
    pub digest: String,
    /// The source of its configuration and tokenizer.
    pub source: ModelSource,
    model: OpenModel,
}

impl StartModel {
    /// Finds M; runs are looked for in `places`.
    ///
    /// # Errors
    /// [`StartError`] with what was tried and what to do.
    pub fn find(name: &str, places: &RunFolders) -> Result<Self, StartError> {
        Self::of(Located::find(name, places)?, places)
    }

    /// The model at a place that was found.
    ///
    /// # Errors
    /// As [`StartModel::find`].
    pub fn of(located: Located, places: &RunFolders) -> Result<Self, StartError> {
        let digest = located.digest(places)?;
        let model = OpenModel::of(located, places)?;
        let (config, source) = (model.config.clone(), model.source.clone());
        Ok(Self { tokenizer: Tokenizer::load(&source)?, config, digest, source, model })
    }

    /// What a training starts from: whole weights, the result's adapter merged into each as it is asked for.
    ///
    /// # Errors
    /// An adapter that does not fit the weights.
    pub fn weights(&self) -> Result<Weights, StartError> {
        self.model.merged()
    }

    /// The model as it is, to sample from, with its tokenizer; an adapter stays beside the matrices.
    ///
    /// # Errors
    /// Weights or an adapter that do not fit the configuration.
    pub fn into_sampler(self, engine: &Engine) -> Result<(Decoder, Tokenizer), StartError> {
        Ok((self.model.decoder(None, engine)?, self.tokenizer))
    }
}
