//! Loads a layer's feed-forward block from a checkpoint: experts as parts of tensors, separately,
//! or stacked on a GPU.

use candle_core::{DType, Tensor};

use super::adapter::{AdapterPart, AdapterSet};
use super::beside_dense::BesideDense;
use super::expert_adapters::{MODULES, OneExpert};
use super::expert_stack::{Stack, StackAdapters, StackWeights};
use super::experts::{Expert, Experts, Matrices};
use super::feed_forward::{FeedForward, Mixture};
use super::gated_delta::MaybeTrained;
use super::gated_mlp::GatedMlp;
use super::linear::{Bias, Linear};
use super::load::{ModelLoader, TableLoader};
use super::matrix::Matrix;
use super::shared_expert::SharedExpert;
use super::{ModelError, Trainable};
use crate::hub::{self, Role};
use crate::kernels::router::Router;
use crate::kernels::swiglu::Activation;
use crate::kernels::write_rows::write_rows;

impl TableLoader<'_> {
    pub(super) fn feed_forward(
        &self,
        experts: Option<&hub::Experts>,
    ) -> Result<FeedForward, ModelError> {
        let Some(experts) = experts else {
            let dense = self.gated_mlp(Role::GateUp, Role::Down)?;
            return Ok(FeedForward::Dense(Box::new(dense)));
        };
        let is_separate = experts.tensors == hub::ExpertTensors::Separate;
        let (matrices, output_bias) = match (is_separate, self.model.device.is_cuda()) {
            (true, true) => (self.stacked(experts)?, None),
            (true, false) => (self.apart(experts.count)?, None),
            (false, _) => self.fused(experts)?,
        };
        let clamped = experts.clamped.map(|gate| Activation::Clamped {
            slope: gate.slope,
            limit: gate.limit,
        });
        let factors = |_: &Self, role| {
            let (factors, trained) = self.tensor(role)?;
            Ok((factors.unsqueeze(1)?, trained))
        };
        Ok(FeedForward::Experts(Box::new(Mixture {
            experts: Experts {
                router: Router {
                    active: experts.active,
                    is_renormalised: experts.is_renormalised,
                },
                gate: self.linear(Role::Router)?,
                matrices,
                activation: clamped.unwrap_or(self.model.activation()),
                output_bias,
                factors: self.optional(Role::ExpertFactors, factors)?,
            },
            shared: self.optional(Role::SharedGate, Self::shared_expert)?,
            beside: self.optional(Role::RouterNorm, Self::beside_dense)?,
        })))
    }

    fn gated_mlp(&self, gate_up: Role, down: Role) -> Result<GatedMlp, ModelError> {
        Ok(GatedMlp {
            gate_up: self.linear(gate_up)?,
            activation: self.model.activation(),
            down: self.linear(down)?,
        })
    }

    fn shared_expert(&self, gate: Role) -> Result<SharedExpert, ModelError> {
        Ok(SharedExpert {
            gate: self.linear(gate)?,
            mlp: self.gated_mlp(Role::SharedGateUp, Role::SharedDown)?,
        })
    }

    fn beside_dense(&self, router_norm: Role) -> Result<BesideDense, ModelError> {
        Ok(BesideDense {
            mlp: self.gated_mlp(Role::GateUp, Role::Down)?,
            router_norm: self.norm(router_norm)?,
            experts_norm: self.norm(Role::ExpertsNorm)?,
            output_norms: [
                self.norm(Role::DenseOutputNorm)?,
                self.norm(Role::ExpertsOutputNorm)?,
            ],
        })
    }

    /// Experts with separate tensors.
    fn apart(&self, count: usize) -> Result<Matrices, ModelError> {
        let expert = |index| {
            let own = Expert {
                gate_up: self.linear_of(Role::ExpertGateUp, index)?,
                down: self.linear_of(Role::ExpertDown, index)?,
            };
            self.with_adapters(own, OneExpert { index, count })
        };
        (0..count)
            .map(expert)
            .collect::<Result<_, _>>()
            .map(Matrices::Apart)
    }

    /// Experts as parts of fused tensors, and their output biases.
    fn fused(
        &self,
        experts: &hub::Experts,
    ) -> Result<(Matrices, Option<MaybeTrained>), ModelError> {
        let count = experts.count;
        let is_transposed = experts.tensors == hub::ExpertTensors::FusedTransposed;
        let gate_up_bias = self.bias(Role::ExpertGateUp)?;
        let down_bias = self.bias(Role::ExpertDown)?;
        if self.model.device.is_cuda() {
            let stack = |role, bias: Option<MaybeTrained>, module| {
                Ok::<_, ModelError>(Stack {
                    weights: self.stack_weights(role, is_transposed)?,
                    count,
                    bias: bias.map(|(bias, _)| bias),
                    adapters: self.stack_adapters(module, count)?,
                })
            };
            let gate_up = stack(Role::ExpertGateUp, gate_up_bias, MODULES[0])?;
            let down = stack(Role::ExpertDown, None, MODULES[1])?;
            return Ok((Matrices::Stacked { gate_up, down }, down_bias));
        }
        let gate_up = self.tensor(Role::ExpertGateUp)?;
        let down = self.tensor(Role::ExpertDown)?;
        // One expert's part, with the range of its gradient.
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
            Ok::<_, candle_core::Error>(Linear {
                weight: if is_transposed {
                    Matrix::Transposed(weight)
                } else {
                    Matrix::Numbers(weight)
                },
                trained,
                bias: bias.map(|(vector, trained)| Bias { vector, trained }),
                adapters: None,
            })
        };
        let expert = |index| {
            let own = Expert {
                gate_up: linear(&gate_up, gate_up_bias.as_ref(), index)?,
                down: linear(&down, None, index)?,
            };
            self.with_adapters(own, OneExpert { index, count })
        };
        let own = (0..count).map(expert).collect::<Result<_, ModelError>>()?;
        Ok((Matrices::Apart(own), down_bias))
    }

    /// A fused tensor, in MXFP4 where it is stored so and the model computes in bf16.
    fn stack_weights(&self, role: Role, is_transposed: bool) -> Result<StackWeights, ModelError> {
        let ModelLoader {
            weights,
            dtype,
            device,
            ..
        } = *self.model;
        let specs = self.specs(role, false);
        if dtype == DType::BF16
            && let ([name], [spec]) = (self.names(&specs, 0).as_slice(), specs.as_slice())
            && let Some(stack) = weights.mxfp4(name, spec.shape(), device)?
        {
            return Ok(StackWeights::Mxfp4(stack));
        }
        let (tensor, _) = self.tensor(role)?;
        let stack = tensor.flatten(0, 1)?;
        Ok(match is_transposed {
            true => StackWeights::Transposed(stack),
            false => StackWeights::Numbers(stack),
        })
    }

    /// Experts with separate tensors, stacked.
    fn stacked(&self, experts: &hub::Experts) -> Result<Matrices, ModelError> {
        let (count, hidden) = (experts.count, self.model.config.hidden_size);
        let [gate_up, down] = experts.adapter_shapes(hidden);
        let stack = |role, [outputs, inputs]: [usize; 2], module| {
            let ModelLoader {
                weights,
                dtype,
                device,
                ..
            } = *self.model;
            let (specs, mut row) = (self.specs(role, false), 0);
            let stack = Tensor::zeros((count * outputs, inputs), dtype, device)?;
            for index in 0..count {
                for (name, spec) in self.names(&specs, index).iter().zip(&specs) {
                    write_rows(
                        &stack,
                        row,
                        &weights.get(name, spec.shape(), dtype, device)?,
                    )?;
                    row += spec.shape()[0];
                }
            }
            Ok::<_, ModelError>(Stack {
                weights: StackWeights::Numbers(stack),
                count,
                bias: None,
                adapters: self.stack_adapters(module, count)?,
            })
        };
        Ok(Matrices::Stacked {
            gate_up: stack(Role::ExpertGateUp, gate_up, MODULES[0])?,
            down: stack(Role::ExpertDown, down, MODULES[1])?,
        })
    }

    /// Adds adapters to an expert's matrices, if experts have any.
    fn with_adapters(&self, mut expert: Expert, own: OneExpert) -> Result<Expert, ModelError> {
        let Trainable::Lora {
            rank,
            alpha,
            has_experts: true,
        } = self.model.trainable
        else {
            return Ok(expert);
        };
        for (linear, module) in [&mut expert.gate_up, &mut expert.down]
            .into_iter()
            .zip(MODULES)
        {
            let (a, all) = self.adapter_view(&[module], "A")?;
            let (b, b_range) = self.adapter_view(&[module], "B")?;
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

    /// Buffers for the adapters of a module's experts, if any; filled by [`Parameters::copy_into`].
    fn stack_adapters(
        &self,
        module: &str,
        experts: usize,
    ) -> Result<Option<StackAdapters>, ModelError> {
        let Trainable::Lora {
            rank,
            alpha,
            has_experts: true,
        } = self.model.trainable
        else {
            return Ok(None);
        };
        let (a, a_range) = self.adapter_view(&[module], "A")?;
        let (b, b_range) = self.adapter_view(&[module], "B")?;
        let zeros =
            |rows, columns| Tensor::zeros((rows, columns), self.model.dtype, self.model.device);
        let a = zeros(experts * rank, a.dims2()?.1)?;
        let b = zeros(experts * b.dims2()?.0, rank)?;
        Ok(Some(StackAdapters {
            a,
            a_range,
            b,
            b_range,
            scale: alpha / rank as f64,
        }))
    }
}
