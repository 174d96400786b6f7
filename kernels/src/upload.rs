//! Uploads tensors from mapped files. A GPU reads such memory through the driver's small buffer, at
//! 7 GB/s on an H200; here threads copy pieces into page-locked memory, from which the GPU reads.

use candle_core::{DType, Device, Result, Tensor};

/// Copies tensors to a device through reusable page-locked buffers.
#[derive(Debug, Default)]
pub struct Uploader {
    #[cfg(feature = "cuda")]
    stages: parking_lot::Mutex<Vec<gpu::Stage>>,
}

impl Uploader {
    /// A tensor of `bytes` (little-endian, row-major) on `device`; `bytes` are not read after
    /// return.
    ///
    /// # Errors
    /// Insufficient device memory, or a failed copy.
    pub fn tensor(
        &self,
        bytes: &[u8],
        dtype: DType,
        shape: &[usize],
        device: &Device,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device
            && bytes.len() >= gpu::MIN_BYTES
            && matches!(dtype, DType::BF16 | DType::F32 | DType::U8)
        {
            return gpu::tensor(self, bytes, dtype, shape, device);
        }
        Tensor::from_raw_buffer(bytes, dtype, shape, device)
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use candle_core::cuda_backend::cudarc::driver::{CudaEvent, sys};
    use candle_core::{CudaDevice, DType, Device, Result, Tensor, bail};

    use super::Uploader;
    use crate::cuda::{address, empty, failed};
    use crate::pinned_memory::HostBuffer;

    /// Below this, threads cost more than they save.
    pub(super) const MIN_BYTES: usize = 1 << 20;
    /// Bytes per thread and copy.
    const PIECE_BYTES: usize = 4 << 20;
    /// Thread limit; with more the bus is the limit: 53 GB/s on an H200.
    const MAX_THREADS: usize = 12;
    /// A thread fills one while the GPU reads the other.
    const STAGES_A_THREAD: usize = 2;

    /// A page-locked buffer, and the event after which the GPU has read it.
    #[derive(Debug)]
    pub(super) struct Stage {
        taken: CudaEvent,
        buffer: HostBuffer,
    }

    impl Drop for Stage {
        fn drop(&mut self) {
            // Its memory is freed next; errors cannot be handled here.
            let _ = self.taken.synchronize();
        }
    }

    pub(super) fn tensor(
        uploader: &Uploader,
        bytes: &[u8],
        dtype: DType,
        shape: &[usize],
        device: &CudaDevice,
    ) -> Result<Tensor> {
        let target = empty(shape, dtype, device)?;
        if bytes.len() != target.elem_count() * dtype.size_in_bytes() {
            bail!(
                "{} bytes for a tensor of shape {shape:?} and dtype {dtype:?}",
                bytes.len()
            )
        }
        let mut stages = uploader.stages.lock();
        let (start, stream, next) = (address(&target)?, device.cuda_stream(), AtomicUsize::new(0));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores
            .min(MAX_THREADS)
            .min(bytes.len().div_ceil(PIECE_BYTES));
        while stages.len() < threads * STAGES_A_THREAD {
            let taken = stream
                .context()
                .new_event(None)
                .map_err(|error| failed("an event", error))?;
            stages.push(Stage {
                taken,
                buffer: HostBuffer::new(PIECE_BYTES, &Device::Cuda(device.clone())),
            });
        }
        let copy = |stages: &mut [Stage]| -> Result<()> {
            let failed = |error| failed("a copy to the device", error);
            stream.context().bind_to_thread().map_err(failed)?;
            for turn in 0.. {
                let at = next.fetch_add(PIECE_BYTES, Ordering::Relaxed);
                let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) else {
                    break;
                };
                let piece = &rest[..rest.len().min(PIECE_BYTES)];
                let stage = &mut stages[turn % STAGES_A_THREAD];
                stage.taken.synchronize().map_err(failed)?;
                stage.buffer.bytes_mut()[..piece.len()].copy_from_slice(piece);
                // SAFETY: the target has as many bytes from `start` on (checked above), and is freed in the order of the
                // stream; the stage is not written again, nor freed, before the event.
                unsafe {
                    sys::cuMemcpyHtoDAsync_v2(
                        start + at as u64,
                        stage.buffer.bytes().as_ptr().cast(),
                        piece.len(),
                        stream.cu_stream(),
                    )
                }
                .result()
                .map_err(failed)?;
                // If recording fails, wait for the copy.
                stage
                    .taken
                    .record(&stream)
                    .or_else(|_| stream.synchronize())
                    .map_err(failed)?;
            }
            Ok(())
        };
        let copy = &copy;
        let copied: Result<()> = std::thread::scope(|scope| {
            let stages = stages.chunks_mut(STAGES_A_THREAD).take(threads);
            let threads: Vec<_> = stages.map(|own| scope.spawn(move || copy(own))).collect();
            // Join all, whatever the first result: they write to `target`.
            let ended: Vec<Result<()>> = threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(failed("a copy to the device", "its thread died")))
                })
                .collect();
            ended.into_iter().collect()
        });
        copied.map(|()| target)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_the_tensor_that_they_are() {
        let bytes = [1.5f32, -2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
        let tensor = Uploader::default()
            .tensor(&bytes, DType::F32, &[2, 2], &Device::Cpu)
            .unwrap();
        assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1.5, -2.0], [3.0, 4.0]]);
    }
}
