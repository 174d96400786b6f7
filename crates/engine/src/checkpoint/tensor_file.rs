//! Streams safetensors files; the bytes equal those of `safetensors::serialize`.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::CheckpointError;
use super::new_folder::{NewFolder, WriteChunk, stream_file};
use crate::kernels::pinned_memory::{HostBuffer, copy_to_host};
use crate::model::ParameterSlot;

#[derive(Clone, Debug)]
pub(super) struct TensorHeader {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
}

impl TensorHeader {
    pub(super) fn new(name: &str, dtype: DType, shape: &[usize]) -> Self {
        Self {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size_in_bytes()
    }
}

/// Writes `file`. `write_tensor` writes the tensor at an index of `tensors`, in any number of
/// pieces.
pub(super) fn write_tensors(
    new: &NewFolder<'_>,
    file: &str,
    tensors: &[TensorHeader],
    mut write_tensor: impl FnMut(usize, &mut WriteChunk<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    // As `safetensors::serialize`: by decreasing element size, so that all are aligned, then by
    // name.
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    let key = |at: usize| (Dtype::from(tensors[at].dtype), &tensors[at].name);
    order.sort_by(|&one, &other| {
        key(other)
            .0
            .cmp(&key(one).0)
            .then_with(|| key(one).1.cmp(key(other).1))
    });
    let mut end = 0;
    let infos = order.iter().map(|&at| {
        let tensor = &tensors[at];
        let start = end;
        end += tensor.bytes();
        (
            tensor.name.clone(),
            TensorInfo {
                dtype: tensor.dtype.into(),
                shape: tensor.shape.clone(),
                data_offsets: (start, end),
            },
        )
    });
    let about = Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
    let metadata = Metadata::new(about, infos.collect()).map_err(candle_core::Error::wrap)?;
    let mut header = serde_json::to_vec(&metadata).map_err(candle_core::Error::wrap)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let start = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    stream_file(new, file, (start.len() + end) as u64, |write| {
        write(&start)?;
        order.iter().try_for_each(|&at| write_tensor(at, write))
    })
}

/// Source of a flat tensor to write: in host or device memory, or sharded over ranks.
pub trait ElementSource {
    /// Writes the bytes of a range of elements.
    ///
    /// # Errors
    /// Those of `write`, and unreadable elements.
    fn write_range(
        &mut self,
        range: Range<usize>,
        write: &mut WriteChunk<'_>,
    ) -> Result<(), CheckpointError>;

    /// Copies the first `count` elements into `bytes`, of equal size.
    ///
    /// # Errors
    /// Unreadable elements.
    fn copy(&mut self, count: usize, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        let mut at = 0;
        self.write_range(0..count, &mut |piece| {
            bytes[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
            Ok(())
        })
    }
}

/// A tensor in host memory.
pub(super) struct TensorBytes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) number_bytes: usize,
}

impl ElementSource for TensorBytes<'_> {
    fn write_range(
        &mut self,
        range: Range<usize>,
        write: &mut WriteChunk<'_>,
    ) -> Result<(), CheckpointError> {
        write(&self.bytes[range.start * self.number_bytes..range.end * self.number_bytes])
    }
}

/// A flat tensor on any device, copied [`STAGE_BYTES`] at a time.
#[derive(Debug)]
pub struct StreamedTensor<'a> {
    flat: &'a Tensor,
    /// Created on first use.
    stage: Option<HostBuffer>,
}

/// Small in tests, for many pieces.
pub const STAGE_BYTES: usize = if cfg!(test) { 4 << 10 } else { 64 << 20 };

impl<'a> StreamedTensor<'a> {
    pub fn new(flat: &'a Tensor) -> Self {
        Self { flat, stage: None }
    }
}

