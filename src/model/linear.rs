//! `y = x W^T + b`, where W may be frozen, trained, or frozen with adapters beside it. What is frozen never gets a gradient computed.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::adapter::{Adapter, Adapters};
use super::gradients::Gradients;

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
    pub(super) adapters: Vec<Adapter>,
}

impl Linear {
    /// `x`: [rows, inputs] -> [rows, outputs].
    pub(super) fn forward(&self, x: &Tensor, adapters: Adapters) -> Result<Tensor> {
        let mut y = x.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(&bias.vector)?;
        }
        if self.adapters.is_empty() || adapters == Adapters::Off {
            return Ok(y);
        }
        let parts = self.adapters.iter().map(|adapter| adapter.forward(x)).collect::<Result<Vec<_>>>()?;
        y + Tensor::cat(&parts, 1)?
    }

    /// Its parts by name with their outputs, in the order of the packing: `W + scale * B A` [outputs, inputs], and the bias where there is one.
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
        if self.adapters.is_empty() {
            return Ok(self.weight.clone());
        }
        let deltas = self.adapters.iter().map(|adapter| adapter.up.matmul(&adapter.down)?.affine(adapter.scale, 0.0));
        &self.weight + Tensor::cat(&deltas.collect::<Result<Vec<_>>>()?, 0)?
    }

    /// `gradient`: [rows, outputs], `x`: [rows, inputs] as in the forward. Adds the gradients of what is trained here, returns the input's.
    pub(super) fn backward(&self, gradient: &Tensor, x: &Tensor, gradients: &mut Gradients) -> Result<Tensor> {
        if let Some(range) = &self.trained {
            gradients.add(range, &gradient.t()?.matmul(x)?)?;
        }
        if let Some(range) = self.bias.as_ref().and_then(|bias| bias.trained.as_ref()) {
            gradients.add(range, &gradient.sum(0)?)?;
        }
        let mut x_gradient = gradient.matmul(&self.weight)?;
        for adapter in &self.adapters {
            let part = gradient.narrow(1, adapter.columns.start, adapter.columns.len())?;
            x_gradient = (x_gradient + adapter.backward(&part, x, gradients)?)?;
        }
        Ok(x_gradient)
    }
}
