//! Weight files mapped into memory: a tensor is read on demand, once, straight to its device.

use std::collections::{HashMap, HashSet};

use candle_core::{DType, Device, Tensor};
use memmap2::{Advice, Mmap};

use super::load_progress::Counter;
use super::names::tensor_names;
use crate::hub::{HubError, ModelSource, TensorEntry};
use crate::kernels::upload::Uploader;
use crate::model::ModelError;

/// All weight files of a model.
#[derive(Debug)]
pub(super) struct Files {
    bytes: Vec<Bytes>,
    /// By name: the file's place in `bytes`, and what its header says.
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
            entries.extend(source.tensors(&file)?.into_iter().map(|entry| (entry.name.clone(), (number, entry))));
            bytes.push(map(source, &file)?);
        }
        // A file may hold more than the model takes, such as a head that is the embedding. A run's checkpoint has no
        // configuration and nothing more.
        let tensors: Option<HashSet<String>> =
            source.config().ok().map(|config| tensor_names(&config).into_iter().map(|(name, _)| name).collect());
        let taken = |name: &String| tensors.as_ref().is_none_or(|tensors| tensors.contains(name));
        let total = entries.iter().filter(|(name, _)| taken(name)).map(|(_, (_, entry))| entry.size_bytes).sum();
        Ok(Self { bytes, entries, counter: Counter::new(&source.name, total), uploader: Uploader::default() })
    }

    pub(super) fn dtype(&self, name: &str) -> Option<DType> {
        dtype(&self.entries.get(name)?.1.element_type)
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (_, entry) = self.entries.get(name)?;
        Some(entry.shape.iter().map(|&size| size as usize).collect())
    }

    /// The caller has seen that there is such a tensor.
    pub(super) fn get(&self, name: &str, target: DType, device: &Device) -> Result<Tensor, ModelError> {
        let missing = || ModelError::Weights(format!("no tensor `{name}`"));
        let (file, entry) = self.entries.get(name).ok_or_else(missing)?;
        let stored = dtype(&entry.element_type).ok_or_else(|| {
            let element_type = &entry.element_type;
            ModelError::Weights(format!(
                "`{name}` is stored as {element_type}; take the checkpoint in BF16, F16 or F32"
            ))
        })?;
        let range = entry.offset_bytes as usize..(entry.offset_bytes + entry.size_bytes) as usize;
        let bytes = self.bytes[*file].slice().get(range).ok_or_else(missing)?;
        let shape: Vec<usize> = entry.shape.iter().map(|&size| size as usize).collect();
        let tensor = self.uploader.tensor(bytes, stored, &shape, device)?;
        self.counter.add(entry.size_bytes);
        Ok(tensor.to_dtype(target)?)
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

fn map(source: &ModelSource, file: &str) -> Result<Bytes, ModelError> {
    if let Some(bytes) = source.embedded_bytes(file) {
        return Ok(Bytes::Embedded(bytes));
    }
    let refused = |error| ModelError::Hub(HubError::Read { path: source.label(file), source: error });
    let opened = source.open_file(file)?;
    // SAFETY: the bytes are only ever copied out as numbers, for which every bit pattern is valid. A file that someone
    // shortens while it is mapped ends the process with SIGBUS; that is documented at `Weights::open`.
    let mapped = unsafe { Mmap::map(&opened) }.map_err(refused)?;
    // Only a hint: tensors are taken nearly in the order of the file.
    let _ = mapped.advise(Advice::Sequential);
    Ok(Bytes::Mapped(mapped))
}

/// The element types of safetensors that weights are computed from.
fn dtype(element_type: &str) -> Option<DType> {
    match element_type {
        "BF16" => Some(DType::BF16),
        "F16" => Some(DType::F16),
        "F32" => Some(DType::F32),
        "F64" => Some(DType::F64),
        _ => None,
    }
}
