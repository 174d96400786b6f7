//! Gated MLP, `down(activation(gate x) * up x)`: a layer's own, next to experts, or shared by all
//! rows.

use candle_core::{Result, Tensor};

use super::AdapterUse;
use super::gradients::Gradients;
use super::linear::Linear;
use crate::kernels::open_rows::OpenRows;
use crate::kernels::swiglu::{Activation, gated, gated_backward, gated_open};

/// Gate and up are packed.
#[derive(Clone, Debug)]
pub(super) struct GatedMlp {
    pub(super) gate_up: Linear,
    pub(super) activation: Activation,
    pub(super) down: Linear,
}

/// Saved for the backward, besides the input.
#[derive(Debug)]
pub(super) struct MlpProducts {
    /// [rows, 2 * width].
    pub(super) gate_up: Tensor,
    /// [rows, width + adapter columns of `down`].
    pub(super) activated: Tensor,
}

impl GatedMlp {
    /// `x`: [rows, hidden + adapter columns of `gate_up`] -> saved products and output, [rows,
    /// hidden].
    pub(super) fn forward(
        &self,
        x: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<(MlpProducts, Tensor)> {
        let gate_up = self.gate_up.forward(x, adapters)?;
        let activated = self.activated(&gate_up)?;
        let output = self.down.forward(&activated, adapters)?;
        Ok((MlpProducts { gate_up, activated }, output))
    }

    /// Input of `down`, without its adapters' part.
    pub(super) fn activated(&self, gate_up: &Tensor) -> Result<Tensor> {
        gated(gate_up, self.activation, self.down.adapter_columns())
    }

    /// As [`GatedMlp::forward`] for one new token per row: `x`: [rows, hidden].
    pub(super) fn decode(&self, x: &Tensor, adapters: AdapterUse<'_>) -> Result<OpenRows> {
        let gate_up = self.gate_up.open(x, adapters)?;
        let activated = gated_open(&gate_up, self.activation, x.dtype())?;
        self.down.open(&activated, adapters)
    }

    /// `gradient`: [rows, hidden + adapter columns of `down`] -> of `x`. Adds gradients of trained
    /// weights.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        (gate_up, activated): (&Tensor, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let gradient = self.down.backward(gradient, activated, gradients)?;
        let adapter_columns = self.gate_up.adapter_columns();
        let gradient = gated_backward(&gradient, gate_up, self.activation, adapter_columns)?;
        self.gate_up.backward(&gradient, x, gradients)
    }
}
