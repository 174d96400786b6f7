//! Random weights, each tensor sampled when it is requested.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};

use super::tensor_names;
use crate::hub::ModelConfig;
use crate::kernels::philox::uniform_weights_on;

/// The distribution of each tensor's initial values.
#[derive(Debug)]
pub(super) struct RandomInit {
    seed: u64,
    tensors: HashMap<String, Draw>,
}

#[derive(Debug)]
struct Draw {
    /// Its stream of random numbers: its position in the order of the model.
    stream: u32,
    shape: Vec<usize>,
    numbers: Numbers,
}

#[derive(Debug)]
enum Numbers {
    /// All the same.
    Constant(f64),
    Uniform {
        bound: f64,
    },
}

impl RandomInit {
    pub(super) fn new(config: &ModelConfig, seed: u64) -> Self {
        let residual = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
        let draw = |(stream, (name, shape)): (usize, (String, Vec<usize>))| {
            let deviation = match (shape.as_slice(), name.as_str()) {
                ([_], _) => None,
                (_, name) if name.contains("embed_tokens") || name.contains("lm_head") => Some(0.02),
                ([_, inputs], name) if name.contains("o_proj") || name.contains("down_proj") => {
                    Some(residual / (*inputs as f64).sqrt())
                }
                (shape, _) => Some(1.0 / (shape[shape.len() - 1] as f64).sqrt()),
            };
            let constant = if name.ends_with(".bias") { 0.0 } else { 1.0 - config.options.norm_offset };
            let numbers =
                deviation.map_or(Numbers::Constant(constant), |d| Numbers::Uniform { bound: d * 3.0_f64.sqrt() });
            (name, Draw { stream: stream as u32, shape, numbers })
        };
        Self { seed, tensors: tensor_names(config).into_iter().enumerate().map(draw).collect() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|draw| draw.shape.clone())
    }

    pub(super) fn get(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(Draw { stream, shape, numbers }) = self.tensors.get(name) else {
            candle_core::bail!("no tensor `{name}`")
        };
        match numbers {
            Numbers::Constant(value) => Tensor::full(*value as f32, shape.as_slice(), device)?.to_dtype(dtype),
            Numbers::Uniform { bound } => {
                uniform_weights_on(device, self.seed, *stream, shape.as_slice(), *bound, dtype)
            }
        }
    }
}
