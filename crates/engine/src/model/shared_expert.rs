//! The gated MLP that every row of a mixture of experts goes through, times the sigmoid of a gate of its own.

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

/// What its backward reads, besides its input.
#[derive(Debug)]
pub(super) struct SharedProducts {
    /// [rows, 1].
    gate: Tensor,
    mlp: MlpProducts,
    /// Before its gate, [rows, hidden].
    output: Tensor,
}

impl SharedExpert {
    /// `x`: [rows, hidden + adapter columns of the MLP's input], `others`: [rows, hidden] -> products, and `others` with what it gives.
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

    /// As [`SharedExpert::add`] of one new token a row: `x`: [rows, hidden].
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

    /// `gradient`: [rows, hidden] -> that of `x`. Adds the gradients of what is trained.
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
        // Behind `x` are the adapter columns of one product alone.
        let x = self
            .gate
            .with_inner(self.gate.with_adapter_columns(x)?, Adapters::On.into())?;
        own + self.gate.backward(&gate_gradient, &x, gradients)?
    }
}
