//! Trained parameters as one flat f32 buffer: one tensor for optimizer, clipping, checkpoints and
//! all-reduce; views for layers.

use candle_core::{DType, Device, Result, Tensor};

use super::Shard;
use crate::config::TrainConfig;
use crate::kernels::adamw::{MatrixCopies, MatrixCopy, cast_into};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trainable {
    Frozen,
    Full,
    /// Adapters on every linear layer; in a mixture of experts on mixers and shared experts.
    Lora {
        /// Rank of A and B.
        rank: usize,
        /// The delta is scaled by `alpha / rank`.
        alpha: f64,
        /// Whether experts have adapters too.
        has_experts: bool,
    },
}

impl Trainable {
    /// Adapters, or with `lora_rank` = 0 every weight.
    pub fn for_config(config: &TrainConfig) -> Self {
        match config.lora_rank {
            0 => Self::Full,
            rank => Self::Lora {
                rank,
                alpha: config.lora_alpha,
                has_experts: config.lora_experts,
            },
        }
    }
}

/// Dtype of values that must not be rounded to bf16 (trained parameters, residual stream, angles):
/// f32 in a bf16 model, else the model's (f64 in gradient checks).
pub(super) fn master_dtype(dtype: DType) -> DType {
    if dtype == DType::BF16 {
        DType::F32
    } else {
        dtype
    }
}

/// Range of a trained tensor in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSlot {
    /// Name in a checkpoint: Hugging Face's for full training, PEFT's for adapters.
    pub name: String,
    /// First element.
    pub offset: usize,
    pub shape: Vec<usize>,
}

impl ParameterSlot {
    /// Range in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.shape.iter().product::<usize>()
    }
}

/// The flat buffer with its slots, by offset. When sharded, a rank has its own part in full
/// precision, and all of it in the layers' dtype.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// This rank's part in full precision, padded.
    flat: Tensor,
    /// All parameters, padded, as read by the layers: bf16 in a bf16 model, else sharing memory
    /// with `flat`.
    read: Tensor,
    shard: Shard,
    /// Copies inside matrices.
    copies: Option<MatrixCopies>,
    slots: Vec<ParameterSlot>,
}

impl Parameters {
    /// Concatenates the tensors in full precision. `dtype`: the model's; for bf16 also makes a bf16
    /// copy.
    pub fn new(tensors: Vec<(String, Tensor)>, dtype: DType, device: &Device) -> Result<Self> {
        Self::sharded(tensors, dtype, device, Shard::WHOLE)
    }

    /// As [`Parameters::new`], sharded.
    pub fn sharded(
        tensors: Vec<(String, Tensor)>,
        dtype: DType,
        device: &Device,
        shard: Shard,
    ) -> Result<Self> {
        let mut slots = Vec::with_capacity(tensors.len());
        let mut count = 0;
        for (name, tensor) in &tensors {
            slots.push(ParameterSlot {
                name: name.clone(),
                offset: count,
                shape: tensor.dims().to_vec(),
            });
            count += tensor.elem_count();
        }
        let exact = master_dtype(dtype);
        let read = Tensor::zeros(shard.padded(count), dtype, device)?;
        let flat = match exact == dtype {
            true => read.narrow(0, shard.start(count), shard.size(count))?,
            false => Tensor::zeros(shard.size(count), exact, device)?,
        };
        let parameters = Self {
            flat,
            read,
            shard,
            copies: None,
            slots,
        };
        // Each is freed once copied.
        for (slot, (_, tensor)) in parameters.slots.iter().zip(tensors) {
            parameters.write(slot, &tensor)?;
        }
        Ok(parameters)
    }

    /// This rank's part in full precision, padded: all, `[n]`, unless sharded.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// All parameters as read by the layers, padded.
    pub fn read(&self) -> &Tensor {
        &self.read
    }

