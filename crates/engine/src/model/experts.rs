//! Mixture of experts: each row uses the few experts its router selects; an expert's rows are
//! processed together.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::expert_stack::Stack;
use super::gated_delta::MaybeTrained;
use super::gradients::Gradients;
use super::linear::Linear;
use super::{AdapterUse, Trainable, Weights};
use crate::config::BasePrecision;
use crate::hub::{self, ModelConfig};
use crate::kernels::router::{
    ExpertBias, GPU_EXPERTS, Router, Routing, Selection, route, route_backward,
};
use crate::kernels::swiglu::{Activation, gated, gated_backward};

/// Router statistics of a layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterUse {
    pub rows: usize,
    /// Sum over rows of the entropy over all experts, nats.
    pub entropy: f64,
    /// Rows per expert.
    pub expert_rows: Vec<usize>,
}

impl RouterUse {
    /// `None` on a GPU, where the host does not know it.
    pub(super) fn measure(routing: &Routing, rows: usize) -> Result<Option<Self>> {
        let Ok(pairs) = routing.listed() else {
            return Ok(None);
        };
        Ok(Some(Self {
            rows,
            entropy: pairs.entropy()?,
            expert_rows: pairs.ranges.iter().map(ExactSizeIterator::len).collect(),
        }))
    }

    /// Adds more rows of the same layer.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.entropy += other.entropy;
        self.expert_rows
            .resize(other.expert_rows.len().max(self.expert_rows.len()), 0);
        self.expert_rows
            .iter_mut()
            .zip(&other.expert_rows)
            .for_each(|(own, other)| *own += other);
    }

    /// Largest expert's share of rows relative to uniform; 1: balanced.
    pub fn load(&self) -> f64 {
        let most = self.expert_rows.iter().max().copied().unwrap_or(0);
        let all = self.expert_rows.iter().sum::<usize>();
        (most * self.expert_rows.len()) as f64 / all.max(1) as f64
    }
}

/// A gated MLP with packed gate and up.
#[derive(Clone, Debug)]
pub(super) struct Expert {
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

/// Matrices of all experts.
#[derive(Clone, Debug)]
pub(super) enum Matrices {
    /// Separate.
    Apart(Vec<Expert>),
    /// Stacked on a GPU.
    Stacked { gate_up: Stack, down: Stack },
}

#[derive(Clone, Copy)]
enum Part {
    GateUp,
    Down,
}

/// A layer's experts and router.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    pub(super) router: Router,
    /// [experts, hidden].
    pub(super) gate: Linear,
    pub(super) matrices: Matrices,
    pub(super) activation: Activation,
    /// Added to an expert's output before weighting: [experts, hidden].
    pub(super) output_bias: Option<MaybeTrained>,
    /// Scales each expert's output, [experts, 1]; excludes `output_bias`.
    pub(super) factors: Option<MaybeTrained>,
}

impl Experts {
    /// `router_x`, `x`: [rows, hidden and any adapter columns], inputs of router and experts ->
    /// routing, and gate and up of its pairs, [pairs, 2 * width].
    pub(super) fn products(
        &self,
        router_x: &Tensor,
        x: &Tensor,
        selection: Selection<'_>,
        adapters: AdapterUse<'_>,
    ) -> Result<(Routing, Tensor)> {
        let routing = route(
            &self.gate.forward(router_x, adapters)?,
            self.router,
            selection,
        )?;
        let gate_up = self.multiply(
            Part::GateUp,
            &routing,
            &self.rows_of_pairs(&routing, x)?,
            adapters,
        )?;
        Ok((routing, gate_up))
    }

    /// `x`: [rows, hidden and any adapter columns] -> [pairs, hidden].
    fn rows_of_pairs(&self, routing: &Routing, x: &Tensor) -> Result<Tensor> {
        routing.gather(&x.narrow(1, 0, self.gate.weight.dims2()?.1)?)
    }

    /// Input of the down matrices: activations times the pairs' weights, [pairs, width].
    pub(super) fn weighted(&self, routing: &Routing, gate_up: &Tensor) -> Result<Tensor> {
        self.weigh(routing, &gated(gate_up, self.activation, 0)?)
    }

