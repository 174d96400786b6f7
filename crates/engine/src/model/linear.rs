//! `y = x W^T + b`, with W frozen, trained, or frozen with adapters. Frozen weights never get
//! gradients.
//!
//! On a GPU, W and its adapters form one matrix, `[[W, scale * B], [A, 0]]` (`JoinedAdapter`). Its
//! input rows have *adapter columns* at the end for `x A^T`; one product of the wider rows is `x
//! W^T + scale * x A^T B^T`, rounded once. In the backward the result's gradient has as many, for
//! its product with `scale * B`. Operations that produce such rows take the number of columns: 0 on
//! the CPU, and without adapters.
//!
//! In decoding a row is multiplied by `[W; A]` and remains *open*: the operation that reads it adds
//! B's part (`OpenRows`). A row including the adapters' part is *complete*.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::{AdapterSet, AdapterUse, Adapters};
use super::gradients::Gradients;
use super::matrix::Matrix;
use super::parameters::master_dtype;
use crate::kernels::bias::add_bias;
use crate::kernels::open_rows::OpenRows;
use crate::kernels::write_rows::write_columns;

/// Added to every row.
#[derive(Clone, Debug)]
pub(super) struct Bias {
    /// [outputs].
    pub(super) vector: Tensor,
    /// Range of its gradient; `None` if frozen, as with adapters.
    pub(super) trained: Option<Range<usize>>,
}

/// A matrix, or several with the same input, stacked.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    /// [outputs, inputs].
    pub(super) weight: Matrix,
    /// Range of the weight's gradient; `None` if frozen.
    pub(super) trained: Option<Range<usize>>,
    pub(super) bias: Option<Bias>,
    pub(super) adapters: Option<AdapterSet>,
}

impl Linear {
    /// Whether a backward needs its input.
    pub(super) fn is_trained(&self) -> bool {
        self.trained.is_some() || self.adapters.is_some()
    }

    /// Additional columns of its input, and of its result's gradient (`kernels::matmul`).
    pub(super) fn adapter_columns(&self) -> usize {
        self.adapters
            .as_ref()
            .map_or(0, AdapterSet::adapter_columns)
    }

    /// `x`: [rows, inputs and any adapter columns] -> [rows, inputs + adapter_columns], in new
    /// memory if there are any.
    pub(super) fn with_adapter_columns(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs) = (x.dims2()?.0, self.weight.dims2()?.1);
        let own = x.narrow(1, 0, inputs)?;
        match self.adapter_columns() {
            0 => Ok(own),
            adapter_columns => {
                let wide = Tensor::zeros((rows, inputs + adapter_columns), x.dtype(), x.device())?;
                write_columns(&wide, 0, &own)?;
                Ok(wide)
            }
        }
    }

    /// `x`: [rows, inputs + adapter_columns] -> [rows, outputs].
    pub(super) fn forward(&self, x: &Tensor, adapters: AdapterUse<'_>) -> Result<Tensor> {
        let y = match self
            .adapters
            .as_ref()
            .filter(|_| adapters.adapters == Adapters::On)
        {
            Some(set) => set.forward(x, &self.weight, adapters)?,
            None => self
                .weight
                .forward(&x.narrow(1, 0, self.weight.dims2()?.1)?)?,
        };
        match &self.bias {
            Some(bias) => add_bias(y, &bias.vector),
            None => Ok(y),
        }
    }

    /// `x`: [rows, inputs + adapter_columns] as left by [`Linear::forward`]: on a GPU with the
    /// adapters' inner product.
    pub(super) fn with_inner(&self, x: Tensor, adapters: AdapterUse<'_>) -> Result<Tensor> {
        if let Some(set) = self
            .adapters
            .as_ref()
            .filter(|_| adapters.adapters == Adapters::On)
        {
            set.write_inner(&x, adapters)?;
        }
        Ok(x)
    }

    /// Decoding: `x`: [rows, inputs] -> rows to which the reading operation may have to add the
    /// adapters' part.
    pub(super) fn open(&self, x: &Tensor, adapters: AdapterUse<'_>) -> Result<OpenRows> {
        let set = self
            .adapters
            .as_ref()
            .filter(|_| adapters.adapters == Adapters::On && self.bias.is_none());
        if let Some(open) = set.map_or(Ok(None), |set| set.open(x, &self.weight, adapters))? {
            return Ok(open);
        }
        let is_plain =
            self.bias.is_none() && (self.adapters.is_none() || adapters.adapters == Adapters::Off);
        if is_plain && x.device().is_cuda() {
            return Ok(OpenRows::complete(self.weight.forward_f32(x)?));
        }
        Ok(OpenRows::complete(
            self.complete(x, adapters)?
                .to_dtype(master_dtype(x.dtype()))?,
        ))
    }

    /// As [`Linear::open`], including adapters -> [rows, outputs], in the dtype of `x`.
    pub(super) fn complete(&self, x: &Tensor, adapters: AdapterUse<'_>) -> Result<Tensor> {
        let set = self
            .adapters
            .as_ref()
            .filter(|_| adapters.adapters == Adapters::On);
        let rows = match (set, &self.weight) {
            (Some(set), weight) => set.complete(x, weight, adapters)?,
            // Few rows do not justify widening a matrix.
            (None, Matrix::Quantized(_)) => Some(self.weight.forward_f32(x)?.to_dtype(x.dtype())?),
            (None, _) => None,
        };
        match (rows, &self.bias) {
            (Some(rows), Some(bias)) => add_bias(rows, &bias.vector),
            (Some(rows), None) => Ok(rows),
            (None, _) if set.is_some() => self.forward(&self.with_adapter_columns(x)?, adapters),
            (None, _) => self.forward(x, adapters),
        }
    }

    /// `gradient`: [rows, outputs + adapter_columns], `x`: [rows, inputs + adapter_columns] as in
    /// the forward. Adds gradients of trained weights, returns the input's, [rows, inputs].
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if let Some(range) = &self.trained {
            match &self.weight {
                Matrix::Transposed(_) => gradients.matmul_add(range, &x.t()?, gradient, 1.0)?,
                _ => gradients.matmul_add(range, &gradient.t()?, x, 1.0)?,
            }
        }
        if let Some(range) = self.bias.as_ref().and_then(|bias| bias.trained.as_ref()) {
            gradients.add(range, &gradient.sum(0)?)?;
        }
        match &self.adapters {
            Some(set) => set.backward(gradient, x, &self.weight, gradients),
            None => self.weight.backward(gradient),
        }
    }
}
