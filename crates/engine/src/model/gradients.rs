//! A flat gradient buffer with the parameters' ranges.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::Parameters;
use super::expert_adapters::OneExpert;
use crate::kernels::accumulate::accumulate;
use crate::kernels::adamw::norm;
use crate::kernels::matmul::matmul_add;

/// Gradient sums over micro-batches.
#[derive(Debug)]
pub struct Gradients {
    flat: Tensor,
}

impl Gradients {
    /// Zeros, including padding.
    pub fn zeros(parameters: &Parameters) -> Result<Self> {
        let (flat, read) = (parameters.flat(), parameters.read());
        Ok(Self {
            flat: Tensor::zeros(read.elem_count(), flat.dtype(), flat.device())?,
        })
    }

    /// Adds a tensor's gradient to its range.
    pub fn add(&mut self, range: &Range<usize>, gradient: &Tensor) -> Result<()> {
        accumulate(
            &self.flat.narrow(0, range.start, range.len())?,
            &gradient.contiguous()?.flatten_all()?,
        )
    }

    /// Adds `scale * left x right`, of the tensor's shape, to its range without a temporary.
    pub(super) fn matmul_add(
        &mut self,
        range: &Range<usize>,
        left: &Tensor,
        right: &Tensor,
        scale: f64,
    ) -> Result<()> {
        let target = self
            .flat
            .narrow(0, range.start, range.len())?
            .reshape((left.dims2()?.0, right.dims2()?.1))?;
        matmul_add(&target, left, right, scale)
    }

    /// As [`Gradients::matmul_add`], for one expert's B.
    pub(super) fn matmul_add_expert(
        &mut self,
        range: &Range<usize>,
        expert: OneExpert,
        (left, right): (&Tensor, &Tensor),
        scale: f64,
    ) -> Result<()> {
        let shape = (left.dims2()?.0, right.dims2()?.1 * expert.count);
        let all = self
            .flat
            .narrow(0, range.start, range.len())?
            .reshape(shape)?;
        matmul_add(&expert.b(&all)?, left, right, scale)
    }

    /// A view of a range, `[n]`.
    pub(super) fn range(&self, range: &Range<usize>) -> Result<Tensor> {
        self.flat.narrow(0, range.start, range.len())
    }

    pub fn add_all(&mut self, other: &Self) -> Result<()> {
        accumulate(&self.flat, &other.flat)
    }

    /// Wraps all gradients, `[n]`, such as the sum over ranks.
    pub fn from_flat(flat: Tensor) -> Self {
        Self { flat }
    }

    /// `[n]`.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Euclidean norm, summed in f64.
    pub fn norm(&self) -> Result<f64> {
        norm(&self.flat)
    }
}
