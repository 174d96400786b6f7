//! What follows from a mixer's input and what it has mixed, without a matrix product.

use candle_core::Tensor;

/// Read by the product that follows the mixer, and by its backward.
#[derive(Debug)]
pub(super) struct MixedInputs {
    /// What is mixed: rotated queries and keys, and values; or the convolution's output.
    pub(super) prepared: Tensor,
    /// [rows, width + adapter_columns]: what the output's matrix reads.
    pub(super) output: Tensor,
}
