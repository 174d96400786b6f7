//! A layer's matrix: in the model's dtype, or frozen and quantized on a GPU.

use candle_core::{DType, Result, Tensor};

use crate::kernels::matmul::{matmul, matmul_f32};
use crate::kernels::quantized::QuantizedMatrix;

/// [outputs, inputs].
#[derive(Clone, Debug)]
pub(super) enum Matrix {
    /// Plain weights; with adapters on a GPU, part of
    /// [`JoinedAdapter::whole`](super::adapter::JoinedAdapter).
    Numbers(Tensor),
    /// [inputs, outputs], on the CPU.
    Transposed(Tensor),
    /// Frozen.
    Quantized(QuantizedMatrix),
}

impl Matrix {
    /// (outputs, inputs).
    pub(super) fn dims2(&self) -> Result<(usize, usize)> {
        match self {
            Self::Numbers(weight) => weight.dims2(),
            Self::Transposed(weight) => weight.dims2().map(|(inputs, outputs)| (outputs, inputs)),
            Self::Quantized(matrix) => matrix.dims2(),
        }
    }

    /// `x`: [rows, inputs] -> [rows, outputs].
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        matmul(x, &self.numbers(x.dtype())?.t()?)
    }

    /// As [`Matrix::forward`] for few rows, unrounded.
    pub(super) fn forward_f32(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Numbers(weight) => matmul_f32(x, &weight.t()?),
            Self::Transposed(weight) => matmul_f32(x, weight),
            Self::Quantized(matrix) => matrix.decode(x, None),
        }
    }

    /// `gradient`: [rows, outputs] -> the input's, [rows, inputs].
    pub(super) fn backward(&self, gradient: &Tensor) -> Result<Tensor> {
        matmul(gradient, &self.numbers(gradient.dtype())?)
    }

    /// [outputs, inputs] in the model's dtype.
    pub(super) fn numbers(&self, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Numbers(weight) => Ok(weight.clone()),
            Self::Transposed(weight) => weight.t(),
            Self::Quantized(matrix) => matrix.numbers(dtype),
        }
    }
}
