//! Loads a decoder from a checkpoint: trained tensors into the flat buffer, frozen ones as they
//! are.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::adapter::{AdapterPart, AdapterSet, JoinedAdapter, joined_rank, joined_size};
use super::adapter_names::{adapter_tensors, peft_name};
use super::attention::AttentionMixer;
use super::gated_delta::{GatedDeltaMixer, MaybeTrained};
use super::keys_values::KeysValues;
use super::layer::{Factor, Layer};
use super::layer_input::{LayerInputs, OwnInput};
use super::linear::{Bias, Linear};
use super::matrix::Matrix;
use super::mixer::Mixer;
use super::norm::NormWeight;
use super::parameters::master_dtype;
use super::{ModelError, Parameters, Shard, Trainable, Weights};
use crate::hub::{self, Kind, ModelConfig, ModelTensor, Role, Scope, TensorSpec};
use crate::kernels::delta_rule::DeltaHeads;
use crate::kernels::embedding::Table;
use crate::kernels::heads::{Attention, Heads};
use crate::kernels::quantized::QuantizedMatrix;
use crate::kernels::rope::RopeTable;
use crate::kernels::swiglu::Activation;
use crate::kernels::write_rows::write_rows;

/// Loads trained tensors into the flat buffer, frozen ones from the checkpoint.
pub(super) struct ModelLoader<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights,
    pub(super) trainable: Trainable,
    pub(super) shard: Shard,
    pub(super) dtype: DType,
    pub(super) device: &'a Device,
}

/// Attention parameters of a layer.
fn attention(config: &ModelConfig, layer: usize) -> Attention<'static> {
    let hub::LayerHeads {
        key_value,
        dimension,
    } = config.heads(layer);
    let heads = Heads {
        query: config.num_attention_heads,
        key_value,
        dimension,
    };
    let window = config
        .options
        .window
        .as_ref()
        .filter(|_| config.scope(layer) == Scope::Window);
    Attention {
        heads,
        divisor: config.attention_divisor(config.scope(layer)),
        window: window.map(|window| window.tokens),
        sinks: None,
    }
}

impl ModelLoader<'_> {
    /// The initial flat buffer: the checkpoint's weights, or new adapters (A uniform, B zero).
    pub(super) fn parameters(&self, seed: u64) -> Result<Parameters, ModelError> {
        let tensors = match self.trainable {
            Trainable::Frozen => Vec::new(),
            Trainable::Full => self
                .config
                .tensors()
                .into_iter()
                .filter(|tensor| hub::is_trained(&tensor.name))
                .map(|ModelTensor { name, shape, .. }| {
                    let tensor = self.weights.get(&name, &shape, self.dtype, self.device)?;
                    Ok((name, tensor))
                })
                .collect::<Result<_, ModelError>>()?,
            Trainable::Lora {
                rank, has_experts, ..
            } => adapter_tensors(self.config, (rank, has_experts), seed, self.device)?,
        };
        // Layers read trained tensors in the model's dtype; on a GPU adapters are read in joined
        // matrices.
        let dtype = if self.joins_adapters() {
            master_dtype(self.dtype)
        } else {
            self.dtype
        };
        Ok(Parameters::sharded(
            tensors,
            dtype,
            self.device,
            self.shard,
        )?)
    }

    /// Tensors of a layer, or those outside layers.
    pub(super) fn table<'a>(
        &'a self,
        layer: Option<usize>,
        parameters: &'a Parameters,
    ) -> TableLoader<'a> {
        TableLoader {
            model: self,
            layer,
            table: self.config.tensors_of(layer),
            parameters,
        }
    }

    pub(super) fn activation(&self) -> Activation {
        match self.config.options.activation {
            hub::Activation::Silu => Activation::Silu,
            hub::Activation::GeluTanh => Activation::GeluTanh,
        }
    }

    /// The packed quantized matrix on a GPU with such a base: loaded part by part to limit memory.
    /// A CPU reads rounded weights.
    fn quantized(
        &self,
        names: &[String],
        specs: &[TensorSpec],
    ) -> Result<Option<Matrix>, ModelError> {
        let Some(precision) = self.weights.precision() else {
            return Ok(None);
        };
        if self.trainable == Trainable::Full {
            let base = self.weights.base_precision();
            return Err(ModelError::Weights(format!(
                "{base} is for frozen weights: set lora_rank above 0"
            )));
        }
        if !self.device.is_cuda() {
            return Ok(None);
        }
        let parts = names.iter().zip(specs).map(|(name, spec)| {
            self.weights
                .quantized(name, spec.shape(), precision, (self.dtype, self.device))
        });
        Ok(Some(Matrix::Quantized(QuantizedMatrix::stacked(
            &parts.collect::<Result<Vec<_>, _>>()?,
        )?)))
    }

    /// Beside a quantized base, a frozen tensor of which only rows are read leaves the GPU.
    pub(super) fn gathered(
        &self,
        role: Role,
        (tensor, trained): MaybeTrained,
    ) -> (Table, Option<Range<usize>>) {
        let is_quantized = self.weights.base_precision().is_quantized();
        let table = match &trained {
            None if is_quantized && self.config.is_only_gathered(role) => {
                Table::in_host_memory(tensor)
            }
            _ => tensor.into(),
        };
        (table, trained)
    }

    /// Whether adapters are joined with their base matrices.
    fn joins_adapters(&self) -> bool {
        self.device.is_cuda() && matches!(self.trainable, Trainable::Lora { .. })
    }
}

