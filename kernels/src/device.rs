//! The engine's device: the CPU, or one configured GPU.

use candle_core::{DType, Device, Result};

#[cfg(feature = "cuda")]
use super::cuda_errors::explained;
#[cfg(not(feature = "cuda"))]
use super::cuda_libraries::CudaLibraries;

/// Workspace size recommended for Hopper.
pub const CUBLAS_WORKSPACE_BYTES: usize = 64 << 20;

/// Device and dtype of a computation.
#[derive(Clone, Debug)]
pub struct Engine {
    pub device: Device,
    /// Dtype of weights and activations: f32 on the CPU, bf16 on a GPU. Trained parameters have an
    /// f32 copy.
    pub dtype: DType,
}

impl Engine {
    /// The CPU, in f32.
    pub fn cpu() -> Self {
        Self {
            device: Device::Cpu,
            dtype: DType::F32,
        }
    }

    /// GPU `ordinal` of those visible to this process, in bf16.
    ///
    /// # Errors
    /// A build without CUDA, or a GPU that cannot be opened.
    #[cfg(not(feature = "cuda"))]
    pub fn gpu(_ordinal: usize) -> Result<Self> {
        Err(candle_core::Error::Msg(
            CudaLibraries::found().problem().unwrap_or_default() + ", or compute with --cpu",
        ))
    }

    /// GPU `ordinal` of those visible to this process, in bf16.
    ///
    /// # Errors
    /// A build without CUDA, or a GPU that cannot be opened.
    #[cfg(feature = "cuda")]
    pub fn gpu(ordinal: usize) -> Result<Self> {
        let explained = |error: candle_core::Error| {
            candle_core::Error::Msg(format!("GPU {ordinal}: {}", explained(&error.to_string())))
        };
        Ok(Self {
            device: cuda::open(ordinal).map_err(explained)?,
            dtype: DType::BF16,
        })
    }

    /// Number of usable GPUs.
    ///
    /// # Errors
    /// Why there are none, with the remedy.
    pub fn usable_gpus() -> std::result::Result<usize, String> {
        #[cfg(feature = "cuda")]
        return cuda::count().map_err(|error| explained(&error.to_string()));
        #[cfg(not(feature = "cuda"))]
        CudaLibraries::found().problem().map_or(Ok(0), Err)
    }

    /// Why a CUDA build finds no GPU.
    pub fn why_no_gpu() -> Option<String> {
        Self::usable_gpus().err().filter(|_| cfg!(feature = "cuda"))
    }

    /// Number of usable GPUs; 0 in a build without CUDA.
    pub fn gpus() -> usize {
        Self::usable_gpus().unwrap_or(0)
    }

    /// The same device in f32, for comparisons.
    #[must_use]
    pub fn in_f32(self) -> Self {
        Self {
            dtype: DType::F32,
            ..self
        }
    }

    /// Name in a run's record.
    pub fn name(&self) -> String {
        match &self.device {
            Device::Cpu => "cpu".to_owned(),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => cuda::name(device),
            other => format!("{:?}", other.location()),
        }
    }

    /// Compute capability of the kernels, 80 for 8.0; `None` on the CPU.
    pub fn capability(&self) -> Option<u32> {
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => super::cuda::capability(device)
                .ok()
                .map(|found| found.number),
            _ => None,
        }
    }

    /// Bytes in use by all processes; `None` on the CPU.
    pub fn memory_in_use(&self) -> Option<u64> {
        self.memory().map(|(free, total)| total - free)
    }

    /// Bytes free and in total; `None` on the CPU.
    pub fn memory(&self) -> Option<(u64, u64)> {
        memory(&self.device)
    }

    /// `GPU-…`, as in NVML; `None` on the CPU.
    pub fn uuid(&self) -> Option<String> {
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => cuda::uuid(device),
            _ => None,
        }
    }

    /// Peak GPU memory of this process in bytes, without its context; `None` on the CPU.
    pub fn peak_memory(&self) -> Option<u64> {
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => cuda::peak_memory(device).ok(),
            _ => None,
        }
    }

    /// Holds this process to `bytes` of the GPU, of which `outside` are not tensors; no effect on
    /// the CPU. Once a process, before the model is loaded.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "the CPU has no limit")
    )]
    pub fn limit_memory(&self, bytes: u64, outside: u64) -> Result<()> {
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => cuda::limit(device, bytes, outside),
            _ => Ok(()),
        }
    }

    /// Returns unused memory to the driver; no effect on the CPU.
    pub fn trim_memory(&self) -> Result<()> {
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => cuda::trim(device),
            _ => Ok(()),
        }
    }

    /// Waits for all launched work and reports its errors.
    pub fn synchronize(&self) -> Result<()> {
        self.device.synchronize()
    }
}

