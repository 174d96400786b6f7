//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): `y += scale * (x A^T) B^T` beside a frozen matrix, in memory and in PEFT's names.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::Gradients;

/// Whether a forward uses the adapters: on for the policy, off for the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapters {
    /// The model as trained.
    On,
    /// The model as it started.
    Off,
}

/// The adapter of one matrix; several may stand beside the parts of a packed one.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    /// The part's columns in the packed result.
    pub(super) columns: Range<usize>,
    /// A: [rank, inputs].
    pub(super) down: Tensor,
    /// B: [outputs, rank]; zeros at the start, so that the first forward equals the base.
    pub(super) up: Tensor,
    pub(super) down_range: Range<usize>,
    pub(super) up_range: Range<usize>,
    /// `lora_alpha / rank`.
    pub(super) scale: f64,
}

impl Adapter {
    /// `x`: [rows, inputs] -> [rows, outputs of the part].
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.down.t()?)?.matmul(&self.up.t()?)?.affine(self.scale, 0.0)
    }

    /// `gradient`: [rows, outputs of the part]. Adds the gradients of A and B, returns the input's.
    pub(super) fn backward(&self, gradient: &Tensor, x: &Tensor, gradients: &mut Gradients) -> Result<Tensor> {
        let gradient = gradient.contiguous()?.affine(self.scale, 0.0)?;
        let inner = x.matmul(&self.down.t()?)?;
        gradients.add(&self.up_range, &gradient.t()?.matmul(&inner)?)?;
        let inner_gradient = gradient.matmul(&self.up)?;
        gradients.add(&self.down_range, &inner_gradient.t()?.matmul(x)?)?;
        inner_gradient.matmul(&self.down)
    }
}
