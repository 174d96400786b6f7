//! Fused operations with their backward, one per file: plain functions on tensors without a tape,
//! so no gradient is dropped silently.
//!
//! CPU operations compute in `f32` (work) or `f64` (gradient checks) on one thread: the engine runs
//! micro-batches in parallel.

/// Returns the kernel's result for a tensor on a GPU.
macro_rules! on_gpu {
    ($tensor:expr => $result:expr) => {
        #[cfg(feature = "cuda")]
        if $tensor.device().is_cuda() {
            return $result;
        }
    };
}

pub mod accumulate; // a += b, in place
pub mod adamw; // optimizer update of a flat buffer
pub mod attention; // causal attention over packed segments with shared prefixes
pub mod attention_gate; // attention output times a sigmoid gate
pub mod bias; // adds a bias to every row
pub mod convolution; // causal convolution of columns
pub mod cuda_errors; // explains CUDA errors
pub mod cuda_libraries; // NVIDIA's libraries, loaded at run time
pub mod decode_attention; // attention of one new token per row
pub mod delta_rule; // the gated delta rule
pub mod device; // device and dtype
pub mod embedding; // gather rows, scatter their gradient
pub mod gated_norm; // norm of heads, times a gate
pub mod heads; // layout of queries, keys and values
pub mod k_quants; // llama.cpp's quantized blocks
pub mod log_probs; // log-probs and entropies of chosen tokens
pub mod matmul; // matrix products
pub mod mxfp4; // experts in MXFP4
pub mod nccl; // collectives over GPUs
pub mod nf4; // rounding to NF4
pub mod open_rows; // rows without their adapters' part
pub mod philox; // counter-based random numbers
pub mod pinned_memory; // tensors in host memory
pub mod quantized; // products with frozen matrices in fp8 or NF4
pub mod rms_norm; // root-mean-square norm
pub mod rope; // norm of queries and keys, rotary positions
pub mod router; // softmax over experts, and top-k
pub mod row_adapters; // per-row adapters of a batch
pub mod sampler; // sampling with log-probs
pub mod shaping; // penalties, top-k, top-p, min-p, alternatives
pub mod shared_gate; // shared expert times its sigmoid gate
pub mod soft_cap; // capped logits
pub mod swiglu; // silu(gate) * up, gelu(gate) * up
pub mod threads; // disables candle's threads
pub mod upload; // mapped files -> device
pub mod write_rows; // rows into a matrix

#[cfg(any(test, feature = "cuda"))]
mod capability; // what kernels may use of a GPU
#[cfg(feature = "cuda")]
mod chunks; // allocations of recorded work
mod cpu_slice; // reads a CPU tensor
#[cfg(feature = "cuda")]
mod cuda; // basics of GPU launches
#[cfg(feature = "cuda")]
pub mod cuda_graph; // recorded launches
mod fp8; // rounding to e4m3
mod gemm; // products of strided views on the CPU
mod real; // f32 and f64, vectorisation
#[cfg(feature = "cuda")]
mod rows_map; // boxes of a matrix for bulk copies

pub use real::Real;
