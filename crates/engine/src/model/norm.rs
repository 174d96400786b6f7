//! A norm's weight, with its backward.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::gradients::Gradients;
use crate::kernels::rms_norm::{Norm, rms_norm_backward, rms_norm_backward_weight};

/// A norm's weight, and the range of its gradient if trained.
#[derive(Clone, Debug)]
pub(super) struct NormWeight {
    /// [width].
    pub(super) weight: Tensor,
    pub(super) trained: Option<Range<usize>>,
    /// Added to the weight.
    pub(super) offset: f64,
    pub(super) epsilon: f64,
}

impl NormWeight {
    pub(super) fn norm(&self) -> Norm<'_> {
        Norm {
            weight: &self.weight,
            offset: self.offset,
            epsilon: self.epsilon,
        }
    }

    /// Backward with a residual: `gradient`: [rows, width], `around`: [rows, width + any adapter
    /// columns] is added -> [rows, width + adapter_columns]. Adds the weight's gradient.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        input: &Tensor,
        around: Option<&Tensor>,
        adapter_columns: usize,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        if let Some(range) = &self.trained {
            gradients.add(
                range,
                &rms_norm_backward_weight(gradient, input, self.epsilon)?,
            )?;
        }
        let width = input.dims2()?.1;
        let around = around
            .map(|around| around.narrow(1, 0, width))
            .transpose()?;
        rms_norm_backward(
            gradient,
            input,
            self.norm(),
            around.as_ref(),
            adapter_columns,
        )
    }
}
