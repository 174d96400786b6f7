//! A mixture of experts: each row goes through the few experts that the router chooses, all rows of an expert together.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::AdapterUse;
use super::gradients::Gradients;
use super::linear::Linear;
use crate::kernels::embedding::{gather_rows, scatter_rows};
use crate::kernels::router::{Router, Routing, route, route_backward};
use crate::kernels::swiglu::{Activation, gated, gated_backward};

#[cfg(test)]
thread_local! {
    /// What each call on this thread has chosen: by row its experts, end to end.
    pub(crate) static SELECTED: std::cell::RefCell<Vec<Vec<u32>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// One gated MLP; gate and up are packed.
#[derive(Clone, Debug)]
pub(super) struct Expert {
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

/// A layer's experts and their router, without adapters.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    pub(super) router: Router,
    /// [experts, hidden].
    pub(super) gate: Linear,
    pub(super) experts: Vec<Expert>,
    pub(super) activation: Activation,
}

impl Experts {
    /// `x`: [rows, hidden] -> the routing, and gate and up of its pairs, [pairs, 2 * width].
    pub(super) fn products(&self, x: &Tensor, adapters: AdapterUse<'_>) -> Result<(Routing, Tensor)> {
        let routing = route(&self.gate.forward(x, adapters)?, self.router, None)?;
        #[cfg(test)]
        SELECTED.with_borrow_mut(|calls| calls.push(routing.selected()));
        let own = gather(x, &routing)?;
        let gate_up =
            self.by_expert(&routing, |expert, pairs| expert.gate_up.forward(&pairs_of(&own, pairs)?, adapters))?;
        Ok((routing, gate_up))
    }

    /// What the experts' second matrices read: activations times the weight of each pair, [pairs, width].
    pub(super) fn weighted(&self, routing: &Routing, gate_up: &Tensor) -> Result<Tensor> {
        gated(gate_up, self.activation, 0)?.broadcast_mul(&routing.weights)
    }

    /// The sum over each row's experts, [rows, hidden].
    pub(super) fn output(
        &self,
        routing: &Routing,
        weighted: &Tensor,
        rows: usize,
        adapters: AdapterUse<'_>,
    ) -> Result<Tensor> {
        let outputs =
            self.by_expert(routing, |expert, pairs| expert.down.forward(&pairs_of(weighted, pairs)?, adapters))?;
        scatter_rows(&outputs, &routing.rows, rows)
    }

    /// `gradient`: [rows, hidden] of the output. Adds the gradients of what is trained, returns that of `x`.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        (routing, gate_up, weighted): (&Routing, &Tensor, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let gradient = gather(gradient, routing)?;
        let weighted_gradient = self.by_expert(routing, |expert, pairs| {
            expert.down.backward(&pairs_of(&gradient, pairs)?, &pairs_of(weighted, pairs)?, gradients)
        })?;
        let products = (&weighted_gradient * weighted)?.sum_keepdim(1)?;
        let activated_gradient = weighted_gradient.broadcast_mul(&routing.weights)?;
        let gate_up_gradient = gated_backward(&activated_gradient, gate_up, self.activation, 0)?;
        let own = gather(x, routing)?;
        let own_gradient = self.by_expert(routing, |expert, pairs| {
            expert.gate_up.backward(&pairs_of(&gate_up_gradient, pairs)?, &pairs_of(&own, pairs)?, gradients)
        })?;
        let logits_gradient = route_backward(&products, routing, self.router)?;
        scatter_rows(&own_gradient, &routing.rows, x.dims2()?.0)?
            + self.gate.backward(&logits_gradient, x, gradients)?
    }

    /// What `product` gives for each expert that has rows, one below the other: [pairs, outputs].
    fn by_expert(
        &self,
        routing: &Routing,
        mut product: impl FnMut(&Expert, &Range<usize>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let used = self.experts.iter().zip(&routing.ranges).filter(|(_, pairs)| !pairs.is_empty());
        let parts = used.map(|(expert, pairs)| product(expert, pairs));
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
    }

    /// Its tensors under their names inside a layer.
    pub(super) fn named(&self, dtype: DType) -> Result<Vec<(String, Tensor)>> {
        let mut named = self.gate.merged_parts(&[("mlp.gate", self.experts.len())], dtype)?;
        for (index, Expert { gate_up, down }) in self.experts.iter().enumerate() {
            let name = |part: &str| format!("mlp.experts.{index}.{part}_proj");
            let (width, hidden) = (gate_up.weight.dims2()?.0 / 2, down.weight.dims2()?.0);
            named.extend(gate_up.merged_parts(&[(&name("gate"), width), (&name("up"), width)], dtype)?);
            named.extend(down.merged_parts(&[(&name("down"), hidden)], dtype)?);
        }
        Ok(named)
    }
}

fn pairs_of(tensor: &Tensor, pairs: &Range<usize>) -> Result<Tensor> {
    tensor.narrow(0, pairs.start, pairs.len())
}

/// `x`: [rows, width] -> the row of each pair, [pairs, width].
fn gather(x: &Tensor, routing: &Routing) -> Result<Tensor> {
    let rows = Tensor::new(routing.rows.as_slice(), x.device())?;
    gather_rows(x, &rows, x.dtype())
}
