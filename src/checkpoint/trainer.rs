//! A trainer's state as a checkpoint folder: the weights for everyone, the moments and counters for an exact resume.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::CheckpointError;
use super::atomic::write_folder;
use super::export::{serialise, write_adapter};
use crate::model::{Parameters, Trainable};
use crate::run::fault;
use crate::update::Optimizer;

/// `trainer.json`: with the tensors beside it, everything that the next step depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Format of this folder.
    pub version: u32,
    /// Optimizer steps done, skipped ones included.
    pub step: u64,
    /// AdamW updates applied.
    pub updates: u64,
    /// Training prompts taken from the data order so far.
    pub prompts_taken: u64,
    /// Steps in a row whose gradient was not finite.
    pub skipped_in_a_row: u64,
    /// Seconds of training so far, for the time limit.
    pub seconds: f64,
    /// Evals in a row without a better valid rate.
    pub evals_without_gain: u64,
    /// Digest of the configuration that the state belongs to.
    pub config_digest: String,
}

/// The newest format that this program reads.
const VERSION: u32 = 1;

impl TrainerState {
    /// Before the first step.
    pub fn start(config_digest: String) -> Self {
        Self {
            version: VERSION,
            step: 0,
            updates: 0,
            prompts_taken: 0,
            skipped_in_a_row: 0,
            seconds: 0.0,
            evals_without_gain: 0,
            config_digest,
        }
    }
}

/// Writes a checkpoint; returns its size in bytes once it is durable. An older one of the same name, left by a step that is being redone, is replaced.
pub fn save(
    folder: &Path,
    parameters: &Parameters,
    optimizer: &Optimizer,
    state: &TrainerState,
    trainable: Trainable,
    base_model: &str,
) -> Result<u64, CheckpointError> {
    if folder.exists() {
        remove(folder)?;
    }
    write_folder(folder, |new| {
        match trainable {
            Trainable::Lora { rank, alpha } => write_adapter(new, parameters, base_model, rank, alpha)?,
            Trainable::Full | Trainable::Frozen => new.file("model.safetensors", &serialise(parameters.named()?)?)?,
        }
        new.file("optimizer.safetensors", &serialise(vec![("moments".to_owned(), optimizer.moments().clone())])?)?;
        let json = serde_json::to_string_pretty(state).map_err(candle_core::Error::wrap)?;
        new.file("trainer.json", format!("{json}\n").as_bytes())
    })?;
    size(folder)
}

/// Removes a checkpoint. `trainer.json` goes first: without it a half-removed folder is no checkpoint.
pub fn remove(folder: &Path) -> Result<(), CheckpointError> {
    let failed = |source| CheckpointError::Write { path: folder.to_owned(), source };
    match std::fs::remove_file(folder.join("trainer.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => {
            fault("checkpoint.unmarked", "");
            std::fs::remove_dir_all(folder).map_err(failed)
        }
    }
}

/// Puts the checkpoint's weights into `parameters` and returns the moments and the state.
pub fn load(folder: &Path, parameters: &Parameters) -> Result<(Tensor, TrainerState), CheckpointError> {
    let path = folder.join("trainer.json");
    let unreadable = |path: &Path, problem: String| CheckpointError::Read { path: path.to_owned(), problem };
    let text = crate::files::read_text(&path).map_err(|error| unreadable(&path, error.to_string()))?;
    let state: TrainerState = serde_json::from_str(&text).map_err(|error| unreadable(&path, format!("damaged ({error})")))?;
    if state.version > VERSION {
        return Err(unreadable(&path, format!("it has format {}, this program reads up to {VERSION}", state.version)));
    }
    load_parameters(folder, parameters)?;
    let path = folder.join("optimizer.safetensors");
    let moments = tensors(&path)?.remove("moments").ok_or_else(|| unreadable(&path, "no tensor `moments`".to_owned()))?;
    if moments.elem_count() != 2 * parameters.count() {
        let problem = format!("{} moments for {} trained numbers", moments.elem_count(), parameters.count());
        return Err(unreadable(&path, problem));
    }
    Ok((moments.to_device(parameters.flat().device())?, state))
}

/// Puts the checkpoint's weights into `parameters`, which must have the same tensors.
pub fn load_parameters(folder: &Path, parameters: &Parameters) -> Result<(), CheckpointError> {
    let path = weights_path(folder);
    let mut found = tensors(&path)?;
    let mut pieces = Vec::with_capacity(parameters.slots().len());
    for slot in parameters.slots() {
        let tensor = found.remove(&slot.name).filter(|tensor| tensor.dims() == slot.shape.as_slice());
        let Some(tensor) = tensor else {
            let problem = format!("no tensor `{}` of shape {:?}", slot.name, slot.shape);
            return Err(CheckpointError::Read { path, problem });
        };
        pieces.push(tensor.flatten_all()?);
    }
    Ok(parameters.restore(&Tensor::cat(&pieces, 0)?)?)
}

fn weights_path(folder: &Path) -> std::path::PathBuf {
    let adapter = folder.join("adapter_model.safetensors");
    if adapter.exists() { adapter } else { folder.join("model.safetensors") }
}

fn tensors(path: &Path) -> Result<std::collections::HashMap<String, Tensor>, CheckpointError> {
    let unreadable = |problem: String| CheckpointError::Read { path: path.to_owned(), problem };
    let bytes = crate::files::read_at_most(path, u64::MAX).map_err(|error| unreadable(error.to_string()))?;
    candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|error| unreadable(format!("not a whole safetensors file ({error})")))
}

/// Bytes of all files of a checkpoint.
///
/// # Errors
/// [`CheckpointError::Write`] naming the folder where it cannot be read.
pub fn size(folder: &Path) -> Result<u64, CheckpointError> {
    let failed = |source| CheckpointError::Write { path: folder.to_owned(), source };
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        bytes += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
    }
    Ok(bytes)
}
