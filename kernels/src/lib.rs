//! Fused operations with their backward, one per file: plain functions on tensors without a tape,
//! so no gradient is dropped silently.
//!
//! CPU operations compute in `f32` (work) or `f64` (gradient checks) on one thread: the engine runs
//! micro-batches in parallel.

pub mod accumulate; // a += b, in place
pub mod adamw; // one optimizer update of a flat buffer
pub mod attention; // causal attention over packed segments that share prefixes
pub mod attention_gate; // attention's output times the sigmoid of a gate
pub mod bias; // a bias added to every row
pub mod convolution; // a causal convolution of each column
pub mod cuda_errors; // what a CUDA error means, and what to do
pub mod cuda_libraries; // NVIDIA's libraries, loaded at run time
pub mod decode_attention; // one new token per row against the caches
pub mod delta_rule; // the gated delta rule
pub mod device; // device and dtype
pub mod embedding; // gather rows, scatter their gradient
pub mod fp8; // products with frozen matrices in e4m3
pub mod gated_norm; // norm of heads times a gate
pub mod heads; // layout of queries, keys and values
pub mod log_probs; // logits -> log-prob and entropy of the chosen tokens, and back
pub mod matmul; // matrix products
pub mod nccl; // sums over GPUs of several processes
pub mod open_rows; // rows to which adapters are still to be added
pub mod philox; // counter-based random numbers
pub mod pinned_memory; // tensors in host memory
pub mod rms_norm; // root-mean-square norm
pub mod rope; // norm of queries and keys, then rotary positions
pub mod router; // a softmax over experts, and the most probable of them
pub mod row_adapters; // per-row adapters of a batch
pub mod sampler; // sampling with log-probs
pub mod shared_gate; // a shared expert times the sigmoid of a gate
pub mod soft_cap; // capped logits
pub mod swiglu; // silu(gate) * up, gelu(gate) * up
pub mod threads; // disables candle's threads
pub mod upload; // tensors from mapped files to their device
pub mod write_rows; // rows into a matrix

mod cpu_slice; // a CPU tensor as numbers
#[cfg(feature = "cuda")]
mod cuda; // shared by all GPU launches
#[cfg(feature = "cuda")]
pub mod cuda_graph; // recorded work, launched often
mod gemm; // products of strided views on the CPU
mod real; // f32 and f64, vectorisation

pub use real::Real;
