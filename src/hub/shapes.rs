//! Shapes of well-known models, for measuring and planning without their files.

use super::{Architecture, AttentionBias, DecoderOptions, ModelConfig, RopeScaling};

/// A shape's name, and its numbers as the model's own `config.json` gives them.
struct Shape {
    name: &'static str,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    key_value_heads: usize,
    is_tied: bool,
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "qwen3-0.6b",
        hidden: 1024,
        intermediate: 3072,
        layers: 28,
        heads: 16,
        key_value_heads: 8,
        is_tied: true,
    },
    Shape {
        name: "qwen3-1.7b",
        hidden: 2048,
        intermediate: 6144,
        layers: 28,
        heads: 16,
        key_value_heads: 8,
        is_tied: true,
    },
    Shape {
        name: "qwen3-4b",
        hidden: 2560,
        intermediate: 9728,
        layers: 36,
        heads: 32,
        key_value_heads: 8,
        is_tied: true,
    },
    Shape {
        name: "qwen3-8b",
        hidden: 4096,
        intermediate: 12_288,
        layers: 36,
        heads: 32,
        key_value_heads: 8,
        is_tied: false,
    },
    Shape {
        name: "qwen3-14b",
        hidden: 5120,
        intermediate: 17_408,
        layers: 40,
        heads: 40,
        key_value_heads: 8,
        is_tied: false,
    },
    Shape {
        name: "qwen3-32b",
        hidden: 5120,
        intermediate: 25_600,
        layers: 64,
        heads: 64,
        key_value_heads: 8,
        is_tied: false,
    },
];

/// The names that [`named_shape`] knows.
pub fn shape_names() -> Vec<&'static str> {
    SHAPES.iter().map(|shape| shape.name).collect()
}

/// The configuration of a known shape, such as `qwen3-8b`.
pub fn named_shape(name: &str) -> Option<ModelConfig> {
    let shape = SHAPES.iter().find(|shape| shape.name == name)?;
    Some(ModelConfig {
        architecture: Architecture::Qwen3,
        vocab_size: 151_936,
        hidden_size: shape.hidden,
        intermediate_size: shape.intermediate,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.heads,
        num_key_value_heads: shape.key_value_heads,
        head_dim: 128,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        rope_scaling: RopeScaling::Unscaled,
        attention_bias: AttentionBias::Absent,
        tie_word_embeddings: shape.is_tied,
        max_position_embeddings: 40_960,
        options: DecoderOptions::QWEN3,
    })
}
