//! A layer's feed-forward block: a gated MLP, or a mixture of experts.

use candle_core::{Result, Tensor, bail};

use super::AdapterUse;
use super::beside_dense::{BesideDense, BesideProducts};
use super::expert_stack::Stack;
use super::experts::{Experts, RouterUse};
use super::gated_mlp::GatedMlp;
use super::gradients::Gradients;
use super::linear::Linear;
use super::parameters::master_dtype;
use super::shared_expert::{SharedExpert, SharedProducts};
use crate::kernels::open_rows::OpenRows;
use crate::kernels::router::{Routing, Selection};

#[derive(Clone, Debug)]
pub(super) enum FeedForward {
    Dense(Box<GatedMlp>),
    Experts(Box<Mixture>),
}

/// A router with experts, in some families with a shared expert or a dense block.
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    pub(super) experts: Experts,
    pub(super) shared: Option<SharedExpert>,
    pub(super) beside: Option<BesideDense>,
}

/// Saved for the backward, besides the input and what is cheap to recompute.
#[derive(Debug)]
pub(super) struct Products {
    /// [rows, 2 * width]; for experts [pairs, 2 * width].
    gate_up: Tensor,
    /// Set for experts.
    routing: Option<Routing>,
    shared: Option<SharedProducts>,
    beside: Option<BesideProducts>,
}

impl Products {
    /// Router statistics, if known to the host.
    pub(super) fn router_use(&self, rows: usize) -> Result<Option<RouterUse>> {
        self.routing
            .as_ref()
            .map_or(Ok(None), |routing| RouterUse::measure(routing, rows))
    }
}

impl FeedForward {
    /// The matrix whose adapter columns follow the block's input.
    pub(super) fn input(&self) -> &Linear {
        match self {
            Self::Dense(dense) => &dense.gate_up,
            Self::Experts(mixture) => match (&mixture.shared, &mixture.beside) {
                (Some(shared), _) => &shared.mlp.gate_up,
                (None, Some(dense)) => &dense.mlp.gate_up,
                (None, None) => &mixture.experts.gate,
            },
        }
    }

    /// `stream`: [rows, hidden], `x`: [rows, hidden + the input's adapter columns], its norm ->
    /// saved products, activations, and output, [rows, hidden].
    pub(super) fn forward(
        &self,
        (stream, x): (&Tensor, &Tensor),
        selection: Selection<'_>,
        adapters: AdapterUse<'_>,
    ) -> Result<(Products, Tensor, Tensor)> {
        let mut inputs = None;
        let mut products = match self {
            Self::Dense(dense) => Products {
                gate_up: dense.gate_up.forward(x, adapters)?,
                routing: None,
                shared: None,
                beside: None,
            },
            Self::Experts(mixture) => {
                let [router_x, own_x] = mixture.inputs(stream, x)?;
                let (routing, gate_up) = mixture
                    .experts
                    .products(&router_x, &own_x, selection, adapters)?;
                inputs = Some([router_x, own_x]);
                Products {
                    gate_up,
                    routing: Some(routing),
                    shared: None,
                    beside: None,
                }
            }
        };
        let activated = self.activated(&products)?;
        let output = match (self, &products.routing) {
            (Self::Dense(dense), None) => dense.down.forward(&activated, adapters)?,
            (Self::Experts(mixture), Some(routing)) => {
                let output = mixture
                    .experts
                    .output(routing, &activated, x.dims2()?.0, adapters)?;
                match (&mixture.shared, mixture.beside.as_ref().zip(inputs)) {
                    (Some(shared), _) => {
                        let (own, sum) = shared.add(&output, x, adapters)?;
                        products.shared = Some(own);
                        sum
                    }
                    (None, Some((dense, inputs))) => {
                        let (own, sum) = dense.add(output, x, inputs, adapters)?;
                        products.beside = Some(own);
                        sum
                    }
                    (None, None) => output,
                }
            }
            _ => return other_block(),
        };
        Ok((products, activated, output))
    }

    /// Recomputes the activations of [`FeedForward::forward`].
    pub(super) fn derive(&self, products: &Products, adapters: AdapterUse<'_>) -> Result<Tensor> {
        let activated = self.activated(products)?;
        match self {
            Self::Dense(dense) => dense.down.with_inner(activated, adapters),
            Self::Experts(_) => Ok(activated),
        }
    }

