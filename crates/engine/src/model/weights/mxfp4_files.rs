//! Experts stored in MXFP4 (e2m1 codes, of which 32 share a power of two), dequantized to bf16, which has each number.

use half::bf16;
use rayon::prelude::*;

/// The parts of a tensor whose numbers are [experts, inputs, outputs].
pub(super) struct Mxfp4Codes<'a> {
    /// [experts, outputs, blocks, 16]: two codes a byte, the first in the low half.
    pub(super) blocks: &'a [u8],
    /// [experts, outputs, blocks]: exponents, 127 more than they are.
    pub(super) scales: &'a [u8],
    pub(super) outputs: usize,
    /// Blocks of an output.
    pub(super) blocks_a_row: usize,
}

/// Numbers of a block.
const BLOCK: usize = 32;
/// By code without its sign.
const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Six times a power of two above it is beyond bf16; 255 is e8m0's NaN.
const MAX_SCALE: u8 = 252;

impl Mxfp4Codes<'_> {
    /// code * 2^(scale - 127), little-endian bf16.
    ///
    /// # Errors
    /// A scale that is too large: its value and place.
    pub(super) fn dequantize(&self) -> Result<Vec<u8>, String> {
        if let Some(at) = self.scales.par_iter().position_first(|&scale| scale > MAX_SCALE) {
            return Err(format!("scale {} at number {at}, supported are 0 to {MAX_SCALE}", self.scales[at]));
        }
        let (outputs, blocks) = (self.outputs, self.blocks_a_row);
        let mut bytes = vec![0; self.scales.len() * BLOCK * 2];
        // The numbers of an expert's block of inputs stand together.
        bytes.par_chunks_exact_mut(2 * BLOCK * outputs).enumerate().for_each(|(index, bytes)| {
            let (expert, block) = (index / blocks, index % blocks);
            for output in 0..outputs {
                let at = (expert * outputs + output) * blocks + block;
                let power = (f64::from(self.scales[at]) - 127.0).exp2() as f32;
                let numbers: [[u8; 2]; 16] =
                    std::array::from_fn(|code| bf16::from_f32(sign(code) * MAGNITUDES[code & 7] * power).to_le_bytes());
                for (pair, codes) in self.blocks[at * 16..][..16].iter().enumerate() {
                    for (half, code) in [codes & 15, codes >> 4].into_iter().enumerate() {
                        let to = 2 * ((2 * pair + half) * outputs + output);
                        bytes[to..to + 2].copy_from_slice(&numbers[usize::from(code)]);
                    }
                }
            }
        });
        Ok(bytes)
    }
}

