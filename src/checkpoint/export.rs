//! Weights under the names that other programs know: a Hugging Face folder, or PEFT's adapter files.

use std::path::Path;

use candle_core::Tensor;

use super::CheckpointError;
use super::atomic::{NewFolder, write_folder_anywhere as write_folder};
use crate::hub::{ModelConfig, ModelSource};
use crate::model::{Parameters, Weights};
use crate::text::TokenizerFiles;

/// Writes a whole model as a folder that this program and transformers load. The folder must not exist.
pub fn write_model(
    folder: &Path,
    config: &ModelConfig,
    parameters: &Parameters,
    tokenizer: &TokenizerFiles,
    stop_ids: &[u32],
) -> Result<(), CheckpointError> {
    let weights = serialise(parameters.named()?)?;
    write_folder(folder, |new| {
        new.file("config.json", config.to_json(stop_ids).as_bytes())?;
        new.file("tokenizer.json", tokenizer.tokenizer_json.as_bytes())?;
        new.file("tokenizer_config.json", tokenizer.tokenizer_config_json.as_bytes())?;
        new.file("model.safetensors", &weights)
    })
}

/// The files beside the weights that a model's folder may hold; they are copied as they are.
const COMPANIONS: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// Writes a model with its adapters merged as a folder of its own: `tensors` from [`crate::model::Decoder::merged`], in the element types of `base` so that it
/// stays as large as it was, and every other file of `source` as it is. The folder must not exist.
pub fn export_merged(folder: &Path, source: &ModelSource, base: &Weights, tensors: Vec<(String, Tensor)>) -> Result<(), CheckpointError> {
    let cast = |(name, tensor): (String, Tensor)| {
        let number_type = base.number_type(&name).unwrap_or(tensor.dtype());
        Ok((name, tensor.to_dtype(number_type)?))
    };
    let weights = serialise(tensors.into_iter().map(cast).collect::<Result<_, CheckpointError>>()?)?;
    write_folder(folder, |new| {
        for file in COMPANIONS.into_iter().filter(|file| source.exists(file)) {
            new.file(file, &source.read(file)?)?;
        }
        new.file("model.safetensors", &weights)
    })
}

/// Writes adapters alone as a folder that PEFT loads. The folder must not exist.
pub fn export_adapter(folder: &Path, parameters: &Parameters, base_model: &str, rank: usize, alpha: f64) -> Result<(), CheckpointError> {
    write_folder(folder, |new| write_adapter(new, parameters, base_model, rank, alpha))
}

/// Adds `adapter_model.safetensors` and `adapter_config.json` as PEFT writes them.
pub(super) fn write_adapter(
    new: &NewFolder,
    parameters: &Parameters,
    base_model: &str,
    rank: usize,
    alpha: f64,
) -> Result<(), CheckpointError> {
    let config = serde_json::json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "use_rslora": false,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    });
    new.file("adapter_config.json", format!("{config:#}\n").as_bytes())?;
    new.file("adapter_model.safetensors", &serialise(parameters.named()?)?)
}

/// Tensors as the bytes of a safetensors file; the same tensors give the same bytes.
pub(super) fn serialise(tensors: Vec<(String, Tensor)>) -> Result<Vec<u8>, CheckpointError> {
    let metadata = Some(std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]));
    let tensors =
        tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.contiguous()?))).collect::<Result<Vec<_>, candle_core::Error>>()?;
    safetensors::serialize(tensors.iter().map(|(name, tensor)| (name, tensor)), metadata)
        .map_err(|error| CheckpointError::Tensor(candle_core::Error::wrap(error)))
}
