//! Memory-mapped weight files: each tensor is read once, on demand, straight to its device.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Device, Tensor};
use memmap2::{Advice, Mmap};

use super::fp8_files::Fp8Codes;
use super::load_progress::Counter;
use super::nf4_files::{Nf4Codes, floats};
use crate::hub::{ExpertEntries, HubError, ModelSource, Nf4State, Quantization, TensorEntry};
use crate::kernels::mxfp4::{Mxfp4Stack, StoredMxfp4};
use crate::kernels::nf4;
use crate::kernels::upload::Uploader;
use crate::model::ModelError;

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// All weight files of a model.
#[derive(Debug)]
pub(super) struct Files {
    /// Contents with file names for messages.
    bytes: Vec<(String, Bytes)>,
    quantization: Option<Quantization>,
    /// Of matrices in NF4, by name.
    nf4: HashMap<String, Nf4State>,
    /// Index in `bytes` and header entry, by name; matrices in NF4 with the shape of their numbers.
    entries: HashMap<String, (usize, TensorEntry)>,
    counter: Counter,
    uploader: Uploader,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Files {
    pub(super) fn open(source: &ModelSource) -> Result<Self, ModelError> {
        let (mut bytes, mut entries) = (Vec::new(), HashMap::new());
        for file in source.weight_files()? {
            let number = bytes.len();
            entries.extend(
                source
                    .tensors(&file)?
                    .into_iter()
                    .map(|entry| (entry.name.clone(), (number, entry))),
            );
            bytes.push((source.label(&file), map(source, &file)?));
        }
        let nf4 = source.nf4_states()?;
        for (name, state) in &nf4 {
            if let Some((_, entry)) = entries.get_mut(name) {
                state.correct(entry);
            }
        }
        // Files may hold unused tensors, such as a tied head. A run's checkpoint has no
        // configuration and nothing unused.
        let config = source.config().ok();
        // Some files store only the head of a tied pair.
        if config
            .as_ref()
            .is_some_and(|config| config.tie_word_embeddings)
            && !entries.contains_key(EMBEDDING)
            && let Some((number, head)) = entries.get(HEAD).cloned()
        {
            let embedding = TensorEntry {
                name: EMBEDDING.to_owned(),
                ..head
            };
            entries.insert(EMBEDDING.to_owned(), (number, embedding));
        }
        let tensors: Option<HashSet<String>> = config.map(|config| {
            let names = config.tensors().into_iter().map(|tensor| tensor.name);
            names.collect()
        });
        // Includes parts of a tensor of all experts.
        let taken = |name: &String| {
            tensors
                .as_ref()
                .is_none_or(|tensors| tensors.contains(name) || name.contains(".mlp.experts."))
        };
        let total = entries
            .iter()
            .filter(|(name, _)| taken(name))
            .map(|(_, (_, entry))| entry.size_bytes)
            .sum();
        Ok(Self {
            bytes,
            quantization: source.quantization()?,
            nf4,
            entries,
            counter: Counter::new(&source.name, total),
            uploader: Uploader::default(),
        })
    }

    /// bf16 for quantized tensors, which are dequantized to it.
    pub(super) fn dtype(&self, name: &str) -> Option<DType> {
        match self.entries.get(name) {
            Some(_) if self.nf4.contains_key(name) => Some(DType::BF16),
            Some((_, entry)) => dtype(&entry.element_type),
            None => self
                .experts(name)
                .ok()
                .flatten()
                .and_then(|entries| match entries {
                    ExpertEntries::Mxfp4 { .. } => Some(DType::BF16),
                    ExpertEntries::Separate { parts, .. } => self.dtype(&parts[0].name),
                }),
        }
    }

    /// # Errors
    /// An expert tensor with a missing part, or one of another type.
    pub(super) fn shape(&self, name: &str) -> Result<Option<Vec<usize>>, ModelError> {
        if let Some((_, entry)) = self.entries.get(name) {
            return Ok(Some(dims(&entry.shape)));
        }
        Ok(self.experts(name)?.map(|entries| dims(&entries.shape())))
    }

    /// The tensor must exist.
    pub(super) fn get(
        &self,
        name: &str,
        target: DType,
        device: &Device,
    ) -> Result<Tensor, ModelError> {
        if let Some(entries) = self.experts(name)? {
            return self.put_together(name, &entries, target, device);
        }
        let (label, entry, bytes) = self.find(name)?;
        let tensor = if let Some(codes) = self.nf4(name)? {
            self.uploader.tensor(
                &codes.dequantize(),
                DType::BF16,
                &dims(&entry.shape),
                device,
            )?
        } else if entry.element_type == FP8 {
            let numbers = self.dequantized(label, entry, bytes)?;
            self.uploader
                .tensor(&numbers, DType::BF16, &dims(&entry.shape), device)?
        } else {
            self.stored(name, device)?
        };
        self.counter.add(entry.size_bytes);
        Ok(tensor.to_dtype(target)?)
    }

    /// Counts a matrix that was read in its stored form.
    pub(super) fn count(&self, name: &str) {
        if let Some((_, entry)) = self.entries.get(name) {
            self.counter.add(entry.size_bytes);
        }
    }

    /// Whether a base in NF4 has a matrix as it is stored: others are rounded.
    pub(super) fn is_nf4_base(&self, name: &str) -> bool {
        let has_blocks = self.nf4.get(name).is_some_and(Nf4State::has_base_blocks);
        let numbers = |(.., bytes): (&str, &TensorEntry, &[u8])| floats(bytes) == nf4::NUMBERS;
        has_blocks && self.find(&format!("{name}.quant_map")).is_ok_and(numbers)
    }

    /// A matrix in NF4; `None` in another form.
    pub(super) fn nf4(&self, name: &str) -> Result<Option<Nf4Codes<'_>>, ModelError> {
        let Some(state) = self.nf4.get(name) else {
            return Ok(None);
        };
        let (label, ..) = self.find(name)?;
        let part = |end: &str| {
            let (_, entry, bytes) = self.find(&format!("{name}{end}")).ok()?;
            Some((entry.element_type.as_str(), bytes))
        };
        Nf4Codes::read(state, part)
            .map(Some)
            .map_err(|problem| damaged(label, &format!("`{name}`: {problem}")))
    }