/// Bytes free and in total; `None` on the CPU.
pub fn memory(device: &Device) -> Option<(u64, u64)> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::memory(device).ok(),
        _ => None,
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::LazyLock;

    use candle_core::cuda_backend::cudarc::cublas;
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
    use candle_core::{CudaDevice, DType, Device, Error, Result, Tensor, bail};
    use parking_lot::Mutex;

    use super::CUBLAS_WORKSPACE_BYTES as WORKSPACE_BYTES;
    use crate::cuda::{address, capability, failed, stream};
    use crate::cuda_libraries::CudaLibraries;

    /// Opened GPUs with cuBLAS's workspace: opening one again would create a second, unordered
    /// stream.
    static OPENED: Opened = LazyLock::new(Mutex::default);

    type Opened = LazyLock<Mutex<Vec<(usize, Device, Tensor)>>>;

    /// Bytes that this process may take, and of these outside of the pool; 0: all that is free.
    static LIMIT: LazyLock<Mutex<[u64; 2]>> = LazyLock::new(Mutex::default);

    /// The first call into CUDA.
    pub(super) fn count() -> Result<usize> {
        if let Some(problem) = CudaLibraries::found().problem() {
            bail!("{problem}")
        }
        let count = CudaContext::device_count()
            .map_err(|error| Error::msg(format!("CUDA cannot be used: {error}")))?;
        Ok(count.max(0) as usize)
    }

    pub(super) fn open(ordinal: usize) -> Result<Device> {
        let mut opened = OPENED.lock();
        if let Some((_, device, _)) = opened.iter().find(|(known, ..)| *known == ordinal) {
            return Ok(device.clone());
        }
        match count()? {
            0 => bail!(
                "CUDA shows this process no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or compute with --cpu"
            ),
            1 if ordinal > 0 => bail!("CUDA shows this process one GPU, number 0"),
            count if ordinal >= count => bail!("CUDA shows this process GPUs 0 to {}", count - 1),
            _ => {}
        }
        let (device, workspace) = new_stream(ordinal)?;
        keep_freed_memory(device.as_cuda_device()?)?;
        opened.push((ordinal, device.clone(), workspace));
        Ok(device)
    }

    /// A stream with cuBLAS's workspace for it.
    fn new_stream(ordinal: usize) -> Result<(Device, Tensor)> {
        let device = Device::new_cuda_with_stream(ordinal)?;
        let Device::Cuda(cuda) = &device else {
            bail!("GPU {ordinal} did not open as a CUDA device")
        };
        capability(cuda)?;
        // SAFETY: a tensor is used by one stream, so there is nothing
        // that events would order.
        unsafe { cuda.disable_event_tracking() };
        // Otherwise cuBLAS allocates, which a graph capture forbids.
        let workspace = Tensor::zeros(WORKSPACE_BYTES / 4, DType::F32, &device)?;
        let handle = cuda.cublas_handle();
        // SAFETY: the workspace lives as long as the handle, in OPENED.
        let status = unsafe {
            cublas::sys::cublasSetWorkspace_v2(
                *handle.handle(),
                address(&workspace)? as *mut _,
                WORKSPACE_BYTES,
            )
        };
        status
            .result()
            .map_err(|error| failed("cuBLAS's workspace", error))?;
        Ok((device, workspace))
    }

    /// Name, index, memory.
    pub(super) fn name(device: &CudaDevice) -> String {
        let stream = device.cuda_stream();
        let context = stream.context();
        let name = context
            .name()
            .unwrap_or_else(|_| "a GPU without a name".to_owned());
        let note = capability(device).map_or_else(|_| String::new(), |found| found.note());
        format!("cuda:{} {name}{note}", context.ordinal())
    }

    pub(super) fn uuid(device: &CudaDevice) -> Option<String> {
        let bytes = device
            .cuda_stream()
            .context()
            .uuid()
            .ok()?
            .bytes
            .map(|byte| byte as u8);
        let hex = format!("{:032x}", u128::from_be_bytes(bytes));
        Some(format!(
            "GPU-{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        ))
    }

    /// Peak reservation of tensors and recorded graphs.
    pub(super) fn peak_memory(device: &CudaDevice) -> Result<u64> {
        reserved(
            device,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH,
            sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH,
        )
    }

    fn reserved(
        device: &CudaDevice,
        attribute: sys::CUmemPool_attribute,
        of_graphs: sys::CUgraphMem_attribute,
    ) -> Result<u64> {
        let (gpu, pool) = pool(device)?;
        let (mut tensors, mut graphs) = (0_u64, 0_u64);
        // SAFETY: the device is open; both attributes are a u64, written during the calls.
        unsafe {
            sys::cuMemPoolGetAttribute(pool, attribute, std::ptr::from_mut(&mut tensors).cast())
                .result()
                .map_err(|error| failed("the memory pool", error))?;
            let to = std::ptr::from_mut(&mut graphs).cast();
            sys::cuDeviceGetGraphMemAttribute(gpu, of_graphs, to)
                .result()
                .map_err(|error| failed("the graphs' memory", error))?;
        }
        Ok(tensors + graphs)
    }

    /// Bytes free and in total.
    pub(super) fn memory(device: &CudaDevice) -> Result<(u64, u64)> {
        stream(device)?;
        let (free, total) =
            result::mem_get_info().map_err(|error| failed("the memory's size", error))?;
        let (free, total) = (free as u64, total as u64);
        let [limit, outside] = *LIMIT.lock();
        if limit == 0 {
            return Ok((free, total));
        }
        let reserved = reserved(
            device,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
            sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT,
        )?;
        let left = limit.saturating_sub(outside + reserved);
        Ok((free.min(left), total.min(limit)))
    }

    /// From now on tensors come from a pool that is no larger.
    pub(super) fn limit(device: &CudaDevice, bytes: u64, outside: u64) -> Result<()> {
        let outside = outside + WORKSPACE_BYTES as u64;
        let mut limit = LIMIT.lock();
        if *limit == [bytes, outside] {
            return Ok(());
        }
        let Some(most) = bytes.checked_sub(outside).filter(|most| *most > 0) else {
            bail!("{bytes} bytes of GPU memory are less than the driver's share: raise the limit")
        };
        let ordinal = stream(device)?.context().ordinal();
        let gpu =
            result::device::get(ordinal as i32).map_err(|error| failed("the device", error))?;
        let mut pool = std::ptr::null_mut();
        // SAFETY: all fields are numbers, for which 0 is the default; the device is open; the pool is never destroyed.
        unsafe {
            let mut properties = std::mem::zeroed::<sys::CUmemPoolProps>();
            properties.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
            properties.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
            properties.location.id = ordinal as i32;
            properties.maxSize = most as usize;
            sys::cuMemPoolCreate(&raw mut pool, &raw const properties)
                .result()
                .map_err(|error| failed("a memory pool", error))?;
            sys::cuDeviceSetMemPool(gpu, pool)
                .result()
                .map_err(|error| failed("a memory pool", error))?;
        }
        *limit = [bytes, outside];
        keep_freed_memory(device)
    }

    pub(super) fn trim(device: &CudaDevice) -> Result<()> {
        stream(device)?
            .synchronize()
            .map_err(|error| failed("earlier work", error))?;
        let (gpu, pool) = pool(device)?;
        // SAFETY: the device is open; only memory that nothing holds is given back.
        unsafe {
            sys::cuMemPoolTrimTo(pool, 0)
                .result()
                .map_err(|error| failed("the memory pool", error))?;
            sys::cuDeviceGraphMemTrim(gpu)
                .result()
                .map_err(|error| failed("the graphs' memory", error))
        }
    }

    /// A device, and the pool of its tensors' memory.
    fn pool(device: &CudaDevice) -> Result<(sys::CUdevice, sys::CUmemoryPool)> {
        let ordinal = stream(device)?.context().ordinal();
        let gpu =
            result::device::get(ordinal as i32).map_err(|error| failed("the device", error))?;
        let mut pool = std::ptr::null_mut();
        // SAFETY: the device is open.
        unsafe { sys::cuDeviceGetMemPool(&raw mut pool, gpu) }
            .result()
            .map_err(|error| failed("the memory pool", error))?;
        Ok((gpu, pool))
    }

    /// Keeps freed memory in the pool. By default it is returned to the driver at every
    /// synchronisation, and allocating it again costs far more than a kernel.
    fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
        let (_, pool) = pool(device)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let threshold = std::ptr::from_ref(&u64::MAX).cast_mut().cast();
        // SAFETY: the pool belongs to the device just opened; the attribute is a u64, read during the call.
        unsafe { sys::cuMemPoolSetAttribute(pool, attribute, threshold) }
            .result()
            .map_err(|error| failed("the memory pool", error))
    }
}