fn sign(code: usize) -> f32 {
    if code < 8 { 1.0 } else { -1.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use candle_core::safetensors::{load, save};
    use candle_core::{DType, Device, Tensor};

    use crate::hub::ModelSource;
    use crate::model::Weights;

    const DOWN: &str = "model.layers.0.mlp.experts.down_proj";

    /// What transformers made of it is beside it as `expected`.
    fn golden() -> HashMap<String, Tensor> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity/mxfp4.safetensors");
        load(file, &Device::Cpu).unwrap()
    }

    fn open(folder: &std::path::Path, tensors: &HashMap<String, Tensor>) -> Weights {
        let config = r#"{"model_type":"gpt_oss","vocab_size":8,"hidden_size":43,"num_hidden_layers":1,"num_local_experts":2,
            "num_experts_per_tok":1,"intermediate_size":96,"quantization_config":{"quant_method":"mxfp4"}}"#;
        std::fs::write(folder.join("config.json"), config).unwrap();
        save(tensors, folder.join("model.safetensors")).unwrap();
        Weights::open(&ModelSource::at("m", folder)).unwrap()
    }

    #[test]
    fn numbers_are_those_of_transformers_bit_by_bit() {
        let work = tempfile::tempdir().unwrap();
        let weights = open(work.path(), &golden());
        assert_eq!(weights.dtype(DOWN), Some(DType::BF16));
        let bits = |name: &str| -> Vec<u16> {
            let tensor = weights.get(name, &[2, 96, 43], DType::BF16, &Device::Cpu).unwrap();
            let numbers: Vec<half::bf16> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            numbers.into_iter().map(half::bf16::to_bits).collect()
        };
        assert!(bits(DOWN) == bits("expected"));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_tensor_and_value() {
        let (blocks, scales) = (format!("{DOWN}_blocks"), format!("{DOWN}_scales"));
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let above = Tensor::full(253_u8, (2, 43, 3), &Device::Cpu).unwrap();
        for (name, changed, expected) in [
            (&scales, None, format!("`{blocks}` has no `{scales}`; fetch")),
            (&scales, Some(above), format!("`{scales}`: scale 253 at number 0, supported are 0 to 252; fetch")),
            (
                &scales,
                Some(zeros(&[2, 43, 4], DType::U8)),
                format!(
                    "`{blocks}` has shape [2, 43, 3, 16] and `{scales}` [2, 43, 4], MXFP4 requires [experts, outputs, blocks, 16] and [experts, outputs, blocks]; fetch"
                ),
            ),
            (
                &scales,
                Some(zeros(&[2, 43, 3], DType::F32)),
                format!("`{scales}` is stored as F32, MXFP4 requires U8; fetch"),
            ),
            (&blocks, Some(zeros(&[2, 43, 3, 8], DType::U8)), format!("`{blocks}` has shape [2, 43, 3, 8] and")),
        ] {
            let (work, mut tensors) = (tempfile::tempdir().unwrap(), golden());
            tensors.remove(name);
            tensors.extend(changed.map(|tensor| (name.clone(), tensor)));
            let weights = open(work.path(), &tensors);
            let message = weights.get(DOWN, &[2, 96, 43], DType::BF16, &Device::Cpu).unwrap_err().to_string();
            let expected = format!("{}: {expected}", work.path().join("model.safetensors").display());
            assert!(message.starts_with(&expected), "{message:?} instead of {expected:?}");
        }
    }

    /// As transformers writes a mixture that it made: a tensor for each matrix of each expert.
    #[test]
    fn separate_experts_are_read_as_fused_ones() {
        let work = tempfile::tempdir().unwrap();
        let config = r#"{"model_type":"qwen3_5_moe_text","vocab_size":8,"hidden_size":3,"num_hidden_layers":1,"num_experts":2,
            "num_experts_per_tok":1,"moe_intermediate_size":2}"#;
        std::fs::write(work.path().join("config.json"), config).unwrap();
        let ramp = |start: f32| Tensor::arange(start, start + 6.0, &Device::Cpu).unwrap();
        let matrix = |index: usize, part: &str, start: f32, shape: (usize, usize)| {
            (format!("model.layers.0.mlp.experts.{index}.{part}_proj.weight"), ramp(start).reshape(shape).unwrap())
        };
        let whole = vec![
            matrix(0, "gate", 0.0, (2, 3)),
            matrix(0, "up", 6.0, (2, 3)),
            matrix(0, "down", 12.0, (3, 2)),
            matrix(1, "gate", 18.0, (2, 3)),
            matrix(1, "up", 24.0, (2, 3)),
            matrix(1, "down", 30.0, (3, 2)),
        ];
        let open = |tensors: Vec<(String, Tensor)>| {
            save(&tensors.into_iter().collect(), work.path().join("model.safetensors")).unwrap();
            Weights::open(&ModelSource::at("m", work.path())).unwrap()
        };
        let get = |weights: &Weights, part: &str, shape: [usize; 3]| {
            let tensor = weights.get(&format!("model.layers.0.mlp.experts.{part}"), &shape, DType::F32, &Device::Cpu);
            tensor
                .map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .map_err(|error| error.to_string())
        };
        let numbers = |starts: &[u16]| -> Vec<f32> {
            starts.iter().flat_map(|&start| (0..6).map(move |i| f32::from(start + i))).collect()
        };
        let weights = open(whole.clone());
        assert_eq!(get(&weights, "gate_up_proj", [2, 4, 3]).unwrap(), numbers(&[0, 6, 18, 24]));
        assert_eq!(get(&weights, "down_proj", [2, 3, 2]).unwrap(), numbers(&[12, 30]));
        let few = open(whole[..3].to_vec());
        assert!(
            get(&few, "down_proj", [2, 3, 2])
                .unwrap_err()
                .contains("has shape [1, 3, 2], config.json requires [2, 3, 2]")
        );
        let without_up = open([&whole[..1], &whole[2..]].concat());
        assert!(
            get(&without_up, "gate_up_proj", [2, 4, 3])
                .unwrap_err()
                .contains("no tensor `model.layers.0.mlp.experts.0.up_proj.weight`")
        );
    }
}
