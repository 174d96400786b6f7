//! Shapes of well-known models, for measuring and planning without their files.

use super::{Architecture, AttentionBias, DecoderOptions, ModelConfig, RopeScaling};

/// Name and `config.json` numbers of a model.
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

/// Other families: name, `model_type`, and keys of the text part.
const OTHERS: [(&str, &str, &str); 15] = [
    (
        "gemma3-270m",
        "gemma3_text",
        r#""vocab_size":262144,"hidden_size":640,"intermediate_size":2048,"num_hidden_layers":18,"num_attention_heads":4,"num_key_value_heads":1,"sliding_window":512,"max_position_embeddings":32768"#,
    ),
    (
        "gemma3-1b",
        "gemma3_text",
        r#""vocab_size":262144,"hidden_size":1152,"intermediate_size":6912,"num_hidden_layers":26,"num_attention_heads":4,"num_key_value_heads":1,"sliding_window":512,"max_position_embeddings":32768"#,
    ),
    (
        "gemma3-4b",
        "gemma3_text",
        r#""hidden_size":2560,"intermediate_size":10240,"num_hidden_layers":34,"num_attention_heads":8,"num_key_value_heads":4,"sliding_window":1024,"rope_scaling":{"rope_type":"linear","factor":8.0}"#,
    ),
    (
        "gemma3-12b",
        "gemma3_text",
        r#""hidden_size":3840,"intermediate_size":15360,"num_hidden_layers":48,"num_attention_heads":16,"num_key_value_heads":8,"sliding_window":1024,"rope_scaling":{"rope_type":"linear","factor":8.0}"#,
    ),
    (
        "gemma4-e4b",
        "gemma4_text",
        r#""hidden_size":2560,"intermediate_size":10240,"num_hidden_layers":42,"num_key_value_heads":2,"num_kv_shared_layers":18"#,
    ),
    (
        "gemma4-26b-a4b",
        "gemma4_text",
        r#""hidden_size":2816,"intermediate_size":2112,"num_hidden_layers":30,"num_attention_heads":16,"num_key_value_heads":8,"num_global_key_value_heads":2,"attention_k_eq_v":true,"hidden_size_per_layer_input":0,"sliding_window":1024,"final_logit_softcapping":30.0,"enable_moe_block":true,"num_experts":128,"top_k_experts":8,"moe_intermediate_size":704"#,
    ),
    (
        "gemma4-31b",
        "gemma4_text",
        r#""hidden_size":5376,"intermediate_size":21504,"num_hidden_layers":60,"num_attention_heads":32,"num_key_value_heads":16,"num_global_key_value_heads":4,"attention_k_eq_v":true,"hidden_size_per_layer_input":0,"sliding_window":1024"#,
    ),
    (
        "mistral-7b",
        "mistral",
        r#""vocab_size":32768,"hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,"sliding_window":null,"rope_theta":1e6,"max_position_embeddings":32768"#,
    ),
    (
        "mistral-nemo-12b",
        "mistral",
        r#""vocab_size":131072,"hidden_size":5120,"intermediate_size":14336,"num_hidden_layers":40,"num_attention_heads":32,"head_dim":128,"sliding_window":null,"rope_theta":1e6"#,
    ),
    (
        "mistral-small-24b",
        "mistral",
        r#""vocab_size":131072,"hidden_size":5120,"intermediate_size":32768,"num_hidden_layers":40,"num_attention_heads":32,"head_dim":128,"sliding_window":null,"rope_theta":1e8,"max_position_embeddings":32768"#,
    ),
    (
        "qwen3-30b-a3b",
        "qwen3_moe",
        r#""vocab_size":151936,"hidden_size":2048,"num_hidden_layers":48,"num_attention_heads":32,"head_dim":128,"norm_topk_prob":true,"rope_theta":1e6,"max_position_embeddings":40960"#,
    ),
    (
        "qwen3.5-9b",
        "qwen3_5_text",
        r#""vocab_size":248320,"hidden_size":4096,"intermediate_size":12288,"num_hidden_layers":32,"rope_theta":1e7,"max_position_embeddings":32768"#,
    ),
    (
        "qwen3.5-27b",
        "qwen3_5_text",
        r#""vocab_size":248320,"hidden_size":5120,"intermediate_size":17408,"num_hidden_layers":64,"num_attention_heads":24,"linear_num_value_heads":48,"rope_theta":1e7,"max_position_embeddings":32768"#,
    ),
    (
        "qwen3.5-35b-a3b",
        "qwen3_5_moe_text",
        r#""vocab_size":248320,"hidden_size":2048,"num_hidden_layers":40,"rope_theta":1e7,"max_position_embeddings":32768"#,
    ),
    (
        "gpt-oss-20b",
        "gpt_oss",
        r#""vocab_size":201088,"hidden_size":2880,"num_hidden_layers":24,"num_local_experts":32"#,
    ),
];

pub fn shape_names() -> Vec<&'static str> {
    SHAPES
        .iter()
        .map(|shape| shape.name)
        .chain(OTHERS.iter().map(|(name, ..)| *name))
        .collect()
}

/// Configuration of a known shape, such as `qwen3-8b`.
pub fn named_shape(name: &str) -> Option<ModelConfig> {
    if let Some((_, model_type, keys)) = OTHERS.iter().find(|(known, ..)| *known == name) {
        return ModelConfig::parse(&format!(r#"{{"model_type":"{model_type}",{keys}}}"#), name)
            .ok();
    }
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
