//! Who answers for a model: the worker of the live run that it is being trained in, else a sample worker whose folder
//! both sides can derive from the model.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::hub::find_model;
use crate::run::directory::{RunDirectory, sha256};
use crate::run::durable::{ensure_folder, replace_file};
use crate::run::error::RunError;
use crate::run::folder::{private_folder, user_id};
use crate::run::liveness::Liveness;
use crate::run::lookup::{At, RunFolders, RunReference, resolve_checkpoint};

/// The newest format of `sampler.json` that this program reads and the one it writes.
const VERSION: u64 = 1;

/// `sampler.json`: what a sample worker loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerFile {
    /// The format.
    pub version: u64,
    /// Always `sample`.
    pub job: String,
    /// M in a form that means the same from every folder: an absolute path, PATH@STEP of a run, a Hugging Face name,
    /// `tiny`.
    pub model: String,
}

/// Who answers for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleBackend {
    /// The worker of a live run, between its steps, with the weights that it has then.
    Run(PathBuf),
    /// A sample worker, there or still to be started.
    Worker {
        /// Its folder: `RUN/samplers/step-000050`, or one in the user's cache. `state.json` there says how it fares.
        folder: PathBuf,
        model: String,
    },
}

impl SampleBackend {
    /// Find out. RUN and RUN@last of a run that is being computed mean its worker; everything else a sample worker.
    ///
    /// # Errors
    /// [`RunError::Model`] where `model` is neither a model nor a run; [`RunError`] where the run has no such
    /// checkpoint.
    pub fn of(model: &str, places: &RunFolders) -> Result<Self, RunError> {
        // The order in which a command line looks: a model's folder or name, then a run.
        let found = find_model(model);
        let refused = match found {
            Ok(source) if !source.folder().is_some_and(|folder| folder.join("run.toml").is_file()) => {
                let name =
                    source.folder().map_or_else(|| model.to_owned(), |folder| absolute(folder).display().to_string());
                // Other files under the same name are another model; those of an adapter's folder have no digest of
                // their own.
                let digest = source.digest().unwrap_or_default();
                return Ok(Self::Worker { folder: in_cache(&format!("{name} {digest}"))?, model: name });
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let reference = RunReference::parse(model);
        match (places.find(&reference.run), refused) {
            (Ok(run), _) => Self::of_run(&run, &reference),
            (Err(RunError::NotFound { .. }), Some(error)) if !reference.explicit => {
                Err(RunError::Model { name: model.to_owned(), message: error.to_string() })
            }
            (Err(error), _) => Err(error),
        }
    }

    fn of_run(run: &RunDirectory, reference: &RunReference) -> Result<Self, RunError> {
        let current = !reference.explicit || reference.at == At::Last;
        if current && Liveness::of(run.path()).may_live() {
            return Ok(Self::Run(run.path().to_owned()));
        }
        let step = resolve_checkpoint(run, reference.at)?;
        let model = format!("{}@{step}", run.path().display());
        let own = run.path().join("samplers");
        // In a run of another user, or one that others may change, nothing of ours is safe.
        let folder = match run.check_private().and_then(|()| private_folder(&own).map(drop)) {
            Ok(()) => own.join(format!("step-{step:06}")),
            Err(_) => in_cache(&model)?,
        };
        Ok(Self::Worker { folder, model })
    }

    /// The folder whose `state.json` tells how whoever answers fares, see [`crate::run::State::observe`].
    pub fn folder(&self) -> &Path {
        match self {
            Self::Run(folder) | Self::Worker { folder, .. } => folder,
        }
    }
}

impl SamplerFile {
    /// Make a worker's folder and say in it what to load.
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

    /// Read what to load.
    ///
    /// # Errors
    /// [`RunError`] naming the file; [`RunError::Newer`] of a newer program.
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

/// The folder in the user's cache for a model that belongs to no run.
fn in_cache(key: &str) -> Result<PathBuf, RunError> {
    let cache = directories::ProjectDirs::from("", "", "grpo-tui").map(|folders| folders.cache_dir().join("samplers"));
    let cache = cache.unwrap_or_else(|| std::env::temp_dir().join(format!("grpo-tui-{}", user_id())).join("samplers"));
    Ok(cache.join(&sha256(key.as_bytes())[..12]))
}

fn absolute(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
