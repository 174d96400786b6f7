//! Exports weights for other programs: a Hugging Face folder, or PEFT adapter files.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::CheckpointError;
use super::new_folder::{self, NewFolder, failed, write_file};
use super::tensor_file::{ElementSource, StreamedTensor, TensorHeader, write_slots, write_tensors};
use crate::hub::{ModelSource, ModelTensor, find_model};
use crate::model::{
    Decoder, ParameterSlot, Parameters, TARGET_PARAMETERS, Weights, is_of_experts, nested_name,
};
use crate::text::{TokenizerFiles, exported_files};

/// Writes a model as a new folder for this program and transformers.
pub fn write_model(
    folder: &Path,
    model: &Decoder,
    dtype: DType,
    tokenizer: &TokenizerFiles,
    stop_ids: &[u32],
) -> Result<(), CheckpointError> {
    write_folder(folder, |new| {
        let (config, parameters) = (model.config(), model.parameters());
        let fixed = model.untrained();
        let torch_dtype = if dtype == DType::BF16 {
            "bfloat16"
        } else {
            "float32"
        };
        write_file(
            new,
            "config.json",
            config.to_json(torch_dtype, stop_ids).as_bytes(),
        )?;
        write_file(new, "tokenizer.json", tokenizer.tokenizer_json.as_bytes())?;
        write_file(
            new,
            "tokenizer_config.json",
            tokenizer.tokenizer_config_json.as_bytes(),
        )?;
        let described = |slot: &ParameterSlot| TensorHeader::new(&slot.name, dtype, &slot.shape);
        let not_trained = fixed
            .iter()
            .map(|(name, tensor)| TensorHeader::new(name, dtype, tensor.dims()));
        let tensors: Vec<TensorHeader> = parameters
            .slots()
            .iter()
            .map(described)
            .chain(not_trained)
            .collect();
        write_tensors(new, "model.safetensors", &tensors, |at, write| {
            let Some(slot) = parameters.slots().get(at) else {
                return write(&safetensors::View::data(
                    &fixed[at - parameters.slots().len()].1.to_dtype(dtype)?,
                ));
            };
            let range = slot.range();
            // Copied first: of a view, a GPU would copy the whole storage to the host.
            let numbers = parameters
                .flat()
                .narrow(0, range.start, range.len())?
                .force_contiguous()?
                .to_dtype(dtype)?;
            write(&safetensors::View::data(&numbers))
        })
    })
}

/// Maximum weight file size, as in transformers.
const SHARD_BYTES: usize = 5_000_000_000;

/// Writes `weights`, with adapters merged, as a new model folder: each tensor in its element type
/// in `base`, beside [`exported_files`]. `card`: contents of README.md. Holds one tensor at a time.
pub fn export_merged(
    folder: &Path,
    source: &ModelSource,
    base: &Weights,
    weights: &Weights,
    card: &str,
) -> Result<(), CheckpointError> {
    let described = |ModelTensor { name, shape, .. }: ModelTensor| {
        let dtype = base
            .dtype(&name)
            .or_else(|| weights.dtype(&name))
            .unwrap_or(DType::F32);
        TensorHeader { name, dtype, shape }
    };
    let tensors = source.config()?.tensors().into_iter().map(described);
    let tensors: Vec<TensorHeader> = tensors.collect();
    write_folder(folder, |new| {
        let files = exported_files(source)
            .map_err(|error| CheckpointError::foreign(&source.name, error.to_string()))?;
        for (file, bytes) in &files {
            write_file(new, file, bytes)?;
        }
        write_file(new, "README.md", card.as_bytes())?;
        write_shards(new, tensors, SHARD_BYTES, |tensor| {
            Ok(weights.get(&tensor.name, &tensor.shape, tensor.dtype, &Device::Cpu)?)
        })
    })
}

/// Writes `model.safetensors`, or numbered shards of at most `most_bytes` (tensors are not split)
/// with their index.
fn write_shards(
    new: &NewFolder<'_>,
    tensors: Vec<TensorHeader>,
    most_bytes: usize,
    get: impl Fn(&TensorHeader) -> Result<Tensor, CheckpointError>,
) -> Result<(), CheckpointError> {
    let (mut shards, mut size, total): (Vec<Vec<TensorHeader>>, usize, usize) = (
        vec![Vec::new()],
        0,
        tensors.iter().map(TensorHeader::bytes).sum(),
    );
    for tensor in tensors {
        if size > 0 && size + tensor.bytes() > most_bytes {
            shards.push(Vec::new());
            size = 0;
        }
        size += tensor.bytes();
        shards
            .last_mut()
            .into_iter()
            .for_each(|shard| shard.push(tensor.clone()));
    }
    let mut places = serde_json::Map::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        places.extend(
            shard
                .iter()
                .map(|tensor| (tensor.name.clone(), file.clone().into())),
        );
        write_tensors(new, &file, shard, |at, write| {
            // Contiguous, so that only this part is copied.
            write(&safetensors::View::data(&get(&shard[at])?))
        })?;
    }
    if shards.len() == 1 {
        return Ok(());
    }
    let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": places});
    write_file(
        new,
        "model.safetensors.index.json",
        format!("{index:#}\n").as_bytes(),
    )
}

