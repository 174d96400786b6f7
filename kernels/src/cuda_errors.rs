//! Explains CUDA errors and their remedies.

use candle_core::Error;

/// A failed call of the driver or of cuBLAS.
#[derive(Debug, thiserror::Error)]
#[error("{operation} on the GPU: {cause}")]
pub struct GpuFailure {
    pub operation: String,
    /// The library's code and message.
    pub cause: String,
    /// Recoverable: the work may be retried in smaller pieces.
    pub is_out_of_memory: bool,
}

#[cfg(feature = "cuda")]
pub(super) fn failed(
    operation: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let cause = error.into();
    let is_out_of_memory = is_out_of_memory_code(&*cause);
    Error::Cuda(Box::new(GpuFailure {
        operation: operation.to_owned(),
        cause: cause.to_string(),
        is_out_of_memory,
    }))
}

/// Whether an error, of our kernels or candle's, is GPU out-of-memory.
pub fn is_out_of_memory(error: &Error) -> bool {
    match error {
        Error::Cuda(error) => match error.downcast_ref::<GpuFailure>() {
            Some(failure) => failure.is_out_of_memory,
            None => is_out_of_memory_code(&**error),
        },
        Error::Context { inner, .. }
        | Error::WithPath { inner, .. }
        | Error::WithBacktrace { inner, .. } => is_out_of_memory(inner),
        _ => false,
    }
}

