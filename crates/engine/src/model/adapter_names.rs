//! A layer's matrices by name, as they are packed, with their shapes; and the adapters beside them under PEFT's names.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::expert_adapters::MODULES;
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
            &[
                "linear_attn.in_proj_qkv",
                "linear_attn.in_proj_z",
                "linear_attn.in_proj_b",
                "linear_attn.in_proj_a",
            ],
            &["linear_attn.out_proj"],
        ],
    }
}

/// As [`mixer_parts`], of a dense feed-forward block.
pub(super) const DENSE_PARTS: [&[&str]; 2] =
    [&["mlp.gate_proj", "mlp.up_proj"], &["mlp.down_proj"]];

/// As [`mixer_parts`], of an expert that every token uses.
pub(super) const SHARED_PARTS: [&[&str]; 3] = [
    &["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"],
    &["mlp.shared_expert.down_proj"],
    &["mlp.shared_expert_gate"],
];

/// The packed matrices of a layer that get adapters. In a model with experts of a feed-forward block at most the expert
/// that every token uses: PEFT reads `gate_proj` elsewhere as the experts that transformers fuses, in dense layers too.
pub(super) fn adapted_parts(
    config: &ModelConfig,
    layer: usize,
) -> impl Iterator<Item = &'static [&'static str]> {
    let feed_forward: &[&[&str]] = match &config.options.experts {
        None => &DENSE_PARTS,
        Some(experts) if experts.shared_size.is_some() => &SHARED_PARTS,
        Some(_) => &[],
    };
    mixer_parts(config, layer)
        .into_iter()
        .chain(feed_forward.iter().copied())
}

/// The modules of a layer's experts, how many each adapts, and [outputs, inputs] of one.
fn expert_modules(
    config: &ModelConfig,
    layer: usize,
) -> impl Iterator<Item = (&'static str, usize, [usize; 2])> {
    let (experts, hidden) = (config.experts(layer), config.hidden_size);
    experts.into_iter().flat_map(move |experts| {
        let shapes = [
            [2 * experts.intermediate_size, hidden],
            [hidden, experts.intermediate_size],
        ];
        MODULES
            .into_iter()
            .zip(shapes)
            .map(|(module, shape)| (module, experts.count, shape))
    })
}

/// PEFT's name of an adapter's tensor: `which` is "A" or "B".
fn peft_name(layer: usize, part: &str, which: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{part}.lora_{which}.weight")
}

const LAYERS: &str = "base_model.model.model.layers.";
const NESTED_LAYERS: &str = "base_model.model.model.language_model.layers.";

/// PEFT's name of an adapter's tensor where the base's text model is part of another.
pub fn nested_name(name: &str) -> String {
    name.strip_prefix(LAYERS)
        .map_or_else(|| name.to_owned(), |rest| format!("{NESTED_LAYERS}{rest}"))
}

/// Every adapter's A and B of a model under PEFT's names, in the order in which they are trained, with their shapes;
/// `has_experts`: those of experts, too, where the model has some.
pub fn adapter_names(
    config: &ModelConfig,
    rank: usize,
    has_experts: bool,
) -> Vec<(String, Vec<usize>)> {
    let mut names = Vec::new();
    for layer in 0..config.num_hidden_layers {
        // The parts of a packed matrix stand side by side.
        for parts in adapted_parts(config, layer) {
            names.extend(parts.iter().map(|part| {
                (
                    peft_name(layer, part, "A"),
                    vec![rank, matrix_shape(config, layer, part)[1]],
                )
            }));
            names.extend(parts.iter().map(|part| {
                (
                    peft_name(layer, part, "B"),
                    vec![matrix_shape(config, layer, part)[0], rank],
                )
            }));
        }
        for (module, count, [outputs, inputs]) in
            expert_modules(config, layer).filter(|_| has_experts)
        {
            names.push((peft_name(layer, module, "A"), vec![count * rank, inputs]));
            names.push((peft_name(layer, module, "B"), vec![outputs, rank * count]));
        }
    }
    names
}

/// Fresh adapters of a model (A uniform, B zero), in f32 on the CPU; the model's own weights are not needed.
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
            uniform_weights_on(device, seed, stream as u32, shape, bound, DType::F32)?
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

/// The A's or B's of a layer's modules as one matrix, and its numbers in the flat buffer.
pub(super) fn adapter_view(
    parameters: &Parameters,
    layer: usize,
    modules: &[&str],
    which: &str,
) -> Result<(Tensor, Range<usize>), ModelError> {
    let names: Vec<String> = modules
        .iter()
        .map(|module| peft_name(layer, module, which))
        .collect();
    parameters
        .view(&names)?
        .ok_or_else(|| ModelError::Weights(format!("no adapters `{names:?}`")))
}

/// [outputs, inputs] of a layer's matrix.
pub(super) fn matrix_shape(config: &ModelConfig, layer: usize, part: &str) -> [usize; 2] {
    let (hidden, input) = (config.hidden_size, config.options.layer_input.unwrap_or(0));
    let delta =
        |of: fn(&hub::GatedDelta) -> usize| config.options.gated_delta.as_ref().map_or(0, of);
    let expert = |of: fn(&hub::Experts) -> usize| config.options.experts.as_ref().map_or(0, of);
    match part {
        "mlp.gate" | "mlp.router" | "router.proj" => [expert(|experts| experts.count), hidden],
        "mlp.shared_expert_gate" => [1, hidden],
        "mlp.shared_expert.down_proj" => {
            [hidden, expert(|experts| experts.shared_size.unwrap_or(0))]
        }
        _ if part.starts_with("mlp.shared_expert.") => {
            [expert(|experts| experts.shared_size.unwrap_or(0)), hidden]
        }
        _ if part.starts_with("mlp.experts.") => {
            let width = expert(|experts| experts.intermediate_size);
            if part.ends_with(".down_proj") {
                [hidden, width]
            } else {
                [width, hidden]
            }
        }
        "self_attn.o_proj" => [hidden, config.query_width(layer)],
        _ if part.starts_with("self_attn.") => {
            let inputs = config.attention_inputs(layer);
            [
                inputs
                    .iter()
                    .find(|(name, _)| *name == part)
                    .map_or(0, |(_, outputs)| *outputs),
                hidden,
            ]
        }
        "linear_attn.in_proj_qkv" => [delta(hub::GatedDelta::convolved), hidden],
        "linear_attn.in_proj_z" => [delta(hub::GatedDelta::values), hidden],
        "linear_attn.in_proj_b" | "linear_attn.in_proj_a" => {
            [delta(|delta| delta.value_heads), hidden]
        }
        "linear_attn.out_proj" => [hidden, delta(hub::GatedDelta::values)],
        "per_layer_input_gate" => [input, hidden],
        "per_layer_projection" => [hidden, input],
        "mlp.down_proj" => [hidden, config.inner_size(layer)],
        _ => [config.inner_size(layer), hidden],
    }
}
