//! Reads a CPU tensor without copying.

use std::ops::Deref;

use candle_core::{Result, Storage, Tensor, WithDType, bail};

/// A read guard on a tensor's storage.
pub(super) struct Reading<Guard> {
    storage: Guard,
    start: usize,
    length: usize,
}

/// Locks `tensor`, which must be contiguous and on the CPU.
pub(super) fn read(tensor: &Tensor) -> Result<Reading<impl Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!(
            "a kernel was given a tensor that is not contiguous: shape {:?}, strides {:?}",
            tensor.shape(),
            layout.stride()
        )
    };
    Ok(Reading {
        storage,
        start,
        length: end - start,
    })
}

impl<Guard: Deref<Target = Storage>> Reading<Guard> {
    /// Row-major.
    pub(super) fn numbers<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => {
                Ok(&T::cpu_storage_as_slice(storage)?[self.start..self.start + self.length])
            }
            _ => bail!("this operation has no implementation for this device yet"),
        }
    }
}

/// Calls the function for the tensor's dtype.
macro_rules! by_number_type {
    ($tensor:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => $function::<f32>($($argument),*),
            candle_core::DType::F64 => $function::<f64>($($argument),*),
            other => candle_core::bail!("{} computes in f32 or f64, not {other:?}", stringify!($function)),
        }
    };
}
pub(super) use by_number_type;
