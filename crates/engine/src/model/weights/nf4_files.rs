//! Matrices in NF4 as bitsandbytes stores them: beside the codes, `NAME.absmax`, `NAME.quant_map`,
//! with double quantization `NAME.nested_absmax` and `NAME.nested_quant_map`, and
//! `NAME.quant_state.bitsandbytes__nf4`, JSON as bytes.

use rayon::prelude::*;

use crate::hub::{NF4_STATE, Nf4State};
use crate::kernels::nf4::{NUMBERS, weight};
use crate::kernels::quantized::StoredNf4;

/// bitsandbytes has at most 4,096.
const MAX_BLOCK: usize = 1 << 20;

/// A matrix's stored form.
pub(super) struct Nf4Codes<'a> {
    /// Two a byte, the first in the upper half.
    codes: &'a [u8],
    numbers: Vec<f32>,
    /// Weights that share a scale.
    block: usize,
    /// By block.
    scales: Vec<f32>,
    nested: Option<NestedScales<'a>>,
}

/// How double quantization stores scales.
struct NestedScales<'a> {
    codes: &'a [u8],
    numbers: [f32; 256],
    group: usize,
    group_scales: Vec<f32>,
    offset: f32,
}

impl<'a> Nf4Codes<'a> {
    /// `find`: element type and bytes of the tensor with this end of the name.
    ///
    /// # Errors
    /// What is missing or of another form.
    pub(super) fn read(
        state: &Nf4State,
        find: impl Fn(&str) -> Option<(&'a str, &'a [u8])>,
    ) -> Result<Self, String> {
        let tensor = |end: &str, expected: &str, bytes: Option<usize>| match find(end) {
            None => Err(format!("there is no `{end}`")),
            Some((stored, found)) => {
                let has_length = bytes.is_none_or(|bytes| found.len() == bytes);
                let problem = || {
                    format!(
                        "`{end}` is stored as {stored} with {} bytes, required are {expected}{}",
                        found.len(),
                        bytes.map_or_else(String::new, |bytes| format!(" with {bytes} bytes"))
                    )
                };
                let is_right = stored == expected && has_length;
                is_right.then_some(found).ok_or_else(problem)
            }
        };
        let floats = |end: &str, count: usize| tensor(end, "F32", Some(4 * count)).map(floats);
        let (block, count) = (
            state.blocksize,
            state.shape.iter().product::<u64>() as usize,
        );
        if state.shape.len() != 2
            || !(2..=MAX_BLOCK).contains(&block)
            || !block.is_multiple_of(2)
            || count % 2 == 1
        {
            return Err(format!(
                "`{NF4_STATE}` has shape {:?} and blocks of {block}",
                state.shape
            ));
        }
        let codes = tensor("", "U8", Some(count.div_ceil(2)))?;
        let numbers = floats(".quant_map", NUMBERS.len())?;
        let blocks = count.div_ceil(block);
        let nested = match state.nested_blocksize {
            None => None,
            Some(0) => return Err(format!("`{NF4_STATE}` has nested blocks of 0")),
            Some(group) => Some(NestedScales {
                codes: tensor(".absmax", "U8", Some(blocks))?,
                numbers: floats(".nested_quant_map", 256)?
                    .try_into()
                    .map_err(|_| "`.nested_quant_map` has no 256 numbers".to_owned())?,
                group,
                group_scales: floats(".nested_absmax", blocks.div_ceil(group))?,
                offset: state
                    .nested_offset
                    .ok_or_else(|| format!("`{NF4_STATE}` has no `nested_offset`"))?,
            }),
        };
        let scales = match &nested {
            None => floats(".absmax", blocks)?,
            Some(nested) => nested.scales(),
        };
        if let Some(at) = scales.iter().position(|scale| !scale.is_finite()) {
            return Err(format!("scale {} of block {at} is not finite", scales[at]));
        }
        Ok(Self {
            codes,
            numbers,
            block,
            scales,
            nested,
        })
    }

    /// Little-endian bf16.
    pub(super) fn dequantize(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4 * self.codes.len()];
        let blocks = bytes
            .par_chunks_mut(2 * self.block)
            .zip(self.codes.par_chunks(self.block / 2))
            .zip(&self.scales);
        blocks.for_each(|((bytes, codes), &scale)| {
            for (bytes, code) in bytes.chunks_exact_mut(4).zip(codes) {
                for (bytes, code) in bytes.chunks_exact_mut(2).zip([code >> 4, code & 15]) {
                    let number = weight(self.numbers[usize::from(code)], scale);
                    bytes.copy_from_slice(&number.to_le_bytes());
                }
            }
        });
        bytes
    }

    /// With double quantization.
    pub(super) fn stored(&self) -> Option<StoredNf4<'_>> {
        self.nested.as_ref().map(|nested| StoredNf4 {
            codes: self.codes,
            scale_codes: nested.codes,
            group_scales: &nested.group_scales,
            offset: nested.offset,
            scale_numbers: &nested.numbers,
        })
    }
}

impl NestedScales<'_> {
    fn scales(&self) -> Vec<f32> {
        let groups = self.codes.chunks(self.group).zip(&self.group_scales);
        let scale = |code: u8, group: f32| self.numbers[usize::from(code)] * group + self.offset;
        groups
            .flat_map(|(codes, &group)| codes.iter().map(move |&code| scale(code, group)))
            .collect()
    }
}

pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    let numbers = bytes.as_chunks::<4>().0.iter();
    numbers.map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use candle_core::safetensors::{load, save};
    use candle_core::{DType, Device, Tensor};

    use crate::config::BasePrecision;
    use crate::hub::ModelSource;
    use crate::kernels::quantized::{Precision, rounded};
    use crate::model::Weights;
    use crate::model::weights::tests::{bits as bits_of, read};

    const UP: &str = "model.layers.0.mlp.up_proj.weight";
    const GATE: &str = "model.layers.0.mlp.gate_proj.weight";

    /// UP has double quantization, GATE not; bitsandbytes' numbers are stored as `expected_up` and
    /// `expected_gate`, what both came from as `weight`.
    fn golden() -> HashMap<String, Tensor> {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/parity/nf4.safetensors"
        );
        load(file, &Device::Cpu).unwrap()
    }

    fn open(folder: &Path, tensors: &HashMap<String, Tensor>) -> Weights {
        let config = r#"{"model_type":"qwen3","vocab_size":8,"hidden_size":512,"num_hidden_layers":1,"num_attention_heads":4,
            "num_key_value_heads":2,"intermediate_size":40,"quantization_config":{"quant_method":"bitsandbytes",
            "load_in_4bit":true,"bnb_4bit_quant_type":"nf4","bnb_4bit_use_double_quant":true}}"#;
        std::fs::write(folder.join("config.json"), config).unwrap();
        save(tensors, folder.join("model.safetensors")).unwrap();
        Weights::open(&ModelSource::at("m", folder)).unwrap()
    }

    fn bits(weights: &Weights, name: &str) -> Vec<u16> {
        let tensor = weights.get(name, &[40, 512], DType::BF16, &Device::Cpu);
        bits_of(&tensor.unwrap())
    }

    #[test]
    fn numbers_are_those_of_bitsandbytes_bit_by_bit() {
        let work = tempfile::tempdir().unwrap();
        let weights = open(work.path(), &golden());
        assert_eq!(weights.dtype(UP), Some(DType::BF16));
        let in_nf4 = weights.clone().in_precision(BasePrecision::Nf4);
        for (name, expected) in [(UP, "expected_up"), (GATE, "expected_gate")] {
            assert!(bits(&weights, name) == bits(&weights, expected), "{name}");
        }
        // Its own numbers stay; others are rounded, as the weight that UP came from.
        assert!(bits(&in_nf4, UP) == bits(&weights, "expected_up"));
        let again = |name: &str| {
            let tensor = weights.get(name, &[40, 512], DType::BF16, &Device::Cpu);
            bits_of(&rounded(&tensor.unwrap(), Precision::Nf4).unwrap())
        };
        assert!(bits(&in_nf4, GATE) == again(GATE));
        assert!(again(GATE) != bits(&weights, GATE));
        assert!(again("weight") == bits(&weights, UP));
        let in_fp8 = weights.clone().in_precision(BasePrecision::Fp8);
        assert!(bits(&in_fp8, UP) != bits(&weights, UP));
    }

    #[test]
    fn groups_of_another_size_are_read_and_rounded_again() {
        let work = tempfile::tempdir().unwrap();
        let numbers_of = |group: usize, group_scales: &[f32]| {
            let mut tensors = golden();
            let scales = Tensor::new(group_scales, &Device::Cpu).unwrap();
            tensors.insert(format!("{UP}.nested_absmax"), scales);
            let name = format!("{UP}{}", crate::hub::NF4_STATE);
            let state = String::from_utf8(tensors[&name].to_vec1().unwrap()).unwrap();
            let key = |group| format!("\"nested_blocksize\": {group},");
            let state = state.replace(&key(256), &key(group));
            tensors.insert(name, Tensor::new(state.as_bytes(), &Device::Cpu).unwrap());
            let weights = open(work.path(), &tensors);
            let in_nf4 = weights.clone().in_precision(BasePrecision::Nf4);
            [bits(&weights, UP), bits(&in_nf4, UP)]
        };
        let [numbers, in_nf4] = numbers_of(256, &[0.02; 2]);
        assert!(in_nf4 == numbers);
        // All blocks are one group, with the scale that two had.
        let [same, rounded_again] = numbers_of(320, &[0.02]);
        assert!(same == numbers && rounded_again != numbers);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_tensor_and_value() {
        let work = tempfile::tempdir().unwrap();
        let float = |value: f32, count: usize| Tensor::full(value, count, &Device::Cpu).unwrap();
        for (end, changed, expected) in [
            (".absmax", None, "there is no `.absmax`"),
            (
                ".absmax",
                Some(float(1.0, 320)),
                "`.absmax` is stored as F32 with 1280 bytes, required are U8 with 320 bytes",
            ),
            (
                ".nested_absmax",
                Some(float(1.0, 3)),
                "`.nested_absmax` is stored as F32 with 12 bytes, required are F32 with 8 bytes",
            ),
            (
                ".nested_absmax",
                Some(float(f32::INFINITY, 2)),
                " of block 0 is not finite",
            ),
        ] {
            let mut tensors = golden();
            let name = format!("{UP}{end}");
            match changed {
                Some(tensor) => tensors.insert(name, tensor),
                None => tensors.remove(&name),
            };
            let weights = open(work.path(), &tensors);
            let message = read(&weights, UP, &[40, 512]).unwrap_err();
            let parts = [
                format!("/model.safetensors: `{UP}`: "),
                format!("{expected}; fetch the checkpoint"),
            ];
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
        let mut tensors = golden();
        let state = Tensor::from_slice(b"{\"blocksize\":64}", 16, &Device::Cpu).unwrap();
        tensors.insert(format!("{UP}{}", crate::hub::NF4_STATE), state);
        save(&tensors, work.path().join("model.safetensors")).unwrap();
        let error = Weights::open(&ModelSource::at("m", work.path()));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("missing field `shape`"), "{message}");
    }
}
