//! Fused operations with their backward, one a file. All are plain functions on tensors: no tape, so no gradient can be
//! dropped in silence.
//!
//! Every operation computes in `f32` (work) or `f64` (gradient checks), on one thread: the engine runs many
//! micro-batches side by side.

pub mod accumulate; // a += b, in place
pub mod adamw; // one optimizer update of a flat buffer
pub mod attention; // causal attention over packed segments that share prefixes
pub mod attention_gate; // attention's output times the sigmoid of a gate
pub mod bias; // a bias added to every row
pub mod convolution; // a causal convolution of each column
pub mod cuda_errors; // what a CUDA error means, and what to do
pub mod cuda_libraries; // NVIDIA's libraries, looked up at run time
pub mod decode_attention; // one new token a row against the caches
pub mod delta_rule; // the gated delta rule: a state that each token decays and corrects
pub mod device; // where the work is done and in which numbers
pub mod embedding; // rows of a table by number, and the scatter of their gradient
pub mod fp8; // products with frozen matrices in e4m3
pub mod gated_norm; // norm of heads times a gate
pub mod heads; // how rows of queries, keys and values divide
pub mod log_probs; // logits -> log-prob and entropy of the chosen tokens, and back
pub mod matmul; // matrix products
pub mod nccl; // sums over the GPUs of several processes
pub mod open_rows; // rows to which adapters have yet to add
pub mod philox; // random numbers as a function of what they are for
pub mod pinned_memory; // a tensor's numbers in this machine's memory
pub mod rms_norm; // root-mean-square norm
pub mod rope; // norm of queries and keys, then rotary positions
pub mod router; // a softmax over experts, and the most probable of them
pub mod row_adapters; // rows of one batch with adapters of their own
pub mod sampler; // drawing tokens, with their log-probs
pub mod shared_gate; // an expert that every row uses, times the sigmoid of a gate
pub mod soft_cap; // logits kept below a cap
pub mod swiglu; // silu(gate) * up, gelu(gate) * up
pub mod threads; // none of candle's own
pub mod upload; // tensors from mapped files to their device
pub mod write_rows; // rows into a matrix

mod cpu_slice; // a CPU tensor as numbers
#[cfg(feature = "cuda")]
mod cuda; // what every kernel's launch on a GPU shares
#[cfg(feature = "cuda")]
pub mod cuda_graph; // work recorded once and started often
mod gemm; // products of strided views on the CPU
mod real; // f32 and f64, and vector registers

pub use real::Real;
