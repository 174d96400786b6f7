//! A decoder put together from a checkpoint: what is trained becomes a view of the flat buffer, what is frozen stays as
//! loaded.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::adapter::{AdapterPart, AdapterSet, JoinedAdapter, joined_rank, joined_room};
use super::adapter_names::{
    adapted_parts, adapter_tensors, adapter_view, matrix_shape, mixer_parts,
};
use super::attention::AttentionMixer;
use super::gated_delta::GatedDeltaMixer;
use super::keys_values::KeysValues;
use super::layer::{Factor, Layer};
use super::layer_input::{LayerInputs, OwnInput};
use super::linear::{Bias, Linear};
use super::matrix::Matrix;
use super::mixer::Mixer;
use super::norm::NormWeight;
use super::parameters::master_dtype;
use super::weights::{has_bias, is_trained, tensor_names};
use super::{ModelError, Parameters, Shard, Trainable, Weights};
use crate::config::BasePrecision;
use crate::hub::{self, ModelConfig, Scope};
use crate::kernels::delta_rule::DeltaHeads;
use crate::kernels::fp8::{self, Fp8Matrix};
use crate::kernels::heads::{Attention, Heads};
use crate::kernels::rope::RopeTable;
use crate::kernels::swiglu::Activation;
use crate::kernels::write_rows::write_rows;

/// Loads a model's tensors: trained ones into the flat buffer, frozen ones from the checkpoint.
pub(super) struct ModelLoader<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights,
    pub(super) trainable: Trainable,
    pub(super) shard: Shard,
    pub(super) dtype: DType,
    pub(super) device: &'a Device,
}

