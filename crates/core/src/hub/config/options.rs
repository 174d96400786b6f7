//! The options of a decoder's layers as data: the code that computes them asks these, never for a family.

use super::{Architecture, ModelConfig, RopeScaling};

/// The activation function of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// GELU as approximated by tanh.
    GeluTanh,
}

impl Activation {
    /// By the names that transformers has for them.
    pub(super) const NAMES: [(&str, Self); 2] =
        [("silu", Self::Silu), ("gelu_pytorch_tanh", Self::GeluTanh)];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, activation)| *activation == self)
            .map_or("", |(name, _)| name)
    }
}

/// The range of tokens that a layer's queries see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every token before.
    Everything,
    /// The last tokens before, with rotary wavelengths of their own.
    Window,
}

/// The layers whose queries see only the last tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct SlidingWindow {
    /// Tokens that a query sees, its own included.
    pub tokens: usize,
    /// By layer.
    pub scopes: Vec<Scope>,
    /// Base of the rotary wavelengths of these layers.
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
}

/// Heads of the layers that see everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalHeads {
    /// Key heads, and as many value heads.
    pub key_value: usize,
    /// Numbers of a head.
    pub dimension: usize,
    /// Values are the product that keys are made of; there is no `v_proj`.
    pub values_are_keys: bool,
}

/// The layers at the end that have no keys and values of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedLayers {
    pub first: usize,
    /// Their feed-forward blocks have twice the width.
    pub is_wide: bool,
}

/// Where a layer's keys and values are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysValues {
    /// A product of its own for each.
    Own,
    /// One product for both.
    AreKeys,
    /// An earlier layer's.
    OfLayer(usize),
}

/// Key and value heads of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerHeads {
    /// Key heads, and as many value heads.
    pub key_value: usize,
    /// Numbers of a head, of queries too.
    pub dimension: usize,
}

impl LayerHeads {
    /// Numbers of a token's keys, and of its values.
    pub fn width(self) -> usize {
        self.key_value * self.dimension
    }
}

/// The layers that mix tokens by the gated delta rule (Yang et al. 2024, arXiv 2412.06464) instead of attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatedDelta {
    /// Key heads, and as many query heads; divides the value heads.
    pub key_heads: usize,
    pub value_heads: usize,
    /// Numbers of a query or key head.
    pub key_dimension: usize,
    /// Numbers of a value head.
    pub value_dimension: usize,
    /// Tokens that the convolution before it sees, the newest included.
    pub kernel: usize,
    /// By layer.
    pub layers: Vec<bool>,
}

/// The most numbers of an attention head on a GPU.
const GPU_HEAD_DIMENSION: usize = 512;

impl GatedDelta {
    /// The most numbers of a head on a GPU.
    pub const GPU_DIMENSION: usize = 128;
    /// The most tokens of a convolution there.
    pub const GPU_KERNEL: usize = 8;

    /// Numbers of a token that go through the convolution: queries, keys and values.
    pub fn convolved(&self) -> usize {
        2 * self.key_heads * self.key_dimension + self.values()
    }

    /// Numbers of a token's values.
    pub fn values(&self) -> usize {
        self.value_heads * self.value_dimension
    }

    /// Numbers of a sequence's state in one layer: that of the rule, and the convolution's last inputs.
    pub fn state(&self) -> usize {
        self.values() * self.key_dimension + (self.kernel - 1) * self.convolved()
    }
}

/// The tensors in which a checkpoint has the experts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertTensors {
    /// One for each matrix of each expert.
    Separate,
    /// One for all gates and ups, [experts, 2 * width, hidden], gate above up; one for all downs, [experts, hidden, width].
    Fused,
    /// [experts, hidden, 2 * width], gate and up in alternating columns, and [experts, width, hidden]; each with biases, as
    /// the router has.
    FusedTransposed,
}

/// Bounds of gate and up, in `gate * sigmoid(slope * gate) * (up + 1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClampedGate {
    pub slope: f64,
    /// The gate is at most this, up between its negative and it.
    pub limit: f64,
}

/// The layers whose feed-forward block is a mixture of experts (Shazeer et al. 2017, arXiv 1701.06538).
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Of a layer.
    pub count: usize,
    /// Experts that each token uses.
    pub active: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// Whether the weights of a token's experts are divided by their sum.
    pub is_renormalised: bool,
    /// By layer; the others are dense.
    pub layers: Vec<bool>,
    pub tensors: ExpertTensors,
    /// `None`: the decoder's activation.
    pub clamped: Option<ClampedGate>,
    /// Width of the gated MLP that each token uses besides, times the sigmoid of a gate of its own; `None`: there is none.
    pub shared_size: Option<usize>,
    /// Whether each of these layers also has the dense block, and a factor for what each expert gives.
    pub is_beside_dense: bool,
}

