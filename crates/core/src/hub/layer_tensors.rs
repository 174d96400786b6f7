//! Table of a model's tensors, read by loading, initialisation, adapters, exports, GGUF and the
//! memory plan.

use super::{AttentionBias, ExpertTensors, Experts, KeysValues, Mixer, ModelConfig};

/// Purpose of a tensor. Matrices of one role share an input and are packed into one, in table
/// order; likewise their biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Embedding,
    /// A row per token: per-layer inputs.
    LayerEmbedding,
    /// Projects a token's embedding to per-layer inputs.
    LayerProjection,
    LayerProjectionNorm,
    FinalNorm,
    Head,

    InputNorm,
    /// Queries, keys and values, or the inputs of the gated delta rule.
    MixerInput,
    QueryNorm,
    KeyNorm,
    Sinks,
    Convolution,
    Decay,
    TimeBias,
    DeltaNorm,
    MixerOutput,
    /// Norm of the mixer's output, in some families.
    MixerOutputNorm,
    MiddleNorm,
    DownNorm,
    /// Gate and up of a dense block.
    GateUp,
    Down,
    Router,
    /// Norms of experts next to a dense block.
    RouterNorm,
    ExpertsNorm,
    DenseOutputNorm,
    ExpertsOutputNorm,
    ExpertFactors,
    ExpertGateUp,
    ExpertDown,
    SharedGateUp,
    SharedDown,
    SharedGate,
    /// Per-layer input.
    OwnInputGate,
    OwnInputProjection,
    OwnInputNorm,
    /// Scales the layer's output.
    LayerFactor,
}

/// Content of a tensor, which determines its initial values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Uniform with std 1 / sqrt(inputs), smaller if the result is added to the residual stream.
    Matrix,
    /// Uniform with std 0.02.
    Embedding,
    /// 1 minus the family's offset.
    Norm,
    /// Zeros; added to the outputs of the role's matrices.
    Bias,
    Zeros,
    Ones,
    /// Logarithms of numbers between 0.01 and 16.
    Decay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSpec {
    pub role: Role,
    pub kind: Kind,
    /// transformers' name inside the layer, if any; `{}` is an expert's index.
    pub name: &'static str,
    /// llama.cpp's name without layer and `.weight`; empty if it has none.
    gguf: &'static str,
    /// Padded with zeros.
    shape: [usize; 3],
    /// Number of experts if each has its own tensor, else 1.
    pub copies: usize,
    /// Whether the matrix gets an adapter. For experts see [`Experts::adapter_shapes`].
    pub is_adapted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub spec: TensorSpec,
    pub layer: Option<usize>,
}

pub fn is_trained(name: &str) -> bool {
    !name.ends_with(".layer_scalar")
}

/// Whether a quantized base rounds the tensor: matrices of layers except routers, whose choices would
/// change.
pub fn is_quantized(name: &str, shape: &[usize]) -> bool {
    let gates = [
        "mlp.gate.weight",
        "mlp.router.weight",
        "router.proj.weight",
        "mlp.shared_expert_gate.weight",
    ];
    name.starts_with("model.layers.")
        && shape.len() == 2
        && !name.ends_with("_bias")
        && !gates.iter().any(|gate| name.ends_with(gate))
}

impl ModelConfig {
    /// Whether a forward reads a token's row of the tensor, never all of it.
    pub fn is_only_gathered(&self, role: Role) -> bool {
        match role {
            Role::Embedding => !self.tie_word_embeddings,
            Role::LayerEmbedding => true,
            _ => false,
        }
    }

    /// The first matrix that a GPU cannot have in fp8 or NF4, in a sentence.
    pub fn quantized_problem(&self) -> Option<String> {
        let has_form = |shape: &[usize]| shape[0].is_multiple_of(4) && shape[1].is_multiple_of(64);
        let tensor = self
            .tensors()
            .into_iter()
            .find(|ModelTensor { name, shape, .. }| {
                is_quantized(name, shape) && !has_form(shape)
            })?;
        Some(format!(
            "`{}` has shape {:?}, and in fp8 and nf4 a GPU computes outputs in multiples of 4 and inputs in multiples of 64: set base_precision = bf16, or compute on the CPU (`--cpu`)",
            tensor.name, tensor.shape
        ))
    }
}