/// An adapter to be exported.
#[derive(Debug)]
pub struct ExportedAdapter {
    pub parameters: Parameters,
    pub base_model: String,
    pub rank: usize,
    pub alpha: f64,
}

impl ExportedAdapter {
    pub fn new(parameters: &Parameters, base_model: &str, rank: usize, alpha: f64) -> Self {
        Self {
            parameters: parameters.clone(),
            base_model: base_model.to_owned(),
            rank,
            alpha,
        }
    }
}

/// Writes an adapter as a new folder for PEFT, with the texts `beside` it, by file.
pub fn export_adapter(
    folder: &Path,
    adapter: &ExportedAdapter,
    beside: &[(&str, String)],
) -> Result<(), CheckpointError> {
    let flat = adapter.parameters.flat();
    write_folder(folder, |new| {
        for (file, text) in beside {
            write_file(new, file, text.as_bytes())?;
        }
        write_adapter(
            new,
            adapter.parameters.slots(),
            flat.dtype(),
            &mut StreamedTensor::new(flat),
            (&adapter.base_model, adapter.rank, adapter.alpha),
        )
    })
}

/// Writes a folder, creating missing parents.
pub(super) fn write_folder(
    target: &Path,
    fill: impl FnOnce(&NewFolder<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    target.parent().map_or(Ok(()), |parent| {
        std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))
    })?;
    new_folder::write_folder(target, fill)
}

/// Adds `adapter_model.safetensors` and `adapter_config.json` in PEFT's format, with the base's
/// module names: `model.language_model.layers…` if transformers loads it as a vision model.
pub(super) fn write_adapter(
    new: &NewFolder<'_>,
    slots: &[ParameterSlot],
    dtype: DType,
    numbers: &mut dyn ElementSource,
    (base_model, rank, alpha): (&str, usize, f64),
) -> Result<(), CheckpointError> {
    let (of_experts, others): (Vec<_>, Vec<_>) =
        slots.iter().partition(|slot| is_of_experts(&slot.name));
    // `…layers.0.self_attn.q_proj.lora_A.weight` -> `q_proj`.
    let mut targets: Vec<&str> = others
        .iter()
        .filter_map(|slot| slot.name.rsplit('.').nth(2))
        .collect();
    let mut seen = std::collections::HashSet::new();
    targets.retain(|target| seen.insert(*target));
    let is_nested = find_model(base_model).is_ok_and(|base| base.has_nested_text_model());
    // The vision part has modules of the same names.
    let target_modules = match is_nested {
        true => serde_json::json!(format!(
            "(?:.*\\.)?language_model\\..*\\.(?:{})",
            targets.join("|")
        )),
        false => serde_json::json!(targets),
    };
    let names = slots.iter().map(|slot| ParameterSlot {
        name: match is_nested {
            true => nested_name(&slot.name),
            false => slot.name.clone(),
        },
        ..slot.clone()
    });
    let named: Vec<ParameterSlot> = names.collect();
    let mut config = serde_json::json!({
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
        "target_modules": target_modules,
    });
    // Older versions of PEFT do not know the key.
    if !of_experts.is_empty() {
        config["target_parameters"] = serde_json::json!(TARGET_PARAMETERS);
    }
    write_file(
        new,
        "adapter_config.json",
        format!("{config:#}\n").as_bytes(),
    )?;
    write_slots(new, "adapter_model.safetensors", &named, dtype, numbers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_one_file_is_split_with_an_index() {
        let work = tempfile::tempdir().unwrap();
        let tensors: Vec<TensorHeader> = ["a", "b", "c", "d"]
            .map(|name| TensorHeader {
                name: name.to_owned(),
                dtype: DType::F32,
                shape: vec![2],
            })
            .into();
        let folder = work.path().join("out");
        let get = |tensor: &TensorHeader| {
            Ok(Tensor::new(
                &[tensor.name.as_bytes()[0] as f32, 1.0],
                &Device::Cpu,
            )?)
        };
        write_folder(&folder, |new| write_shards(new, tensors, 20, get)).unwrap();
        let index: serde_json::Value = serde_json::from_slice(
            &std::fs::read(folder.join("model.safetensors.index.json")).unwrap(),
        )
        .unwrap();
        let expected = serde_json::json!({
            "a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors", "d": "model-00002-of-00002.safetensors",
        });
        assert_eq!(
            (&index["weight_map"], &index["metadata"]["total_size"]),
            (&expected, &serde_json::json!(32))
        );
        let weights = Weights::open(&ModelSource::at("split", &folder)).unwrap();
        assert_eq!(
            weights
                .get("d", &[2], DType::F32, &Device::Cpu)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap(),
            [100.0, 1.0]
        );
    }
}