impl ElementSource for StreamedTensor<'_> {
    fn write_range(
        &mut self,
        range: Range<usize>,
        write: &mut WriteChunk<'_>,
    ) -> Result<(), CheckpointError> {
        let number_bytes = self.flat.dtype().size_in_bytes();
        let at_once = (STAGE_BYTES / number_bytes).max(1);
        let most = (self.flat.elem_count() * number_bytes).min(STAGE_BYTES);
        let stage = self
            .stage
            .get_or_insert_with(|| HostBuffer::new(most, self.flat.device()));
        let mut start = range.start;
        while start < range.end {
            let count = at_once.min(range.end - start);
            let bytes = &mut stage.bytes_mut()[..count * number_bytes];
            copy_to_host(&self.flat.narrow(0, start, count)?, bytes)?;
            write(bytes)?;
            start += count;
        }
        Ok(())
    }

    fn copy(&mut self, count: usize, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        Ok(copy_to_host(&self.flat.narrow(0, 0, count)?, bytes)?)
    }
}

/// Writes every slot of the flat tensor under its name.
pub(super) fn write_slots(
    new: &NewFolder<'_>,
    file: &str,
    slots: &[ParameterSlot],
    dtype: DType,
    numbers: &mut dyn ElementSource,
) -> Result<(), CheckpointError> {
    let described = |slot: &ParameterSlot| TensorHeader::new(&slot.name, dtype, &slot.shape);
    let tensors: Vec<TensorHeader> = slots.iter().map(described).collect();
    write_tensors(new, file, &tensors, |at, write| {
        numbers.write_range(slots[at].range(), write)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::super::new_folder::write_folder;
    use super::*;

    /// Names out of order, shapes of every rank, two element types, a header that needs padding.
    #[test]
    fn the_bytes_are_those_of_the_library() {
        let ramp = |count: usize| Tensor::arange(0f32, count as f32, &Device::Cpu).unwrap();
        let tensors = [
            ("z.weight", ramp(6).reshape((2, 3)).unwrap()),
            ("a.weight", ramp(5).to_dtype(DType::BF16).unwrap()),
            ("m", ramp(1).reshape(()).unwrap()),
            ("b.weight", ramp(8).reshape((2, 2, 2)).unwrap()),
        ];
        let about = Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
        let expected =
            safetensors::serialize(tensors.iter().map(|(name, tensor)| (*name, tensor)), about)
                .unwrap();
        let work = tempfile::tempdir().unwrap();
        let described: Vec<TensorHeader> = tensors
            .iter()
            .map(|(name, tensor)| TensorHeader::new(name, tensor.dtype(), tensor.dims()))
            .collect();
        write_folder(&work.path().join("out"), |new| {
            write_tensors(new, "x.safetensors", &described, |at, write| {
                write(&safetensors::View::data(&&tensors[at].1))
            })
        })
        .unwrap();
        assert_eq!(
            std::fs::read(work.path().join("out/x.safetensors")).unwrap(),
            expected
        );
    }

    #[test]
    fn what_is_streamed_and_what_is_held_are_the_same_bytes() {
        let count = STAGE_BYTES / 4 + 1000;
        let flat = Tensor::arange(0f32, count as f32, &Device::Cpu).unwrap();
        let slots = [
            ParameterSlot {
                name: "b".to_owned(),
                offset: 0,
                shape: vec![10],
            },
            ParameterSlot {
                name: "a".to_owned(),
                offset: 10,
                shape: vec![count - 10],
            },
        ];
        let mut buffer = vec![0; count * 4];
        copy_to_host(&flat, &mut buffer).unwrap();
        let work = tempfile::tempdir().unwrap();
        let write = |name: &str, numbers: &mut dyn ElementSource| {
            let folder = work.path().join(name);
            write_folder(&folder, |new| {
                write_slots(new, "x", &slots, DType::F32, numbers)
            })
            .unwrap();
            std::fs::read(folder.join("x")).unwrap()
        };
        assert!(
            write("streamed", &mut StreamedTensor::new(&flat))
                == write(
                    "held",
                    &mut TensorBytes {
                        bytes: &buffer,
                        number_bytes: 4
                    }
                )
        );
    }
}
