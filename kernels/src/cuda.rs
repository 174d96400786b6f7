//! CUDA basics shared by all kernel launches: modules, tensor addresses, new tensors, device
//! configuration.
//!
//! All work on tensors of one `Device` goes to one stream in call order, so launches and freed tensors
//! need no synchronisation.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock};

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaStream, DevicePtr, sys};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Shape, Storage, Tensor, bail};
use parking_lot::Mutex;

pub(super) use super::capability::capability;
use super::chunks::part_of_chunk;
pub(super) use super::cuda_errors::failed;

/// Kernels of one `.cu` file, compiled by build.rs.
pub(super) struct Module {
    /// File name without extension.
    pub(super) name: &'static str,
    /// For 8.0 to 8.9, for 9.0, and for later ones (PTX), as build.rs has it.
    pub(super) images: [&'static [u8]; 3],
}

/// The module of `src/kernels/NAME.cu`.
macro_rules! module {
    ($name:literal) => {
        $crate::cuda::Module {
            name: $name,
            images: [
                include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".80.fatbin")),
                include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".90a.fatbin")),
                include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".90.fatbin")),
            ],
        }
    };
}
pub(super) use module;

/// Launch configuration: blocks, threads, dynamic shared memory in bytes (above 48 KiB is requested
/// here).
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) blocks: (usize, usize, usize),
    pub(super) threads: usize,
    pub(super) shared_bytes: usize,
}

impl Grid {
    /// Without dynamic shared memory.
    pub(super) fn blocks(blocks: (usize, usize, usize), threads: usize) -> Self {
        Self {
            blocks,
            threads,
            shared_bytes: 0,
        }
    }

    /// Blocks in one dimension, without dynamic shared memory.
    pub(super) fn rows(blocks: usize, threads: usize) -> Self {
        Self::blocks((blocks, 1, 1), threads)
    }

    /// One thread per element, 256 per block.
    pub(super) fn elements(count: usize) -> Self {
        Self::rows(count.div_ceil(256), 256)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// `T *`.
    Address(u64),
    /// `int`.
    Int(i32),
    /// `unsigned int`.
    Unsigned(u32),
    /// `unsigned long long`.
    Long(u64),
    /// `float`.
    Float(f32),
    /// `double`.
    Double(f64),
    /// A struct, copied by the launch: must live until then.
    Struct(*const c_void),
}

impl Argument {
    /// Address of the value, as passed to a launch.
    fn pointer(&self) -> *mut c_void {
        match self {
            Self::Address(value) | Self::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Unsigned(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Double(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Struct(place) => place.cast_mut(),
        }
    }
}

/// Kernel arguments in the order of its parameters: `at` tensors, `int` and `long` counts, `float`
/// scalars, `given` arguments.
macro_rules! arguments {
    (@at $tensor:expr) => { $crate::cuda::at($tensor)? };
    (@int $count:expr) => { $crate::cuda::int($count) };
    (@long $count:expr) => { $crate::cuda::Argument::Long($count as u64) };
    (@float $number:expr) => { $crate::cuda::float($number) };
    (@given $argument:expr) => { $argument };
    ($($kind:ident $($value:expr),+);+) => {
        [$($($crate::cuda::arguments!(@$kind $value)),+),+]
    };
}
pub(super) use arguments;

/// Address of a contiguous GPU tensor. A kernel may write to it, visibly to tensors that share the
/// memory.
pub(super) fn at(tensor: &Tensor) -> Result<Argument> {
    if !tensor.is_contiguous() {
        bail!(
            "a kernel was given a tensor that is not contiguous: {tensor:?}, strides {:?}",
            tensor.stride()
        )
    }
    Ok(Argument::Address(address(tensor)?))
}

/// Address and row stride of a matrix with contiguous rows.
pub(super) fn rows_at(tensor: &Tensor) -> Result<[Argument; 2]> {
    match *tensor.stride() {
        [stride, 1] => Ok([Argument::Address(address(tensor)?), int(stride)]),
        ref other => {
            bail!("a kernel was given rows that are not contiguous: {tensor:?}, strides {other:?}")
        }
    }
}

/// A count or an index.
pub(super) fn int(value: usize) -> Argument {
    Argument::Int(value as i32)
}

/// A scale, an epsilon.
pub(super) fn float(value: f64) -> Argument {
    Argument::Float(value as f32)
}

/// Address of a tensor's first element, whatever its strides.
pub(super) fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        bail!("a GPU kernel was given a tensor of another device")
    };
    let stream = storage.device.cuda_stream();
    macro_rules! start {
        ($number:ty) => {
            storage.as_cuda_slice::<$number>()?.device_ptr(&stream).0
                + (layout.start_offset() * size_of::<$number>()) as u64
        };
    }
    Ok(match tensor.dtype() {
        DType::BF16 => start!(half::bf16),
        DType::F32 => start!(f32),
        DType::F64 => start!(f64),
        DType::U32 => start!(u32),
        DType::U8 => start!(u8),
        DType::I64 => start!(i64),
        other => bail!("no kernel works on {other:?}"),
    })
}

/// The GPU that a tensor is on.
pub(super) fn device(tensor: &Tensor) -> Result<&CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Ok(device),
        _ => bail!("a GPU kernel was given a tensor of another device"),
    }
}

