//! Random weights, each tensor sampled when it is requested.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};

use super::names::tensor_names;
use crate::hub::{ExpertTensors, ModelConfig};
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
    /// Logarithms of numbers between 0.01 and 16.
    Decay,
}

impl RandomInit {
    pub(super) fn new(config: &ModelConfig, seed: u64) -> Self {
        let residual = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
        let experts = config.options.experts.as_ref();
        let is_transposed =
            experts.is_some_and(|experts| experts.tensors == ExpertTensors::FusedTransposed);
        let divides_by_norm =
            config.options.has_head_norms && config.options.query_scalar == Some(1.0);
        let draw = |(stream, (name, shape)): (usize, (String, Vec<usize>))| {
            let deviation = match (shape.as_slice(), name.as_str()) {
                ([_], _) => None,
                (_, name) if name.ends_with("_proj_bias") => None,
                ([_, inputs, _], name) if is_transposed && name.contains("mlp.experts") => {
                    let share = if name.ends_with("down_proj") {
                        residual
                    } else {
                        1.0
                    };
                    Some(share / (*inputs as f64).sqrt())
                }
                (_, name) if name.contains("embed_tokens") || name.contains("lm_head") => {
                    Some(0.02)
                }
                ([.., inputs], name)
                    if ["o_proj", "out_proj", "down_proj"]
                        .iter()
                        .any(|part| name.contains(part)) =>
                {
                    Some(residual / (*inputs as f64).sqrt())
                }
                (shape, _) => Some(1.0 / (shape[shape.len() - 1] as f64).sqrt()),
            };
            let constant = match name.as_str() {
                name if [".bias", "_proj_bias", ".sinks"]
                    .iter()
                    .any(|end| name.ends_with(end)) =>
                {
                    0.0
                }
                // Not offset: the norm of the gated delta rule, and the bias of its time step.
                name if name.contains("linear_attn") => 1.0,
                // Where norms have in them what scores are divided by elsewhere.
                name if divides_by_norm && name.ends_with("q_norm.weight") => {
                    1.0 / (shape[0] as f64).sqrt()
                }
                _ => 1.0 - config.options.norm_offset,
            };
            let numbers = match deviation {
                _ if name.ends_with(".A_log") => Numbers::Decay,
                Some(deviation) => Numbers::Uniform {
                    bound: deviation * 3.0_f64.sqrt(),
                },
                None => Numbers::Constant(constant),
            };
            (
                name,
                Draw {
                    stream: stream as u32,
                    shape,
                    numbers,
                },
            )
        };
        Self {
            seed,
            tensors: tensor_names(config)
                .into_iter()
                .enumerate()
                .map(draw)
                .collect(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|draw| draw.shape.clone())
    }

    pub(super) fn get(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(Draw {
            stream,
            shape,
            numbers,
        }) = self.tensors.get(name)
        else {
            candle_core::bail!("no tensor `{name}`")
        };
        match numbers {
            Numbers::Constant(value) => {
                Tensor::full(*value as f32, shape.as_slice(), device)?.to_dtype(dtype)
            }
            Numbers::Uniform { bound } => {
                uniform_weights_on(device, self.seed, *stream, shape.as_slice(), *bound, dtype)
            }
            Numbers::Decay => {
                let (middle, bound) = (f64::midpoint(0.01, 16.0), (16.0 - 0.01) / 2.0);
                let uniform = uniform_weights_on(
                    device,
                    self.seed,
                    *stream,
                    shape.as_slice(),
                    bound,
                    DType::F32,
                )?;
                uniform.affine(1.0, middle)?.log()?.to_dtype(dtype)
            }
        }
    }
}
