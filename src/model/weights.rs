//! A checkpoint's tensors under their Hugging Face names, checked as they are taken.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::ModelError;
use crate::hub::{ModelConfig, ModelSource};
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

    /// Fresh weights: norms 1, matrices uniform with standard deviation `0.02` (embedding) or `1 / sqrt(inputs)`, shrunk by depth where they feed the
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
            let numbers = deviation.map_or_else(|| vec![1.0; count], |d| uniform_weights(seed, stream as u32, count, d * 3.0_f64.sqrt()));
            tensors.insert(name, Tensor::from_vec(numbers, shape, device)?.to_dtype(DType::F32)?);
        }
        Ok(Self { tensors, source: "fresh weights".to_owned() })
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
        let parts: [(&str, Vec<usize>); 11] = [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![query, hidden]),
            ("self_attn.k_proj", vec![key, hidden]),
            ("self_attn.v_proj", vec![key, hidden]),
            ("self_attn.q_norm", vec![config.head_dim]),
            ("self_attn.k_norm", vec![config.head_dim]),
            ("self_attn.o_proj", vec![hidden, query]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
        ];
        names.extend(parts.into_iter().map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape)));
    }
    names.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        names.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    names
}