/// A GPU's stream, for calls of the driver by this thread.
pub(super) fn stream(device: &CudaDevice) -> Result<Arc<CudaStream>> {
    let stream = device.cuda_stream();
    stream
        .context()
        .bind_to_thread()
        .map_err(|error| failed("the context", error))?;
    Ok(stream)
}

/// An uninitialised tensor: a kernel must write every element.
pub(super) fn empty(shape: impl Into<Shape>, dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    let shape = shape.into();
    let allocated = |count: usize| allocate(count.into(), dtype, device);
    match part_of_chunk(shape.elem_count(), dtype, device, allocated)? {
        Some(part) => part.reshape(shape),
        None => allocate(shape, dtype, device),
    }
}

/// As [`empty`], with memory of its own.
fn allocate(shape: Shape, dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    let count = shape.elem_count();
    macro_rules! allocate {
        ($number:ty) => {
            // SAFETY: these numbers have no invalid bit patterns; what is there until a kernel writes is arbitrary,
            // not undefined.
            CudaStorage::wrap_cuda_slice(unsafe { device.alloc::<$number>(count)? }, device.clone())
        };
    }
    let storage = match dtype {
        DType::BF16 => allocate!(half::bf16),
        DType::F32 => allocate!(f32),
        DType::F64 => allocate!(f64),
        DType::U32 => allocate!(u32),
        DType::U8 => allocate!(u8),
        other => bail!("no kernel writes {other:?}"),
    };
    Ok(Tensor::from_storage(
        Storage::Cuda(storage),
        shape,
        BackpropOp::none(),
        false,
    ))
}

impl Module {
    /// A kernel with one variant.
    pub(super) const fn kernel(&'static self, name: &'static str) -> Kernel {
        Kernel {
            module: self,
            name,
            dtype: None,
            is_early: false,
            cluster: 1,
        }
    }

    /// The variant of a kernel for a dtype: `name_f32` or `name_bf16`.
    pub(super) const fn typed(&'static self, name: &'static str, dtype: DType) -> Kernel {
        Kernel {
            dtype: Some(dtype),
            ..self.kernel(name)
        }
    }
}

/// `partial`: [parts, columns] -> sums of the parts in order, `[columns]`, f32, by kernel `name` of
/// such arguments, 32 columns a block.
pub(super) fn sum_parts(
    module: &'static Module,
    name: &'static str,
    partial: &Tensor,
) -> Result<Tensor> {
    let ((parts, columns), device) = (partial.dims2()?, device(partial)?);
    let sums = empty(columns, DType::F32, device)?;
    let arguments = arguments!(at partial, &sums; int parts, columns);
    let grid = Grid::rows(columns.div_ceil(32), 256);
    module.kernel(name).launch(device, grid, &arguments)?;
    Ok(sums)
}

/// A kernel with its launch options.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    module: &'static Module,
    name: &'static str,
    dtype: Option<DType>,
    is_early: bool,
    /// Adjacent blocks that share their shared memory.
    cluster: u32,
}

