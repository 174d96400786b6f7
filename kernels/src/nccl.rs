//! Sums over GPUs of several processes by NVIDIA's NCCL, loaded on first use. Waiting is always
//! cancellable, in case another process is gone.

use candle_core::{Device, Result, Tensor};

/// NVLink multicast is off by default: it requires more of a machine than the rest of NCCL.
const MULTICAST: &str = "NCCL_NVLS_ENABLE";

/// Turns multicast off for this process and its children, unless the user has set it.
///
/// # Safety
/// No other thread of the process may access the environment during the call: call before starting
/// threads.
pub unsafe fn leave_multicast_off() {
    if std::env::var_os(MULTICAST).is_none() {
        // SAFETY: the caller's promise.
        unsafe { std::env::set_var(MULTICAST, "0") };
    }
}

/// NCCL's file, or what is missing; `None` without a usable GPU.
pub fn file() -> Option<std::result::Result<String, String>> {
    #[cfg(feature = "cuda")]
    return crate::cuda_libraries::CudaLibraries::found()
        .driver
        .map(|_| gpu::file());
    #[cfg(not(feature = "cuda"))]
    None
}

/// An NCCL communicator, including this process.
#[derive(Debug)]
pub struct Communicator {
    #[cfg(feature = "cuda")]
    handle: gpu::Handle,
}

impl Communicator {
    /// Creates the id by which processes find each other, for one of them to distribute.
    ///
    /// # Errors
    /// Without NCCL: what to install.
    pub fn new_id() -> Result<Vec<u8>> {
        #[cfg(feature = "cuda")]
        return gpu::new_id();
        #[cfg(not(feature = "cuda"))]
        candle_core::bail!("this build has no CUDA")
    }

