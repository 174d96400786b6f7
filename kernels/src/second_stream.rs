//! Tensors on another stream of their GPU: the same memory, so that both streams read
//! weights while each has temporaries of its own.
//!
//! Neither stream waits for the other: who writes what the other reads must synchronise first.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};

/// What another stream can read.
pub trait OnStream: Sized {
    /// Shares the memory of all tensors, which must outlive the result. `device`: of
    /// [`Engine::second_stream`](crate::device::Engine::second_stream), or the CPU.
    fn on_stream(&self, device: &Device) -> Result<Self>;
}

impl OnStream for Tensor {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => gpu::on_stream(self, device),
            _ => Ok(self.clone()),
        }
    }
}

impl<T: OnStream> OnStream for Option<T> {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        self.as_ref().map(|one| one.on_stream(device)).transpose()
    }
}

impl<T: OnStream> OnStream for Vec<T> {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        self.iter().map(|one| one.on_stream(device)).collect()
    }
}

impl<T: OnStream> OnStream for Box<T> {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        T::on_stream(self, device).map(Self::new)
    }
}

impl<T: OnStream> OnStream for [T; 2] {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        let [one, other] = self;
        Ok([one.on_stream(device)?, other.on_stream(device)?])
    }
}

impl<T: OnStream, U: OnStream> OnStream for (T, U) {
    fn on_stream(&self, device: &Device) -> Result<Self> {
        Ok((self.0.on_stream(device)?, self.1.on_stream(device)?))
    }
}

impl OnStream for Range<usize> {
    fn on_stream(&self, _: &Device) -> Result<Self> {
        Ok(self.clone())
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::mem::ManuallyDrop;

    use candle_core::op::BackpropOp;
    use candle_core::{CudaDevice, CudaStorage, DType, Result, Shape, Storage, Tensor, bail};

    use crate::cuda::{address, stream};

    pub(super) fn on_stream(tensor: &Tensor, device: &CudaDevice) -> Result<Tensor> {
        let (count, start) = (tensor.elem_count(), address(tensor)?);
        if tensor.is_contiguous() {
            return view(start, count, tensor.dtype(), device)?.reshape(tensor.shape());
        }
        match (tensor.dims(), tensor.stride()) {
            // The last row may end before the stride does; nothing reads beyond it.
            (&[rows, columns], &[stride, 1]) => view(start, rows * stride, tensor.dtype(), device)?
                .reshape((rows, stride))?
                .narrow(1, 0, columns),
            (dims, strides) => bail!("a tensor of {dims:?}, strides {strides:?}, in two streams"),
        }
    }

    /// `[count]` numbers from `start` on, never freed.
    fn view(start: u64, count: usize, dtype: DType, device: &CudaDevice) -> Result<Tensor> {
        let stream = stream(device)?;
        macro_rules! from {
            ($number:ty) => {
                // SAFETY: the numbers belong to a tensor that outlives this one, and are not freed through it (below).
                CudaStorage::wrap_cuda_slice(
                    unsafe { stream.upgrade_device_ptr::<$number>(start, count) },
                    device.clone(),
                )
            };
        }
        let storage = match dtype {
            DType::BF16 => from!(half::bf16),
            DType::F32 => from!(f32),
            DType::U32 => from!(u32),
            DType::U8 => from!(u8),
            other => bail!("a tensor of {other:?} in two streams"),
        };
        let shape = Shape::from(count);
        let view = Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false);
        // One reference stays, so that its memory is not freed twice.
        let _ = ManuallyDrop::new(view.clone());
        Ok(view)
    }
}
