//! Dequantizes MXFP4 experts (e2m1 codes, 32 per power-of-two scale) to bf16, exactly.

use half::bf16;
use rayon::prelude::*;

/// Parts of a tensor that is dequantized to [experts, inputs, outputs].
pub(super) struct Mxfp4Codes<'a> {
    /// [experts, outputs, blocks, 16]: two codes per byte, first in the low half.
    pub(super) blocks: &'a [u8],
    /// [experts, outputs, blocks]: exponents + 127.
    pub(super) scales: &'a [u8],
    pub(super) outputs: usize,
    /// Blocks per output.
    pub(super) blocks_a_row: usize,
}

/// Elements per block.
const BLOCK: usize = 32;
/// Values by code without sign.
const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Six times a greater power of two exceeds bf16; 255 is e8m0's NaN.
const MAX_SCALE: u8 = 252;

impl Mxfp4Codes<'_> {
    /// code * 2^(scale - 127), little-endian bf16.
    ///
    /// # Errors
    /// A scale that is too large: its value and place.
    pub(super) fn dequantize(&self) -> Result<Vec<u8>, String> {
        if let Some(at) = self
            .scales
            .par_iter()
            .position_first(|&scale| scale > MAX_SCALE)
        {
            return Err(format!(
                "scale {} at number {at}, supported are 0 to {MAX_SCALE}",
                self.scales[at]
            ));
        }
        let (outputs, blocks) = (self.outputs, self.blocks_a_row);
        let mut bytes = vec![0; self.scales.len() * BLOCK * 2];
        // An expert's block of inputs is contiguous.
        bytes
            .par_chunks_exact_mut(2 * BLOCK * outputs)
            .enumerate()
            .for_each(|(index, bytes)| {
                let (expert, block) = (index / blocks, index % blocks);
                for output in 0..outputs {
                    let at = (expert * outputs + output) * blocks + block;
                    let power = (f64::from(self.scales[at]) - 127.0).exp2() as f32;
                    let numbers: [[u8; 2]; 16] = std::array::from_fn(|code| {
                        bf16::from_f32(sign(code) * MAGNITUDES[code & 7] * power).to_le_bytes()
                    });
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
    use crate::model::weights::tests::{bits, read};

    const DOWN: &str = "model.layers.0.mlp.experts.down_proj";

    /// transformers' result is stored as `expected`.
    fn golden() -> HashMap<String, Tensor> {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/parity/mxfp4.safetensors"
        );
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
        let bits = |name| {
            let tensor = weights.get(name, &[2, 96, 43], DType::BF16, &Device::Cpu);
            bits(&tensor.unwrap())
        };
        assert!(bits(DOWN) == bits("expected"));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_tensor_and_value() {
        let (blocks, scales) = (format!("{DOWN}_blocks"), format!("{DOWN}_scales"));
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let above = Tensor::full(253_u8, (2, 43, 3), &Device::Cpu).unwrap();
        for (name, changed, expected) in [
            (
                &scales,
                None,
                format!("`{blocks}` has no `{scales}`; fetch"),
            ),
            (
                &scales,
                Some(above),
                format!("`{scales}`: scale 253 at number 0, supported are 0 to 252; fetch"),
            ),
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
            (
                &blocks,
                Some(zeros(&[2, 43, 3, 8], DType::U8)),
                format!("`{blocks}` has shape [2, 43, 3, 8] and"),
            ),
        ] {
            let (work, mut tensors) = (tempfile::tempdir().unwrap(), golden());
            tensors.remove(name);
            tensors.extend(changed.map(|tensor| (name.clone(), tensor)));
            let weights = open(work.path(), &tensors);
            let message = read(&weights, DOWN, &[2, 96, 43]).unwrap_err();
            let expected = format!(
                "{}: {expected}",
                work.path().join("model.safetensors").display()
            );
            assert!(
                message.starts_with(&expected),
                "{message:?} instead of {expected:?}"
            );
        }
    }
}
