//! PEFT's names of adapters.

use candle_core::{DType, Device, Tensor};

use super::expert_adapters::MODULES;
use super::{ModelError, Parameters};
use crate::hub::{ModelConfig, TensorSpec};
use crate::kernels::philox::uniform_weights_on;

/// PEFT's tensor name: `which` is "A" or "B".
pub(crate) fn peft_name(layer: usize, part: &str, which: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{part}.lora_{which}.weight")
}

const LAYERS: &str = "base_model.model.model.layers.";
const NESTED_LAYERS: &str = "base_model.model.model.language_model.layers.";

/// PEFT's tensor name if the base's text model is nested.
pub fn nested_name(name: &str) -> String {
    name.strip_prefix(LAYERS)
        .map_or_else(|| name.to_owned(), |rest| format!("{NESTED_LAYERS}{rest}"))
}

/// Names and shapes of all A and B in training order; `has_experts`: including experts', if any.
pub fn adapter_names(
    config: &ModelConfig,
    rank: usize,
    has_experts: bool,
) -> Vec<(String, Vec<usize>)> {
    let mut names = Vec::new();
    for layer in 0..config.num_hidden_layers {
        // Parts of a packed matrix are adjacent.
        let adapted = config.adapted_matrices(layer);
        for packed in adapted.chunk_by(|one, next| one.role == next.role) {
            let name = |spec: &TensorSpec, which| peft_name(layer, spec.module(), which);
            let a = |spec| (name(spec, "A"), vec![rank, spec.shape()[1]]);
            let b = |spec| (name(spec, "B"), vec![spec.shape()[0], rank]);
            names.extend(packed.iter().map(a).chain(packed.iter().map(b)));
        }
        if let Some(experts) = config.experts(layer).filter(|_| has_experts) {
            let all = experts.count * rank;
            let shapes = experts.adapter_shapes(config.hidden_size);
            for (module, [outputs, inputs]) in MODULES.into_iter().zip(shapes) {
                names.push((peft_name(layer, module, "A"), vec![all, inputs]));
                names.push((peft_name(layer, module, "B"), vec![outputs, all]));
            }
        }
    }
    names
}

/// Initial adapters (A uniform, B zero), f32 on the CPU; needs no model weights.
pub fn fresh_adapters(
    config: &ModelConfig,
    rank: usize,
    has_experts: bool,
) -> Result<Parameters, ModelError> {
    Ok(Parameters::new(
        adapter_tensors(config, (rank, has_experts), 0, &Device::Cpu)?,
        DType::F32,
        &Device::Cpu,
    )?)
}

pub(super) fn adapter_tensors(
    config: &ModelConfig,
    (rank, has_experts): (usize, bool),
    seed: u64,
    device: &Device,
) -> Result<Vec<(String, Tensor)>, ModelError> {
    let fresh = |(stream, (name, shape)): (usize, (String, Vec<usize>))| {
        let tensor = if name.contains(".lora_A.") {
            let bound = 1.0 / (shape[1] as f64).sqrt();
            uniform_weights_on(device, seed, stream as u32, &shape, bound, DType::F32)?
        } else {
            Tensor::zeros(shape, DType::F32, device)?
        };
        Ok((name, tensor))
    };
    adapter_names(config, rank, has_experts)
        .into_iter()
        .enumerate()
        .map(fresh)
        .collect()
}
