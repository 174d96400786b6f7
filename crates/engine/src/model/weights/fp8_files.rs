//! Dequantizes e4m3 matrices with scales to bf16, never to more bits: an f32 run, its merged bf16
//! export and an fp8 base have the same weights.

use float8::F8E4M3;
use half::bf16;
use rayon::prelude::*;

/// A matrix's codes, `[outputs, inputs]`, and its scales, one per block.
pub(super) struct Fp8Codes<'a> {
    pub(super) codes: &'a [u8],
    pub(super) inputs: usize,
    pub(super) scales: &'a [f32],
    /// [outputs, inputs] that share a scale; fewer at the ends.
    pub(super) block: [usize; 2],
}

impl Fp8Codes<'_> {
    /// code * scale in f32, rounded to bf16: little-endian bytes.
    ///
    /// # Errors
    /// A NaN code, or a scale that is not finite and positive: its value and place.
    pub(super) fn dequantize(&self) -> Result<Vec<u8>, String> {
        let (inputs, columns) = (self.inputs, self.inputs.div_ceil(self.block[1]));
        // 448 times a larger one exceeds bf16.
        let is_scale = |scale: f32| scale > 0.0 && scale <= f32::MAX / 512.0;
        if let Some(at) = self.scales.iter().position(|&scale| !is_scale(scale)) {
            let (scale, row, column) = (self.scales[at], at / columns, at % columns);
            return Err(format!(
                "scale {scale:?} at [{row}, {column}], supported are numbers above 0 and below 6.6e35"
            ));
        }
        if let Some(at) = self
            .codes
            .par_iter()
            .position_first(|code| code & 0x7f == 0x7f)
        {
            return Err(format!(
                "NaN (code {:#04x}) at [{}, {}]",
                self.codes[at],
                at / inputs,
                at % inputs
            ));
        }
        let numbers: Vec<f32> = (0..=u8::MAX)
            .map(|code| F8E4M3::from_bits(code).to_f32())
            .collect();
        let mut bytes = vec![0; 2 * self.codes.len()];
        let rows = bytes
            .par_chunks_exact_mut(2 * inputs)
            .zip(self.codes.par_chunks_exact(inputs))
            .enumerate();
        rows.for_each(|(row, (bytes, codes))| {
            let scales = &self.scales[row / self.block[0] * columns..][..columns];
            let blocks = bytes
                .chunks_mut(2 * self.block[1])
                .zip(codes.chunks(self.block[1]));
            for ((bytes, codes), scale) in blocks.zip(scales) {
                for (bytes, code) in bytes.chunks_exact_mut(2).zip(codes) {
                    bytes.copy_from_slice(
                        &bf16::from_f32(numbers[usize::from(*code)] * scale).to_le_bytes(),
                    );
                }
            }
        });
        Ok(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device, Result, Tensor};
    use serde_json::{Value, json};

    use crate::config::BasePrecision;
    use crate::hub::{ModelConfig, ModelSource, ModelTensor, is_quantized};
    use crate::model::weights::tests::{numbers, read};
    use crate::model::{Adapters, Decoder, PackedBatch, Trainable, Weights};

    type Named = (String, Tensor);

    const UP: &str = "model.layers.0.mlp.up_proj.weight";

    fn block_form() -> Value {
        json!({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "modules_to_not_convert": ["lm_head"]})
    }

    fn compressed(strategy: &str) -> Value {
        let weights = json!({"num_bits": 8, "type": "float", "strategy": strategy, "block_structure": [128, 128], "symmetric": true, "dynamic": false});
        json!({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
               "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": null}}})
    }

    /// Odd block sizes, and an odd number of blocks.
    fn config(quantization: &Value) -> String {
        json!({"architectures": ["Qwen3ForCausalLM"], "vocab_size": 40, "hidden_size": 136, "intermediate_size": 300,
               "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 34,
               "max_position_embeddings": 64, "tie_word_embeddings": true, "torch_dtype": "float16",
               "quantization_config": quantization})
        .to_string()
    }

    fn write(folder: &Path, quantization: &Value, tensors: &[Named]) -> ModelSource {
        std::fs::write(folder.join("config.json"), config(quantization)).unwrap();
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors")).unwrap();
        ModelSource::at("m", folder)
    }

    /// `scales`, each repeated over its block of a matrix of this shape.
    fn spread(
        scales: &Tensor,
        block: [usize; 2],
        (outputs, inputs): (usize, usize),
    ) -> Result<Tensor> {
        let (rows, columns) = scales.dims2()?;
        let spread = scales
            .reshape((rows, 1, columns, 1))?
            .broadcast_as((rows, block[0], columns, block[1]))?;
        spread
            .reshape((rows * block[0], columns * block[1]))?
            .narrow(0, 0, outputs)?
            .narrow(1, 0, inputs)
    }

    /// Codes, scales [rows, columns] in f32, and the dequantized matrix in bf16, computed by
    /// candle.
    fn quantize(weight: &Tensor, block: [usize; 2]) -> Result<[Tensor; 3]> {
        let (outputs, inputs) = weight.dims2()?;
        let grid = (outputs.div_ceil(block[0]), inputs.div_ceil(block[1]));
        // Not powers of two, and different.
        let scales = Tensor::arange(0f32, (grid.0 * grid.1) as f32, &Device::Cpu)?
            .affine(7e-5, 1.1e-3)?
            .reshape(grid)?;
        let spread = spread(&scales, block, (outputs, inputs))?;
        let codes = (weight / &spread)?.to_dtype(DType::F8E4M3)?;
        let matrix = (codes.to_dtype(DType::F32)? * spread)?.to_dtype(DType::BF16)?;
        Ok([codes, scales, matrix])
    }

    fn random(outputs: usize, inputs: usize) -> Tensor {
        let value = |i: usize| {
            ((i * 7919 % 2003) as f32 / 1001.0 - 1.0) * if i.is_multiple_of(5) { 1e-4 } else { 0.3 }
        };
        let numbers: Vec<f32> = (0..outputs * inputs).map(value).collect();
        Tensor::from_vec(numbers, (outputs, inputs), &Device::Cpu).unwrap()
    }

    #[test]
    fn every_form_of_scales_is_read() {
        let check = |quantization: Value,
                     suffix: &str,
                     block: [usize; 2],
                     shape: &[usize],
                     dtype: DType| {
            let work = tempfile::tempdir().unwrap();
            let [codes, scales, _] = quantize(&random(300, 136), block).unwrap();
            let scales = scales.to_dtype(dtype).unwrap();
            let spread = spread(&scales.to_dtype(DType::F32).unwrap(), block, (300, 136)).unwrap();
            let expected = (codes.to_dtype(DType::F32).unwrap() * spread).unwrap();
            let expected = expected.to_dtype(DType::BF16).unwrap();
            let tensors = [
                (UP.to_owned(), codes),
                (format!("{UP}{suffix}"), scales.reshape(shape).unwrap()),
            ];
            let weights = Weights::open(&write(work.path(), &quantization, &tensors)).unwrap();
            assert_eq!(weights.dtype(UP), Some(DType::BF16));
            for dtype in [DType::F32, DType::BF16] {
                let found = weights.get(UP, &[300, 136], dtype, &Device::Cpu).unwrap();
                assert_eq!(
                    (found.dtype(), numbers(&found)),
                    (dtype, numbers(&expected)),
                    "{quantization}"
                );
            }
        };
        let (whole, output, block) = ([300, 136], [1, 136], [128, 128]);
        check(block_form(), "_scale_inv", block, &[3, 2], DType::BF16);
        check(block_form(), "_scale_inv", block, &[3, 2], DType::F32);
        let blocks = json!({"quant_method": "fp8", "weight_block_size": [64, 96]});
        check(blocks, "_scale_inv", [64, 96], &[5, 2], DType::F32);
        for shape in [&[][..], &[1], &[1, 1]] {
            let inverse = json!({"quant_method": "fp8", "weight_block_size": null});
            check(inverse, "_scale_inv", whole, shape, DType::F32);
            let fixed = json!({"quant_method": "fp8", "activation_scheme": "static"});
            check(fixed, "_scale", whole, shape, DType::F32);
            check(compressed("tensor"), "_scale", whole, shape, DType::BF16);
        }
        let outputs = json!({"quant_method": "fbgemm_fp8"});
        for quantization in [outputs, compressed("channel")] {
            check(quantization, "_scale", output, &[300, 1], DType::F32);
        }
        check(compressed("block"), "_scale", block, &[3, 2], DType::F32);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_tensor_and_value() {
        let check = |quantization: Value, change: &dyn Fn(&mut Vec<Named>), expected: &str| {
            let work = tempfile::tempdir().unwrap();
            let [codes, scales, _] = quantize(&random(300, 136), [128, 128]).unwrap();
            let mut tensors = vec![(UP.to_owned(), codes), (format!("{UP}_scale_inv"), scales)];
            change(&mut tensors);
            let weights = Weights::open(&write(work.path(), &quantization, &tensors)).unwrap();
            let message = read(&weights, UP, tensors[0].1.dims()).unwrap_err();
            let expected = format!(
                "{}: `{UP}{expected}",
                work.path().join("model.safetensors").display()
            );
            assert!(
                message.starts_with(&expected),
                "{message:?} instead of {expected:?}"
            );
        };
        let no_scales = |tensors: &mut Vec<Named>| tensors.truncate(1);
        check(
            block_form(),
            &no_scales,
            &format!(
                "` is stored as F8_E4M3, and there is no `{UP}_scale_inv` or `{UP}_scale`; fetch the checkpoint again, or take it in bf16"
            ),
        );
        check(
            json!(null),
            &no_scales,
            "` is stored as F8_E4M3, and config.json has no `quantization_config`; fetch",
        );
        let shape = "_scale_inv` has shape [3, 2], and a scale per";
        check(
            compressed("channel"),
            &|_| (),
            &format!("{shape} output of `{UP}`, [300, 136], requires [300, 1]; fetch"),
        );
        check(
            compressed("tensor"),
            &|_| (),
            &format!("{shape} matrix of `{UP}`, [300, 136], requires [1, 1]; fetch"),
        );
        let other = json!({"quant_method": "fp8", "weight_block_size": [64, 128]});
        check(
            other,
            &|_| (),
            &format!("{shape} block of 64 x 128 of `{UP}`, [300, 136], requires [5, 2]; fetch"),
        );
        for (bad, shown) in [
            (0.0, "0.0"),
            (-1.0, "-1.0"),
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
            (2f32.powi(119), "6.64614e35"),
        ] {
            let scales =
                Tensor::new(&[[1.0, 1.0], [1.0, bad], [1.0_f32, 1.0]], &Device::Cpu).unwrap();
            check(
                block_form(),
                &|tensors| tensors[1].1 = scales.clone(),
                &format!("`: scale {shown} at [1, 1], supported"),
            );
        }
        let nan = |tensors: &mut Vec<Named>| {
            let codes: Vec<u8> = (0..300 * 136)
                .map(|at| if at == 2 * 136 + 5 { 0xff } else { 1 })
                .collect();
            tensors[0].1 =
                Tensor::from_raw_buffer(&codes, DType::F8E4M3, &[300, 136], &Device::Cpu).unwrap();
        };
        check(
            block_form(),
            &nan,
            "`: NaN (code 0xff) at [2, 5]; fetch the checkpoint again, or take it in bf16",
        );
        let flat = |tensors: &mut Vec<Named>| tensors[0].1 = tensors[0].1.flatten_all().unwrap();
        check(
            block_form(),
            &flat,
            "` is stored as F8_E4M3 with shape [40800], supported are matrices",
        );
        let integer = |tensors: &mut Vec<Named>| {
            tensors[1].1 = Tensor::ones((3, 2), DType::U8, &Device::Cpu).unwrap();
        };
        check(block_form(), &integer, "_scale_inv` is stored as U8; take");
    }

    /// candle has no such type: write the bytes here.
    #[test]
    fn e5m2_is_refused() {
        let work = tempfile::tempdir().unwrap();
        let header =
            format!(r#"{{"{UP}":{{"dtype":"F8_E5M2","shape":[2,2],"data_offsets":[0,4]}}}}"#);
        let bytes = [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &[0; 4],
        ]
        .concat();
        std::fs::write(work.path().join("config.json"), config(&block_form())).unwrap();
        std::fs::write(work.path().join("model.safetensors"), bytes).unwrap();
        let weights = Weights::open(&ModelSource::at("m", work.path())).unwrap();
        let message = read(&weights, UP, &[2, 2]).unwrap_err();
        let expected = "is stored as F8_E5M2; take the checkpoint in BF16, F16 or F32, or matrices in F8_E4M3 with scales";
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn a_model_in_blocks_is_its_dequantized_twin() {
        let (work, twin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = ModelConfig::parse(&config(&json!(null)), "x").unwrap();
        let (mut coded, mut plain) = (Vec::new(), Vec::new());
        for (name, tensor) in Weights::fresh(&config, 3).stored(&config).unwrap() {
            if is_quantized(&name, tensor.dims()) {
                let [codes, scales, matrix] = quantize(&tensor, [128, 128]).unwrap();
                coded.extend([(name.clone(), codes), (format!("{name}_scale_inv"), scales)]);
                plain.push((name, matrix));
            } else {
                let tensor = tensor.to_dtype(DType::BF16).unwrap();
                coded.push((name.clone(), tensor.clone()));
                plain.push((name, tensor));
            }
        }
        let open = |source: &ModelSource| Weights::open(source).unwrap();
        let coded = open(&write(work.path(), &block_form(), &coded));
        let plain = open(&write(twin.path(), &json!(null), &plain));
        for precision in [BasePrecision::Bf16, BasePrecision::Fp8] {
            let forward = |weights: &Weights| {
                let weights = weights.clone().in_precision(precision);
                let model = Decoder::new(
                    &config,
                    &weights,
                    Trainable::Frozen,
                    0,
                    DType::F32,
                    &Device::Cpu,
                )
                .unwrap();
                let mut batch = PackedBatch::default();
                batch.push_prompt(&[3, 17, 39, 5]);
                numbers(&model.forward(&batch, Adapters::On).unwrap())
            };
            assert_eq!(forward(&coded), forward(&plain));
        }
        for ModelTensor { name, shape, .. } in config.tensors() {
            let get = |weights| read(weights, &name, &shape).unwrap();
            assert_eq!(get(&coded), get(&plain), "{name}");
        }
    }
}
