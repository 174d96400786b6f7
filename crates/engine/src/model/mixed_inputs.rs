//! Activations derived from a mixer's input and output without matmul.

use candle_core::Tensor;

/// Read by the matmul after the mixer, and by the backward.
#[derive(Debug)]
pub(super) struct MixedInputs {
    /// Input of the mixing: rotated queries and keys, and values; or the convolution's output.
    pub(super) prepared: Tensor,
    /// [rows, width + adapter_columns]: input of the output matrix.
    pub(super) output: Tensor,
}

/// Read by a mixer's backward.
pub(super) struct MixerActivations<'a, M> {
    pub(super) packed: &'a Tensor,
    pub(super) mixed: &'a M,
    /// [`MixedInputs::prepared`].
    pub(super) prepared: &'a Tensor,
}
