//! The gated MLP that every row of a mixture of experts goes through, times the sigmoid of a gate of its own.

use candle_core::{DType, Result, Tensor};

use super::gradients::Gradients;
use super::linear::Linear;
use super::{AdapterUse, Adapters};
use crate::kernels::open_rows::OpenRows;
use crate::kernels::shared_gate::{add_shared, add_shared_backward, add_shared_open};
use crate::kernels::swiglu::{Activation, gated, gated_backward, gated_open};

/// Gate and up are packed.
#[derive(Clone, Debug)]
pub(super) struct SharedExpert {
    /// [1, hidden].
    pub(super) gate: Linear,
    pub(super) gate_up: Linear,
    pub(super) activation: Activation,
    pub(super) down: Linear,
}

/// What its backward reads, besides its input.
#[derive(Debug)]
pub(super) struct SharedProducts {
    /// [rows, 1].
    gate: Tensor,
    /// [rows, 2 * width].
    gate_up: Tensor,
    /// [rows, width + room].
    activated: Tensor,
    /// Before its gate, [rows, hidden].
    output: Tensor,
}

impl SharedExpert {
    /// `x`: [rows, hidden + room of `gate_up`], `others`: [rows, hidden] -> products, and `others` with what it gives.
    pub(super) fn add(
        &self,
        others: &Tensor,
        x: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<(SharedProducts, Tensor)> {
        let gate = self.gate.forward(&self.gate.with_room(x)?, adapters)?;
        let gate_up = self.gate_up.forward(x, adapters)?;
        let activated = gated(&gate_up, self.activation, self.down.room())?;
        let output = self.down.forward(&activated, adapters)?;
        let sum = add_shared(others, &output, &gate)?;
        Ok((
            SharedProducts {
                gate,
                gate_up,
                activated,
                output,
            },
            sum,
        ))
    }

    /// As [`SharedExpert::add`] of one new token a row: `x`: [rows, hidden].
    pub(super) fn decode(
        &self,
        others: &Tensor,
        x: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<OpenRows> {
        let gate_up = self.gate_up.open(x, adapters)?;
        let output = self
            .down
            .open(&gated_open(&gate_up, self.activation, x.dtype())?, adapters)?;
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
        let SharedProducts {
            gate,
            gate_up,
            activated,
            output,
        } = products;
        let rooms = [self.down.room(), self.gate.room()];
        let (own, gate_gradient) = add_shared_backward(gradient, output, gate, rooms)?;
        let own = self.down.backward(&own, activated, gradients)?;
        let own = gated_backward(&own, gate_up, self.activation, self.gate_up.room())?;
        let own = self.gate_up.backward(&own, x, gradients)?;
        // Behind `x` there is room for the adapters of one product alone.
        let x = self
            .gate
            .with_inner(self.gate.with_room(x)?, Adapters::On.into())?;
        own + self.gate.backward(&gate_gradient, &x, gradients)?
    }

    /// Its tensors under their names inside a layer, adapters merged.
    pub(super) fn named(&self, dtype: DType) -> Result<Vec<(String, Tensor)>> {
        let (width, hidden) = (
            self.gate_up.weight.dims2()?.0 / 2,
            self.down.weight.dims2()?.0,
        );
        let name = |part: &str| format!("mlp.shared_expert.{part}_proj");
        let parts = [(&*name("gate"), width), (&*name("up"), width)];
        let mut named = self.gate_up.merged_parts(&parts, dtype)?;
        named.extend(self.down.merged_parts(&[(&name("down"), hidden)], dtype)?);
        named.extend(
            self.gate
                .merged_parts(&[("mlp.shared_expert_gate", 1)], dtype)?,
        );
        Ok(named)
    }
}