    /// The part that this rank updates.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Overwrites all parameters in place, visibly to views. `flat`: `[n]`.
    pub fn restore(&self, flat: &Tensor) -> Result<()> {
        self.restore_each(|slot| flat.narrow(0, slot.offset, slot.range().len()))
    }

    /// Maintains these copies from now on.
    pub(super) fn copy_into(&mut self, copies: Vec<MatrixCopy>) -> Result<()> {
        self.copies = MatrixCopies::new(copies)?;
        self.refresh_copies()
    }

    /// Call after changing [`Parameters::flat`].
    pub fn refresh_copies(&self) -> Result<()> {
        self.copies
            .as_ref()
            .map_or(Ok(()), |copies| copies.write(&self.flat))
    }

    /// As [`Parameters::restore`], slot by slot from `tensor`, to avoid a second copy of all
    /// parameters.
    pub fn restore_each(&self, tensor: impl Fn(&ParameterSlot) -> Result<Tensor>) -> Result<()> {
        self.slots
            .iter()
            .try_for_each(|slot| self.write(slot, &tensor(slot)?))?;
        self.refresh_copies()
    }

    fn write(&self, slot: &ParameterSlot, tensor: &Tensor) -> Result<()> {
        let numbers = tensor
            .to_device(self.flat.device())?
            .to_dtype(self.flat.dtype())?
            .flatten_all()?;
        if !self.is_copied() {
            return self.read.slice_set(&numbers, 0, slot.offset);
        }
        let (all, own) = (slot.range(), self.shard.range(self.count()));
        let (first, end) = (all.start.max(own.start), all.end.min(own.end));
        if first < end {
            let part = numbers.narrow(0, first - all.start, end - first)?;
            self.flat.slice_set(&part, 0, first - own.start)?;
        }
        cast_into(&numbers, &self.read.narrow(0, all.start, all.len())?)
    }

    /// Whether the layers read a copy.
    fn is_copied(&self) -> bool {
        self.flat.dtype() != self.read.dtype()
    }

    /// The layers' copy in the model's dtype, in the order of [`Parameters::flat`]: an optimizer
    /// writes both. `None` if the layers read the flat buffer.
    pub fn working(&self) -> Result<Option<Tensor>> {
        let part = || {
            self.read
                .narrow(0, self.shard.start(self.count()), self.flat.elem_count())
        };
        self.is_copied().then(part).transpose()
    }

    pub fn slots(&self) -> &[ParameterSlot] {
        &self.slots
    }

    /// Number of trained parameters.
    pub fn count(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.range().end)
    }

    /// A view from the first of `names` to the end of the last, which must be contiguous, as [rows,
    /// columns] or `[n]`. Optimizer steps are visible through it.
    pub fn view(&self, names: &[String]) -> Result<Option<(Tensor, std::ops::Range<usize>)>> {
        let Some(first) = names
            .first()
            .and_then(|name| self.slots.iter().position(|slot| slot.name == *name))
        else {
            return Ok(None);
        };
        let slots = &self.slots[first..(first + names.len()).min(self.slots.len())];
        if slots
            .iter()
            .zip(names)
            .any(|(slot, name)| slot.name != *name)
            || slots.len() != names.len()
        {
            candle_core::bail!("trained tensors {names:?} are not adjacent")
        }
        let range = slots[0].offset..slots[slots.len() - 1].range().end;
        let flat = self.read.narrow(0, range.start, range.len())?;
        let view = match slots[0].shape.as_slice() {
            [_, columns] => flat.reshape((range.len() / columns, *columns))?,
            _ => flat,
        };
        Ok(Some((view, range)))
    }

    /// Views under their names; unsharded only.
    pub fn named(&self) -> Result<Vec<(String, Tensor)>> {
        self.slots
            .iter()
            .map(|slot| {
                Ok((
                    slot.name.clone(),
                    self.flat
                        .narrow(0, slot.offset, slot.range().len())?
                        .reshape(slot.shape.as_slice())?,
                ))
            })
            .collect()
    }
}
