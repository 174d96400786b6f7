//! A checkpoint's tensors under their Hugging Face names, checked as they are taken.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::ModelError;
use crate::hub::{Architecture, AttentionBias, ModelConfig, ModelSource};
use crate::kernels::philox::uniform_weights;

/// Named tensors, in memory.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    tensors: HashMap<String, Tensor>,
    /// Where they come from, for messages.
    source: String,
}

impl Weights {
    /// Reads every weight file of the model.
    pub fn load(source: &ModelSource, device: &Device) -> Result<Self, ModelError> {
        let mut tensors = HashMap::new();
        for file in source.weight_files()? {
            let bytes = source.read(&file)?;
            let loaded = candle_core::safetensors::load_buffer(&bytes, device)
                .map_err(|error| ModelError::Weights(format!("{}/{file}: {error}; fetch the file again", source.name)))?;
            tensors.extend(loaded);
        }
        Ok(Self { tensors, source: source.name.clone() })
    }

    /// Tensors that are already in memory.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>, source: &str) -> Self {
        Self { tensors: tensors.into_iter().collect(), source: source.to_owned() }
    }

    /// Fresh weights: norms 1, biases 0, matrices uniform with standard deviation `0.02` (embedding) or `1 / sqrt(inputs)`, shrunk by depth where they feed the
    /// residual stream (as GPT-2 does). A function of the configuration and the seed.
    pub fn fresh(config: &ModelConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        let residual = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
        let mut tensors = HashMap::new();
        for (stream, (name, shape)) in tensor_names(config).into_iter().enumerate() {
            let count = shape.iter().product();
            let deviation = match (shape.as_slice(), name.as_str()) {
                ([_], _) => None,
                (_, name) if name.contains("embed_tokens") || name.contains("lm_head") => Some(0.02),
                ([_, inputs], name) if name.contains("o_proj") || name.contains("down_proj") => Some(residual / (*inputs as f64).sqrt()),
                (shape, _) => Some(1.0 / (shape[shape.len() - 1] as f64).sqrt()),
            };
            let constant = if name.ends_with(".bias") { 0.0 } else { 1.0 };
            let numbers =
                deviation.map_or_else(|| vec![constant; count], |d| uniform_weights(seed, stream as u32, count, d * 3.0_f64.sqrt()));
            tensors.insert(name, Tensor::from_vec(numbers, shape, device)?.to_dtype(DType::F32)?);
        }
        Ok(Self { tensors, source: "fresh weights".to_owned() })
    }

    /// The element type in which `name` is stored; None when there is no such tensor.
    pub fn number_type(&self, name: &str) -> Option<DType> {
        self.tensors.get(name).map(Tensor::dtype)
    }

    /// The tensor `name`, which must have `shape`, in `number_type` on `device`.
    pub fn get(&self, name: &str, shape: &[usize], number_type: DType, device: &Device) -> Result<Tensor, ModelError> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            ModelError::Weights(format!("{}: no tensor `{name}`; the checkpoint is incomplete or of another architecture", self.source))
        })?;
        if tensor.dims() != shape {
            let found = tensor.dims();
            return Err(ModelError::Weights(format!("{}: `{name}` has shape {found:?}, config.json asks for {shape:?}", self.source)));
        }
        Ok(tensor.to_device(device)?.to_dtype(number_type)?.contiguous()?)
    }
}

/// Every tensor that a model of this configuration has, in the order in which they are trained, with its shape.
pub fn tensor_names(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (query, key) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
    let mut names = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden])];
    for layer in 0..config.num_hidden_layers {
        let place = |part: &str, shape: Vec<usize>| (format!("model.layers.{layer}.{part}"), shape);
        names.push(place("input_layernorm.weight", vec![hidden]));
        let packed = [("self_attn.q_proj", query), ("self_attn.k_proj", key), ("self_attn.v_proj", key)];
        names.extend(packed.map(|(part, outputs)| place(&format!("{part}.weight"), vec![outputs, hidden])));
        // What the layer packs together stands side by side: first the matrices, then their biases.
        let biased = packed.into_iter().filter(|(part, _)| has_bias(config, part));
        names.extend(biased.map(|(part, outputs)| place(&format!("{part}.bias"), vec![outputs])));
        if config.architecture == Architecture::Qwen3 {
            names.extend(["self_attn.q_norm.weight", "self_attn.k_norm.weight"].map(|part| place(part, vec![config.head_dim])));
        }
        names.push(place("self_attn.o_proj.weight", vec![hidden, query]));
        if has_bias(config, "self_attn.o_proj") {
            names.push(place("self_attn.o_proj.bias", vec![hidden]));
        }
        names.push(place("post_attention_layernorm.weight", vec![hidden]));
        names.push(place("mlp.gate_proj.weight", vec![inner, hidden]));
        names.push(place("mlp.up_proj.weight", vec![inner, hidden]));
        names.push(place("mlp.down_proj.weight", vec![hidden, inner]));
    }
    names.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        names.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    names
}

/// Whether a layer's matrix, such as `self_attn.q_proj`, adds a bias.
pub(super) fn has_bias(config: &ModelConfig, part: &str) -> bool {
    match config.attention_bias {
        AttentionBias::Absent => false,
        AttentionBias::QueryKeyValue => matches!(part, "self_attn.q_proj" | "self_attn.k_proj" | "self_attn.v_proj"),
        AttentionBias::All => part.starts_with("self_attn."),
    }
}