/// How a layer mixes tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mixer<'a> {
    Attention(Scope),
    GatedDelta(&'a GatedDelta),
}

/// The options in which families of decoders differ.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderOptions {
    /// Norms of each query head and each key head.
    pub has_head_norms: bool,
    /// Norms of each value head, without a weight.
    pub has_value_norms: bool,
    /// Norms of what attention and feed-forward give, before it is added to the residual stream.
    pub has_output_norms: bool,
    /// Added to every norm's weight.
    pub norm_offset: f64,
    pub activation: Activation,
    /// Embeddings are multiplied by it on their way into the residual stream.
    pub embedding_scale: f64,
    /// Products of queries and keys are divided by its root; `None`: a head's width.
    pub query_scalar: Option<f64>,
    /// `None`: every layer sees everything.
    pub window: Option<SlidingWindow>,
    /// `None`: as those of layers with a window.
    pub global_heads: Option<GlobalHeads>,
    /// `None`: every layer has keys and values of its own.
    pub shared_layers: Option<SharedLayers>,
    /// Attention's output is multiplied by the sigmoid of a gate: a query head's rows in `q_proj` are followed by its
    /// gate's.
    pub has_attention_gate: bool,
    /// Each query head has a number that the softmax counts as one more score, without a value.
    pub has_attention_sinks: bool,
    /// Numbers at the start of a head that positions rotate; `None`: all.
    pub rotary_dimension: Option<usize>,
    /// `None`: every layer is attention.
    pub gated_delta: Option<GatedDelta>,
    /// `None`: every layer is dense.
    pub experts: Option<Experts>,
    /// Width of the input that each layer has besides the residual stream; `None`: there is none.
    pub layer_input: Option<usize>,
    /// The stream after a layer is multiplied by a number of the checkpoint, which is not trained.
    pub has_layer_factors: bool,
    /// Logits are `cap * tanh(logits / cap)`.
    pub logit_cap: Option<f64>,
}

impl DecoderOptions {
    /// Llama, Mistral and Qwen2.
    pub const PLAIN: Self = Self {
        has_head_norms: false,
        has_value_norms: false,
        has_output_norms: false,
        norm_offset: 0.0,
        activation: Activation::Silu,
        embedding_scale: 1.0,
        query_scalar: None,
        window: None,
        global_heads: None,
        shared_layers: None,
        has_attention_gate: false,
        has_attention_sinks: false,
        rotary_dimension: None,
        gated_delta: None,
        experts: None,
        layer_input: None,
        has_layer_factors: false,
        logit_cap: None,
    };
    pub const QWEN3: Self = Self {
        has_head_norms: true,
        ..Self::PLAIN
    };

    /// Gemma 3: norms around each block with weights around 0, GELU, embeddings of unit variance.
    pub fn gemma3(hidden_size: usize, query_scalar: f64, window: Option<SlidingWindow>) -> Self {
        Self {
            has_head_norms: true,
            has_output_norms: true,
            norm_offset: 1.0,
            activation: Activation::GeluTanh,
            embedding_scale: (hidden_size as f64).sqrt(),
            query_scalar: Some(query_scalar),
            window,
            ..Self::PLAIN
        }
    }
}

impl ModelConfig {
    /// The tokens that a layer's queries see.
    pub fn scope(&self, layer: usize) -> Scope {
        let window = self.options.window.as_ref();
        window
            .and_then(|window| window.scopes.get(layer))
            .copied()
            .unwrap_or(Scope::Everything)
    }