/// Loads tensors of one layer, or those outside layers, by role.
pub(super) struct TableLoader<'a> {
    pub(super) model: &'a ModelLoader<'a>,
    layer: Option<usize>,
    table: Vec<TensorSpec>,
    pub(super) parameters: &'a Parameters,
}

impl TableLoader<'_> {
    pub(super) fn layer(&self, rope: RopeTable) -> Result<Layer, ModelError> {
        let (layer, config) = (self.layer.unwrap_or(0), self.model.config);
        Ok(Layer {
            input_norm: self.norm(Role::InputNorm)?,
            mixer_input: self.linear(Role::MixerInput)?,
            mixer: match config.mixer(layer) {
                hub::Mixer::Attention(_) => {
                    Mixer::Attention(Box::new(self.attention(layer, rope)?))
                }
                hub::Mixer::GatedDelta(delta) => {
                    Mixer::GatedDelta(Box::new(self.gated_delta(delta)?))
                }
            },
            mixer_output: self.linear(Role::MixerOutput)?,
            mixer_output_norm: self.optional(Role::MixerOutputNorm, Self::norm)?,
            middle_norm: self.norm(Role::MiddleNorm)?,
            feed_forward: self.feed_forward(config.experts(layer))?,
            down_norm: self.optional(Role::DownNorm, Self::norm)?,
            own_input: self.optional(Role::OwnInputGate, Self::own_input)?,
            factor: self.optional(Role::LayerFactor, Self::factor)?,
        })
    }

    fn own_input(&self, gate: Role) -> Result<OwnInput, ModelError> {
        Ok(OwnInput {
            gate: self.linear(gate)?,
            activation: self.model.activation(),
            projection: self.linear(Role::OwnInputProjection)?,
            norm: self.norm(Role::OwnInputNorm)?,
        })
    }

    fn factor(&self, role: Role) -> Result<Factor, ModelError> {
        let (stored, _) = self.tensor(role)?;
        let value = stored.to_dtype(DType::F64)?.get(0)?.to_scalar()?;
        Ok(Factor { stored, value })
    }

    /// Per-layer inputs, with a `table` row per token.
    pub(super) fn layer_inputs(&self, table: Role) -> Result<LayerInputs, ModelError> {
        let (model, norm) = (self.model, self.norm(Role::LayerProjectionNorm)?);
        let width = norm.weight.elem_count() as f64;
        // Half of E2B's parameters, of which each token reads one row: bf16 if frozen.
        let stored = (model.weights).dtype(&self.names(&self.specs(table, false), 0)[0]);
        let dtype = stored
            .filter(|&stored| stored == DType::BF16 && model.trainable != Trainable::Full)
            .unwrap_or(model.dtype);
        Ok(LayerInputs {
            table: model.gathered(table, self.tensor_in(table, dtype)?),
            table_scale: rounded(width.sqrt(), model.dtype)?,
            projection: plain_linear(self.tensor(Role::LayerProjection)?),
            norm,
        })
    }

    fn attention(&self, layer: usize, rope: RopeTable) -> Result<AttentionMixer, ModelError> {
        let config = self.model.config;
        let (attention, source) = (attention(config, layer), config.keys_values(layer));
        let head_norms =
            |_: &Self, query| Ok((self.norm(query)?, self.optional(Role::KeyNorm, Self::norm)?));
        let value_norm = || {
            let weight = Tensor::ones(
                attention.heads.dimension,
                self.model.dtype,
                self.model.device,
            )?;
            Ok::<_, ModelError>(self.fixed_norm((weight, None)))
        };
        let has_value_norm =
            config.options.has_value_norms && !matches!(source, hub::KeysValues::OfLayer(_));
        Ok(AttentionMixer {
            attention,
            keys_values: KeysValues {
                source,
                norm: has_value_norm.then(value_norm).transpose()?,
            },
            sinks: self.optional(Role::Sinks, Self::tensor)?,
            rope,
            head_norms: self.optional(Role::QueryNorm, head_norms)?,
            norm_offset: config.options.norm_offset,
            epsilon: config.rms_norm_eps,
            has_gate: config.options.has_attention_gate,
        })
    }

    fn gated_delta(&self, delta: &hub::GatedDelta) -> Result<GatedDeltaMixer, ModelError> {
        let (convolution, range) = self.tensor(Role::Convolution)?;
        Ok(GatedDeltaMixer {
            heads: DeltaHeads {
                key: delta.key_heads,
                value: delta.value_heads,
                key_dimension: delta.key_dimension,
                value_dimension: delta.value_dimension,
            },
            convolution: (convolution.squeeze(1)?, range),
            decay: self.tensor(Role::Decay)?,
            bias: self.tensor(Role::TimeBias)?,
            norm: self.fixed_norm(self.tensor(Role::DeltaNorm)?),
        })
    }

    /// A norm whose weight has no offset.
    fn fixed_norm(&self, (weight, trained): MaybeTrained) -> NormWeight {
        NormWeight {
            weight,
            trained,
            offset: 0.0,
            epsilon: self.model.config.rms_norm_eps,
        }
    }

    pub(super) fn norm(&self, role: Role) -> Result<NormWeight, ModelError> {
        Ok(NormWeight {
            offset: self.model.config.options.norm_offset,
            ..self.fixed_norm(self.tensor(role)?)
        })
    }

    /// Loads a role that only some families have.
    pub(super) fn optional<T>(
        &self,
        role: Role,
        load: impl FnOnce(&Self, Role) -> Result<T, ModelError>,
    ) -> Result<Option<T>, ModelError> {
        let is_there = self.table.iter().any(|spec| spec.role == role);
        is_there.then(|| load(self, role)).transpose()
    }

    /// Biases of a role, or its other tensors.
    pub(super) fn specs(&self, role: Role, are_biases: bool) -> Vec<TensorSpec> {
        let is_one =
            |spec: &&TensorSpec| spec.role == role && (spec.kind == Kind::Bias) == are_biases;
        self.table.iter().filter(is_one).copied().collect()
    }

    /// `expert`: index of the copy.
    pub(super) fn names(&self, specs: &[TensorSpec], expert: usize) -> Vec<String> {
        let name = |spec: &TensorSpec| spec.name.replace("{}", &expert.to_string());
        specs
            .iter()
            .map(|spec| hub::tensor_name(self.layer, &name(spec)))
            .collect()
    }

    /// The tensor of a role, and the range of its gradient if trained.
    pub(super) fn tensor(&self, role: Role) -> Result<MaybeTrained, ModelError> {
        self.tensor_in(role, self.model.dtype)
    }

    fn tensor_in(&self, role: Role, dtype: DType) -> Result<MaybeTrained, ModelError> {
        self.packed(&self.specs(role, false), 0, dtype)
    }

    /// Stacked tensors.
    fn packed(
        &self,
        specs: &[TensorSpec],
        expert: usize,
        dtype: DType,
    ) -> Result<MaybeTrained, ModelError> {
        let names = self.names(specs, expert);
        let (tensor, range) = match self.parameters.view(&names)? {
            Some((view, range)) => (view, Some(range)),
            None => {
                let (weights, device) = (self.model.weights, self.model.device);
                let parts = names
                    .iter()
                    .zip(specs)
                    .map(|(name, spec)| weights.get(name, spec.shape(), dtype, device));
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                match parts.as_slice() {
                    [one] => (one.clone(), None),
                    parts => (Tensor::cat(parts, 0)?, None),
                }
            }
        };
        Ok(match specs {
            [one] => (tensor.reshape(one.shape())?, range),
            _ => (tensor, range),
        })
    }

    pub(super) fn linear(&self, role: Role) -> Result<Linear, ModelError> {
        self.linear_of(role, 0)
    }

    /// `expert`: index of the copy.
    pub(super) fn linear_of(&self, role: Role, expert: usize) -> Result<Linear, ModelError> {
        let (model, specs) = (self.model, self.specs(role, false));
        let bias = self.bias(role)?;
        let bias = bias.map(|(vector, trained)| Bias { vector, trained });
        let mut adapters = self.adapters(&specs)?;
        let names = self.names(&specs, expert);
        let (weight, trained) = match (model.quantized(&names, &specs)?, &mut adapters) {
            (quantized, Some(set)) if model.joins_adapters() => {
                (self.join(&specs, &names, quantized, set)?, None)
            }
            (Some(quantized), _) => (quantized, None),
            (None, _) => {
                let (weight, trained) = self.packed(&specs, expert, model.dtype)?;
                (Matrix::Numbers(weight), trained)
            }
        };
        Ok(Linear {
            weight,
            trained,
            bias,
            adapters,
        })
    }

    /// The packed matrix with adapter columns, on a GPU.
    fn join(
        &self,
        specs: &[TensorSpec],
        names: &[String],
        quantized: Option<Matrix>,
        set: &mut AdapterSet,
    ) -> Result<Matrix, ModelError> {
        let ModelLoader {
            weights,
            dtype,
            device,
            ..
        } = *self.model;
        let outputs = specs.iter().map(|spec| spec.shape()[0]).sum::<usize>();
        let inputs = specs[0].shape()[1];
        let (rows, columns) = joined_size(specs.len(), set.rank);
        let zeros = |rows, columns| Tensor::zeros((rows, columns), dtype, device);
        let b = zeros(outputs, joined_rank(set.rank))?;
        if let Some(weight) = quantized {
            set.joined = Some(JoinedAdapter {
                whole: None,
                a: zeros(rows, inputs)?,
                diagonal: zeros(outputs, rows)?,
                b,
            });
            return Ok(weight);
        }
        let whole = zeros(outputs + rows, inputs + columns)?;
        let mut row = 0;
        for (name, spec) in names.iter().zip(specs) {
            let part = weights.get(name, spec.shape(), dtype, device)?;
            write_rows(&whole, row, &part)?;
            row += spec.shape()[0];
        }
        let above = whole.narrow(0, 0, outputs)?;
        let (weight, diagonal) = (above.narrow(1, 0, inputs)?, above.narrow(1, inputs, rows)?);
        let a = whole.narrow(0, outputs, rows)?.narrow(1, 0, inputs)?;
        set.joined = Some(JoinedAdapter {
            a,
            diagonal,
            b,
            whole: Some(whole),
        });
        Ok(Matrix::Numbers(weight))
    }

    /// Concatenated biases of a role; all parts of a packed matrix have one, or none.
    pub(super) fn bias(&self, role: Role) -> Result<Option<MaybeTrained>, ModelError> {
        let specs = self.specs(role, true);
        let load = || self.packed(&specs, 0, self.model.dtype);
        (!specs.is_empty()).then(load).transpose()
    }

    fn adapters(&self, specs: &[TensorSpec]) -> Result<Option<AdapterSet>, ModelError> {
        let (Trainable::Lora { rank, alpha, .. }, true) =
            (self.model.trainable, specs[0].is_adapted)
        else {
            return Ok(None);
        };
        let modules: Vec<&str> = specs.iter().map(TensorSpec::module).collect();
        let (a, a_range) = self.adapter_view(&modules, "A")?;
        let mut column = 0;
        let part = |spec: &TensorSpec| {
            let (b, b_range) = self.adapter_view(&[spec.module()], "B")?;
            let columns = column..column + spec.shape()[0];
            column = columns.end;
            Ok(AdapterPart {
                columns,
                b,
                b_range,
                expert: None,
            })
        };
        let parts = specs
            .iter()
            .map(part)
            .collect::<Result<Vec<_>, ModelError>>()?;
        Ok(Some(AdapterSet {
            a,
            a_range,
            parts,
            rank,
            scale: alpha / rank as f64,
            joined: None,
        }))
    }

    /// A or B of the layer's modules as one matrix, and its range in the flat buffer.
    pub(super) fn adapter_view(
        &self,
        modules: &[&str],
        which: &str,
    ) -> Result<(Tensor, Range<usize>), ModelError> {
        let name = |module: &&str| peft_name(self.layer.unwrap_or(0), module, which);
        let names: Vec<String> = modules.iter().map(name).collect();
        self.parameters
            .view(&names)?
            .ok_or_else(|| ModelError::Weights(format!("no adapters `{names:?}`")))
    }
}

/// A matrix without bias and adapters, never quantized.
pub(super) fn plain_linear((weight, trained): MaybeTrained) -> Linear {
    Linear {
        weight: Matrix::Numbers(weight),
        trained,
        bias: None,
        adapters: None,
    }
}

/// A factor in the model's dtype.
pub(super) fn rounded(factor: f64, dtype: DType) -> candle_core::Result<f64> {
    Tensor::new(factor, &Device::Cpu)?
        .to_dtype(dtype)?
        .to_dtype(DType::F64)?
        .to_scalar()
}
