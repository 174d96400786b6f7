//! A layer's feed-forward block: a gated MLP, or a mixture of experts.

use candle_core::{DType, Result, Tensor, bail};

use super::AdapterUse;
use super::experts::{Experts, RouterUse};
use super::gradients::Gradients;
use super::linear::Linear;
use super::parameters::master_dtype;
use super::shared_expert::{SharedExpert, SharedProducts};
use crate::kernels::open_rows::OpenRows;
use crate::kernels::router::{Routing, Selection};
use crate::kernels::swiglu::{Activation, gated, gated_backward, gated_open};

/// One layer's feed-forward block.
#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    Dense(Box<Dense>),
    Experts(Box<Mixture>),
}

/// A router with its experts, and in some families one that every row uses.
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    pub(super) experts: Experts,
    pub(super) shared: Option<SharedExpert>,
}

/// A gated MLP; gate and up are packed.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub(super) gate_up: Linear,
    pub(super) activation: Activation,
    pub(super) down: Linear,
}

/// What its backward reads, besides its input and what follows without a matmul.
#[derive(Debug)]
pub(super) struct Products {
    /// [rows, 2 * width]; of experts [pairs, 2 * width].
    gate_up: Tensor,
    /// Of experts.
    routing: Option<Routing>,
    shared: Option<SharedProducts>,
}

impl Products {
    /// What the router did with the rows, where there is one that the host sees.
    pub(super) fn router_use(&self, rows: usize) -> Result<Option<RouterUse>> {
        self.routing.as_ref().map_or(Ok(None), |routing| RouterUse::measure(routing, rows))
    }
}

impl FeedForward {
    /// The matrix whose room is behind its input.
    pub(super) fn input(&self) -> &Linear {
        match self {
            Self::Dense(dense) => &dense.gate_up,
            Self::Experts(mixture) => mixture.shared.as_ref().map_or(&mixture.experts.gate, |shared| &shared.gate_up),
        }
    }

    /// `x`: [rows, hidden + room of the input] -> products, activations, and the output, [rows, hidden].
    pub(super) fn forward(
        &self,
        x: &Tensor,
        selection: Selection<'_>,
        adapters: AdapterUse<'_>,
    ) -> Result<(Products, Tensor, Tensor)> {
        let mut products = match self {
            Self::Dense(dense) => {
                Products { gate_up: dense.gate_up.forward(x, adapters)?, routing: None, shared: None }
            }
            Self::Experts(mixture) => {
                let (routing, gate_up) = mixture.experts.products(x, selection, adapters)?;
                Products { gate_up, routing: Some(routing), shared: None }
            }
        };
        let activated = self.activated(&products)?;
        let output = match (self, &products.routing) {
            (Self::Dense(dense), None) => dense.down.forward(&activated, adapters)?,
            (Self::Experts(mixture), Some(routing)) => {
                let output = mixture.experts.output(routing, &activated, x.dims2()?.0, adapters)?;
                match &mixture.shared {
                    None => output,
                    Some(shared) => {
                        let (own, sum) = shared.add(&output, x, adapters)?;
                        products.shared = Some(own);
                        sum
                    }
                }
            }
            _ => return other_block(),
        };
        Ok((products, activated, output))
    }

    /// The activations as [`FeedForward::forward`] left them.
    pub(super) fn derive(&self, products: &Products, adapters: AdapterUse<'_>) -> Result<Tensor> {
        let activated = self.activated(products)?;
        match self {
            Self::Dense(dense) => dense.down.with_inner(activated, adapters),
            Self::Experts(_) => Ok(activated),
        }
    }

    fn activated(&self, products: &Products) -> Result<Tensor> {
        match (self, &products.routing) {
            (Self::Dense(dense), None) => gated(&products.gate_up, dense.activation, dense.down.room()),
            (Self::Experts(mixture), Some(routing)) => mixture.experts.weighted(routing, &products.gate_up),
            _ => other_block(),
        }
    }

    /// One new token a row: `x`: [rows, hidden].
    pub(super) fn decode(&self, x: &Tensor, selection: Selection<'_>, adapters: AdapterUse<'_>) -> Result<OpenRows> {
        match self {
            Self::Dense(dense) => {
                let gate_up = dense.gate_up.open(x, adapters)?;
                dense.down.open(&gated_open(&gate_up, dense.activation, x.dtype())?, adapters)
            }
            Self::Experts(mixture) => {
                let (routing, gate_up) = mixture.experts.products(x, selection, adapters)?;
                let activated = mixture.experts.weighted(&routing, &gate_up)?;
                let output = mixture.experts.output(&routing, &activated, x.dims2()?.0, adapters)?;
                match &mixture.shared {
                    None => Ok(OpenRows::complete(output.to_dtype(master_dtype(x.dtype()))?)),
                    Some(shared) => shared.decode(&output, x, adapters),
                }
            }
        }
    }

    /// Columns that rows of the output's gradient need behind them.
    pub(super) fn gradient_room(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.down.room(),
            Self::Experts(_) => 0,
        }
    }

    /// `gradient`: [rows, hidden + room] -> that of `x`, [rows, hidden]. Adds the gradients of what is trained.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        (x, products, activated): (&Tensor, &Products, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let gate_up = &products.gate_up;
        match (self, &products.routing) {
            (Self::Dense(dense), None) => {
                let gradient = dense.down.backward(gradient, activated, gradients)?;
                let gradient = gated_backward(&gradient, gate_up, dense.activation, dense.gate_up.room())?;
                dense.gate_up.backward(&gradient, x, gradients)
            }
            (Self::Experts(mixture), Some(routing)) => {
                let own = mixture.experts.backward(gradient, x, (routing, gate_up, activated), gradients)?;
                match (&mixture.shared, &products.shared) {
                    (Some(shared), Some(products)) => own + shared.backward(gradient, x, products, gradients)?,
                    _ => Ok(own),
                }
            }
            _ => other_block(),
        }
    }

    /// The matrices that adapters may stand beside.
    pub(super) fn adapted(&self) -> Vec<&Linear> {
        match self {
            Self::Dense(dense) => vec![&dense.gate_up, &dense.down],
            Self::Experts(mixture) => {
                mixture.shared.iter().flat_map(|shared| [&shared.gate, &shared.gate_up, &shared.down]).collect()
            }
        }
    }

    /// Its tensors under their names inside a layer, adapters merged.
    pub(super) fn merged(&self, dtype: DType) -> Result<Vec<(String, Tensor)>> {
        match self {
            Self::Dense(dense) => {
                let (inner, hidden) = (dense.gate_up.weight.dims2()?.0 / 2, dense.down.weight.dims2()?.0);
                let parts = [("mlp.gate_proj", inner), ("mlp.up_proj", inner)];
                let mut named = dense.gate_up.merged_parts(&parts, dtype)?;
                named.extend(dense.down.merged_parts(&[("mlp.down_proj", hidden)], dtype)?);
                Ok(named)
            }
            Self::Experts(mixture) => {
                let shared = mixture.shared.as_ref().map_or(Ok(Vec::new()), |shared| shared.named(dtype))?;
                Ok([mixture.experts.named(dtype)?, shared].concat())
            }
        }
    }
}

fn other_block<T>() -> Result<T> {
    bail!("activations of another feed-forward block")
}
