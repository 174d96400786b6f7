//! What is trained, as one flat f32 buffer: the optimizer, clipping, checkpoints and all-reduce see one tensor, the
//! layers see views of it.

use candle_core::{DType, Device, Result, Tensor};

use crate::config::TrainConfig;
use crate::kernels::adamw::{MatrixCopies, MatrixCopy, cast_into};

/// What an optimizer may change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trainable {
    /// Nothing.
    Frozen,
    /// Every weight.
    Full,
    /// Adapters on every linear layer.
    Lora {
        /// Rank of A and B.
        rank: usize,
        /// The delta is scaled by `alpha / rank`.
        alpha: f64,
    },
}

impl Trainable {
    /// What a run trains: adapters, or with `lora_rank` = 0 every weight.
    pub fn of(config: &TrainConfig) -> Self {
        match config.lora_rank {
            0 => Self::Full,
            rank => Self::Lora { rank, alpha: config.lora_alpha },
        }
    }
}

/// What is kept in that must not be rounded to bf16 (trained numbers, the residual stream, angles): f32 where the model
/// computes in bf16, else what it computes in (f64 in gradient checks).
pub(super) fn exact_type(dtype: DType) -> DType {
    if dtype == DType::BF16 { DType::F32 } else { dtype }
}

/// One trained tensor's range in the flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSlot {
    /// Its name in a checkpoint: Hugging Face's for full training, PEFT's for adapters.
    pub name: String,
    /// First number.
    pub offset: usize,
    pub shape: Vec<usize>,
}

impl ParameterSlot {
    /// Its numbers in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.shape.iter().product::<usize>()
    }
}

/// The flat buffer and its slots, in the order of their offsets.
#[derive(Clone, Debug)]
pub struct Parameters {
    flat: Tensor,
    /// The same numbers in bf16, where the model computes in bf16: what the layers read.
    working: Option<Tensor>,
    /// Where the numbers stand inside matrices, too.
    copies: Option<MatrixCopies>,
    slots: Vec<ParameterSlot>,
}

impl Parameters {
    /// Lays the tensors end to end, as exact numbers. `dtype`: what the model computes in; where that is bf16, a copy
    /// in bf16 stands beside the flat buffer.
    pub fn new(tensors: Vec<(String, Tensor)>, dtype: DType, device: &Device) -> Result<Self> {
        let exact = exact_type(dtype);
        let mut slots = Vec::with_capacity(tensors.len());
        let mut pieces = Vec::with_capacity(tensors.len());
        let mut offset = 0;
        for (name, tensor) in tensors {
            slots.push(ParameterSlot { name, offset, shape: tensor.dims().to_vec() });
            offset += tensor.elem_count();
            pieces.push(tensor.to_device(device)?.to_dtype(exact)?.flatten_all()?);
        }
        let flat = if pieces.is_empty() { Tensor::zeros(0, exact, device)? } else { Tensor::cat(&pieces, 0)? };
        let working = if exact == dtype || slots.is_empty() { None } else { Some(flat.to_dtype(dtype)?) };
        Ok(Self { flat, working, copies: None, slots })
    }

    /// All numbers: `[n]`.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Overwrites all numbers, in place, so that every view sees them. `flat`: `[n]`.
    pub fn restore(&self, flat: &Tensor) -> Result<()> {
        self.flat.slice_set(&flat.to_device(self.flat.device())?.to_dtype(self.flat.dtype())?, 0, 0)?;
        self.refresh_working()
    }

    /// Keeps the numbers also inside matrices from now on.
    pub(super) fn copy_into(&mut self, copies: Vec<MatrixCopy>) -> Result<()> {
        self.copies = MatrixCopies::new(copies)?;
        self.refresh_copies()
    }

    /// After an optimizer has changed [`Parameters::flat`].
    pub fn refresh_copies(&self) -> Result<()> {
        self.copies.as_ref().map_or(Ok(()), |copies| copies.write(&self.flat))
    }

    fn refresh_working(&self) -> Result<()> {
        self.working.as_ref().map_or(Ok(()), |working| cast_into(&self.flat, working))?;
        self.refresh_copies()
    }

    /// As [`Parameters::restore`], one slot after the other as `tensor` gives them, so that no second copy of all
    /// numbers is in memory.
    pub fn restore_each(&self, tensor: impl Fn(&ParameterSlot) -> Result<Tensor>) -> Result<()> {
        for slot in &self.slots {
            let numbers = tensor(slot)?.to_device(self.flat.device())?.to_dtype(self.flat.dtype())?.flatten_all()?;
            self.flat.slice_set(&numbers, 0, slot.offset)?;
        }
        self.refresh_working()
    }

    /// The copy that the layers read, where there is one: an optimizer writes it together with [`Parameters::flat`].
    pub fn working(&self) -> Option<&Tensor> {
        self.working.as_ref()
    }

    /// The slots, in order.
    pub fn slots(&self) -> &[ParameterSlot] {
        &self.slots
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        self.flat.elem_count()
    }

    /// A view of the numbers from the first of `names` to the end of the last, which must stand side by side, as [rows,
    /// columns] or `[n]`. It shares memory with the flat buffer: an optimizer step shows through it.
    pub fn view(&self, names: &[String]) -> Result<Option<(Tensor, std::ops::Range<usize>)>> {
        let Some(first) = names.first().and_then(|name| self.slots.iter().position(|slot| slot.name == *name)) else {
            return Ok(None);
        };
        let slots = &self.slots[first..(first + names.len()).min(self.slots.len())];
        if slots.iter().zip(names).any(|(slot, name)| slot.name != *name) || slots.len() != names.len() {
            candle_core::bail!("trained tensors {names:?} are not adjacent")
        }
        let range = slots[0].offset..slots[slots.len() - 1].range().end;
        let flat = self.working.as_ref().unwrap_or(&self.flat).narrow(0, range.start, range.len())?;
        let view = match slots[0].shape.as_slice() {
            [_, columns] => flat.reshape((range.len() / columns, *columns))?,
            _ => flat,
        };
        Ok(Some((view, range)))
    }

    /// The tensors under their names, as views of the flat buffer.
    pub fn named(&self) -> Result<Vec<(String, Tensor)>> {
        self.slots
            .iter()
            .map(|slot| {
                Ok((
                    slot.name.clone(),
                    self.flat.narrow(0, slot.offset, slot.range().len())?.reshape(slot.shape.as_slice())?,
                ))
            })
            .collect()
    }
}
