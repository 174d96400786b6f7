//! Random weights, sampled on demand per tensor.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use crate::hub::{ExpertTensors, Kind, ModelConfig, ModelTensor, Role};
use crate::kernels::mxfp4::{self, Mxfp4Stack, StoredMxfp4};
use crate::kernels::philox::{philox, uniform_weights_on};
use crate::kernels::upload::Uploader;

/// Distribution of initial values.
#[derive(Debug)]
pub(super) struct RandomInit {
    seed: u64,
    tensors: HashMap<String, Draw>,
    uploader: Uploader,
}

#[derive(Debug)]
struct Draw {
    /// Random stream: index in the model's tensor order.
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
    /// Random codes of experts, all with this scale.
    Mxfp4 {
        scale: u8,
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
        let draw = |(stream, tensor): (usize, ModelTensor)| {
            let ModelTensor {
                name, shape, spec, ..
            } = tensor;
            let uniform = |deviation: f64| Numbers::Uniform {
                bound: deviation * 3.0_f64.sqrt(),
            };
            let numbers = match (spec.kind, spec.role) {
                (Kind::Decay, _) => Numbers::Decay,
                (Kind::Bias | Kind::Zeros, _) => Numbers::Constant(0.0),
                (Kind::Ones, _) => Numbers::Constant(1.0),
                // If query norms contain the divisor of the scores.
                (Kind::Norm, Role::QueryNorm) if divides_by_norm => {
                    Numbers::Constant(1.0 / (shape[0] as f64).sqrt())
                }
                (Kind::Norm, _) => Numbers::Constant(1.0 - config.options.norm_offset),
                (Kind::Embedding, _) => uniform(0.02),
                (Kind::Matrix, role) => {
                    let feeds_stream = matches!(
                        role,
                        Role::MixerOutput | Role::Down | Role::ExpertDown | Role::SharedDown
                    );
                    let is_of_experts = matches!(role, Role::ExpertGateUp | Role::ExpertDown);
                    let inputs = shape[if is_transposed && is_of_experts {
                        1
                    } else {
                        shape.len() - 1
                    }];
                    let share = if feeds_stream { residual } else { 1.0 };
                    let deviation = share / (inputs as f64).sqrt();
                    let is_mxfp4 = experts.is_some_and(|experts| experts.is_mxfp4);
                    if is_mxfp4 && is_of_experts && inputs.is_multiple_of(mxfp4::BLOCK) {
                        Numbers::Mxfp4 {
                            scale: mxfp4::scale(deviation),
                        }
                    } else {
                        uniform(deviation)
                    }
                }
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
            tensors: config.tensors().into_iter().enumerate().map(draw).collect(),
            uploader: Uploader::default(),
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
                uniform_weights_on(device, self.seed, *stream, shape, *bound, dtype)
            }
            Numbers::Mxfp4 { scale } => {
                let numbers = self.codes(*stream, shape, *scale).dequantize();
                let numbers = numbers.map_err(candle_core::Error::msg)?;
                Tensor::from_raw_buffer(&numbers, DType::BF16, shape, device)?.to_dtype(dtype)
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

    /// Experts as a GPU has them in MXFP4; `None` in another form.
    pub(super) fn mxfp4(&self, name: &str, device: &Device) -> Result<Option<Mxfp4Stack>> {
        match self.tensors.get(name) {
            Some(Draw {
                stream,
                shape,
                numbers: Numbers::Mxfp4 { scale },
            }) => {
                let codes = self.codes(*stream, shape, *scale);
                Mxfp4Stack::new(&codes, &self.uploader, device)
            }
            _ => Ok(None),
        }
    }

    /// `shape`: [experts, inputs, outputs].
    fn codes(&self, stream: u32, shape: &[usize], scale: u8) -> StoredMxfp4<'static> {
        let count = shape.iter().product::<usize>() / mxfp4::BLOCK;
        let mut blocks = vec![0; 16 * count];
        blocks
            .par_chunks_exact_mut(16)
            .enumerate()
            .for_each(|(index, block)| {
                let words = philox(self.seed, [stream, u32::MAX, u32::MAX, index as u32]);
                for (bytes, word) in block.chunks_exact_mut(4).zip(words) {
                    bytes.copy_from_slice(&word.to_le_bytes());
                }
            });
        StoredMxfp4 {
            blocks: blocks.into(),
            scales: vec![scale; count].into(),
            outputs: shape[2],
            blocks_a_row: shape[1] / mxfp4::BLOCK,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn experts_of_a_checkpoint_in_mxfp4_have_its_numbers_and_about_the_same_deviation() {
        let config = |changes: &str| {
            let json = format!(
                r#"{{"model_type":"gpt_oss","vocab_size":8,"hidden_size":64,"num_hidden_layers":1,"num_local_experts":4,"intermediate_size":32{changes}}}"#
            );
            ModelConfig::parse(&json, "config.json").unwrap()
        };
        let name = "model.layers.0.mlp.experts.gate_up_proj";
        let read = |changes: &str| {
            let fresh = RandomInit::new(&config(changes), 3);
            let numbers = fresh.get(name, DType::F32, &Device::Cpu).unwrap();
            let numbers = numbers.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let is_mxfp4 = fresh.mxfp4(name, &Device::Cpu).unwrap().is_some();
            let square: f32 = numbers.iter().map(|x| x * x).sum();
            let deviation = (square / numbers.len() as f32).sqrt();
            (numbers, is_mxfp4, deviation)
        };
        let (_, is_mxfp4, expected) = read("");
        assert!(!is_mxfp4);
        let (numbers, is_mxfp4, deviation) =
            read(r#","quantization_config":{"quant_method":"mxfp4"}"#);
        assert!(is_mxfp4);
        assert!(
            (0.7..1.42).contains(&(deviation / expected)),
            "{deviation} {expected}"
        );
        let mut kinds: Vec<u32> = numbers.iter().map(|x| x.abs().to_bits()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), 8);
    }
}
