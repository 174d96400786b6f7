//! The decoder: embedding, layers, final norm, head. The backward goes layer by layer and keeps
//! what fits memory.

use candle_core::{DType, Device, Result, Tensor};

use super::expert_record::ExpertLayers;
use super::experts::{RouterUse, gpu_problem};
use super::layer::{DerivedActivations, LayerActivations, NewestRows, Stream};
use super::layer_input::LayerInputs;
use super::linear::Linear;
use super::load::{ModelLoader, TableLoader, plain_linear, rounded};
use super::norm::NormWeight;
use super::packed_batch::DeviceBatch;
use super::parameters::master_dtype;
use super::side_inputs::SideInputs;
use super::{
    AdapterUse, Adapters, CacheView, CacheWidth, Gradients, Layer, ModelError, PackedBatch,
    Parameters, Pauses, PrefilledRows, RowContext, Shard, Trainable, Weights,
};
use crate::config::BasePrecision;
use crate::hub::{Experts, KeysValues, ModelConfig, Role, Scope, is_trained};
use crate::kernels::decode_attention::DecodeRows;
use crate::kernels::embedding::{Table, embedding_backward};
use crate::kernels::rope::RopeTable;
use crate::kernels::router::Selection;
use crate::kernels::soft_cap::{soft_cap, soft_cap_backward};

/// A causal language model. Weights are [outputs, inputs]; trained ones are views of one flat
/// buffer.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    parameters: Parameters,
    embedding: Table,
    embedding_range: Option<std::ops::Range<usize>>,
    layers: Vec<Layer>,
    /// As in [`sources`].
    sources: Vec<Option<usize>>,
    layer_inputs: Option<LayerInputs>,
    final_norm: NormWeight,
    head: Linear,
    /// Scale of embeddings, in the model's dtype.
    embedding_scale: f64,
    device: Device,
    base_precision: BasePrecision,
}

/// Saved activations of a batch.
#[derive(Debug)]
pub struct Activations {
    batch: DeviceBatch,
    layers: Vec<SavedActivations>,
    /// [rows, hidden] before the final norm.
    last: Tensor,
    side: SideInputs,
    routers: Vec<RouterUse>,
}

impl Activations {
    /// Router statistics by layer; empty on a GPU.
    pub fn routers(&self) -> &[RouterUse] {
        &self.routers
    }
}

/// Saved activations of a layer; the rest is recomputed.
#[derive(Debug)]
enum SavedActivations {
    Input(Tensor),
    /// Matrix products, and the stream.
    Products(Box<LayerActivations>),
    All(Box<(LayerActivations, DerivedActivations)>),
}

impl Decoder {
    /// Loads a model on `device` in `dtype`; `seed` initialises adapters.
    ///
    /// # Errors
    /// Missing tensors, wrong shapes, or a failed tensor operation.
    pub fn new(
        config: &ModelConfig,
        weights: &Weights,
        trainable: Trainable,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        Self::sharded(
            config,
            weights,
            (trainable, Shard::WHOLE),
            seed,
            dtype,
            device,
        )
    }

