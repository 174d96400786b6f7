//! Shared expert of a mixture of experts: a gated MLP for every row, times the sigmoid of its gate.

use candle_core::{Result, Tensor};

use super::gated_mlp::{GatedMlp, MlpProducts};
use super::gradients::Gradients;
use super::linear::Linear;
use super::{AdapterUse, Adapters};
use crate::kernels::open_rows::OpenRows;
use crate::kernels::shared_gate::{add_shared, add_shared_backward, add_shared_open};

#[derive(Clone, Debug)]
pub(super) struct SharedExpert {
    /// [1, hidden].
    pub(super) gate: Linear,
    pub(super) mlp: GatedMlp,
}

/// Saved for the backward, besides the input.
#[derive(Debug)]
pub(super) struct SharedProducts {
    /// [rows, 1].
    gate: Tensor,
    mlp: MlpProducts,
    /// Output before gating, [rows, hidden].
    output: Tensor,
}

impl SharedExpert {
    /// `x`: [rows, hidden + adapter columns of the MLP's input], `others`: [rows, hidden] -> saved
    /// products, and the sum.
    pub(super) fn add(
        &self,
        others: &Tensor,
        x: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<(SharedProducts, Tensor)> {
        let gate = self
            .gate
            .forward(&self.gate.with_adapter_columns(x)?, adapters)?;
        let (mlp, output) = self.mlp.forward(x, adapters)?;
        let sum = add_shared(others, &output, &gate)?;
        Ok((SharedProducts { gate, mlp, output }, sum))
    }

    /// As [`SharedExpert::add`] for one new token per row: `x`: [rows, hidden].
    pub(super) fn decode(
        &self,
        others: &Tensor,
        x: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<OpenRows> {
        let output = self.mlp.decode(x, adapters)?;
        Ok(OpenRows::complete(add_shared_open(
            others,
            &output,
            &self.gate.open(x, adapters)?,
        )?))
    }

    /// `gradient`: [rows, hidden] -> of `x`. Adds gradients of trained weights.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        products: &SharedProducts,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let SharedProducts { gate, mlp, output } = products;
        let columns = [self.mlp.down.adapter_columns(), self.gate.adapter_columns()];
        let (own, gate_gradient) = add_shared_backward(gradient, output, gate, columns)?;
        let products = (&mlp.gate_up, &mlp.activated);
        let own = self.mlp.backward(&own, x, products, gradients)?;
        // `x` has the adapter columns of only one product.
        let x = self
            .gate
            .with_inner(self.gate.with_adapter_columns(x)?, Adapters::On.into())?;
        own + self.gate.backward(&gate_gradient, &x, gradients)?
    }
}
