//! One flat buffer of gradients, with the same ranges as the parameters'.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::Parameters;
use super::expert_adapters::OneExpert;
use crate::kernels::accumulate::accumulate;
use crate::kernels::adamw::norm;
use crate::kernels::matmul::matmul_add;

/// Sums of gradients over the micro-batches seen so far.
#[derive(Debug)]
pub struct Gradients {
    flat: Tensor,
}

impl Gradients {
    /// Zeros, one for each trained number, and for padding.
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

    /// Adds `scale * left x right`, which has the tensor's shape, to its range: a weight's gradient without a tensor of
    /// its own.
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

    /// As [`Gradients::matmul_add`], of one expert's B among those of all.
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

    /// The gradient of a range, `[n]`, which shares memory with all.
    pub(super) fn range(&self, range: &Range<usize>) -> Result<Tensor> {
        self.flat.narrow(0, range.start, range.len())
    }

    pub fn add_all(&mut self, other: &Self) -> Result<()> {
        accumulate(&self.flat, &other.flat)
    }

    /// From the gradients of all parameters, `[n]`, such as the sum over ranks.
    pub fn from_flat(flat: Tensor) -> Self {
        Self { flat }
    }

    /// All numbers: `[n]`.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Euclidean norm over all numbers, summed in f64.
    pub fn norm(&self) -> Result<f64> {
        norm(&self.flat)
    }
}