    /// How a layer mixes tokens.
    pub fn mixer(&self, layer: usize) -> Mixer<'_> {
        let is_delta = |delta: &&GatedDelta| delta.layers.get(layer).copied().unwrap_or(false);
        let delta = self.options.gated_delta.as_ref().filter(is_delta);
        delta.map_or(Mixer::Attention(self.scope(layer)), Mixer::GatedDelta)
    }

    /// Layers whose mixer is attention.
    pub fn attention_layers(&self) -> usize {
        (0..self.num_hidden_layers)
            .filter(|&layer| matches!(self.mixer(layer), Mixer::Attention(_)))
            .count()
    }

    /// The experts of a layer; `None` where it is dense.
    pub fn experts(&self, layer: usize) -> Option<&Experts> {
        self.options
            .experts
            .as_ref()
            .filter(|experts| experts.layers.get(layer).copied().unwrap_or(false))
    }

    /// Key and value heads of a layer.
    pub fn heads(&self, layer: usize) -> LayerHeads {
        match (self.scope(layer), self.options.global_heads) {
            (Scope::Everything, Some(heads)) => LayerHeads {
                key_value: heads.key_value,
                dimension: heads.dimension,
            },
            _ => LayerHeads {
                key_value: self.num_key_value_heads,
                dimension: self.head_dim,
            },
        }
    }

    /// Numbers of a head in layers of a scope.
    pub fn head_dimension(&self, scope: Scope) -> usize {
        let global = self
            .options
            .global_heads
            .filter(|_| scope == Scope::Everything);
        global.map_or(self.head_dim, |heads| heads.dimension)
    }

    /// Where a layer's keys and values are from.
    pub fn keys_values(&self, layer: usize) -> KeysValues {
        let scope = self.scope(layer);
        if let Some(shared) = self
            .options
            .shared_layers
            .filter(|shared| layer >= shared.first)
        {
            let source = (0..shared.first).rfind(|&source| self.scope(source) == scope);
            return source.map_or(KeysValues::Own, KeysValues::OfLayer);
        }
        let are_keys = self
            .options
            .global_heads
            .is_some_and(|heads| heads.values_are_keys);
        if are_keys && scope == Scope::Everything {
            KeysValues::AreKeys
        } else {
            KeysValues::Own
        }
    }

    /// Numbers of a layer's queries.
    pub fn query_width(&self, layer: usize) -> usize {
        self.num_attention_heads * self.heads(layer).dimension
    }

    /// Width inside a layer's dense feed-forward block.
    pub fn inner_size(&self, layer: usize) -> usize {
        let is_wide = self
            .options
            .shared_layers
            .is_some_and(|shared| shared.is_wide && layer >= shared.first);
        self.intermediate_size * if is_wide { 2 } else { 1 }
    }

    /// Numbers at the start of a head that positions rotate.
    pub fn rotary_dimension(&self) -> usize {
        self.options.rotary_dimension.unwrap_or(self.head_dim)
    }

    /// Why no GPU computes this model, with what to do; `None` where one does.
    pub fn gpu_problem(&self) -> Option<String> {
        let widest = (0..self.num_hidden_layers)
            .map(|layer| self.heads(layer).dimension)
            .max();
        if let Some(dimension) = widest.filter(|dimension| *dimension > GPU_HEAD_DIMENSION) {
            return Some(format!(
                "heads of {dimension} numbers: a GPU computes at most {GPU_HEAD_DIMENSION}; compute on the CPU (`--cpu`)"
            ));
        }
        let GatedDelta {
            key_dimension,
            value_dimension,
            kernel,
            ..
        } = self.options.gated_delta.as_ref()?;
        let (most, most_tokens) = (GatedDelta::GPU_DIMENSION, GatedDelta::GPU_KERNEL);
        (*key_dimension > most || *value_dimension > most || *kernel > most_tokens).then(|| {
            format!(
                "heads of {key_dimension} and {value_dimension} numbers after a convolution of {kernel} tokens: a GPU \
                 computes at most {most} and {most_tokens}; compute on the CPU (`--cpu`)"
            )
        })
    }

    /// The divisor of attention scores. YaRN's factor of rotated queries and keys is in it: squared, since a score is a
    /// product of two.
    pub fn attention_divisor(&self, scope: Scope) -> f64 {
        let divisor = self
            .options
            .query_scalar
            .unwrap_or(self.head_dimension(scope) as f64)
            .sqrt();
        match self.rope(scope).1 {
            RopeScaling::Yarn {
                attention_factor, ..
            } => divisor / (attention_factor * attention_factor),
            _ => divisor,
        }
    }
}

impl Architecture {
    /// As people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Qwen3 => "Qwen3",
            Self::Qwen3Moe => "Qwen3 MoE",
            Self::Qwen2 => "Qwen2",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Gemma3 => "Gemma 3",
            Self::Gemma4 => "Gemma 4",
            Self::Qwen35 => "Qwen3.5",
            Self::Qwen35Moe => "Qwen3.5 MoE",
            Self::GptOss => "gpt-oss",
        }
    }

    /// `architectures` and `model_type` of its `config.json`.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Self::Qwen3Moe => ("Qwen3MoeForCausalLM", "qwen3_moe"),
            Self::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Self::Llama => ("LlamaForCausalLM", "llama"),
            Self::Mistral => ("MistralForCausalLM", "mistral"),
            Self::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
            Self::Gemma4 => ("Gemma4ForCausalLM", "gemma4_text"),
            Self::Qwen35 => ("Qwen3_5ForCausalLM", "qwen3_5_text"),
            Self::Qwen35Moe => ("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text"),
            Self::GptOss => ("GptOssForCausalLM", "gpt_oss"),
        }
    }
}