    /// As [`Decoder::new`], with trained parameters sharded over ranks.
    pub fn sharded(
        config: &ModelConfig,
        weights: &Weights,
        (trainable, shard): (Trainable, Shard),
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        let problem = || {
            config
                .gpu_problem()
                .or_else(|| gpu_problem(config, weights, trainable))
                .or_else(|| weights.precision().and_then(|_| config.quantized_problem()))
        };
        if let Some(problem) = device.is_cuda().then(problem).flatten() {
            return Err(ModelError::Weights(problem));
        }
        let is_beside = config
            .options
            .experts
            .as_ref()
            .is_some_and(|experts| experts.is_beside_dense);
        if is_beside
            && matches!(
                trainable,
                Trainable::Lora {
                    has_experts: true,
                    ..
                }
            )
        {
            let problem = "experts beside a dense block get no adapters: set lora_experts = false";
            return Err(ModelError::Weights(problem.to_owned()));
        }
        let assembly = ModelLoader {
            config,
            weights,
            trainable,
            shard,
            dtype,
            device,
        };
        let mut parameters = assembly.parameters(seed)?;
        let outside = assembly.table(None, &parameters);
        let embedding = outside.tensor(Role::Embedding)?;
        let head = outside.optional(Role::Head, TableLoader::tensor)?;
        let head = head.unwrap_or_else(|| embedding.clone());
        let (embedding, embedding_range) = assembly.gathered(Role::Embedding, embedding);
        // Before the layers, which then use the GPU memory that tables left.
        let layer_inputs = outside.optional(Role::LayerEmbedding, TableLoader::layer_inputs)?;
        let rope = |scope| {
            let frequencies = config.rope_frequencies(scope);
            RopeTable::from_frequencies(
                config.max_position_embeddings,
                &frequencies,
                master_dtype(dtype),
                device,
            )
        };
        // Layers of one scope share a table.
        let everything = rope(Scope::Everything)?;
        let window = config
            .options
            .window
            .is_some()
            .then(|| rope(Scope::Window))
            .transpose()?;
        let table = |index| match (config.scope(index), &window) {
            (Scope::Window, Some(window)) => window.clone(),
            _ => everything.clone(),
        };
        let layers = (0..config.num_hidden_layers)
            .map(|index| assembly.table(Some(index), &parameters).layer(table(index)))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let mut config = config.clone();
        // What is planned for the rest of the GPU follows from it.
        if let Some(experts) = &mut config.options.experts {
            experts.is_mxfp4 &= layers.iter().all(Layer::keeps_mxfp4);
        }
        let final_norm = outside.norm(Role::FinalNorm)?;
        parameters.copy_into(
            layers
                .iter()
                .map(Layer::copies)
                .collect::<Result<Vec<_>>>()?
                .concat(),
        )?;
        Ok(Self {
            layers,
            sources: sources(&config),
            layer_inputs,
            final_norm,
            head: plain_linear(head),
            embedding_scale: rounded(config.options.embedding_scale, dtype)?,
            config,
            device: device.clone(),
            base_precision: weights.base_precision(),
            parameters,
            embedding,
            embedding_range,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Cache sizes by layer.
    pub(crate) fn cache_widths(&self) -> impl Iterator<Item = CacheWidth> {
        self.layers.iter().map(Layer::cache_width)
    }

    /// Layers with experts; `None` for a dense model.
    pub(crate) fn expert_layers(&self) -> Option<ExpertLayers> {
        let layers = self
            .layers
            .iter()
            .filter(|layer| layer.has_experts())
            .count();
        let Experts { count, active, .. } = self
            .config
            .options
            .experts
            .as_ref()
            .filter(|_| layers > 0)?;
        Some(ExpertLayers {
            layers,
            count: *count,
            active: *active,
        })
    }

    /// Dtype of weights and activations; trained parameters are f32 in a bf16 model.
    pub fn dtype(&self) -> DType {
        self.final_norm.weight.dtype()
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn base_precision(&self) -> BasePrecision {
        self.base_precision
    }

    fn gathered(&self) -> impl Iterator<Item = &Table> {
        let of_layers = self.layer_inputs.iter().map(|inputs| &inputs.table.0);
        std::iter::once(&self.embedding).chain(of_layers)
    }

    /// Bytes of tables in host memory, read by a GPU.
    pub fn host_bytes(&self) -> usize {
        self.gathered().map(Table::host_bytes).sum()
    }

    /// Why a table is on the GPU that was meant to be in host memory.
    pub(crate) fn host_memory_refusal(&self) -> Option<&str> {
        self.gathered().find_map(Table::refusal)
    }

    /// `token_ids`: `[ids]`, u32, within the vocabulary -> [ids, hidden]: start of the residual
    /// stream. The stream is f32 even in a bf16 model: rounding it twice per layer to bf16 would
    /// cause most of the forward's error and of the sampler/trainer difference.
    fn embed(&self, token_ids: &Tensor) -> Result<Tensor> {
        let dtype = master_dtype(self.dtype());
        scaled(
            self.embedding.gather(token_ids, dtype)?,
            self.embedding_scale,
        )
    }

    /// Start of the stream, and side inputs of layers.
    fn start(&self, token_ids: &Tensor) -> Result<(Stream, SideInputs)> {
        let embedded = self.embed(token_ids)?;
        let inputs = self
            .layer_inputs
            .as_ref()
            .map(|inputs| inputs.forward(token_ids, &embedded))
            .transpose()?;
        let side = SideInputs::new(inputs.as_ref(), self.layers.len())?;
        Ok((Stream::start(embedded), side))
    }

    /// The whole stream and its final norm, [rows, hidden] each.
    fn norm(&self, stream: &Stream) -> Result<(Tensor, Tensor)> {
        stream.norm(&self.final_norm, 0)
    }

    /// `normed`: [rows, hidden] after the final norm -> [rows, vocabulary], f32 (f64 for f64).
    pub fn logits(&self, normed: &Tensor) -> Result<Tensor> {
        let logits = self.head.weight.forward_f32(normed)?;
        self.config
            .options
            .logit_cap
            .map_or(Ok(()), |cap| soft_cap(&logits, cap))?;
        Ok(logits)
    }

    /// `gradient`: [rows, vocabulary] of `logits`, owning its memory. Adds the head's gradient if
    /// trained, returns the gradient of `normed`.
    pub fn logits_backward(
        &self,
        gradient: &Tensor,
        logits: &Tensor,
        normed: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        self.config
            .options
            .logit_cap
            .map_or(Ok(()), |cap| soft_cap_backward(gradient, logits, cap))?;
        self.head.backward(gradient, normed, gradients)
    }

    /// The stream after all layers. `experts`: by layer, for `select`; `each` gets a layer's index,
    /// context and activations.
    fn through<'a>(
        &self,
        batch: &'a DeviceBatch,
        experts: &'a [Option<Tensor>],
        select: fn(&'a Tensor) -> Selection<'a>,
        adapters: AdapterUse<'a>,
        mut each: impl FnMut(usize, RowContext<'_>, LayerActivations, DerivedActivations) -> Result<()>,
    ) -> Result<(Stream, SideInputs)> {
        let mut passed = self.start(&batch.token_ids)?;
        for (index, own) in experts.iter().enumerate() {
            let selection = own.as_ref().map_or(Selection::Free, select);
            passed = self.through_layer(index, passed, batch, selection, adapters, &mut each)?;
        }
        Ok(passed)
    }

    /// The stream after one layer, given what came before it.
    fn through_layer(
        &self,
        index: usize,
        (stream, mut side): (Stream, SideInputs),
        batch: &DeviceBatch,
        selection: Selection<'_>,
        adapters: AdapterUse<'_>,
        mut each: impl FnMut(usize, RowContext<'_>, LayerActivations, DerivedActivations) -> Result<()>,
    ) -> Result<(Stream, SideInputs)> {
        let layer = &self.layers[index];
        let context = RowContext {
            positions: &batch.positions,
            segments: &batch.segments,
            selection,
            adapters,
            beside: side.of(index, self.sources[index]),
        };
        let (output, saved, derived) = layer.forward(stream, context)?;
        let is_shared = self.sources[index] == Some(index);
        let shared = is_shared.then(|| layer.keys_values(&derived)).transpose()?;
        each(index, context, saved, derived)?;
        if let Some(shared) = shared {
            side.store(index, shared);
        }
        Ok((output, side))
    }

    /// Rows after the final norm, [rows, hidden]; saves nothing.
    pub fn forward<'a>(
        &self,
        batch: &PackedBatch,
        adapters: impl Into<AdapterUse<'a>>,
    ) -> Result<Tensor> {
        let batch = self.place(batch)?;
        let replayed = self.by_layer(batch.replayed.as_ref())?;
        let (select, adapters) = (Selection::Replayed, adapters.into());
        let (stream, _) = self.through(&batch, &replayed, select, adapters, |_, _, _, _| Ok(()))?;
        Ok(self.norm(&stream)?.1)
    }

    /// As [`Decoder::forward`] of a batch without replayed experts; `pauses` may break it after
    /// each layer.
    pub(crate) async fn forward_in_pieces(
        &self,
        batch: &PackedBatch,
        adapters: AdapterUse<'_>,
        pauses: &mut Pauses,
    ) -> Result<Tensor> {
        let placed = self.place(batch)?;
        let mut passed = self.start(&placed.token_ids)?;
        for index in 0..self.layers.len() {
            let ignore = |_, _: RowContext<'_>, _, _| Ok(());
            passed =
                self.through_layer(index, passed, &placed, Selection::Free, adapters, ignore)?;
            pauses.after(batch.rows()).await;
        }
        Ok(self.norm(&passed.0)?.1)
    }

    /// As [`Decoder::forward`], saving for [`Decoder::backward`]: with `recompute` each layer's
    /// input, otherwise on a GPU all matrix products, as norms are cheap to repeat and memory is
    /// scarce.
    pub fn forward_saving(
        &self,
        batch: &PackedBatch,
        recompute: bool,
    ) -> Result<(Tensor, Activations)> {
        let batch = self.place(batch)?;
        let (mut layers, mut routers) = (Vec::with_capacity(self.layers.len()), Vec::new());
        let save = |_, _: RowContext<'_>, saved: LayerActivations, derived| {
            routers.extend(saved.router_use()?);
            layers.push(match (recompute, self.device.is_cpu()) {
                (true, _) => SavedActivations::Input(saved.into_input()),
                (false, true) => SavedActivations::All(Box::new((saved, derived))),
                (false, false) => SavedActivations::Products(Box::new(saved)),
            });
            Ok(())
        };
        let replayed = self.by_layer(batch.replayed.as_ref())?;
        let (select, adapters) = (Selection::Replayed, Adapters::On.into());
        let (stream, side) = self.through(&batch, &replayed, select, adapters, save)?;
        let (last, normed) = self.norm(&stream)?;
        Ok((
            normed,
            Activations {
                batch,
                layers,
                last,
                side,
                routers,
            },
        ))
    }

    /// `gradient`: [rows, hidden] of the forward's result. Adds gradients of all trained weights
    /// below the head.
    pub fn backward(
        &self,
        batch: &PackedBatch,
        activations: Activations,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let Activations {
            batch: placed,
            layers,
            last,
            side,
            ..
        } = activations;
        let columns = (self.layers.last()).map_or(0, Layer::gradient_adapter_columns);
        let mut gradient = self
            .final_norm
            .backward(gradient, &last, None, columns, gradients)?;
        let replayed = self.by_layer(placed.replayed.as_ref())?;
        let side_gradients = side.gradients(self.embedding_range.is_some())?;
        for (index, ((layer, own), saved)) in self
            .layers
            .iter()
            .zip(&replayed)
            .zip(layers)
            .enumerate()
            .rev()
        {
            let source = self.sources[index];
            let context = RowContext {
                positions: &placed.positions,
                segments: &placed.segments,
                selection: own.as_ref().map_or(Selection::Free, Selection::Replayed),
                adapters: Adapters::On.into(),
                beside: side_gradients.with_gradients(side.of(index, source), index, source),
            };
            let (saved, derived) = match saved {
                SavedActivations::Input(input) => {
                    let (_, saved, derived) = layer.forward(Stream::start(input), context)?;
                    (saved, derived)
                }
                SavedActivations::Products(saved) => {
                    let derived = layer.derive(&saved, context)?;
                    (*saved, derived)
                }
                SavedActivations::All(both) => *both,
            };
            gradient = layer.backward(&gradient, &saved, &derived, context, gradients)?;
        }
        if let Some((inputs, own)) = self.layer_inputs.as_ref().zip(side_gradients.joined()?) {
            let embedded = self.embed(&placed.token_ids)?;
            gradient =
                (gradient + inputs.backward(&own, (&batch.token_ids, &embedded), gradients)?)?;
        }
        if let Some(range) = &self.embedding_range {
            let sums = embedding_backward(&gradient, &batch.token_ids, self.config.vocab_size)?;
            gradients.add(range, &scaled(sums, self.embedding_scale)?)?;
        }
        Ok(())
    }

    /// Prefill: stores each layer's cache of the rows, and returns rows after the final norm.
    /// `record`: receives the rows' experts, [layers with experts, rows, active], u32.
    pub(crate) fn prefill(
        &self,
        batch: &PackedBatch,
        record: Option<&Tensor>,
        adapters: AdapterUse<'_>,
        mut store: impl FnMut(usize, PrefilledRows) -> Result<()>,
    ) -> Result<Tensor> {
        let batch = self.place(batch)?;
        let recorded = self.by_layer(record)?;
        let keep = |index: usize, context: RowContext<'_>, saved, derived| {
            store(
                index,
                self.layers[index].prefilled(&saved, &derived, context)?,
            )
        };
        let (stream, _) = self.through(&batch, &recorded, Selection::Recorded, adapters, keep)?;
        Ok(self.norm(&stream)?.1)
    }

    /// Decode step: `newest` and `positions` [rows], u32 -> [rows, vocabulary]. `caches`: by layer;
    /// `record`: as in [`Decoder::prefill`].
    pub(crate) fn decode<'a>(
        &self,
        newest: &Tensor,
        positions: &Tensor,
        rows: &DecodeRows,
        (caches, record): (impl Iterator<Item = CacheView<'a>>, Option<&Tensor>),
        adapters: AdapterUse<'_>,
    ) -> Result<Tensor> {
        let ((mut stream, side), recorded) = (self.start(newest)?, self.by_layer(record)?);
        for (index, ((layer, cache), own)) in
            self.layers.iter().zip(caches).zip(&recorded).enumerate()
        {
            let selection = own.as_ref().map_or(Selection::Free, Selection::Recorded);
            let input = side.of(index, None).input;
            stream = layer.decode(
                &stream,
                NewestRows {
                    positions,
                    rows,
                    cache,
                    input,
                    selection,
                    adapters,
                },
            )?;
        }
        self.logits(&self.norm(&stream)?.1)
    }

    /// Frozen weights under their names.
    pub fn untrained(&self) -> Vec<(String, Tensor)> {
        let names = self.config.tensors().into_iter().map(|tensor| tensor.name);
        let factors = self.layers.iter().filter_map(|layer| layer.factor.as_ref());
        names
            .filter(|name| !is_trained(name))
            .zip(factors)
            .map(|(name, factor)| (name, factor.stored.clone()))
            .collect()
    }

    /// Distinguishes models.
    #[cfg(feature = "cuda")]
    pub(crate) fn id(&self) -> candle_core::TensorId {
        self.final_norm.weight.id()
    }

    fn place(&self, batch: &PackedBatch) -> Result<DeviceBatch> {
        let limits = (self.config.vocab_size, self.config.max_position_embeddings);
        batch.place(limits, self.expert_layers(), &self.device)
    }

    /// `experts`: [layers with experts, rows, active] -> [rows, active] by layer.
    fn by_layer(&self, experts: Option<&Tensor>) -> Result<Vec<Option<Tensor>>> {
        let mut with_experts = 0..;
        let part = |layer: &Layer| match (
            experts,
            layer.has_experts().then(|| with_experts.next()).flatten(),
        ) {
            (Some(experts), Some(index)) => experts.get(index).map(Some),
            _ => Ok(None),
        };
        self.layers.iter().map(part).collect()
    }
}

/// By layer that reads shared keys and values: the layer that computes them, possibly itself.
fn sources(config: &ModelConfig) -> Vec<Option<usize>> {
    let mut sources = vec![None; config.num_hidden_layers];
    for layer in 0..config.num_hidden_layers {
        if let KeysValues::OfLayer(source) = config.keys_values(layer) {
            sources[layer] = Some(source);
            sources[source] = Some(source);
        }
    }
    sources
}

fn scaled(rows: Tensor, factor: f64) -> Result<Tensor> {
    if factor == 1.0 {
        Ok(rows)
    } else {
        rows.affine(factor, 0.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_is_the_same_whatever_is_kept_of_a_layer() {
        let json = r#"{"vocab_size":19,"hidden_size":16,"intermediate_size":24,
            "num_hidden_layers":3,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":8,"rms_norm_eps":1e-6,
            "rope_theta":10000.0,"tie_word_embeddings":false,"max_position_embeddings":32,"hidden_act":"silu",
            "full_attention_interval":2,"linear_num_key_heads":1,"linear_num_value_heads":2,"linear_key_head_dim":4,
            "linear_value_head_dim":6,"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":8,"mlp_only_layers":[1],
            "shared_expert_intermediate_size":6,
            "architectures":["#;
        let shared = r#","layer_types":["full_attention","sliding_attention","full_attention"],"num_kv_shared_layers":1,
            "vocab_size_per_layer_input":19,"hidden_size_per_layer_input":4,"global_head_dim":12"#;
        let beside =
            r#","vocab_size_per_layer_input":19,"enable_moe_block":true,"top_k_experts":2"#;
        let families = [
            ("Qwen3ForCausalLM", ""),
            ("Qwen3_5ForCausalLM", ""),
            ("Qwen3MoeForCausalLM", ""),
            ("Qwen3_5MoeForCausalLM", ""),
            ("GptOssForCausalLM", ""),
            ("Gemma4ForCausalLM", shared),
            ("Gemma4ForCausalLM", beside),
        ];
        let parse = |(name, own)| {
            ModelConfig::parse(&format!("{json}\"{name}\"]{own}}}"), "config.json").unwrap()
        };
        let configs = families.map(parse);
        let lora = |has_experts| Trainable::Lora {
            rank: 2,
            alpha: 4.0,
            has_experts,
        };
        let trainables = [Trainable::Full, lora(false), lora(true)];
        for (config, trainable) in configs
            .into_iter()
            .flat_map(|config| trainables.map(|it| (config.clone(), it)))
        {
            let weights = Weights::fresh(&config, 3);
            let is_beside_dense = config
                .options
                .experts
                .as_ref()
                .is_some_and(|experts| experts.is_beside_dense);
            let model = Decoder::new(&config, &weights, trainable, 1, DType::F32, &Device::Cpu);
            assert_eq!(model.is_err(), is_beside_dense && trainable == lora(true));
            let Ok(model) = model else { continue };
            let mut batch = PackedBatch::default();
            batch.push_prompt(&[1, 5, 2, 17, 4]);
            let gradient = |recompute: bool, keep: fn(SavedActivations) -> SavedActivations| {
                let (normed, mut saved) = model.forward_saving(&batch, recompute).unwrap();
                saved.layers = saved.layers.into_iter().map(keep).collect();
                let mut gradients = Gradients::zeros(model.parameters()).unwrap();
                model
                    .backward(&batch, saved, &normed, &mut gradients)
                    .unwrap();
                gradients.flat().to_vec1::<f32>().unwrap()
            };
            let all = gradient(false, |saved| saved);
            let products = gradient(false, |saved| match saved {
                SavedActivations::All(both) => SavedActivations::Products(Box::new(both.0)),
                other => other,
            });
            assert!(
                all.iter().any(|number| *number != 0.0) && products == all,
                "{trainable:?}"
            );
            assert_eq!(
                gradient(true, |saved| saved),
                all,
                "{trainable:?}, recomputed"
            );
        }
    }
}