impl Kernel {
    /// Overlaps the end of the previous kernel on GPUs that can (programmatic dependent launch).
    /// Until it has called `wait_for_predecessor`, the kernel may read only what neither the kernel
    /// before nor, where that starts it before its own wait (`start_successor`), the ones before
    /// write.
    pub(super) const fn early(self) -> Self {
        Self {
            is_early: true,
            ..self
        }
    }

    /// In clusters of `cluster` adjacent blocks, which share their shared memory.
    pub(super) const fn clusters(self, cluster: usize) -> Self {
        Self {
            cluster: cluster as u32,
            ..self
        }
    }

    pub(super) fn launch(
        self,
        device: &CudaDevice,
        grid: Grid,
        arguments: &[Argument],
    ) -> Result<()> {
        let Self {
            name,
            is_early,
            cluster,
            ..
        } = self;
        let (x, y, z) = grid.blocks;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        let function = self.function(device, grid.shared_bytes)?;
        let mut parameters: Vec<*mut c_void> = arguments.iter().map(Argument::pointer).collect();
        let attribute = |id, value| sys::CUlaunchAttribute {
            id,
            pad: [0; 4],
            value,
        };
        let early = sys::CUlaunchAttributeValue {
            programmaticStreamSerializationAllowed: 1,
        };
        let together = sys::CUlaunchAttributeValue {
            clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 {
                x: cluster,
                y: 1,
                z: 1,
            },
        };
        let mut attributes = Vec::with_capacity(2);
        if is_early && capability(device)?.has_clusters() {
            let id =
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attributes.push(attribute(id, early));
        }
        if cluster > 1 {
            attributes.push(attribute(
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                together,
            ));
        }
        let stream = stream(device)?;
        let config = sys::CUlaunchConfig {
            gridDimX: x as u32,
            gridDimY: y as u32,
            gridDimZ: z as u32,
            blockDimX: grid.threads as u32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared_bytes as u32,
            hStream: stream.cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        // SAFETY: each operation's file keeps its kernel's parameters and its call side by side; sizes are checked there,
        // on tensors that outlive the call, and memory freed afterwards is freed in the order of the same stream.
        let result = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.cu_function(),
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        result.result().map_err(|error| failed(name, error))
    }

    fn function(self, device: &CudaDevice, shared_bytes: usize) -> Result<CudaFunction> {
        let Self {
            module,
            name,
            dtype,
            ..
        } = self;
        let context = device.cuda_stream().context().clone();
        let key = (context.ordinal(), module.name, name, dtype);
        // Above 48 KiB with the static one.
        let is_large = shared_bytes > 40 << 10;
        let mut functions = FUNCTIONS.lock();
        let known = functions.get(&key);
        if let Some((function, may_be_large)) = known
            && (*may_be_large || !is_large)
        {
            return Ok(function.clone());
        }
        let function = match known {
            Some((function, _)) => function.clone(),
            None => {
                let full_name = match dtype {
                    None => name.to_owned(),
                    Some(DType::F32) => format!("{name}_f32"),
                    Some(DType::BF16) => format!("{name}_bf16"),
                    Some(other) => bail!("{name} computes in f32 or bf16 on a GPU, not {other:?}"),
                };
                let image = module.images[capability(device)?.image()];
                let image = Ptx::from_binary(image.to_vec());
                let loaded = context
                    .load_module(image)
                    .map_err(|error| failed(module.name, error))?;
                loaded
                    .load_function(&full_name)
                    .map_err(|error| failed(name, error))?
            }
        };
        if is_large {
            // Static shared memory counts too.
            let own = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            let bytes = capability(device)?.shared_bytes as i32
                - function
                    .get_attribute(own)
                    .map_err(|error| failed(name, error))?;
            let attribute =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function
                .set_attribute(attribute, bytes)
                .map_err(|error| failed(name, error))?;
        }
        functions.insert(key, (function.clone(), is_large));
        Ok(function)
    }
}

type Key = (usize, &'static str, &'static str, Option<DType>);

/// Cached functions, and whether more than 48 KiB of shared memory was granted: querying the driver
/// takes longer than many kernels.
static FUNCTIONS: LazyLock<Mutex<HashMap<Key, (CudaFunction, bool)>>> =
    LazyLock::new(Mutex::default);
