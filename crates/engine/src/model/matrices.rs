//! A layer's matrices by name: which are packed together, their shapes, and the names of their adapters.

use candle_core::{DType, Device, Tensor};

use super::{ModelError, Parameters};
use crate::hub::{self, KeysValues, ModelConfig};
use crate::kernels::philox::uniform_weights_on;

/// The matrices of a layer's mixer, packed together as the layer packs them: its input, and its output.
pub(super) fn mixer_parts(config: &ModelConfig, layer: usize) -> [&'static [&'static str]; 2] {
    match config.mixer(layer) {
        hub::Mixer::Attention(_) => {
            let inputs: &[&str] = match config.keys_values(layer) {
                KeysValues::Own => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                KeysValues::AreKeys => &["self_attn.q_proj", "self_attn.k_proj"],
                KeysValues::OfLayer(_) => &["self_attn.q_proj"],
            };
            [inputs, &["self_attn.o_proj"]]
        }
        hub::Mixer::GatedDelta(_) => [
            &["linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.in_proj_b", "linear_attn.in_proj_a"],
            &["linear_attn.out_proj"],
        ],
    }
}

/// As [`mixer_parts`], of a dense feed-forward block.
pub(super) const DENSE_PARTS: [&[&str]; 2] = [&["mlp.gate_proj", "mlp.up_proj"], &["mlp.down_proj"]];

/// As [`mixer_parts`], of an expert that every token uses.
pub(super) const SHARED_PARTS: [&[&str]; 3] = [
    &["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"],
    &["mlp.shared_expert.down_proj"],
    &["mlp.shared_expert_gate"],
];

/// The packed matrices of a layer that get adapters. In a model with experts of a feed-forward block at most the expert
/// that every token uses: PEFT reads `gate_proj` elsewhere as the experts that transformers fuses, in dense layers too.
pub(super) fn adapted_parts(config: &ModelConfig, layer: usize) -> impl Iterator<Item = &'static [&'static str]> {
    let feed_forward: &[&[&str]] = match &config.options.experts {
        None => &DENSE_PARTS,
        Some(experts) if experts.shared_size.is_some() => &SHARED_PARTS,
        Some(_) => &[],
    };
    mixer_parts(config, layer).into_iter().chain(feed_forward.iter().copied())
}

/// PEFT's name of an adapter's tensor: `which` is "A" or "B".
pub(super) fn peft_name(layer: usize, part: &str, which: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{part}.lora_{which}.weight")
}

/// Every adapter's A and B of a model under PEFT's names, in the order in which they are trained, with their shapes.
pub fn adapter_names(config: &ModelConfig, rank: usize) -> Vec<(String, Vec<usize>)> {
    let mut names = Vec::new();
    for layer in 0..config.num_hidden_layers {
        // The parts of a packed matrix stand side by side.
        for parts in adapted_parts(config, layer) {
            names.extend(
                parts
                    .iter()
                    .map(|part| (peft_name(layer, part, "A"), vec![rank, matrix_shape(config, layer, part)[1]])),
            );
            names.extend(
                parts
                    .iter()
                    .map(|part| (peft_name(layer, part, "B"), vec![matrix_shape(config, layer, part)[0], rank])),
            );
        }
    }
    names
}

/// Fresh adapters of a model (A uniform, B zero), in f32 on the CPU; the model's own weights are not needed.
pub fn fresh_adapters(config: &ModelConfig, rank: usize) -> Result<Parameters, ModelError> {
    Ok(Parameters::new(adapter_tensors(config, rank, 0, &Device::Cpu)?, DType::F32, &Device::Cpu)?)
}

pub(super) fn adapter_tensors(
    config: &ModelConfig,
    rank: usize,
    seed: u64,
    device: &Device,
) -> Result<Vec<(String, Tensor)>, ModelError> {
    let fresh = |(stream, (name, shape)): (usize, (String, Vec<usize>))| {
        let tensor = if name.contains(".lora_A.") {
            let bound = 1.0 / (shape[1] as f64).sqrt();
            uniform_weights_on(device, seed, stream as u32, shape, bound, DType::F32)?
        } else {
            Tensor::zeros(shape, DType::F32, device)?
        };
        Ok((name, tensor))
    };
    adapter_names(config, rank).into_iter().enumerate().map(fresh).collect()
}

/// [outputs, inputs] of a layer's matrix.
pub(super) fn matrix_shape(config: &ModelConfig, layer: usize, part: &str) -> [usize; 2] {
    let (hidden, input) = (config.hidden_size, config.options.layer_input.unwrap_or(0));
    let delta = |of: fn(&hub::GatedDelta) -> usize| config.options.gated_delta.as_ref().map_or(0, of);
    let expert = |of: fn(&hub::Experts) -> usize| config.options.experts.as_ref().map_or(0, of);
    match part {
        "mlp.gate" | "mlp.router" | "router.proj" => [expert(|experts| experts.count), hidden],
        "mlp.shared_expert_gate" => [1, hidden],
        "mlp.shared_expert.down_proj" => [hidden, expert(|experts| experts.shared_size.unwrap_or(0))],
        _ if part.starts_with("mlp.shared_expert.") => [expert(|experts| experts.shared_size.unwrap_or(0)), hidden],
        _ if part.starts_with("mlp.experts.") => {
            let width = expert(|experts| experts.intermediate_size);
            if part.ends_with(".down_proj") { [hidden, width] } else { [width, hidden] }
        }
        "self_attn.o_proj" => [hidden, config.query_width(layer)],
        _ if part.starts_with("self_attn.") => {
            let inputs = config.attention_inputs(layer);
            [inputs.iter().find(|(name, _)| *name == part).map_or(0, |(_, outputs)| *outputs), hidden]
        }
        "linear_attn.in_proj_qkv" => [delta(hub::GatedDelta::convolved), hidden],
        "linear_attn.in_proj_z" => [delta(hub::GatedDelta::values), hidden],
        "linear_attn.in_proj_b" | "linear_attn.in_proj_a" => [delta(|delta| delta.value_heads), hidden],
        "linear_attn.out_proj" => [hidden, delta(hub::GatedDelta::values)],
        "per_layer_input_gate" => [input, hidden],
        "per_layer_projection" => [hidden, input],
        "mlp.down_proj" => [hidden, config.inner_size(layer)],
        _ => [config.inner_size(layer), hidden],
    }
}
