//! A layer's feed-forward block put together from a checkpoint: experts as parts of tensors, each by itself, or on a GPU one below the
//! other.

use candle_core::Tensor;

use super::adapter::{AdapterPart, AdapterSet};
use super::adapter_names::{DENSE_PARTS, SHARED_PARTS, adapter_view};
use super::beside_dense::{self, BesideDense};
use super::expert_adapters::{MODULES, OneExpert};
use super::expert_stack::{Stack, StackAdapters};
use super::experts::{Expert, Experts, FACTORS, Matrices};
use super::feed_forward::{FeedForward, Mixture};
use super::gated_delta::MaybeTrained;
use super::gated_mlp::GatedMlp;
use super::linear::{Bias, Linear};
use super::load::ModelLoader;
use super::matrix::Matrix;
use super::shared_expert::SharedExpert;
use super::weights::fused_names;
use super::{ModelError, Parameters, Trainable};
use crate::hub;
use crate::kernels::router::Router;
use crate::kernels::swiglu::Activation;
use crate::kernels::write_rows::write_rows;

impl ModelLoader<'_> {
    pub(super) fn feed_forward(
        &self,
        layer: usize,
        parameters: &Parameters,
    ) -> Result<FeedForward, ModelError> {
        let linear = |parts: &[&str]| self.linear(layer, parts, parameters);
        let Some(experts) = self.config.experts(layer) else {
            let dense = self.gated_mlp(layer, DENSE_PARTS, parameters)?;
            return Ok(FeedForward::Dense(Box::new(dense)));
        };
        let expert = |index: usize| {
            let name = |part: &str| format!("mlp.experts.{index}.{part}_proj");
            let own = Expert {
                gate_up: linear(&[&name("gate"), &name("up")])?,
                down: linear(&[&name("down")])?,
            };
            self.with_adapters(
                own,
                layer,
                OneExpert {
                    index,
                    count: experts.count,
                },
                parameters,
            )
        };
        let (matrices, output_bias) = match experts.tensors {
            hub::ExpertTensors::Separate if self.device.is_cuda() => {
                (self.stacked(layer, experts, parameters)?, None)
            }
            hub::ExpertTensors::Separate => (
                Matrices::Separate(
                    (0..experts.count)
                        .map(expert)
                        .collect::<Result<_, ModelError>>()?,
                ),
                None,
            ),
            hub::ExpertTensors::Fused | hub::ExpertTensors::FusedTransposed => {
                self.fused(layer, experts, parameters)?
            }
        };
        let shared = || {
            let [gate_up, down, gate] = SHARED_PARTS;
            Ok::<_, ModelError>(SharedExpert {
                gate: linear(gate)?,
                mlp: self.gated_mlp(layer, [gate_up, down], parameters)?,
            })
        };
        let clamped = experts.clamped.map(|gate| Activation::Clamped {
            slope: gate.slope,
            limit: gate.limit,
        });
        let own = Experts {
            router: Router {
                active: experts.active,
                is_renormalised: experts.is_renormalised,
            },
            name: experts.router(),
            gate: linear(&[experts.router()])?,
            matrices,
            activation: clamped.unwrap_or(self.activation()),
            output_bias,
            factors: experts
                .is_beside_dense
                .then(|| self.factors(layer, experts.count, parameters))
                .transpose()?,
        };
        let shared = experts.shared_size.map(|_| shared()).transpose()?;
        let beside = experts
            .is_beside_dense
            .then(|| self.beside_dense(layer, parameters))
            .transpose()?;
        Ok(FeedForward::Experts(Box::new(Mixture {
            experts: own,
            shared,
            beside,
        })))
    }

    /// `parts`: of gate and up, and of down.
    fn gated_mlp(
        &self,
        layer: usize,
        [gate_up, down]: [&[&str]; 2],
        parameters: &Parameters,
    ) -> Result<GatedMlp, ModelError> {
        Ok(GatedMlp {
            gate_up: self.linear(layer, gate_up, parameters)?,
            activation: self.activation(),
            down: self.linear(layer, down, parameters)?,
        })
    }

    fn beside_dense(
        &self,
        layer: usize,
        parameters: &Parameters,
    ) -> Result<BesideDense, ModelError> {
        let mlp = self.gated_mlp(layer, DENSE_PARTS, parameters)?;
        let [router_norm, experts_norm, own_norm, others_norm] = beside_dense::NORMS.map(|name| {
            self.norm(
                &format!("model.layers.{layer}.{name}"),
                self.config.hidden_size,
                parameters,
            )
        });
        Ok(BesideDense {
            mlp,
            router_norm: router_norm?,
            experts_norm: experts_norm?,
            output_norms: [own_norm?, others_norm?],
        })
    }

    fn factors(
        &self,
        layer: usize,
        experts: usize,
        parameters: &Parameters,
    ) -> Result<MaybeTrained, ModelError> {
        let name = format!("model.layers.{layer}.{FACTORS}");
        let (factors, trained) = self.tensor(&[name], &[vec![experts]], parameters)?;
        Ok((factors.reshape((experts, 1))?, trained))
    }

    /// Experts as parts of the tensors that have all of them, and the biases of what they give.
    fn fused(
        &self,
        layer: usize,
        experts: &hub::Experts,
        parameters: &Parameters,
    ) -> Result<(Matrices, Option<MaybeTrained>), ModelError> {
        let tensor = |(name, shape): (&'static str, Vec<usize>)| {
            let full_name = format!("model.layers.{layer}.{name}");
            let (tensor, range) =
                self.tensor(&[full_name], std::slice::from_ref(&shape), parameters)?;
            Ok((name.to_owned(), (tensor.reshape(shape)?, range)))
        };
        let found = fused_names(experts, self.config.hidden_size)
            .into_iter()
            .map(tensor);
        let found = found.collect::<Result<Vec<(String, MaybeTrained)>, ModelError>>()?;
        let is_transposed = experts.tensors == hub::ExpertTensors::FusedTransposed;
        // Of one expert, with the range of its gradient.
        let part = |(tensor, range): &MaybeTrained, index: usize| {
            let own = tensor.get(index)?;
            let size = own.elem_count();
            let range = range
                .as_ref()
                .map(|all| all.start + index * size..all.start + (index + 1) * size);
            Ok::<MaybeTrained, candle_core::Error>((own, range))
        };
        let linear = |tensor: &MaybeTrained, bias: Option<&MaybeTrained>, index: usize| {
            let (weight, trained) = part(tensor, index)?;
            let bias = bias.map(|bias| part(bias, index)).transpose()?;
            let bias = bias.map(|(vector, trained)| Bias { vector, trained });
            let weight = if is_transposed {
                Matrix::Transposed(weight)
            } else {
                Matrix::Numbers(weight)
            };
            Ok::<_, candle_core::Error>(Linear {
                weight,
                trained,
                bias,
                adapters: None,
            })
        };
        let (gate_up, gate_up_bias, down, down_bias) = match found.as_slice() {
            [(_, gate_up), (_, down)] => (gate_up, None, down, None),
            [(_, gate_up), (_, gate_up_bias), (_, down), (_, down_bias)] => {
                (gate_up, Some(gate_up_bias), down, Some(down_bias.clone()))
            }
            _ => {
                return Err(ModelError::Weights(format!(
                    "{} tensors of experts",
                    found.len()
                )));
            }
        };
        let tensors = found
            .iter()
            .map(|(name, (tensor, _))| (name.clone(), tensor.clone()))
            .collect();
        if self.device.is_cuda() {
            let stack = |(tensor, _): &MaybeTrained, bias: Option<&MaybeTrained>, module| {
                let (bias, count) = (bias.map(|(bias, _)| bias.clone()), experts.count);
                let adapters = self.stack_adapters((layer, module), count, parameters)?;
                Ok::<_, ModelError>(Stack {
                    weights: tensor.flatten(0, 1)?,
                    count,
                    is_transposed,
                    bias,
                    adapters,
                })
            };
            let (gate_up, down) = (
                stack(gate_up, gate_up_bias, MODULES[0])?,
                stack(down, None, MODULES[1])?,
            );
            return Ok((
                Matrices::Stacked {
                    gate_up,
                    down,
                    tensors,
                },
                down_bias,
            ));
        }
        let expert = |index| {
            let own = Expert {
                gate_up: linear(gate_up, gate_up_bias, index)?,
                down: linear(down, None, index)?,
            };
            self.with_adapters(
                own,
                layer,
                OneExpert {
                    index,
                    count: experts.count,
                },
                parameters,
            )
        };
        let own = (0..experts.count)
            .map(expert)
            .collect::<Result<_, ModelError>>()?;
        Ok((
            Matrices::Fused {
                experts: own,
                tensors,
            },
            down_bias,
        ))
    }

    /// Experts that have tensors of their own, one below the other.
    fn stacked(
        &self,
        layer: usize,
        experts: &hub::Experts,
        parameters: &Parameters,
    ) -> Result<Matrices, ModelError> {
        let stack = |parts: &[&str], module| {
            let names = (0..experts.count).flat_map(|index| {
                parts
                    .iter()
                    .map(move |part| format!("mlp.experts.{index}.{part}_proj"))
            });
            let [outputs, inputs] = self.shape(layer, &format!("mlp.experts.0.{}_proj", parts[0]));
            let stack = Tensor::zeros(
                (experts.count * parts.len() * outputs, inputs),
                self.dtype,
                self.device,
            )?;
            for (index, name) in names.enumerate() {
                let name = format!("model.layers.{layer}.{name}.weight");
                let part = self
                    .weights
                    .get(&name, &[outputs, inputs], self.dtype, self.device)?;
                write_rows(&stack, index * outputs, &part)?;
            }
            let adapters = self.stack_adapters((layer, module), experts.count, parameters)?;
            let count = experts.count;
            Ok::<_, ModelError>(Stack {
                weights: stack,
                count,
                is_transposed: false,
                bias: None,
                adapters,
            })
        };
        let (gate_up, down) = (
            stack(&["gate", "up"], MODULES[0])?,
            stack(&["down"], MODULES[1])?,
        );
        Ok(Matrices::Stacked {
            gate_up,
            down,
            tensors: Vec::new(),
        })
    }

    /// The expert with adapters beside its matrices, where experts have some.
    fn with_adapters(
        &self,
        mut expert: Expert,
        layer: usize,
        own: OneExpert,
        parameters: &Parameters,
    ) -> Result<Expert, ModelError> {
        let Trainable::Lora {
            rank,
            alpha,
            has_experts: true,
        } = self.trainable
        else {
            return Ok(expert);
        };
        for (linear, module) in [&mut expert.gate_up, &mut expert.down]
            .into_iter()
            .zip(MODULES)
        {
            let (a, all) = adapter_view(parameters, layer, &[module], "A")?;
            let (b, b_range) = adapter_view(parameters, layer, &[module], "B")?;
            let (a, b) = (own.a(&a)?, own.b(&b)?);
            let start = all.start + own.index * a.elem_count();
            let (a_range, columns) = (start..start + a.elem_count(), 0..b.dims2()?.0);
            let parts = vec![AdapterPart {
                columns,
                b,
                b_range,
                expert: Some(own),
            }];
            linear.adapters = Some(AdapterSet {
                a,
                a_range,
                parts,
                rank,
                scale: alpha / rank as f64,
                joined: None,
            });
        }
        Ok(expert)
    }

    /// Room for the adapters of all experts of a module, where they have some; [`Parameters::copy_into`] fills it.
    fn stack_adapters(
        &self,
        (layer, module): (usize, &'static str),
        experts: usize,
        parameters: &Parameters,
    ) -> Result<Option<StackAdapters>, ModelError> {
        let Trainable::Lora {
            rank,
            alpha,
            has_experts: true,
        } = self.trainable
        else {
            return Ok(None);
        };
        let (a, a_range) = adapter_view(parameters, layer, &[module], "A")?;
        let (b, b_range) = adapter_view(parameters, layer, &[module], "B")?;
        let zeros = |rows, columns| Tensor::zeros((rows, columns), self.dtype, self.device);
        let (a, b) = (
            zeros(experts * rank, a.dims2()?.1)?,
            zeros(experts * b.dims2()?.0, rank)?,
        );
        Ok(Some(StackAdapters {
            a,
            a_range,
            b,
            b_range,
            scale: alpha / rank as f64,
        }))
    }
}
