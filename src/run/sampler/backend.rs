//! The worker that samples from a model: that of the active run that trains it, else a sample worker, whose folder both
//! sides derive from the model.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::hub::find_model;
use crate::run::directory::{RunDirectory, sha256};
use crate::run::durable::{ensure_folder, replace_file};
use crate::run::error::RunError;
use crate::run::folder::{private_folder, user_id};
use crate::run::liveness::Liveness;
use crate::run::lookup::{At, RunFolders, RunReference, resolve_checkpoint};

/// The newest format of `sampler.json` that this program reads, and the one it writes.
const VERSION: u64 = 1;

/// `sampler.json`: what a sample worker loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerFile {
    pub version: u64,
    /// Always `sample`.
    pub job: String,
    /// In a form that is valid in every folder: an absolute path, PATH@STEP of a run, a Hugging Face name, `tiny`.
    pub model: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleBackend {
    /// The worker of an active run, between steps, with its current weights.
    Run(PathBuf),
    /// A sample worker, which may have to be started.
    Worker {
        /// `RUN/samplers/step-000050`, or a folder in the user's cache, with its `state.json`.
        folder: PathBuf,
        model: String,
    },
}

impl SampleBackend {
    /// Resolves `model`: RUN and RUN@last of an active run mean its worker; everything else a sample worker.
    ///
    /// # Errors
    /// [`RunError::Model`] if it is neither a model nor a run; [`RunError`] if the run has no such checkpoint.
    pub fn of(model: &str, run_folders: &RunFolders) -> Result<Self, RunError> {
        // In the order of the command line: a model's folder or name, then a run.
        let found = find_model(model);
        let refused = match found {
            Ok(source) if !source.folder().is_some_and(|folder| folder.join("run.toml").is_file()) => {
                let name =
                    source.folder().map_or_else(|| model.to_owned(), |folder| absolute(folder).display().to_string());
                // Other files under the same name are another model; an adapter's folder has no digest.
                let digest = source.digest().unwrap_or_default();
                return Ok(Self::Worker { folder: in_cache(&format!("{name} {digest}"))?, model: name });
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let reference = RunReference::parse(model);
        match (run_folders.find(&reference.run), refused) {
            (Ok(run), _) => Self::of_run(&run, &reference),
            (Err(RunError::NotFound { .. }), Some(error)) if !reference.explicit => {
                Err(RunError::Model { name: model.to_owned(), message: error.to_string() })
            }
            (Err(error), _) => Err(error),
        }
    }

    fn of_run(run: &RunDirectory, reference: &RunReference) -> Result<Self, RunError> {
        let current = !reference.explicit || reference.at == At::Last;
        if current && Liveness::for_run(run.path()).may_live() {
            return Ok(Self::Run(run.path().to_owned()));
        }
        let step = resolve_checkpoint(run, reference.at)?;
        let model = format!("{}@{step}", run.path().display());
        let own = run.path().join("samplers");
        // Nothing is written into a run that others may change.
        let folder = match run.check_private().and_then(|()| private_folder(&own).map(drop)) {
            Ok(()) => own.join(format!("step-{step:06}")),
            Err(_) => in_cache(&model)?,
        };
        Ok(Self::Worker { folder, model })
    }

    /// The folder with its `state.json`, see [`crate::run::State::observe`].
    pub fn folder(&self) -> &Path {
        match self {
            Self::Run(folder) | Self::Worker { folder, .. } => folder,
        }
    }
}

impl SamplerFile {
    pub(super) fn write(folder: &Path, model: &str) -> Result<(), RunError> {
        if let Some(parent) = folder.parent() {
            ensure_folder(parent)?;
        }
        private_folder(folder)?;
        let path = folder.join("sampler.json");
        let file = Self { version: VERSION, job: "sample".to_owned(), model: model.to_owned() };
        let malformed = |error: serde_json::Error| RunError::Malformed {
            path: path.clone(),
            line: None,
            message: error.to_string(),
        };
        replace_file(&path, &serde_json::to_vec_pretty(&file).map_err(malformed)?)
    }

    /// Reads `sampler.json`.
    ///
    /// # Errors
    /// [`RunError`] naming the file; [`RunError::Newer`].
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join("sampler.json");
        let bytes = crate::files::read(&path).map_err(RunError::io("read", &path))?;
        let malformed = |error: serde_json::Error| RunError::Malformed {
            path: path.clone(),
            line: None,
            message: error.to_string(),
        };
        let file: Self = serde_json::from_slice(&bytes).map_err(malformed)?;
        if file.version > VERSION {
            return Err(RunError::Newer { path, found: file.version, known: VERSION });
        }
        Ok(file)
    }
}

/// The folder in the user's cache for a model without a run.
fn in_cache(key: &str) -> Result<PathBuf, RunError> {
    let cache = directories::ProjectDirs::from("", "", "grpo-tui").map(|folders| folders.cache_dir().join("samplers"));
    let cache = cache.unwrap_or_else(|| std::env::temp_dir().join(format!("grpo-tui-{}", user_id())).join("samplers"));
    Ok(cache.join(&sha256(key.as_bytes())[..12]))
}

fn absolute(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
