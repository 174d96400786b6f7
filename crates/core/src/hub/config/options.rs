//! Layer options as data: computation depends on these, never on the family.

use super::{Architecture, ModelConfig, RopeScaling};
use crate::config::choices;

choices! {
    /// Activation function of the feed-forward block, as transformers names it.
    Activation {
        Silu = "silu",
        /// Tanh approximation.
        GeluTanh = "gelu_pytorch_tanh",
    }
}

/// The tokens that a layer's queries attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Everything,
    /// A sliding window, with its own rotary wavelengths.
    Window,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SlidingWindow {
    pub tokens: usize,
    /// One per layer.
    pub scopes: Vec<Scope>,
    /// Base of the rotary wavelengths of these layers.
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalHeads {
    /// Number of key heads, and of value heads.
    pub key_value: usize,
    pub dimension: usize,
    /// Values are the key projection's output; there is no `v_proj`.
    pub values_are_keys: bool,
}

/// The last layers, which have no keys and values of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedLayers {
    pub first: usize,
    /// Their feed-forward blocks are twice as wide.
    pub is_wide: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysValues {
    Own,
    /// One projection for both.
    AreKeys,
    /// An earlier layer's.
    OfLayer(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerHeads {
    pub key_value: usize,
    /// Head dimension, also of queries.
    pub dimension: usize,
}

impl LayerHeads {
    pub fn width(self) -> usize {
        self.key_value * self.dimension
    }
}

/// Layers with the gated delta rule (Yang et al. 2024, arXiv 2412.06464) instead of attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatedDelta {
    pub key_heads: usize,
    pub value_heads: usize,
    /// Dimension of a query or key head.
    pub key_dimension: usize,
    pub value_dimension: usize,
    /// Tokens seen by the causal convolution, including the current one.
    pub kernel: usize,
    /// One per layer.
    pub layers: Vec<bool>,
}

const GPU_HEAD_DIMENSION: usize = 512;

impl GatedDelta {
    pub const GPU_DIMENSION: usize = 128;
    pub const GPU_KERNEL: usize = 8;

    /// Channels of the convolution: queries, keys and values.
    pub fn convolved(&self) -> usize {
        2 * self.key_heads * self.key_dimension + self.values()
    }

    pub fn values(&self) -> usize {
        self.value_heads * self.value_dimension
    }

    /// State size of a sequence in one layer: the rule's matrix and the convolution's last inputs.
    pub fn state(&self) -> usize {
        self.values() * self.key_dimension + (self.kernel - 1) * self.convolved()
    }
}

/// Layout of a layer's experts in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertTensors {
    /// A tensor per matrix and expert.
    Separate,
    /// [experts, 2 * width, hidden], gate above up; and [experts, hidden, width] for down.
    Fused,
    /// [experts, hidden, 2 * width], gate and up in alternating columns, and [experts, width,
    /// hidden]; each with biases, as the router has.
    FusedTransposed,
}

/// `gate * sigmoid(slope * gate) * (up + 1)` with clamped gate and up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClampedGate {
    pub slope: f64,
    /// Upper bound of the gate; up is clamped to ±limit.
    pub limit: f64,
}

/// Mixture-of-experts layers (Shazeer et al. 2017, arXiv 1701.06538).
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Experts per layer.
    pub count: usize,
    /// Experts per token.
    pub active: usize,
    pub intermediate_size: usize,
    /// Whether a token's expert weights are normalised to sum 1.
    pub is_renormalised: bool,
    /// One per layer; the others are dense.
    pub layers: Vec<bool>,
    pub tensors: ExpertTensors,
    /// Whether they are in MXFP4: in the checkpoint, and of a model on a GPU, there.
    pub is_mxfp4: bool,
    /// `None`: the decoder's activation.
    pub clamped: Option<ClampedGate>,
    /// Width of the shared expert, scaled by the sigmoid of its gate; `None`: none.
    pub shared_size: Option<usize>,
    /// Whether these layers also have the dense block, and a scale per expert.
    pub is_beside_dense: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mixer<'a> {
    Attention(Scope),
    GatedDelta(&'a GatedDelta),
}