    /// Joins as `rank` of `size`, each with its own GPU. `goes_on`: whether to keep waiting.
    ///
    /// # Errors
    /// A missing NCCL, and NCCL's errors.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "the CPU has no use for them")
    )]
    pub fn join(
        id: &[u8],
        (rank, size): (usize, usize),
        device: &Device,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return Ok(Self {
            handle: gpu::Handle::join(id, (rank, size), device, goes_on)?,
        });
        #[cfg(not(feature = "cuda"))]
        candle_core::bail!("this build has no CUDA")
    }

    /// Sums a contiguous f32 tensor over all processes, in place, synchronously. The same GPUs of
    /// the same hosts give the same bits.
    ///
    /// # Errors
    /// NCCL's errors, and when `goes_on` returns false; either makes the communicator unusable.
    pub fn sum(&self, tensor: &Tensor, goes_on: &dyn Fn() -> bool) -> Result<Tensor> {
        self.call(Collective::AllReduce, tensor, goes_on)
    }

    /// Sums a contiguous f32 tensor, `[n]`, over all processes and returns this process's part of
    /// `size` equal ones: a view of the tensor, whose other contents become undefined.
    ///
    /// # Errors
    /// As [`Communicator::sum`].
    pub fn reduce_scatter(&self, tensor: &Tensor, goes_on: &dyn Fn() -> bool) -> Result<Tensor> {
        self.call(Collective::ReduceScatter, tensor, goes_on)
    }

    /// Distributes each process's part to all others, in place. `tensor`: `[n]`, contiguous, f32 or
    /// bf16.
    ///
    /// # Errors
    /// As [`Communicator::sum`].
    pub fn all_gather(&self, tensor: &Tensor, goes_on: &dyn Fn() -> bool) -> Result<Tensor> {
        self.call(Collective::AllGather, tensor, goes_on)
    }

    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "the CPU has no use for them")
    )]
    fn call(
        &self,
        collective: Collective,
        tensor: &Tensor,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        return self.handle.call(collective, tensor, goes_on);
        #[cfg(not(feature = "cuda"))]
        candle_core::bail!("this build has no CUDA")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Collective {
    AllReduce,
    ReduceScatter,
    AllGather,
}

#[cfg(feature = "cuda")]
mod gpu {
    use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicPtr, Ordering};
    use std::time::Duration;

    use candle_core::cuda_backend::cudarc::driver::sys;
    use candle_core::{DType, Device, Result, Tensor, bail};

    use super::Collective;
    use crate::cuda::{address, device, failed, stream};
    use crate::cuda_libraries::{file_of, open_library};

    const NAME: &str = "libnccl.so.2";
    /// Polling interval.
    const ROUND: Duration = Duration::from_micros(20);

    type Comm = *mut c_void;
    /// `ncclResult_t`.
    type Status = c_int;
    const SUCCESS: Status = 0;
    const IN_PROGRESS: Status = 7;
    /// `ncclFloat32`, `ncclBfloat16`, `ncclSum`.
    const FLOAT32: c_int = 7;
    const BFLOAT16: c_int = 9;
    const SUM: c_int = 0;

    /// `ncclUniqueId`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct UniqueId([u8; 128]);

    /// `ncclConfig_t` of NCCL 2.22, supported by later versions.
    #[repr(C)]
    struct Config {
        size: usize,
        magic: c_uint,
        version: c_uint,
        blocking: c_int,
        cga_cluster_size: c_int,
        min_ctas: c_int,
        max_ctas: c_int,
        net_name: *const c_char,
        split_share: c_int,
    }

    type Reduction = unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Comm,
        sys::CUstream,
    ) -> Status;

    /// NCCL functions in use.
    struct Functions {
        get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Status,
        init: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int, *mut Config) -> Status,
        async_error: unsafe extern "C" fn(Comm, *mut Status) -> Status,
        all_reduce: Reduction,
        reduce_scatter: Reduction,
        all_gather: unsafe extern "C" fn(
            *const c_void,
            *mut c_void,
            usize,
            c_int,
            Comm,
            sys::CUstream,
        ) -> Status,
        abort: unsafe extern "C" fn(Comm) -> Status,
        error_string: unsafe extern "C" fn(Status) -> *const c_char,
        last_error: unsafe extern "C" fn(Comm) -> *const c_char,
        file: String,
    }

    static FUNCTIONS: LazyLock<std::result::Result<Functions, String>> = LazyLock::new(load);

    fn load() -> std::result::Result<Functions, String> {
        let library = open_library(NAME).map_err(|missing| {
            format!("{missing} not found: several GPUs need NCCL 2.22 or later; install it, or name its folder in LD_LIBRARY_PATH")
        })?;
        macro_rules! function {
            ($name:literal) => {{
                // SAFETY: the library is open and never closed.
                let found = unsafe { libc::dlsym(library, $name.as_ptr()) };
                if found.is_null() {
                    return Err(format!(
                        "{NAME} has no {}: several GPUs need NCCL 2.22 or later",
                        $name.to_string_lossy()
                    ));
                }
                // SAFETY: the types above are those of nccl.h, which has kept them since 2.22.
                unsafe { std::mem::transmute_copy(&found) }
            }};
        }
        Ok(Functions {
            get_unique_id: function!(c"ncclGetUniqueId"),
            init: function!(c"ncclCommInitRankConfig"),
            async_error: function!(c"ncclCommGetAsyncError"),
            all_reduce: function!(c"ncclAllReduce"),
            reduce_scatter: function!(c"ncclReduceScatter"),
            all_gather: function!(c"ncclAllGather"),
            abort: function!(c"ncclCommAbort"),
            error_string: function!(c"ncclGetErrorString"),
            last_error: function!(c"ncclGetLastError"),
            file: file_of(library, c"ncclAllReduce").unwrap_or_else(|| NAME.to_owned()),
        })
    }

    fn functions() -> Result<&'static Functions> {
        FUNCTIONS
            .as_ref()
            .map_err(|missing| candle_core::Error::msg(missing.clone()))
    }

    pub(super) fn file() -> std::result::Result<String, String> {
        FUNCTIONS
            .as_ref()
            .map(|functions| functions.file.clone())
            .map_err(Clone::clone)
    }

    pub(super) fn new_id() -> Result<Vec<u8>> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: it writes one id.
        let status = unsafe { (functions()?.get_unique_id)(&raw mut id) };
        if status == SUCCESS {
            Ok(id.0.to_vec())
        } else {
            Err(error(std::ptr::null_mut(), status))
        }
    }

    /// NCCL's message.
    fn error(comm: Comm, status: Status) -> candle_core::Error {
        let Ok(functions) = functions() else {
            return failed("NCCL", "it is gone");
        };
        // SAFETY: both return texts that NCCL keeps.
        let (kind, cause) = unsafe {
            (
                (functions.error_string)(status),
                (functions.last_error)(comm),
            )
        };
        // SAFETY: NCCL's texts end with a zero.
        let text = |text: *const c_char| {
            (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy())
        };
        let words: Vec<_> = [text(kind), text(cause)]
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
            .collect();
        failed("NCCL", words.join(": "))
    }

    #[derive(Debug)]
    pub(super) struct Handle {
        /// `ncclComm_t`, non-blocking; null once aborted.
        comm: AtomicPtr<c_void>,
        rank: usize,
        size: usize,
    }

    impl Handle {
        pub(super) fn join(
            id: &[u8],
            (rank, size): (usize, usize),
            device: &Device,
            goes_on: &dyn Fn() -> bool,
        ) -> Result<Self> {
            let Device::Cuda(cuda) = device else {
                bail!("NCCL sums on GPUs")
            };
            let Ok(id) = <[u8; 128]>::try_from(id) else {
                bail!("an id of NCCL has 128 bytes, not {}", id.len())
            };
            // As in NCCL_CONFIG_INITIALIZER.
            let undefined = c_int::MIN;
            let mut config = Config {
                size: size_of::<Config>(),
                magic: 0xcafe_beef,
                version: 22203,
                blocking: 0,
                cga_cluster_size: undefined,
                min_ctas: undefined,
                max_ctas: undefined,
                net_name: std::ptr::null(),
                split_share: undefined,
            };
            stream(cuda)?;
            let mut comm = std::ptr::null_mut();
            // SAFETY: the context is bound; the configuration lives through the call.
            let status = unsafe {
                (functions()?.init)(
                    &raw mut comm,
                    size as c_int,
                    UniqueId(id),
                    rank as c_int,
                    &raw mut config,
                )
            };
            let handle = Self {
                comm: AtomicPtr::new(comm),
                rank,
                size,
            };
            handle.wait(status, goes_on)?;
            Ok(handle)
        }

        /// Runs in place; returns this process's result.
        pub(super) fn call(
            &self,
            collective: Collective,
            tensor: &Tensor,
            goes_on: &dyn Fn() -> bool,
        ) -> Result<Tensor> {
            let number = match (tensor.dtype(), collective) {
                (DType::F32, _) => FLOAT32,
                (DType::BF16, Collective::AllGather) => BFLOAT16,
                (other, _) => bail!("NCCL sums f32, not {other:?}"),
            };
            if !tensor.is_contiguous() {
                bail!(
                    "NCCL needs contiguous numbers, not strides {:?}",
                    tensor.stride()
                )
            }
            let count = tensor.elem_count();
            if collective != Collective::AllReduce && !count.is_multiple_of(self.size) {
                bail!(
                    "{count} numbers are not divided among {} processes",
                    self.size
                )
            }
            if self.comm().is_null() {
                return Err(self.give_up());
            }
            let (start, stream) = (address(tensor)?, stream(device(tensor)?)?);
            let (functions, comm) = (functions()?, self.comm());
            let part = count / self.size;
            let own = start + (self.rank * part * tensor.dtype().size_in_bytes()) as u64;
            let all = start as *mut c_void;
            let own = own as *mut c_void;
            let stream_handle = stream.cu_stream();
            // SAFETY: the tensor has `count` numbers from `all` on and `part` of them from `own` on, as NCCL asks for
            // where it works in place; it outlives the wait below, unless that fails; then the communicator is aborted
            // before this returns.
            let status = unsafe {
                match collective {
                    Collective::AllReduce => {
                        (functions.all_reduce)(all, all, count, number, SUM, comm, stream_handle)
                    }
                    Collective::ReduceScatter => {
                        (functions.reduce_scatter)(all, own, part, number, SUM, comm, stream_handle)
                    }
                    Collective::AllGather => {
                        (functions.all_gather)(own, all, part, number, comm, stream_handle)
                    }
                }
            };
            let summed = self.wait(status, goes_on).and_then(|()| {
                loop {
                    // SAFETY: the stream lives as long as its device.
                    match unsafe { sys::cuStreamQuery(stream.cu_stream()) } {
                        sys::CUresult::CUDA_SUCCESS => return Ok(()),
                        // A broken connection leaves the kernel waiting.
                        sys::CUresult::CUDA_ERROR_NOT_READY => self.wait(IN_PROGRESS, goes_on)?,
                        other => {
                            return Err(failed(
                                "NCCL",
                                other
                                    .result()
                                    .err()
                                    .map_or_else(String::new, |error| error.to_string()),
                            ));
                        }
                    }
                }
            });
            if summed.is_err() {
                self.give_up();
            }
            summed?;
            match collective {
                Collective::ReduceScatter => tensor.narrow(0, self.rank * part, part),
                Collective::AllReduce | Collective::AllGather => Ok(tensor.clone()),
            }
        }

        /// Waits until NCCL's host side has carried out a call.
        fn wait(&self, mut status: Status, goes_on: &dyn Fn() -> bool) -> Result<()> {
            while status == IN_PROGRESS {
                if !goes_on() {
                    return Err(self.give_up());
                }
                std::thread::sleep(ROUND);
                // SAFETY: the communicator is not destroyed before it is dropped; one status is written.
                let asked = unsafe { (functions()?.async_error)(self.comm(), &raw mut status) };
                if asked != SUCCESS && asked != IN_PROGRESS {
                    status = asked;
                }
            }
            if status == SUCCESS {
                Ok(())
            } else {
                Err(error(self.comm(), status))
            }
        }

        fn comm(&self) -> Comm {
            self.comm.load(Ordering::Acquire)
        }

        /// Aborts what runs on this GPU.
        fn give_up(&self) -> candle_core::Error {
            let comm = self.comm.swap(std::ptr::null_mut(), Ordering::AcqRel);
            if let (Ok(functions), false) = (functions(), comm.is_null()) {
                // Not `ncclCommDestroy`, which may wait for the others.
                // SAFETY: nobody else has it any more. Nothing can be done about an error here.
                let _ = unsafe { (functions.abort)(comm) };
            }
            failed("NCCL", "another rank is gone, or the run was stopped")
        }
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            self.give_up();
        }
    }
}
