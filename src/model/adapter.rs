//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): `y += scale * (x A^T) B^T` beside a frozen matrix, in memory
//! and in PEFT's names.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::Gradients;
use crate::kernels::matmul::{matmul, matmul_add};

/// Whether a forward uses the adapters: on for the policy, off for the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapters {
    /// The model as trained.
    On,
    /// The model as it started.
    Off,
}

/// The adapters of one matrix, or of the parts of a packed one: their A's stand one below the other, since all read the
/// same input.
#[derive(Clone, Debug)]
pub(super) struct AdapterSet {
    /// The A's: [parts * rank, inputs].
    pub(super) a: Tensor,
    pub(super) a_range: Range<usize>,
    pub(super) parts: Vec<AdapterPart>,
    /// r.
    pub(super) rank: usize,
    /// `lora_alpha / rank`.
    pub(super) scale: f64,
}

/// One part's B.
#[derive(Clone, Debug)]
pub(super) struct AdapterPart {
    /// The part's columns in the packed result.
    pub(super) columns: Range<usize>,
    /// B: [outputs, rank]; zeros at the start, so that the first forward equals the base.
    pub(super) b: Tensor,
    pub(super) b_range: Range<usize>,
}

impl AdapterSet {
    /// Adds to `y`, [rows, outputs], what the adapters make of `x`, [rows, inputs].
    pub(super) fn add_forward(&self, y: &Tensor, x: &Tensor) -> Result<()> {
        let inner = matmul(x, &self.a.t()?)?;
        for (index, part) in self.parts.iter().enumerate() {
            let own = inner.narrow(1, index * self.rank, self.rank)?;
            matmul_add(&y.narrow(1, part.columns.start, part.columns.len())?, &own, &part.b.t()?, self.scale)?;
        }
        Ok(())
    }

    /// `gradient`: [rows, outputs]. Adds the gradients of A and B, and to `x_gradient`, [rows, inputs], the input's.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        x_gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let inner = matmul(x, &self.a.t()?)?;
        let mut inner_gradients = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let part_gradient = gradient.narrow(1, part.columns.start, part.columns.len())?;
            let own = inner.narrow(1, index * self.rank, self.rank)?;
            gradients.matmul_add(&part.b_range, &part_gradient.t()?, &own, self.scale)?;
            inner_gradients.push(matmul(&part_gradient, &part.b)?);
        }
        let inner_gradient =
            if let [one] = inner_gradients.as_slice() { one.clone() } else { Tensor::cat(&inner_gradients, 1)? };
        gradients.matmul_add(&self.a_range, &inner_gradient.t()?, x, self.scale)?;
        matmul_add(x_gradient, &inner_gradient, &self.a, self.scale)
    }

    /// `scale * B A` of every part, one below the other: [outputs, inputs].
    pub(super) fn delta(&self) -> Result<Tensor> {
        let deltas = self.parts.iter().enumerate().map(|(index, part)| {
            let a = self.a.narrow(0, index * self.rank, self.rank)?;
            matmul(&part.b, &a)?.affine(self.scale, 0.0)
        });
        Tensor::cat(&deltas.collect::<Result<Vec<_>>>()?, 0)
    }
}