    /// `x`: [pairs, width], scaled by weight and expert factor.
    fn weigh(&self, routing: &Routing, x: &Tensor) -> Result<Tensor> {
        routing.weigh(x, self.factors.as_ref().map(|(factors, _)| factors))
    }

    /// Sum over each row's experts, [rows, hidden].
    pub(super) fn output(
        &self,
        routing: &Routing,
        weighted: &Tensor,
        rows: usize,
        adapters: AdapterUse<'_>,
    ) -> Result<Tensor> {
        routing.combine(
            &self.multiply(Part::Down, routing, weighted, adapters)?,
            rows,
        )
    }

    /// `gradient`: [rows, hidden] of the output. Adds gradients of trained weights, returns those
    /// of `router_x` and `x`.
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        (router_x, x): (&Tensor, &Tensor),
        (routing, gate_up, weighted): (&Routing, &Tensor, &Tensor),
        gradients: &mut Gradients,
    ) -> Result<[Tensor; 2]> {
        let gradient = routing.gather(gradient)?;
        // Frozen experts need no saved inputs.
        let is_trained = self.matrices.is_trained();
        let read = is_trained.then_some(weighted);
        let weighted_gradient =
            self.multiply_back(Part::Down, routing, (&gradient, read), gradients)?;
        let mut products = routing.dot(&weighted_gradient, weighted)?;
        if let Some((bias, trained)) = &self.output_bias {
            products = (products
                + self.weigh(routing, &routing.dot(&gradient, &routing.spread(bias)?)?)?)?;
            if let Some(range) = trained {
                gradients.add(
                    range,
                    &routing.sum_by_expert(&self.weigh(routing, &gradient)?)?,
                )?;
            }
        }
        if let Some((_, Some(range))) = &self.factors {
            let alone = routing.weigh(&gated(gate_up, self.activation, 0)?, None)?;
            gradients.add(
                range,
                &routing.sum_by_expert(&routing.dot(&weighted_gradient, &alone)?)?,
            )?;
        }
        let activated_gradient = self.weigh(routing, &weighted_gradient)?;
        let gate_up_gradient = gated_backward(&activated_gradient, gate_up, self.activation, 0)?;
        let rows = is_trained
            .then(|| self.rows_of_pairs(routing, x))
            .transpose()?;
        let own_gradient = self.multiply_back(
            Part::GateUp,
            routing,
            (&gate_up_gradient, rows.as_ref()),
            gradients,
        )?;
        let logits_gradient = route_backward(&products, routing, self.router, x.dtype())?;
        let router_gradient = self.gate.backward(&logits_gradient, router_x, gradients)?;
        Ok([
            router_gradient,
            routing.combine(&own_gradient, x.dims2()?.0)?,
        ])
    }

    /// `x`: [pairs, inputs] times each pair's expert matrix, plus bias: [pairs, outputs].
    fn multiply(
        &self,
        part: Part,
        routing: &Routing,
        x: &Tensor,
        adapters: AdapterUse<'_>,
    ) -> Result<Tensor> {
        let output_bias = self.output_bias.as_ref().map(|(bias, _)| bias);
        match (&self.matrices, part) {
            (Matrices::Apart(experts), _) => {
                // Adapter of each pair's row, if there are several.
                let own = adapters
                    .own
                    .map(|(own, _)| routing.gather(&own.unsqueeze(1)?)?.squeeze(1))
                    .transpose()?;
                let product = by_expert(experts, part, routing, |linear, pairs| {
                    let own = own.as_ref().map(pairs).transpose()?;
                    let slot = adapters.own.map_or(0, |(_, slot)| slot);
                    linear.forward(
                        &pairs(x)?,
                        AdapterUse::for_rows(adapters.adapters, own.as_ref(), slot),
                    )
                })?;
                match (part, output_bias) {
                    (Part::Down, Some(bias)) => {
                        product + self.weigh(routing, &routing.spread(bias)?)?
                    }
                    _ => Ok(product),
                }
            }
            (Matrices::Stacked { gate_up, .. }, Part::GateUp) => {
                let bias = gate_up.bias.as_ref().map(|vectors| ExpertBias {
                    vectors,
                    is_weighted: false,
                });
                gate_up.forward(routing, x, bias, adapters)
            }
            (Matrices::Stacked { down, .. }, Part::Down) => down.forward(
                routing,
                x,
                output_bias.map(|vectors| ExpertBias {
                    vectors,
                    is_weighted: true,
                }),
                adapters,
            ),
        }
    }

    /// `gradient`: [pairs, outputs] -> [pairs, inputs]; adds gradients of trained weights, which
    /// read `x`.
    fn multiply_back(
        &self,
        part: Part,
        routing: &Routing,
        (gradient, x): (&Tensor, Option<&Tensor>),
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        match (&self.matrices, part) {
            (Matrices::Apart(experts), _) => {
                by_expert(experts, part, routing, |linear, pairs| match x {
                    Some(x) => linear.backward(&pairs(gradient)?, &pairs(x)?, gradients),
                    None => linear.weight.backward(&pairs(gradient)?),
                })
            }
            (Matrices::Stacked { gate_up, down }, _) => {
                let own = if matches!(part, Part::GateUp) {
                    gate_up
                } else {
                    down
                };
                own.backward(routing, (gradient, x), gradients)
            }
        }
    }
}

