//! `y = x W^T + b`, where W may be frozen, trained, or frozen with adapters beside it. What is frozen never gets a
//! gradient computed.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::{AdapterSet, AdapterUse, Adapters};
use super::gradients::Gradients;
use super::matrix::Matrix;
use super::parameters::master_dtype;
use crate::kernels::bias::add_bias;
use crate::kernels::open_rows::OpenRows;
use crate::kernels::write_rows::write_columns;

/// A bias, added to every row.
#[derive(Clone, Debug)]
pub(super) struct Bias {
    /// [outputs].
    pub(super) vector: Tensor,
    /// Place of its gradient; None when frozen, as beside adapters.
    pub(super) trained: Option<Range<usize>>,
}

/// One matrix, or several that read the same input, packed one below the other.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    /// [outputs, inputs].
    pub(super) weight: Matrix,
    /// Place of the weight's gradient; None when frozen.
    pub(super) trained: Option<Range<usize>>,
    pub(super) bias: Option<Bias>,
    pub(super) adapters: Option<AdapterSet>,
}

impl Linear {
    /// Whether a backward reads its input.
    pub(super) fn is_trained(&self) -> bool {
        self.trained.is_some() || self.adapters.is_some()
    }

    /// Columns that rows of its input, and of its result's gradient, need behind them (`kernels::matmul`).
    pub(super) fn room(&self) -> usize {
        self.adapters.as_ref().map_or(0, AdapterSet::room)
    }

    /// `x`: [rows, inputs and any room] -> [rows, inputs + room], in memory of its own where there is room.
    pub(super) fn with_room(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs) = (x.dims2()?.0, self.weight.dims2()?.1);
        let own = x.narrow(1, 0, inputs)?;
        match self.room() {
            0 => Ok(own),
            room => {
                let wide = Tensor::zeros((rows, inputs + room), x.dtype(), x.device())?;
                write_columns(&wide, 0, &own)?;
                Ok(wide)
            }
        }
    }

    /// `x`: [rows, inputs + room] -> [rows, outputs].
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

    /// `x`: [rows, inputs + room] as [`Linear::forward`] leaves it: on a GPU with the adapters' inner product behind it.
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

    /// While decoding: `x`: [rows, inputs] -> rows to which the operation that reads them may have to add what adapters
    /// do.
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
            self.closed(x, adapters)?
                .to_dtype(master_dtype(x.dtype()))?,
        ))
    }

    /// Columns behind the input of [`Linear::closed`] that save it a copy.
    pub(super) fn closed_room(&self) -> usize {
        if matches!(self.weight, Matrix::Fp8(_)) {
            0
        } else {
            self.room()
        }
    }

    /// As [`Linear::open`], with all that adapters do: `x`: [rows, inputs and any [`Linear::closed_room`]] -> [rows, outputs],
    /// in the dtype of `x`.
    pub(super) fn closed(&self, x: &Tensor, adapters: AdapterUse<'_>) -> Result<Tensor> {
        // Few rows are not worth widening a matrix.
        if matches!(self.weight, Matrix::Fp8(_)) {
            let set = self
                .adapters
                .as_ref()
                .filter(|_| adapters.adapters == Adapters::On);
            let rows = match set {
                Some(set) => set.closed(x, &self.weight, adapters)?,
                None => Some(self.weight.forward_f32(x)?.to_dtype(x.dtype())?),
            };
            if let Some(rows) = rows {
                return match &self.bias {
                    Some(bias) => add_bias(rows, &bias.vector),
                    None => Ok(rows),
                };
            }
        }
        let x = match self.room() {
            0 => x.clone(),
            room if x.dims2()?.1 == self.weight.dims2()?.1 + room => x.clone(),
            room => Tensor::cat(
                &[
                    x,
                    &Tensor::zeros((x.dims2()?.0, room), x.dtype(), x.device())?,
                ],
                1,
            )?,
        };
        self.forward(&x, adapters)
    }

    /// `gradient`: [rows, outputs + room], `x`: [rows, inputs + room] as in the forward. Adds the gradients of what is
    /// trained here, returns the input's, [rows, inputs].
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