/// How a layer attends.
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
    /// The flat buffer of what is trained, at its start: the checkpoint's weights, or fresh adapters (A uniform, B
    /// zero).
    pub(super) fn parameters(&self, seed: u64) -> Result<Parameters, ModelError> {
        let tensors = match self.trainable {
            Trainable::Frozen => Vec::new(),
            Trainable::Full => tensor_names(self.config)
                .into_iter()
                .filter(|(name, _)| is_trained(name))
                .map(|(name, shape)| {
                    Ok((
                        name.clone(),
                        self.weights.get(&name, &shape, self.dtype, self.device)?,
                    ))
                })
                .collect::<Result<_, ModelError>>()?,
            Trainable::Lora {
                rank, has_experts, ..
            } => adapter_tensors(self.config, (rank, has_experts), seed, self.device)?,
        };
        // Layers read what is trained in the model's dtype; adapters on a GPU they read in the joined matrices.
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

    pub(super) fn layer(
        &self,
        index: usize,
        rope: RopeTable,
        parameters: &Parameters,
    ) -> Result<Layer, ModelError> {
        let (config, names) = (self.config, self.config.norm_names());
        let [input, output] = mixer_parts(config, index);
        let linear = |parts: &[&str]| self.linear(index, parts, parameters);
        let hidden_norm = |part: &str| {
            self.norm(
                &format!("model.layers.{index}.{part}.weight"),
                config.hidden_size,
                parameters,
            )
        };
        let has_output_norms = config.options.has_output_norms;
        Ok(Layer {
            input_norm: hidden_norm(names.input)?,
            mixer_input: linear(input)?,
            mixer: match config.mixer(index) {
                hub::Mixer::Attention(_) => {
                    Mixer::Attention(Box::new(self.attention(index, rope, parameters)?))
                }
                hub::Mixer::GatedDelta(delta) => {
                    Mixer::GatedDelta(Box::new(self.gated_delta(index, delta, parameters)?))
                }
            },
            mixer_output: linear(output)?,
            mixer_output_norm: has_output_norms
                .then(|| hidden_norm(names.attention_output))
                .transpose()?,
            middle_norm: hidden_norm(names.middle)?,
            feed_forward: self.feed_forward(index, parameters)?,
            down_norm: has_output_norms
                .then(|| hidden_norm(names.down))
                .transpose()?,
            own_input: config
                .options
                .layer_input
                .map(|_| self.own_input(index, parameters))
                .transpose()?,
            factor: config
                .options
                .has_layer_factors
                .then(|| self.factor(index))
                .transpose()?,
        })
    }

    pub(super) fn activation(&self) -> Activation {
        match self.config.options.activation {
            hub::Activation::Silu => Activation::Silu,
            hub::Activation::GeluTanh => Activation::GeluTanh,
        }
    }

    fn own_input(&self, layer: usize, parameters: &Parameters) -> Result<OwnInput, ModelError> {
        let norm = format!("model.layers.{layer}.post_per_layer_input_norm.weight");
        Ok(OwnInput {
            gate: self.linear(layer, &["per_layer_input_gate"], parameters)?,
            activation: self.activation(),
            projection: self.linear(layer, &["per_layer_projection"], parameters)?,
            norm: self.norm(&norm, self.config.hidden_size, parameters)?,
        })
    }

    fn factor(&self, layer: usize) -> Result<Factor, ModelError> {
        let name = format!("model.layers.{layer}.layer_scalar");
        let stored = self.weights.get(&name, &[1], self.dtype, self.device)?;
        let value = stored.to_dtype(DType::F64)?.get(0)?.to_scalar()?;
        Ok(Factor { stored, value })
    }

    /// The inputs of `width` numbers that each layer has besides the stream.
    pub(super) fn layer_inputs(
        &self,
        width: usize,
        parameters: &Parameters,
    ) -> Result<LayerInputs, ModelError> {
        let (config, all) = (self.config, self.config.num_hidden_layers * width);
        let tensor = |name: &str, shape: [usize; 2]| {
            self.tensor(
                &[format!("model.{name}.weight")],
                &[shape.to_vec()],
                parameters,
            )
        };
        let (weight, trained) = tensor("per_layer_model_projection", [all, config.hidden_size])?;
        let table = [config.vocab_size, all];
        // Half of E2B's numbers, of which each token reads one row: frozen ones stay in bf16.
        let name = "model.embed_tokens_per_layer.weight";
        let table = match self.weights.dtype(name) {
            Some(DType::BF16) if self.trainable != Trainable::Full => (
                self.weights.get(name, &table, DType::BF16, self.device)?,
                None,
            ),
            _ => tensor("embed_tokens_per_layer", table)?,
        };
        Ok(LayerInputs {
            table,
            table_scale: rounded((width as f64).sqrt(), self.dtype)?,
            projection: Linear {
                weight: Matrix::Numbers(weight),
                trained,
                bias: None,
                adapters: None,
            },
            norm: self.norm("model.per_layer_projection_norm.weight", width, parameters)?,
        })
    }

    fn attention(
        &self,
        layer: usize,
        rope: RopeTable,
        parameters: &Parameters,
    ) -> Result<AttentionMixer, ModelError> {
        let config = self.config;
        let (attention, source) = (attention(config, layer), config.keys_values(layer));
        let dimension = attention.heads.dimension;
        let head_norm = |part: &str| {
            self.norm(
                &format!("model.layers.{layer}.self_attn.{part}.weight"),
                dimension,
                parameters,
            )
        };
        let has_keys = !matches!(source, hub::KeysValues::OfLayer(_));
        let head_norms = || {
            Ok::<_, ModelError>((
                head_norm("q_norm")?,
                has_keys.then(|| head_norm("k_norm")).transpose()?,
            ))
        };
        let value_norm = || {
            let (weight, epsilon) = (
                Tensor::ones(dimension, self.dtype, self.device)?,
                config.rms_norm_eps,
            );
            Ok::<_, ModelError>(NormWeight {
                weight,
                trained: None,
                offset: 0.0,
                epsilon,
            })
        };
        let sinks = config.options.has_attention_sinks.then(|| {
            let name = format!("model.layers.{layer}.self_attn.sinks");
            self.tensor(&[name], &[vec![config.num_attention_heads]], parameters)
        });
        Ok(AttentionMixer {
            attention,
            keys_values: KeysValues {
                source,
                norm: (has_keys && config.options.has_value_norms)
                    .then(value_norm)
                    .transpose()?,
            },
            sinks: sinks.transpose()?,
            rope,
            head_norms: config.options.has_head_norms.then(head_norms).transpose()?,
            norm_offset: config.options.norm_offset,
            epsilon: config.rms_norm_eps,
            has_gate: config.options.has_attention_gate,
        })
    }

    fn gated_delta(
        &self,
        layer: usize,
        delta: &hub::GatedDelta,
        parameters: &Parameters,
    ) -> Result<GatedDeltaMixer, ModelError> {
        let tensor = |part: &str, shape: &[usize]| {
            self.tensor(
                &[format!("model.layers.{layer}.linear_attn.{part}")],
                &[shape.to_vec()],
                parameters,
            )
        };
        let (convolution, range) = tensor("conv1d.weight", &[delta.convolved(), 1, delta.kernel])?;
        let (weight, trained) = tensor("norm.weight", &[delta.value_dimension])?;
        Ok(GatedDeltaMixer {
            heads: DeltaHeads {
                key: delta.key_heads,
                value: delta.value_heads,
                key_dimension: delta.key_dimension,
                value_dimension: delta.value_dimension,
            },
            convolution: (
                convolution.reshape((delta.convolved(), delta.kernel))?,
                range,
            ),
            decay: tensor("A_log", &[delta.value_heads])?,
            bias: tensor("dt_bias", &[delta.value_heads])?,
            // Its weight is the factor itself.
            norm: NormWeight {
                weight,
                trained,
                offset: 0.0,
                epsilon: self.config.rms_norm_eps,
            },
        })
    }

    pub(super) fn norm(
        &self,
        name: &str,
        width: usize,
        parameters: &Parameters,
    ) -> Result<NormWeight, ModelError> {
        let (weight, trained) = self.tensor(&[name.to_owned()], &[vec![width]], parameters)?;
        let (offset, epsilon) = (self.config.options.norm_offset, self.config.rms_norm_eps);
        Ok(NormWeight {
            weight,
            trained,
            offset,
            epsilon,
        })
    }

    /// Tensors packed one below the other, and the range of their gradient when they are trained.
    pub(super) fn tensor(
        &self,
        names: &[String],
        shapes: &[Vec<usize>],
        parameters: &Parameters,
    ) -> Result<(Tensor, Option<Range<usize>>), ModelError> {
        if let Some((view, range)) = parameters.view(names)? {
            return Ok((view, Some(range)));
        }
        let parts = names
            .iter()
            .zip(shapes)
            .map(|(name, shape)| self.weights.get(name, shape, self.dtype, self.device));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok((
            if let [one] = parts.as_slice() {
                one.clone()
            } else {
                Tensor::cat(&parts, 0)?
            },
            None,
        ))
    }

    pub(super) fn linear(
        &self,
        layer: usize,
        parts: &[&str],
        parameters: &Parameters,
    ) -> Result<Linear, ModelError> {
        let names: Vec<String> = parts
            .iter()
            .map(|part| format!("model.layers.{layer}.{part}.weight"))
            .collect();
        let shapes: Vec<Vec<usize>> = parts
            .iter()
            .map(|part| self.shape(layer, part).to_vec())
            .collect();
        let bias = self.bias(layer, parts, parameters)?;
        let mut adapters = self.adapters(layer, parts, parameters)?;
        let fp8 = self.fp8(&names, &shapes)?;
        if let Some(set) = adapters.as_mut().filter(|_| self.joins_adapters()) {
            let (outputs, inputs) = (
                shapes.iter().map(|shape| shape[0]).sum::<usize>(),
                shapes[0][1],
            );
            let (rows, columns) = joined_room(parts.len(), set.rank);
            let zeros = |rows, columns| Tensor::zeros((rows, columns), self.dtype, self.device);
            let b = zeros(outputs, joined_rank(set.rank))?;
            if let Some(weight) = fp8 {
                let (a, diagonal) = (zeros(rows, inputs)?, zeros(outputs, rows)?);
                set.joined = Some(JoinedAdapter {
                    whole: None,
                    a,
                    diagonal,
                    b,
                });
                return Ok(Linear {
                    weight,
                    trained: None,
                    bias,
                    adapters,
                });
            }
            let whole = zeros(outputs + rows, inputs + columns)?;
            let mut row = 0;
            for (name, shape) in names.iter().zip(&shapes) {
                let part = self.weights.get(name, shape, self.dtype, self.device)?;
                write_rows(&whole, row, &part)?;
                row += shape[0];
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
            return Ok(Linear {
                weight: Matrix::Numbers(weight),
                trained: None,
                bias,
                adapters,
            });
        }
        if let Some(weight) = fp8 {
            return Ok(Linear {
                weight,
                trained: None,
                bias,
                adapters,
            });
        }
        let (weight, trained) = self.tensor(&names, &shapes, parameters)?;
        Ok(Linear {
            weight: Matrix::Numbers(weight),
            trained,
            bias,
            adapters,
        })
    }

    /// On a GPU the packed matrix in fp8, where the base is kept so: one part after the other, so that little of it is in
    /// memory twice. A CPU reads rounded numbers.
    fn fp8(&self, names: &[String], shapes: &[Vec<usize>]) -> Result<Option<Matrix>, ModelError> {
        if self.weights.base_precision() == BasePrecision::Bf16 {
            return Ok(None);
        }
        if self.trainable == Trainable::Full {
            return Err(ModelError::Weights(
                "fp8 is for frozen weights: set lora_rank above 0".to_owned(),
            ));
        }
        if let Some(problem) = fp8::problem(self.device) {
            return Err(ModelError::Weights(problem));
        }
        if !self.device.is_cuda() {
            return Ok(None);
        }
        let parts = names.iter().zip(shapes).map(|(name, shape)| {
            let part = self
                .weights
                .unquantized(name, shape, self.dtype, self.device)?;
            Fp8Matrix::quantize(&part)
                .map_err(|error| ModelError::Weights(format!("`{name}` in fp8: {error}")))
        });
        Ok(Some(Matrix::Fp8(Fp8Matrix::stacked(
            &parts.collect::<Result<Vec<_>, _>>()?,
        )?)))
    }

    /// Whether adapters stand in one matrix with the weights that they are beside.
    fn joins_adapters(&self) -> bool {
        self.device.is_cuda() && matches!(self.trainable, Trainable::Lora { .. })
    }

    /// The parts' biases, end to end; all of a packed matrix have one, or none.
    fn bias(
        &self,
        layer: usize,
        parts: &[&str],
        parameters: &Parameters,
    ) -> Result<Option<Bias>, ModelError> {
        if !parts.iter().all(|part| has_bias(self.config, part)) {
            return Ok(None);
        }
        let names: Vec<String> = parts
            .iter()
            .map(|part| format!("model.layers.{layer}.{part}.bias"))
            .collect();
        let shapes: Vec<Vec<usize>> = parts
            .iter()
            .map(|part| vec![self.shape(layer, part)[0]])
            .collect();
        let (vector, trained) = self.tensor(&names, &shapes, parameters)?;
        Ok(Some(Bias { vector, trained }))
    }

    fn adapters(
        &self,
        layer: usize,
        parts: &[&str],
        parameters: &Parameters,
    ) -> Result<Option<AdapterSet>, ModelError> {
        let Trainable::Lora { rank, alpha, .. } = self.trainable else {
            return Ok(None);
        };
        let view = |parts: &[&str], which| adapter_view(parameters, layer, parts, which);
        if !adapted_parts(self.config, layer).any(|adapted| adapted == parts) {
            return Ok(None);
        }
        let (a, a_range) = view(parts, "A")?;
        let mut column = 0;
        let part = |part: &&str| {
            let (b, b_range) = view(&[*part], "B")?;
            let columns = column..column + self.shape(layer, part)[0];
            column = columns.end;
            Ok(AdapterPart {
                columns,
                b,
                b_range,
                expert: None,
            })
        };
        let parts = parts
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

    /// [outputs, inputs] of a layer's matrix.
    pub(super) fn shape(&self, layer: usize, part: &str) -> [usize; 2] {
        matrix_shape(self.config, layer, part)
    }
}

/// A factor as the model's dtype has it.
pub(super) fn rounded(factor: f64, dtype: DType) -> candle_core::Result<f64> {
    Tensor::new(factor, &Device::Cpu)?
        .to_dtype(dtype)?
        .to_dtype(DType::F64)?
        .to_scalar()
}