    /// An fp8 matrix as little-endian bf16. `label`: its file.
    fn dequantized(
        &self,
        label: &str,
        matrix: &TensorEntry,
        codes: &[u8],
    ) -> Result<Vec<u8>, ModelError> {
        let wrong = |problem: String| damaged(label, &problem);
        let find = |name: &str| self.entries.get(name).map(|(_, entry)| entry);
        let (scales, block) = matrix
            .fp8_scales(self.quantization.and_then(Quantization::fp8), find)
            .map_err(wrong)?;
        let scales = self
            .stored(&scales.name, &Device::Cpu)?
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1()?;
        let codes = Fp8Codes {
            codes,
            inputs: matrix.shape[1] as usize,
            scales: &scales,
            block,
        };
        codes
            .dequantize()
            .map_err(|problem| wrong(format!("`{}`: {problem}", matrix.name)))
    }

    /// Parts of an expert tensor that is not fused in the checkpoint.
    fn experts(&self, name: &str) -> Result<Option<ExpertEntries<'_>>, ModelError> {
        if self.entries.contains_key(name) {
            return Ok(None);
        }
        let found = ExpertEntries::find(name, self.quantization, |name| {
            self.entries.get(name).map(|(_, entry)| entry)
        });
        found.map_err(|problem| {
            let file = self
                .entries
                .get(&format!("{name}_blocks"))
                .map_or(0, |(file, _)| *file);
            damaged(&self.bytes[file].0, &problem)
        })
    }

    /// Experts on a GPU as they are stored in MXFP4; `None` in another form.
    pub(super) fn mxfp4(
        &self,
        name: &str,
        device: &Device,
    ) -> Result<Option<Mxfp4Stack>, ModelError> {
        let Some(ExpertEntries::Mxfp4 { blocks, scales }) = self.experts(name)? else {
            return Ok(None);
        };
        let stored = self.stored_mxfp4(blocks, scales)?;
        let stack = Mxfp4Stack::new(&stored, &self.uploader, device)?;
        if stack.is_some() {
            self.counter.add(blocks.size_bytes + scales.size_bytes);
        }
        Ok(stack)
    }

    fn stored_mxfp4(
        &self,
        blocks: &TensorEntry,
        scales: &TensorEntry,
    ) -> Result<StoredMxfp4<'_>, ModelError> {
        Ok(StoredMxfp4 {
            blocks: self.find(&blocks.name)?.2.into(),
            scales: self.find(&scales.name)?.2.into(),
            outputs: scales.shape[1] as usize,
            blocks_a_row: scales.shape[2] as usize,
        })
    }

    fn put_together(
        &self,
        name: &str,
        entries: &ExpertEntries<'_>,
        target: DType,
        device: &Device,
    ) -> Result<Tensor, ModelError> {
        let shape = dims(&entries.shape());
        match entries {
            ExpertEntries::Mxfp4 { blocks, scales } => {
                let (label, ..) = self.find(&blocks.name)?;
                let numbers = self.stored_mxfp4(blocks, scales)?.dequantize();
                let numbers = numbers
                    .map_err(|problem| damaged(label, &format!("`{name}_scales`: {problem}")))?;
                self.counter.add(blocks.size_bytes + scales.size_bytes);
                Ok(self
                    .uploader
                    .tensor(&numbers, DType::BF16, &shape, device)?
                    .to_dtype(target)?)
            }
            ExpertEntries::Separate { parts, .. } => {
                let parts = parts
                    .iter()
                    .map(|part| self.get(&part.name, target, device));
                Ok(Tensor::cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?.reshape(shape)?)
            }
        }
    }

    fn stored(&self, name: &str, device: &Device) -> Result<Tensor, ModelError> {
        let (label, entry, bytes) = self.find(name)?;
        let stored = dtype(&entry.element_type).filter(|_| entry.element_type != FP8).ok_or_else(|| {
            ModelError::Weights(format!(
                "{label}: `{name}` is stored as {}; take the checkpoint in BF16, F16 or F32, or matrices in F8_E4M3 with scales",
                entry.element_type
            ))
        })?;
        Ok(self
            .uploader
            .tensor(bytes, stored, &dims(&entry.shape), device)?)
    }

    /// A tensor's file name, entry and bytes.
    fn find(&self, name: &str) -> Result<(&str, &TensorEntry, &[u8]), ModelError> {
        let found = self.entries.get(name).and_then(|(file, entry)| {
            let (label, bytes) = &self.bytes[*file];
            Some((label.as_str(), entry, slice(bytes, entry)?))
        });
        found.ok_or_else(|| ModelError::Weights(format!("no tensor `{name}`")))
    }
}

