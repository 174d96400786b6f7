//! The start model of a training, before its weights are loaded.

use super::{ModelLocation, OpenModel, StartError};
use crate::run::RunFolders;
use crate::text::Tokenizer;

#[derive(Debug)]
pub struct StartModel {
    pub model: OpenModel,
    /// Tokenizer with its chat template.
    pub tokenizer: Tokenizer,
    /// SHA-256 of its files.
    pub digest: String,
}

impl StartModel {
    /// Finds M; runs are searched in `run_folders`.
    ///
    /// # Errors
    /// [`StartError`] with what was tried and the remedy.
    pub fn find(name: &str, run_folders: &RunFolders) -> Result<Self, StartError> {
        let located = ModelLocation::find(name, run_folders)?;
        let digest = located.digest(run_folders)?;
        let model = OpenModel::from_location(located, run_folders)?;
        Ok(Self {
            tokenizer: Tokenizer::load(&model.source)?,
            digest,
            model,
        })
    }
}