/// Whether a cudarc error, possibly wrapped by candle, has an out-of-memory code.
#[cfg(feature = "cuda")]
pub(super) fn is_out_of_memory_code(
    error: &(dyn std::error::Error + Send + Sync + 'static),
) -> bool {
    use candle_core::cuda_backend::CudaError;
    use candle_core::cuda_backend::cudarc::cublas::{result::CublasError, sys::cublasStatus_t};
    use candle_core::cuda_backend::cudarc::driver::{result::DriverError, sys::CUresult};

    let driver = |error: &DriverError| error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY;
    let cublas = |error: &CublasError| error.0 == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED;
    match error.downcast_ref::<CudaError>() {
        Some(CudaError::Cuda(error) | CudaError::Load { cuda: error, .. }) => driver(error),
        Some(CudaError::Cublas(error)) => cublas(error),
        Some(_) => false,
        None => {
            error.downcast_ref().is_some_and(driver) || error.downcast_ref().is_some_and(cublas)
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn is_out_of_memory_code(_: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    false
}

/// Advice for an error's text; `None` for unknown faults.
pub fn advice(error: &str) -> Option<String> {
    let has = |names: &[&str]| names.iter().any(|name| error.contains(name));
    let text = if has(&["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"]) {
        "GPU out of memory: hold the base in fp8 or nf4 (base_precision), lower max_completion_tokens, prompt_groups_per_step or lora_rank, \
         raise a --gpu-memory limit, or see `nvidia-smi` for other processes; `train TASK --plan` forecasts what a run needs"
    } else if has(&["CUDA_ERROR_NO_DEVICE"]) {
        "the driver sees no GPU: check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or compute with --cpu"
    } else if has(&["CUDA_ERROR_INVALID_DEVICE"]) {
        "no such GPU: `nvidia-smi -L` lists them, CUDA_VISIBLE_DEVICES selects among them"
    } else if has(&["CUDA_ERROR_STUB_LIBRARY", "CUDA_ERROR_NOT_INITIALIZED"]) {
        "the libcuda.so.1 that was found is the toolkit's stub, or a driver that lacks a function: install a current NVIDIA driver, or take the stub's folder \
         out of LD_LIBRARY_PATH"
    } else if has(&["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"]) {
        "the driver's kernel module and its libcuda.so.1 have different versions: reboot after a driver update; in a container, take the \
         host's library"
    } else if has(&["CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"]) {
        "the libcuda.so.1 that was found is a compatibility package which this GPU does not support: update the driver, or take the package's folder \
         out of LD_LIBRARY_PATH"
    } else if has(&[
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "CUDA_ERROR_INSUFFICIENT_DRIVER",
    ]) {
        "the driver is older than the CUDA toolkit that this program was built with: update the driver, or build with a toolkit that the driver \
         supports (`nvidia-smi` shows the newest)"
    } else if has(&[
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "CUDA_ERROR_INVALID_PTX",
        "CUBLAS_STATUS_ARCH_MISMATCH",
    ]) {
        "this program was not built for the GPU's compute capability (`nvidia-smi --query-gpu=compute_cap --format=csv` says which): build with \
         CUDA_COMPUTE_CAP=80, for 8.0 and later"
    } else if has(&["CUDA_ERROR_SYSTEM_NOT_READY"]) {
        "the GPUs are not ready yet: on machines with NVSwitch the fabric manager must run (`systemctl status nvidia-fabricmanager`)"
    } else if has(&[
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA_ERROR_DEVICE_NOT_LICENSED",
    ]) {
        "another process uses the GPU exclusively, or compute mode forbids it: see `nvidia-smi`"
    } else if has(&[
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    ]) {
        "the GPU's memory or link has a fault: see `nvidia-smi -q -d ECC,PAGE_RETIREMENT`, take another GPU, and resume the run from its last checkpoint"
    } else if has(&[
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUBLAS_STATUS_EXECUTION_FAILED",
    ]) {
        "a kernel failed, and this process can no longer use the GPU; the last checkpoint is whole, so resume. If it happens again, set \
         CUDA_LAUNCH_BLOCKING=1 and report the operation that it names"
    } else if has(&["CUDA_ERROR_UNKNOWN"]) {
        "the driver does not respond correctly: see `nvidia-smi` and the system's log; reload the driver or reboot"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// Adds advice once, before a backtrace that candle may include in the text.
pub fn explained(error: &str) -> String {
    let (what, trace) = error.split_at(error.find("\n   0: ").unwrap_or(error.len()));
    match advice(what) {
        Some(advice) if !what.contains(&advice) => format!("{what}; {advice}{trace}"),
        _ => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_sentence() {
        let check = |error: &str, expected: &str| {
            let found = explained(&format!("swiglu on the GPU: DriverError({error}, \"...\")"));
            assert!(
                found.starts_with("swiglu on the GPU") && found.contains(expected),
                "{found:?} lacks {expected:?}"
            );
            assert_eq!(explained(&found), found, "said once");
        };
        check("CUDA_ERROR_OUT_OF_MEMORY", "max_completion_tokens");
        check("CUBLAS_STATUS_ALLOC_FAILED", "GPU out of memory");
        check("CUDA_ERROR_NO_DEVICE", "--cpu");
        check("CUDA_ERROR_INVALID_DEVICE", "nvidia-smi -L");
        check("CUDA_ERROR_STUB_LIBRARY", "stub");
        check("CUDA_ERROR_NOT_INITIALIZED", "stub");
        check("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "reboot");
        check(
            "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
            "compatibility package",
        );
        check("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "update the driver");
        check("CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_COMPUTE_CAP");
        check("CUDA_ERROR_SYSTEM_NOT_READY", "fabric manager");
        check("CUDA_ERROR_DEVICE_UNAVAILABLE", "compute mode");
        check("CUDA_ERROR_ECC_UNCORRECTABLE", "another GPU");
        check("CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_LAUNCH_BLOCKING=1");
        check("CUDA_ERROR_LAUNCH_FAILED", "resume");
        check("CUDA_ERROR_UNKNOWN", "reboot");
        assert_eq!(
            explained("shape mismatch in matmul"),
            "shape mismatch in matmul"
        );
        let traced = explained("CUDA_ERROR_UNKNOWN\n   0: candle_core::error\n   1: main");
        assert!(
            traced.starts_with("CUDA_ERROR_UNKNOWN; the driver")
                && traced.ends_with("\n   0: candle_core::error\n   1: main"),
            "{traced}"
        );
    }

    #[test]
    fn only_used_up_memory_may_be_tried_again() {
        let failure = |is_out_of_memory| {
            let (operation, cause) = ("matmul".to_owned(), "DriverError(...)".to_owned());
            Error::Cuda(Box::new(GpuFailure {
                operation,
                cause,
                is_out_of_memory,
            }))
        };
        assert!(
            is_out_of_memory(&failure(true)) && is_out_of_memory(&failure(true).context("layer 3"))
        );
        assert!(!is_out_of_memory(&failure(false)));
        // The text alone does not count.
        assert!(!is_out_of_memory(&Error::Msg(
            "CUDA_ERROR_OUT_OF_MEMORY".to_owned()
        )));
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn candle_s_errors_are_known_by_their_code() {
        use candle_core::cuda_backend::CudaError;
        use candle_core::cuda_backend::cudarc::driver::{result::DriverError, sys::CUresult};
        let error = |code| Error::from(CudaError::Cuda(DriverError(code)));
        assert!(is_out_of_memory(&error(CUresult::CUDA_ERROR_OUT_OF_MEMORY)));
        assert!(!is_out_of_memory(&error(
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        )));
    }
}
