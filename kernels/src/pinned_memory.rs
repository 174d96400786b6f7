//! Tensors in host memory: one copy each, written directly by the GPU.

use candle_core::{Device, Result, Tensor, WithDType, bail};
use num_traits::ToBytes;

use super::cpu_slice::{by_number_type, numbers};

/// A reusable host buffer; page-locked for copies from a GPU.
#[derive(Debug)]
pub struct HostBuffer(Memory);

#[derive(Debug)]
enum Memory {
    Plain(Vec<u8>),
    #[cfg(feature = "cuda")]
    Pinned(gpu::Pinned),
}

impl HostBuffer {
    /// A buffer for copies from `device`. If pages cannot be locked, plain memory is used, at a
    /// fraction of the speed.
    pub fn new(bytes: usize, device: &Device) -> Self {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Self(
                gpu::Pinned::new(bytes, device)
                    .map_or_else(|_| Memory::Plain(vec![0; bytes]), Memory::Pinned),
            ),
            _ => Self(Memory::Plain(vec![0; bytes])),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Memory::Plain(bytes) => bytes,
            #[cfg(feature = "cuda")]
            Memory::Pinned(pinned) => pinned.bytes(),
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Plain(bytes) => bytes,
            #[cfg(feature = "cuda")]
            Memory::Pinned(pinned) => pinned.bytes_mut(),
        }
    }
}

/// A matrix in page-locked host memory, which kernels read over the bus.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub struct HostTable {
    memory: gpu::Pinned,
    pub(crate) width: usize,
    pub(crate) dtype: candle_core::DType,
}

#[cfg(feature = "cuda")]
impl HostTable {
    /// Copies a contiguous matrix of a GPU.
    ///
    /// # Errors
    /// If no memory can be locked.
    pub(crate) fn new(matrix: &Tensor) -> Result<Self> {
        let ((rows, width), dtype) = (matrix.dims2()?, matrix.dtype());
        let bytes = rows * width * dtype.size_in_bytes();
        let mut memory = gpu::Pinned::new(bytes, matrix.device().as_cuda_device()?)?;
        copy_to_host(matrix, memory.bytes_mut())?;
        Ok(Self {
            memory,
            width,
            dtype,
        })
    }

    /// For kernels of every GPU: with unified addressing it is the host's.
    pub(crate) fn address(&self) -> u64 {
        self.memory.bytes().as_ptr() as u64
    }

    pub(crate) fn bytes(&self) -> usize {
        self.memory.bytes().len()
    }
}

#[cfg(feature = "cuda")]
impl Drop for HostTable {
    fn drop(&mut self) {
        // Kernels that read it may be under way. Errors cannot be handled here.
        let _ = self.memory.synchronize();
    }
}

#[cfg(debug_assertions)]
thread_local! {
    /// Sizes of all copies to the host by this thread, for tests.
    pub static COPIES: std::cell::RefCell<Vec<usize>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Copies a contiguous tensor, possibly a view, into `bytes` (little-endian, exact size). Unlike
/// candle's `to_vec`, does not copy a view's whole storage.
pub fn copy_to_host(tensor: &Tensor, bytes: &mut [u8]) -> Result<()> {
    let size = tensor.elem_count() * tensor.dtype().size_in_bytes();
    if bytes.len() != size {
        bail!(
            "{size} bytes are copied to the host, and the buffer has {}",
            bytes.len()
        )
    }
    #[cfg(debug_assertions)]
    COPIES.with_borrow_mut(|copies| copies.push(size));
    match tensor.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => gpu::copy(tensor, bytes),
        _ => by_number_type!(tensor, copy_numbers(tensor, bytes)),
    }
}

/// A copy from a GPU that may not have finished.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub struct PendingCopy(candle_core::cuda_backend::cudarc::driver::CudaEvent);

#[cfg(feature = "cuda")]
impl PendingCopy {
    pub fn wait(self) -> Result<()> {
        self.0
            .synchronize()
            .map_err(|error| crate::cuda::failed("a copy to the host", error))
    }

    pub fn has_arrived(&self) -> bool {
        self.0.is_complete()
    }
}

/// Completes with all work launched on a GPU so far.
#[cfg(feature = "cuda")]
pub fn mark(device: &candle_core::Device) -> Result<PendingCopy> {
    let stream = device.as_cuda_device()?.cuda_stream();
    stream
        .record_event(None)
        .map(PendingCopy)
        .map_err(|error| crate::cuda::failed("an event", error))
}

/// As [`copy_to_host`] from a GPU, asynchronously: do not touch `bytes` before completion.
#[cfg(feature = "cuda")]
pub fn start_copy_to_host(tensor: &Tensor, bytes: &mut [u8]) -> Result<PendingCopy> {
    let size = tensor.elem_count() * tensor.dtype().size_in_bytes();
    if bytes.len() != size {
        bail!(
            "{size} bytes are copied to the host, and the buffer has {}",
            bytes.len()
        )
    }
    gpu::start_copy(tensor, bytes)?;
    mark(tensor.device())
}

/// Starts a copy of `bytes` (little-endian) to a contiguous GPU tensor, possibly a view. Later
/// launches are ordered after it; `bytes` must be unchanged until something was waited for, such as
/// [`copy_to_host`].
#[cfg(feature = "cuda")]
pub fn copy_to_device(bytes: &[u8], tensor: &Tensor) -> Result<()> {
    let size = tensor.elem_count() * tensor.dtype().size_in_bytes();
    if bytes.len() != size || !tensor.is_contiguous() {
        bail!(
            "{} bytes are copied to a tensor of {size}, strides {:?}",
            bytes.len(),
            tensor.stride()
        )
    }
    gpu::copy_there(bytes, tensor)
}

