//! The gated MLP that every row of a mixture of experts goes through, times the sigmoid of a gate of its own.

use candle_core::{DType, Result, Tensor};

use super::AdapterUse;
use super::gradients::Gradients;
use super::linear::Linear;
use crate::kernels::swiglu::{Activation, gated, gated_backward};

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
    /// The sigmoid of its gate, [rows, 1].
    share: Tensor,
    /// [rows, 2 * width].
    gate_up: Tensor,
    /// [rows, width].
    activated: Tensor,
    /// Before its gate, [rows, hidden].
    output: Tensor,
}

impl SharedExpert {
    /// `x`: [rows, hidden] -> products, and the output, [rows, hidden].
    pub(super) fn forward(&self, x: &Tensor, adapters: AdapterUse<'_>) -> Result<(SharedProducts, Tensor)> {
        let share = ((self.gate.forward(x, adapters)?.neg()?.exp()? + 1.0)?).recip()?;
        let gate_up = self.gate_up.forward(x, adapters)?;
        let activated = gated(&gate_up, self.activation, 0)?;
        let output = self.down.forward(&activated, adapters)?;
        let shared = output.broadcast_mul(&share)?;
        Ok((SharedProducts { share, gate_up, activated, output }, shared))
    }

    /// `gradient`: [rows, hidden] -> that of `x`. Adds the gradients of what is trained.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        products: &SharedProducts,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let SharedProducts { share, gate_up, activated, output } = products;
        let slope = (share - share.sqr()?)?;
        let gate_gradient = ((gradient * output)?.sum_keepdim(1)? * slope)?;
        let own = self.down.backward(&gradient.broadcast_mul(share)?, activated, gradients)?;
        let own = gated_backward(&own, gate_up, self.activation, 0)?;
        self.gate_up.backward(&own, x, gradients)? + self.gate.backward(&gate_gradient, x, gradients)?
    }

    /// Its tensors under their names inside a layer, adapters merged.
    pub(super) fn named(&self, dtype: DType) -> Result<Vec<(String, Tensor)>> {
        let (width, hidden) = (self.gate_up.weight.dims2()?.0 / 2, self.down.weight.dims2()?.0);
        let name = |part: &str| format!("mlp.shared_expert.{part}_proj");
        let parts = [(&*name("gate"), width), (&*name("up"), width)];
        let mut named = self.gate_up.merged_parts(&parts, dtype)?;
        named.extend(self.down.merged_parts(&[(&name("down"), hidden)], dtype)?);
        named.extend(self.gate.merged_parts(&[("mlp.shared_expert_gate", 1)], dtype)?);
        Ok(named)
    }
}