    fn activated(&self, products: &Products) -> Result<Tensor> {
        match (self, &products.routing) {
            (Self::Dense(dense), None) => dense.activated(&products.gate_up),
            (Self::Experts(mixture), Some(routing)) => {
                mixture.experts.weighted(routing, &products.gate_up)
            }
            _ => other_block(),
        }
    }

    /// One new token per row: `stream`, `x`: [rows, hidden].
    pub(super) fn decode(
        &self,
        (stream, x): (&Tensor, &Tensor),
        selection: Selection<'_>,
        adapters: AdapterUse<'_>,
    ) -> Result<OpenRows> {
        match self {
            Self::Dense(dense) => dense.decode(x, adapters),
            Self::Experts(mixture) => {
                let inputs = mixture.inputs(stream, x)?;
                let (routing, gate_up) = mixture
                    .experts
                    .products(&inputs[0], &inputs[1], selection, adapters)?;
                let activated = mixture.experts.weighted(&routing, &gate_up)?;
                let output =
                    mixture
                        .experts
                        .output(&routing, &activated, x.dims2()?.0, adapters)?;
                match (&mixture.shared, &mixture.beside) {
                    (Some(shared), _) => shared.decode(&output, x, adapters),
                    (None, Some(dense)) => dense.decode(&output, x, adapters),
                    (None, None) => Ok(OpenRows::complete(
                        output.to_dtype(master_dtype(x.dtype()))?,
                    )),
                }
            }
        }
    }

    /// Additional columns of the output's gradient.
    pub(super) fn gradient_adapter_columns(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.down.adapter_columns(),
            Self::Experts(_) => 0,
        }
    }

    /// `gradient`: [rows, hidden + adapter_columns] -> of `x`, and of `stream` if it is also an
    /// input, [rows, hidden]. Adds gradients of trained weights.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        (stream, x): (&Tensor, &Tensor),
        (products, activated): (&Products, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let gate_up = &products.gate_up;
        match (self, &products.routing) {
            (Self::Dense(dense), None) => {
                let own = dense.backward(gradient, x, (gate_up, activated), gradients)?;
                Ok((own, None))
            }
            (Self::Experts(mixture), Some(routing)) => {
                let activations = (routing, gate_up, activated);
                if let Some((dense, products)) =
                    mixture.beside.as_ref().zip(products.beside.as_ref())
                {
                    let [own, others] = dense.backward(gradient, x, products, gradients)?;
                    let [router_x, own_x] = &products.inputs;
                    let inputs = mixture.experts.backward(
                        &others,
                        (router_x, own_x),
                        activations,
                        gradients,
                    )?;
                    return Ok((own, Some(dense.inputs_backward(inputs, stream, gradients)?)));
                }
                let [router, own] =
                    mixture
                        .experts
                        .backward(gradient, (x, x), activations, gradients)?;
                let own = (own + router)?;
                match (&mixture.shared, &products.shared) {
                    (Some(shared), Some(products)) => Ok((
                        (own + shared.backward(gradient, x, products, gradients)?)?,
                        None,
                    )),
                    _ => Ok((own, None)),
                }
            }
            _ => other_block(),
        }
    }

    /// Matrices that may have adapters.
    pub(super) fn adapted(&self) -> Vec<&Linear> {
        match self {
            Self::Dense(dense) => vec![&dense.gate_up, &dense.down],
            Self::Experts(mixture) => mixture
                .shared
                .iter()
                .flat_map(|shared| [&shared.gate, &shared.mlp.gate_up, &shared.mlp.down])
                .collect(),
        }
    }

    /// Expert matrices on a GPU.
    pub(super) fn stacks(&self) -> Vec<&Stack> {
        match self {
            Self::Experts(mixture) => mixture.experts.matrices.stacks(),
            Self::Dense(_) => Vec::new(),
        }
    }
}

impl Mixture {
    /// Inputs of router and experts.
    fn inputs(&self, stream: &Tensor, x: &Tensor) -> Result<[Tensor; 2]> {
        self.beside
            .as_ref()
            .map_or_else(|| Ok([x.clone(), x.clone()]), |dense| dense.inputs(stream))
    }
}

fn other_block<T>() -> Result<T> {
    bail!("activations of another feed-forward block")
}