#[derive(Debug, Clone, PartialEq)]
pub struct DecoderOptions {
    pub has_head_norms: bool,
    /// Norms of value heads, without a weight.
    pub has_value_norms: bool,
    /// Norms of attention and feed-forward outputs, before the residual addition.
    pub has_output_norms: bool,
    /// Added to every norm's weight.
    pub norm_offset: f64,
    pub activation: Activation,
    pub embedding_scale: f64,
    /// Attention scores are divided by its root; `None`: the head dimension.
    pub query_scalar: Option<f64>,
    /// `None`: every layer is global.
    pub window: Option<SlidingWindow>,
    /// `None`: as in window layers.
    pub global_heads: Option<GlobalHeads>,
    /// `None`: every layer has its own keys and values.
    pub shared_layers: Option<SharedLayers>,
    /// Attention's output is multiplied by the sigmoid of a gate: in `q_proj` each query head's
    /// rows are followed by its gate's.
    pub has_attention_gate: bool,
    /// A learned score without a value per query head, included in the softmax.
    pub has_attention_sinks: bool,
    /// Leading head dimensions that are rotated; `None`: all.
    pub rotary_dimension: Option<usize>,
    /// `None`: every layer is attention.
    pub gated_delta: Option<GatedDelta>,
    /// `None`: every layer is dense.
    pub experts: Option<Experts>,
    /// Width of the per-layer input; `None`: none.
    pub layer_input: Option<usize>,
    /// Each layer's output is multiplied by an untrained scalar of the checkpoint.
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

    /// Gemma 3: norms around each block with weights around 0, GELU, scaled embeddings.
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
    pub fn scope(&self, layer: usize) -> Scope {
        let window = self.options.window.as_ref();
        window
            .and_then(|window| window.scopes.get(layer))
            .copied()
            .unwrap_or(Scope::Everything)
    }

    pub fn mixer(&self, layer: usize) -> Mixer<'_> {
        let is_delta = |delta: &&GatedDelta| delta.layers.get(layer).copied().unwrap_or(false);
        let delta = self.options.gated_delta.as_ref().filter(is_delta);
        delta.map_or(Mixer::Attention(self.scope(layer)), Mixer::GatedDelta)
    }

    pub fn attention_layers(&self) -> usize {
        (0..self.num_hidden_layers)
            .filter(|&layer| matches!(self.mixer(layer), Mixer::Attention(_)))
            .count()
    }

    /// `None` for a dense layer.
    pub fn experts(&self, layer: usize) -> Option<&Experts> {
        self.options
            .experts
            .as_ref()
            .filter(|experts| experts.layers.get(layer).copied().unwrap_or(false))
    }

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

    pub fn head_dimension(&self, scope: Scope) -> usize {
        let global = self
            .options
            .global_heads
            .filter(|_| scope == Scope::Everything);
        global.map_or(self.head_dim, |heads| heads.dimension)
    }

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

    pub fn query_width(&self, layer: usize) -> usize {
        self.num_attention_heads * self.heads(layer).dimension
    }

    /// Width of a layer's dense feed-forward block.
    pub fn inner_size(&self, layer: usize) -> usize {
        let is_wide = self
            .options
            .shared_layers
            .is_some_and(|shared| shared.is_wide && layer >= shared.first);
        self.intermediate_size * if is_wide { 2 } else { 1 }
    }

    /// Leading head dimensions that are rotated.
    pub fn rotary_dimension(&self) -> usize {
        self.options.rotary_dimension.unwrap_or(self.head_dim)
    }

    /// Why no GPU can compute this model, with the remedy.
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

    /// Divisor of attention scores. Includes YaRN's factor of rotated queries and keys, squared
    /// since a score multiplies two.
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