fn copy_numbers<T: WithDType + ToBytes>(tensor: &Tensor, bytes: &mut [u8]) -> Result<()> {
    numbers!(T: numbers = tensor);
    for (place, number) in bytes.chunks_exact_mut(size_of::<T>()).zip(numbers) {
        place.copy_from_slice(number.to_le_bytes().as_ref());
    }
    Ok(())
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::ptr::NonNull;
    use std::sync::Arc;

    use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys};
    use candle_core::{CudaDevice, Result, Tensor, bail};

    use crate::cuda::{address, device, failed, stream};

    /// Page-locked memory: the GPU copies at the bus's full speed.
    #[derive(Debug)]
    pub(super) struct Pinned {
        start: NonNull<u8>,
        length: usize,
        context: Arc<CudaContext>,
    }

    // SAFETY: it owns its memory, which any thread may read and write.
    unsafe impl Send for Pinned {}
    // SAFETY: shared, it is only read.
    unsafe impl Sync for Pinned {}

    impl Pinned {
        pub(super) fn new(length: usize, device: &CudaDevice) -> Result<Self> {
            let context = stream(device)?.context().clone();
            let mut start = std::ptr::null_mut();
            // SAFETY: the context is bound; the pointer is written during the call. Flags 0: memory that the processor
            // reads at its usual speed.
            unsafe { sys::cuMemHostAlloc(&raw mut start, length.max(1), 0) }
                .result()
                .map_err(|error| failed("page-locking", error))?;
            let Some(start) = NonNull::new(start.cast::<u8>()) else {
                bail!("page-locked memory is nowhere")
            };
            // SAFETY: it was just allocated with this length.
            unsafe { start.as_ptr().write_bytes(0, length) };
            Ok(Self {
                start,
                length,
                context,
            })
        }

        pub(super) fn bytes(&self) -> &[u8] {
            // SAFETY: allocated and written with this length, and not freed before it is dropped.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
        }

        pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: as above, and nobody else holds it.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
        }

        /// Waits for all work of the GPU, whatever its stream.
        pub(super) fn synchronize(&self) -> Result<()> {
            self.context
                .synchronize()
                .map_err(|error| failed("earlier work", error))
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            if self.context.bind_to_thread().is_ok() {
                // SAFETY: it came from cuMemHostAlloc, and every copy to it was waited for. Nothing can be done about
                // an error here.
                let _ = unsafe { sys::cuMemFreeHost(self.start.as_ptr().cast()) }.result();
            }
        }
    }

    pub(super) fn copy_there(bytes: &[u8], tensor: &Tensor) -> Result<()> {
        let (stream, target) = (stream(device(tensor)?)?, address(tensor)?);
        // SAFETY: the tensor has as many bytes from `target` on (checked by the caller); where `bytes` are not
        // page-locked, the call returns only when they were read.
        unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                target,
                bytes.as_ptr().cast(),
                bytes.len(),
                stream.cu_stream(),
            )
        }
        .result()
        .map_err(|error| failed("a copy to the device", error))
    }

    /// Waits for earlier work and the copy.
    pub(super) fn copy(tensor: &Tensor, bytes: &mut [u8]) -> Result<()> {
        start_copy(tensor, bytes)?;
        device(tensor)?
            .cuda_stream()
            .synchronize()
            .map_err(|error| failed("a copy to the host", error))
    }

    /// If `bytes` are not page-locked, returns after the copy.
    pub(super) fn start_copy(tensor: &Tensor, bytes: &mut [u8]) -> Result<()> {
        if !tensor.is_contiguous() {
            bail!(
                "{tensor:?} is copied to the host and is not contiguous: strides {:?}",
                tensor.stride()
            )
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let (stream, source) = (stream(device(tensor)?)?, address(tensor)?);
        // SAFETY: the tensor has as many bytes from `source` on (checked by the caller), and freed memory is used again
        // after the copy only, in the order of the stream; the callers keep `bytes` until they have waited.
        unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                bytes.as_mut_ptr().cast(),
                source,
                bytes.len(),
                stream.cu_stream(),
            )
        }
        .result()
        .map_err(|error| failed("a copy to the host", error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_copied_alone() {
        let all = Tensor::arange(0f32, 10., &Device::Cpu).unwrap();
        let mut buffer = HostBuffer::new(12, &Device::Cpu);
        copy_to_host(&all.narrow(0, 4, 3).unwrap(), buffer.bytes_mut()).unwrap();
        assert_eq!(
            buffer.bytes(),
            [4f32, 5., 6.].map(f32::to_le_bytes).concat()
        );
        let doubles = Tensor::new(&[1.5f64], &Device::Cpu).unwrap();
        copy_to_host(&doubles, &mut buffer.bytes_mut()[..8]).unwrap();
        assert_eq!(&buffer.bytes()[..8], 1.5f64.to_le_bytes());
        assert!(
            copy_to_host(&all, buffer.bytes_mut())
                .unwrap_err()
                .to_string()
                .contains("the buffer has 12")
        );
        let columns = all.reshape((2, 5)).unwrap().t().unwrap();
        assert!(copy_to_host(&columns, &mut [0; 40]).is_err());
    }
}
