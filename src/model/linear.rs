//! `y = x W^T + b`, where W may be frozen, trained, or frozen with adapters beside it. What is frozen never gets a
//! gradient computed.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::{AdapterSet, Adapters};
use super::gradients::Gradients;
use crate::kernels::bias::add_bias;
use crate::kernels::matmul::matmul;

/// What is added to every row of a result.
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
    pub(super) weight: Tensor,
    /// Place of the weight's gradient; None when frozen.
    pub(super) trained: Option<Range<usize>>,
    pub(super) bias: Option<Bias>,
    pub(super) adapters: Option<AdapterSet>,
}

impl Linear {
    /// `x`: [rows, inputs] -> [rows, outputs].
    pub(super) fn forward(&self, x: &Tensor, adapters: Adapters) -> Result<Tensor> {
        let mut y = matmul(x, &self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            y = add_bias(y, &bias.vector)?;
        }
        if let Some(set) = self.adapters.as_ref().filter(|_| adapters == Adapters::On) {
            set.add_forward(&y, x)?;
        }
        Ok(y)
    }

    /// Its parts by name with their outputs, in the order of the packing: `W + scale * B A` [outputs, inputs], and the
    /// bias where there is one.
    pub(super) fn merged_parts(&self, parts: &[(&str, usize)]) -> Result<Vec<(String, Tensor)>> {
        let weight = self.merged()?;
        let (mut named, mut row) = (Vec::with_capacity(2 * parts.len()), 0);
        for (part, outputs) in parts {
            named.push((format!("{part}.weight"), weight.narrow(0, row, *outputs)?));
            if let Some(bias) = &self.bias {
                named.push((format!("{part}.bias"), bias.vector.narrow(0, row, *outputs)?));
            }
            row += outputs;
        }
        Ok(named)
    }

    fn merged(&self) -> Result<Tensor> {
        match &self.adapters {
            Some(set) => &self.weight + set.delta()?,
            None => Ok(self.weight.clone()),
        }
    }

    /// `gradient`: [rows, outputs], `x`: [rows, inputs] as in the forward. Adds the gradients of what is trained here,
    /// returns the input's.
    pub(super) fn backward(&self, gradient: &Tensor, x: &Tensor, gradients: &mut Gradients) -> Result<Tensor> {
        if let Some(range) = &self.trained {
            gradients.matmul_add(range, &gradient.t()?, x, 1.0)?;
        }
        if let Some(range) = self.bias.as_ref().and_then(|bias| bias.trained.as_ref()) {
            gradients.add(range, &gradient.sum(0)?)?;
        }
        let x_gradient = matmul(gradient, &self.weight)?;
        if let Some(set) = &self.adapters {
            set.backward(gradient, x, &x_gradient, gradients)?;
        }
        Ok(x_gradient)
    }
}