/// Full name of a layer's `name`.
pub fn tensor_name(layer: Option<usize>, name: &str) -> String {
    match layer {
        Some(layer) => format!("model.layers.{layer}.{name}"),
        None => name.to_owned(),
    }
}

impl TensorSpec {
    pub fn shape(&self) -> &[usize] {
        let dimensions = self.shape.iter().position(|&size| size == 0);
        &self.shape[..dimensions.unwrap_or(3)]
    }

    pub fn count(&self) -> usize {
        self.copies * self.shape().iter().product::<usize>()
    }

    /// PEFT's module name inside the layer.
    pub fn module(&self) -> &'static str {
        self.name.trim_end_matches(".weight")
    }
}

impl ModelTensor {
    /// llama.cpp's name.
    pub fn gguf_name(&self) -> String {
        let end = if self.spec.kind == Kind::Bias {
            "bias"
        } else {
            "weight"
        };
        let own = format!("{}.{end}", self.spec.gguf);
        self.layer
            .map_or(own.clone(), |layer| format!("blk.{layer}.{own}"))
    }

    pub fn is_query_or_key(&self) -> bool {
        ["attn_q", "attn_k"].contains(&self.spec.gguf)
    }

    pub fn is_values(&self) -> bool {
        self.spec.gguf == "attn_v"
    }
}

impl Experts {
    /// [outputs, inputs] of an expert's adapted matrices: gate and up together, and down.
    pub fn adapter_shapes(&self, hidden: usize) -> [[usize; 2]; 2] {
        let width = self.intermediate_size;
        [[2 * width, hidden], [hidden, width]]
    }
}

impl ModelConfig {
    pub fn tensors(&self) -> Vec<ModelTensor> {
        let outside = self.tensors_of(None);
        let is_before = |spec: &&TensorSpec| spec.role != Role::FinalNorm;
        let (before, after) = outside.split_at(outside.iter().take_while(is_before).count());
        let mut all = Vec::new();
        let mut add = |layer, specs: &[TensorSpec]| {
            // An expert's tensors are adjacent.
            for run in specs.chunk_by(|one, next| one.copies > 1 && next.copies > 1) {
                for index in 0..run[0].copies {
                    all.extend(run.iter().map(|&spec| ModelTensor {
                        name: tensor_name(layer, &spec.name.replace("{}", &index.to_string())),
                        shape: spec.shape().to_vec(),
                        spec,
                        layer,
                    }));
                }
            }
        };
        add(None, before);
        (0..self.num_hidden_layers)
            .for_each(|layer| add(Some(layer), &self.tensors_of(Some(layer))));
        add(None, after);
        all
    }

    pub fn adapted_matrices(&self, layer: usize) -> Vec<TensorSpec> {
        let mut specs = self.tensors_of(Some(layer));
        specs.retain(|spec| spec.is_adapted);
        specs
    }

    pub fn tensors_of(&self, layer: Option<usize>) -> Vec<TensorSpec> {
        layer.map_or_else(|| self.outer_tensors(), |layer| self.layer_tensors(layer))
    }

    fn outer_tensors(&self) -> Vec<TensorSpec> {
        let (vocabulary, hidden) = (self.vocab_size, self.hidden_size);
        let width = self.options.layer_input.unwrap_or(0);
        let own_input = self.options.layer_input.is_some();
        let inputs = self.num_hidden_layers * width;
        #[rustfmt::skip]
        let rows: &[Row<'_>] = &[
            (Role::Embedding,           Kind::Embedding, "model.embed_tokens.weight",               "token_embd",  &[vocabulary, hidden], true),
            (Role::LayerEmbedding,      Kind::Embedding, "model.embed_tokens_per_layer.weight",     "",            &[vocabulary, inputs], own_input),
            (Role::LayerProjection,     Kind::Matrix,    "model.per_layer_model_projection.weight", "",            &[inputs, hidden],     own_input),
            (Role::LayerProjectionNorm, Kind::Norm,      "model.per_layer_projection_norm.weight",  "",            &[width],              own_input),
            (Role::FinalNorm,           Kind::Norm,      "model.norm.weight",                       "output_norm", &[hidden],             true),
            (Role::Head,                Kind::Embedding, "lm_head.weight",                          "output",      &[vocabulary, hidden], !self.tie_word_embeddings),
        ];
        self.specs(rows, 0)
    }

    fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let (hidden, options) = (self.hidden_size, &self.options);
        let (mixer, source) = (self.mixer(layer), self.keys_values(layer));
        let attention = matches!(mixer, Mixer::Attention(_));
        let delta = !attention;
        let keys = attention && !matches!(source, KeysValues::OfLayer(_));
        let values = keys && source == KeysValues::Own;
        let bias = self.attention_bias != AttentionBias::Absent;
        let output_bias = self.attention_bias == AttentionBias::All;
        let (heads, query_width) = (self.heads(layer), self.query_width(layer));
        let (head, key_width) = (heads.dimension, heads.width());
        // With an attention gate each query is followed by its gate.
        let queries = query_width * if options.has_attention_gate { 2 } else { 1 };
        let [convolved, kernel, delta_heads, delta_head, delta_values] = match mixer {
            Mixer::Attention(_) => [0; 5],
            Mixer::GatedDelta(delta) => [
                delta.convolved(),
                delta.kernel,
                delta.value_heads,
                delta.value_dimension,
                delta.values(),
            ],
        };
        let experts = self.experts(layer);
        let stored = experts.map(|experts| experts.tensors);
        let beside = experts.is_some_and(|experts| experts.is_beside_dense);
        let dense = experts.is_none() || beside;
        let separate = stored == Some(ExpertTensors::Separate);
        let fused = stored == Some(ExpertTensors::Fused) && !beside;
        let transposed = stored == Some(ExpertTensors::FusedTransposed);
        let shared = experts.and_then(|experts| experts.shared_size);
        let (shared, shared_inner) = (shared.is_some(), shared.unwrap_or(0));
        let inner = self.inner_size(layer);
        let (count, width) =
            experts.map_or((0, 0), |experts| (experts.count, experts.intermediate_size));
        let (own_input, input) = (
            options.layer_input.is_some(),
            options.layer_input.unwrap_or(0),
        );
        #[rustfmt::skip]
        let rows: &[Row<'_>] = &[
            (Role::InputNorm,          Kind::Norm,   "input_layernorm.weight",              "attn_norm",           &[hidden],                   true),

            (Role::MixerInput,         Kind::Matrix, "self_attn.q_proj.weight",             "attn_q",              &[queries, hidden],          attention),
            (Role::MixerInput,         Kind::Matrix, "self_attn.k_proj.weight",             "attn_k",              &[key_width, hidden],        keys),
            (Role::MixerInput,         Kind::Matrix, "self_attn.v_proj.weight",             "attn_v",              &[key_width, hidden],        values),
            (Role::MixerInput,         Kind::Bias,   "self_attn.q_proj.bias",               "attn_q",              &[queries],                  attention && bias),
            (Role::MixerInput,         Kind::Bias,   "self_attn.k_proj.bias",               "attn_k",              &[key_width],                keys && bias),
            (Role::MixerInput,         Kind::Bias,   "self_attn.v_proj.bias",               "attn_v",              &[key_width],                values && bias),
            (Role::QueryNorm,          Kind::Norm,   "self_attn.q_norm.weight",             "attn_q_norm",         &[head],                     attention && options.has_head_norms),
            (Role::KeyNorm,            Kind::Norm,   "self_attn.k_norm.weight",             "attn_k_norm",         &[head],                     keys && options.has_head_norms),
            (Role::Sinks,              Kind::Zeros,  "self_attn.sinks",                     "",                    &[self.num_attention_heads], attention && options.has_attention_sinks),
            (Role::MixerOutput,        Kind::Matrix, "self_attn.o_proj.weight",             "attn_output",         &[hidden, query_width],      attention),
            (Role::MixerOutput,        Kind::Bias,   "self_attn.o_proj.bias",               "attn_output",         &[hidden],                   attention && output_bias),

            (Role::MixerInput,         Kind::Matrix, "linear_attn.in_proj_qkv.weight",      "",                    &[convolved, hidden],        delta),
            (Role::MixerInput,         Kind::Matrix, "linear_attn.in_proj_z.weight",        "",                    &[delta_values, hidden],     delta),
            (Role::MixerInput,         Kind::Matrix, "linear_attn.in_proj_b.weight",        "",                    &[delta_heads, hidden],      delta),
            (Role::MixerInput,         Kind::Matrix, "linear_attn.in_proj_a.weight",        "",                    &[delta_heads, hidden],      delta),
            (Role::Convolution,        Kind::Matrix, "linear_attn.conv1d.weight",           "",                    &[convolved, 1, kernel],     delta),
            (Role::Decay,              Kind::Decay,  "linear_attn.A_log",                   "",                    &[delta_heads],              delta),
            (Role::TimeBias,           Kind::Ones,   "linear_attn.dt_bias",                 "",                    &[delta_heads],              delta),
            (Role::DeltaNorm,          Kind::Ones,   "linear_attn.norm.weight",             "",                    &[delta_head],               delta),
            (Role::MixerOutput,        Kind::Matrix, "linear_attn.out_proj.weight",         "",                    &[hidden, delta_values],     delta),

            (Role::MixerOutputNorm,    Kind::Norm,   "post_attention_layernorm.weight",     "post_attention_norm", &[hidden],                   options.has_output_norms),
            (Role::MiddleNorm,         Kind::Norm,   "pre_feedforward_layernorm.weight",    "ffn_norm",            &[hidden],                   options.has_output_norms),
            (Role::MiddleNorm,         Kind::Norm,   "post_attention_layernorm.weight",     "ffn_norm",            &[hidden],                   !options.has_output_norms),

            (Role::GateUp,             Kind::Matrix, "mlp.gate_proj.weight",                "ffn_gate",            &[inner, hidden],            dense),
            (Role::GateUp,             Kind::Matrix, "mlp.up_proj.weight",                  "ffn_up",              &[inner, hidden],            dense),
            (Role::Down,               Kind::Matrix, "mlp.down_proj.weight",                "ffn_down",            &[hidden, inner],            dense),

            (Role::RouterNorm,         Kind::Norm,   "router.scale",                        "",                    &[hidden],                   beside),
            (Role::ExpertsNorm,        Kind::Norm,   "pre_feedforward_layernorm_2.weight",  "",                    &[hidden],                   beside),
            (Role::DenseOutputNorm,    Kind::Norm,   "post_feedforward_layernorm_1.weight", "",                    &[hidden],                   beside),
            (Role::ExpertsOutputNorm,  Kind::Norm,   "post_feedforward_layernorm_2.weight", "",                    &[hidden],                   beside),
            (Role::ExpertFactors,      Kind::Ones,   "router.per_expert_scale",             "",                    &[count],                    beside),
            (Role::Router,             Kind::Matrix, "router.proj.weight",                  "",                    &[count, hidden],            beside),
            (Role::Router,             Kind::Matrix, "mlp.gate.weight",                     "",                    &[count, hidden],            separate || fused),
            (Role::Router,             Kind::Matrix, "mlp.router.weight",                   "",                    &[count, hidden],            transposed),
            (Role::Router,             Kind::Bias,   "mlp.router.bias",                     "",                    &[count],                    transposed),

            (Role::ExpertGateUp,       Kind::Matrix, "experts.gate_up_proj",                "",                    &[count, 2 * width, hidden], beside),
            (Role::ExpertDown,         Kind::Matrix, "experts.down_proj",                   "",                    &[count, hidden, width],     beside),
            (Role::ExpertGateUp,       Kind::Matrix, "mlp.experts.gate_up_proj",            "",                    &[count, 2 * width, hidden], fused),
            (Role::ExpertDown,         Kind::Matrix, "mlp.experts.down_proj",               "",                    &[count, hidden, width],     fused),
            (Role::ExpertGateUp,       Kind::Matrix, "mlp.experts.gate_up_proj",            "",                    &[count, hidden, 2 * width], transposed),
            (Role::ExpertGateUp,       Kind::Bias,   "mlp.experts.gate_up_proj_bias",       "",                    &[count, 2 * width],         transposed),
            (Role::ExpertDown,         Kind::Matrix, "mlp.experts.down_proj",               "",                    &[count, width, hidden],     transposed),
            (Role::ExpertDown,         Kind::Bias,   "mlp.experts.down_proj_bias",          "",                    &[count, hidden],            transposed),
            (Role::ExpertGateUp,       Kind::Matrix, "mlp.experts.{}.gate_proj.weight",     "",                    &[width, hidden],            separate),
            (Role::ExpertGateUp,       Kind::Matrix, "mlp.experts.{}.up_proj.weight",       "",                    &[width, hidden],            separate),
            (Role::ExpertDown,         Kind::Matrix, "mlp.experts.{}.down_proj.weight",     "",                    &[hidden, width],            separate),
            (Role::SharedGateUp,       Kind::Matrix, "mlp.shared_expert.gate_proj.weight",  "",                    &[shared_inner, hidden],     shared),
            (Role::SharedGateUp,       Kind::Matrix, "mlp.shared_expert.up_proj.weight",    "",                    &[shared_inner, hidden],     shared),
            (Role::SharedDown,         Kind::Matrix, "mlp.shared_expert.down_proj.weight",  "",                    &[hidden, shared_inner],     shared),
            (Role::SharedGate,         Kind::Matrix, "mlp.shared_expert_gate.weight",       "",                    &[1, hidden],                shared),

            (Role::DownNorm,           Kind::Norm,   "post_feedforward_layernorm.weight",   "post_ffw_norm",       &[hidden],                   options.has_output_norms),
            (Role::OwnInputGate,       Kind::Matrix, "per_layer_input_gate.weight",         "",                    &[input, hidden],            own_input),
            (Role::OwnInputProjection, Kind::Matrix, "per_layer_projection.weight",         "",                    &[hidden, input],            own_input),
            (Role::OwnInputNorm,       Kind::Norm,   "post_per_layer_input_norm.weight",    "",                    &[hidden],                   own_input),
            (Role::LayerFactor,        Kind::Ones,   "layer_scalar",                        "",                    &[1],                        options.has_layer_factors),
        ];
        self.specs(rows, count)
    }

    /// Rows present in the model. `experts`: per layer.
    fn specs(&self, rows: &[Row<'_>], experts: usize) -> Vec<TensorSpec> {
        let spec = |&(role, kind, name, gguf, sizes, _): &Row<'_>| {
            let mut shape = [0; 3];
            shape[..sizes.len()].copy_from_slice(sizes);
            let is_adapted = kind == Kind::Matrix
                && match role {
                    Role::MixerInput | Role::MixerOutput => true,
                    Role::SharedGateUp | Role::SharedDown | Role::SharedGate => true,
                    // With experts PEFT reads `gate_proj` as the tensor of all, in dense layers
                    // too.
                    Role::GateUp | Role::Down => self.options.experts.is_none(),
                    _ => false,
                };
            TensorSpec {
                role,
                kind,
                name,
                gguf,
                shape,
                copies: if name.contains("{}") { experts } else { 1 },
                is_adapted,
            }
        };
        rows.iter().filter(|row| row.5).map(spec).collect()
    }
}

/// Role, kind, name, llama.cpp's name, shape, and whether the model has it.
type Row<'a> = (Role, Kind, &'static str, &'static str, &'a [usize], bool);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::{named_shape, shape_names};

    /// Checks predicates that only know a tensor's name.
    #[test]
    fn what_a_name_says_is_what_the_table_says() {
        for tensor in shape_names()
            .into_iter()
            .flat_map(|name| named_shape(name).unwrap().tensors())
        {
            let ModelTensor {
                name,
                shape,
                spec,
                layer,
            } = &tensor;
            let is_gate = matches!(spec.role, Role::Router | Role::SharedGate);
            let is_rounded =
                spec.kind == Kind::Matrix && layer.is_some() && shape.len() == 2 && !is_gate;
            assert_eq!(is_quantized(name, shape), is_rounded, "{name}");
            assert_eq!(is_trained(name), spec.role != Role::LayerFactor, "{name}");
        }
    }
}
