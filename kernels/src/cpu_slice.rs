//! Reads and changes CPU tensors without copying.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Storage, Tensor, WithDType, bail};

use super::Real;

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
            "a kernel was given a tensor that is not contiguous: {tensor:?}, strides {:?}",
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

/// Binds the numbers of CPU tensors, row-major: `numbers!(T: x = tensor, ..);`.
macro_rules! numbers {
    ($number:ty: $($name:ident = $tensor:expr),+) => {
        $(
            let reading = $crate::cpu_slice::read($tensor)?;
            let $name = reading.numbers::<$number>()?;
        )+
    };
}
pub(super) use numbers;

/// An operation for `Tensor::inplace_op2`.
pub(super) struct InPlace<T, F> {
    name: &'static str,
    work: RefCell<F>,
    number: PhantomData<T>,
}

/// Changes a contiguous CPU tensor in place, reading another of its dtype: `work` gets both,
/// row-major.
pub(super) fn in_place<T: Real, F>(name: &'static str, work: F) -> InPlace<T, F>
where
    F: FnMut(&mut [T], &[T]) -> Result<()>,
{
    InPlace {
        name,
        work: RefCell::new(work),
        number: PhantomData,
    }
}

impl<T: Real, F: FnMut(&mut [T], &[T]) -> Result<()>> InplaceOp2 for InPlace<T, F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> Result<()> {
        let (Some(target), Some((start, end)), Some((from, to))) = (
            T::numbers_mut(target),
            target_layout.contiguous_offsets(),
            source_layout.contiguous_offsets(),
        ) else {
            bail!("{} needs contiguous tensors of one dtype", self.name)
        };
        let source = &T::cpu_storage_as_slice(source)?[from..to];
        (self.work.borrow_mut())(&mut target[start..end], source)
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
