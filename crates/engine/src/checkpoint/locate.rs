//! Locates model M: a model or adapter folder, a Hugging Face name, `tiny`, or the result of a run.

use std::path::Path;

use super::{CheckpointError, PeftAdapter, import_into_cache};
use crate::hub::{HubError, ModelSource, find_model};
use crate::model::ModelError;
use crate::run::{RunDirectory, RunError, RunFolders, RunReference, no_model_or_run};
use crate::text::TextError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Hub(#[from] HubError),
    #[error("{0}")]
    Model(#[from] ModelError),
    #[error("{0}")]
    Text(#[from] TextError),
    #[error("{0}")]
    Run(#[from] RunError),
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "adapter {folder}: its base `{base}` (`base_model_name_or_path` in adapter_config.json) cannot be used: {source}; put the base there, or write its folder or name into adapter_config.json"
    )]
    AdapterBase {
        folder: String,
        base: String,
        source: Box<StartError>,
    },
    #[error(
        "`{name}` {problem}: it cannot be served beside this model; serve it by a server of its own"
    )]
    NotBeside { name: String, problem: &'static str },
    #[error("{0}")]
    Neither(String),
}

/// Location of model M from the command line.
#[derive(Debug)]
pub enum ModelLocation {
    /// A folder, a cached or embedded model.
    Model(ModelSource),
    /// An adapter's folder, which names its base.
    Adapter(ModelSource),
    /// A run's result.
    Run { run: Box<RunDirectory>, step: u64 },
}

impl ModelLocation {
    /// Locates M; runs are searched in `run_folders`. A GGUF file is first imported into the cache.
    ///
    /// # Errors
    /// [`StartError`] with what was tried and the remedy.
    pub fn find(name: &str, run_folders: &RunFolders) -> Result<Self, StartError> {
        import_into_cache(Path::new(name))?;
        let reference = RunReference::parse(name);
        let model_error = match find_model(name) {
            Ok(source) if source.is_adapter() => return Ok(Self::Adapter(source)),
            Ok(source) if !is_run(&source) => return Ok(Self::Model(source)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        match (run_folders.find_checkpoint(&reference), model_error) {
            (Ok((run, step)), _) => Ok(Self::Run {
                run: Box::new(run),
                step,
            }),
            // A path, or a name with `@`, can only be a run; an existing but unusable run was
            // meant.
            (Err(RunError::NotFound { .. }), Some(model)) if !reference.explicit => Err(
                StartError::Neither(no_model_or_run(name, &model, run_folders)),
            ),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// The model from which M's runs and adapters started; M itself if it is a model.
    pub fn origin(name: &str, run_folders: &RunFolders) -> Result<String, StartError> {
        match Self::find(name, run_folders)? {
            Self::Model(_) => Ok(name.to_owned()),
            Self::Adapter(folder) => {
                let adapter = read_adapter(&folder)?;
                adapter_base(&folder, &adapter, run_folders)?;
                Self::origin(adapter.base_name()?, run_folders)
            }
            Self::Run { run, .. } => Self::origin(&run.file().config.base_model, run_folders),
        }
    }

    /// Configuration and tokenizer; for a run or adapter, of the model that it started from, at the
    /// time of the run.
    pub fn source(self, run_folders: &RunFolders) -> Result<ModelSource, StartError> {
        match self {
            Self::Model(source) => Ok(source),
            Self::Adapter(folder) => {
                let base = adapter_base(&folder, &read_adapter(&folder)?, run_folders)?;
                Ok(base.source(run_folders)?.with_tokenizer_of(&folder))
            }
            Self::Run { run, .. } => {
                let base = Self::find(&run.file().config.base_model, run_folders)?;
                Ok(base.source(run_folders)?.at_time(run.file().created_ms))
            }
        }
    }

    /// Digest as in [`StartModel`](super::StartModel).
    ///
    /// # Errors
    /// As [`ModelLocation::find`], and missing or truncated weights.
    pub fn digest(&self, run_folders: &RunFolders) -> Result<String, StartError> {
        match self {
            Self::Model(source) => Ok(source.digest()?),
            Self::Adapter(folder) => adapter_digest(
                &adapter_base(folder, &read_adapter(folder)?, run_folders)?.digest(run_folders)?,
                folder,
            ),
            Self::Run { run, step } => {
                let base =
                    Self::find(&run.file().config.base_model, run_folders)?.digest(run_folders)?;
                Ok(result_digest(&base, run, *step))
            }
        }
    }
}

pub(super) fn read_adapter(folder: &ModelSource) -> Result<PeftAdapter, CheckpointError> {
    PeftAdapter::read(folder.folder().unwrap_or(Path::new(&folder.name)))
}

/// The base named in an adapter's configuration.
pub(super) fn adapter_base(
    folder: &ModelSource,
    adapter: &PeftAdapter,
    run_folders: &RunFolders,
) -> Result<ModelLocation, StartError> {
    let base = adapter.base_name()?;
    let refuse = |source| StartError::AdapterBase {
        folder: folder.name.clone(),
        base: base.to_owned(),
        source: Box::new(source),
    };
    ModelLocation::find(base, run_folders).map_err(refuse)
}

fn adapter_digest(base: &str, folder: &ModelSource) -> Result<String, StartError> {
    let config = folder.read("adapter_config.json")?;
    let weights = folder.read("adapter_model.safetensors")?;
    Ok(crate::run::sha256(
        &[base.as_bytes(), &config, &weights].concat(),
    ))
}

fn result_digest(base: &str, run: &RunDirectory, step: u64) -> String {
    crate::run::sha256(format!("{base} {}@{step}", run.id()).as_bytes())
}

fn is_run(source: &ModelSource) -> bool {
    source
        .folder()
        .is_some_and(|folder| Path::new(folder).join("run.toml").is_file())
}
