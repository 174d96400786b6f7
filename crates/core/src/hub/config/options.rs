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
    pub(super) const NAMES: [(&str, Self); 2] = [("silu", Self::Silu), ("gelu_pytorch_tanh", Self::GeluTanh)];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, activation)| *activation == self).map_or("", |(name, _)| name)
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
    /// Base of the rotary wavelengths of these layers, which are not stretched.
    pub rope_theta: f64,
}

/// The options in which families of decoders differ.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderOptions {
    /// Norms of each query head and each key head.
    pub has_head_norms: bool,
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
}

impl DecoderOptions {
    /// Llama, Mistral and Qwen2.
    pub const PLAIN: Self = Self {
        has_head_norms: false,
        has_output_norms: false,
        norm_offset: 0.0,
        activation: Activation::Silu,
        embedding_scale: 1.0,
        query_scalar: None,
        window: None,
    };
    pub const QWEN3: Self = Self { has_head_norms: true, ..Self::PLAIN };

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
        }
    }
}

/// Tensor names of a layer's norms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormNames {
    /// Before attention.
    pub input: &'static str,
    /// After attention, where there is one.
    pub attention_output: &'static str,
    /// Before the feed-forward block.
    pub middle: &'static str,
    /// After the feed-forward block, where there is one.
    pub down: &'static str,
}

impl ModelConfig {
    /// As transformers names them: the norm before the feed-forward block is called after attention unless there is one
    /// of attention's output.
    pub fn norm_names(&self) -> NormNames {
        let after_attention = "post_attention_layernorm";
        NormNames {
            input: "input_layernorm",
            attention_output: after_attention,
            middle: if self.options.has_output_norms { "pre_feedforward_layernorm" } else { after_attention },
            down: "post_feedforward_layernorm",
        }
    }

    /// The tokens that a layer's queries see.
    pub fn scope(&self, layer: usize) -> Scope {
        let window = self.options.window.as_ref();
        window.and_then(|window| window.scopes.get(layer)).copied().unwrap_or(Scope::Everything)
    }

    /// The divisor of attention scores. YaRN's factor of rotated queries and keys is in it: squared, since a score is a
    /// product of two.
    pub fn attention_divisor(&self, scope: Scope) -> f64 {
        let divisor = self.options.query_scalar.unwrap_or(self.head_dim as f64).sqrt();
        match self.rope(scope).1 {
            RopeScaling::Yarn { attention_factor, .. } => divisor / (attention_factor * attention_factor),
            _ => divisor,
        }
    }
}

impl Architecture {
    /// As people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Qwen3 => "Qwen3",
            Self::Qwen2 => "Qwen2",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Gemma3 => "Gemma 3",
        }
    }

    /// `architectures` and `model_type` of its `config.json`.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Self::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Self::Llama => ("LlamaForCausalLM", "llama"),
            Self::Mistral => ("MistralForCausalLM", "mistral"),
            Self::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
        }
    }
}