impl Bytes {
    fn slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// A tensor's bytes in its file.
fn slice<'a>(bytes: &'a Bytes, entry: &TensorEntry) -> Option<&'a [u8]> {
    let range = entry.offset_bytes as usize..(entry.offset_bytes + entry.size_bytes) as usize;
    bytes.slice().get(range)
}

fn map(source: &ModelSource, file: &str) -> Result<Bytes, ModelError> {
    if let Some(bytes) = source.embedded_bytes(file) {
        return Ok(Bytes::Embedded(bytes));
    }
    let refused = |error| {
        ModelError::Hub(HubError::Read {
            path: source.label(file),
            source: error,
        })
    };
    let opened = source.open_file(file)?;
    // SAFETY: the bytes are only ever copied out as numbers, for which every bit pattern is valid. A file that someone
    // shortens while it is mapped ends the process with SIGBUS; that is documented at `Weights::open`.
    let mapped = unsafe { Mmap::map(&opened) }.map_err(refused)?;
    // Only a hint: tensors are read nearly in file order.
    let _ = mapped.advise(Advice::Sequential);
    Ok(Bytes::Mapped(mapped))
}

/// Error in a quantized tensor, with file and remedy.
fn damaged(label: &str, problem: &str) -> ModelError {
    ModelError::Weights(format!(
        "{label}: {problem}; fetch the checkpoint again, or take it in bf16"
    ))
}

fn dims(shape: &[u64]) -> Vec<usize> {
    shape.iter().map(|&size| size as usize).collect()
}

/// Element type of codes with scales.
const FP8: &str = "F8_E4M3";

/// Dtype for computing with a safetensors element type.
fn dtype(element_type: &str) -> Option<DType> {
    match element_type {
        "BF16" | FP8 => Some(DType::BF16),
        "F16" => Some(DType::F16),
        "F32" => Some(DType::F32),
        "F64" => Some(DType::F64),
        _ => None,
    }
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

    /// A GPU's codes are those of the files, unless adapters are merged into experts.
    #[test]
    fn experts_stay_in_mxfp4_unless_adapters_are_merged_into_them() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/parity/gpt_oss-mxfp4"
        );
        let weights = Weights::open(&ModelSource::at("m", std::path::Path::new(folder))).unwrap();
        let merged = |module: &str| {
            let zeros = Tensor::zeros((6, 6), DType::F32, &Device::Cpu).unwrap();
            let tensor = |which| {
                (
                    format!("base_model.model.model.layers.0.{module}.lora_{which}.weight"),
                    zeros.clone(),
                )
            };
            (weights.clone()).merging(["A", "B"].map(tensor).into(), 1.0, None, "merged")
        };
        for (weights, expected) in [
            (weights.clone(), true),
            (merged("self_attn.q_proj"), true),
            (merged("mlp.experts"), false),
        ] {
            let found = weights.mxfp4(
                "model.layers.0.mlp.experts.down_proj",
                &[6, 32, 64],
                &Device::Cpu,
            );
            assert_eq!(found.unwrap().is_some(), expected);
        }
        let work = tempfile::tempdir().unwrap();
        let golden = open(work.path(), &golden());
        // 43 outputs have no form on a GPU.
        assert!(
            golden
                .mxfp4(DOWN, &[2, 96, 43], &Device::Cpu)
                .unwrap()
                .is_none()
        );
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