impl Matrices {
    pub(super) fn stacks(&self) -> Vec<&Stack> {
        if let Self::Stacked { gate_up, down } = self {
            vec![gate_up, down]
        } else {
            Vec::new()
        }
    }

    fn is_trained(&self) -> bool {
        match self {
            Self::Apart(experts) => experts.iter().any(|expert| expert.gate_up.is_trained()),
            Self::Stacked { gate_up, .. } => gate_up.adapters.is_some(),
        }
    }
}

/// Why a GPU cannot compute the experts.
pub(super) fn gpu_problem(
    config: &ModelConfig,
    weights: &Weights,
    trainable: Trainable,
) -> Option<String> {
    let hub::Experts {
        count,
        active,
        intermediate_size: width,
        ..
    } = config.options.experts.as_ref()?;
    let ((most, most_active), hidden) = (GPU_EXPERTS, config.hidden_size);
    if *count > most || *active > most_active {
        return Some(format!(
            "{active} of {count} experts: a GPU computes at most {most_active} of {most}; compute on the CPU (`--cpu`)"
        ));
    }
    if !(hidden | width).is_multiple_of(8) {
        return Some(format!(
            "experts of {width} numbers in a model of {hidden}: a GPU computes multiples of 8; compute on the CPU (`--cpu`)"
        ));
    }
    if let Trainable::Lora {
        rank,
        has_experts: true,
        ..
    } = trainable
        && !rank.is_multiple_of(8)
    {
        return Some(format!(
            "adapters of experts with a rank of {rank}: a GPU computes multiples of 8; set lora_rank = {}, lora_experts = false, or compute on the CPU (`--cpu`)",
            rank.next_multiple_of(8)
        ));
    }
    let is_frozen = trainable != Trainable::Full && weights.base_precision() == BasePrecision::Bf16;
    (!is_frozen).then(|| {
        "a GPU neither trains nor rounds experts: set lora_rank above 0 and base_precision = bf16, or compute on the CPU (`--cpu`)"
            .to_owned()
    })
}

/// Concatenates the results of `product` for each expert with pairs: [pairs, outputs]. It selects
/// the expert's pairs itself.
fn by_expert(
    experts: &[Expert],
    part: Part,
    routing: &Routing,
    mut product: impl FnMut(&Linear, &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor>,
) -> Result<Tensor> {
    let used = experts
        .iter()
        .zip(&routing.listed()?.ranges)
        .filter(|(_, pairs)| !pairs.is_empty());
    let parts = used.map(|(expert, pairs)| {
        let linear = match part {
            Part::GateUp => &expert.gate_up,
            Part::Down => &expert.down,
        };
        product(linear, &|all| all.narrow(0, pairs.start, pairs.len()))
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)
}
