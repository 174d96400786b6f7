//! Shapes of well-known models, for measuring and planning without their files.

use super::ModelConfig;

/// Qwen3: name, width of the stream and of the feed-forward block, layers, query heads, and whether
/// the head is the embedding.
const QWEN3: [(&str, [usize; 4], bool); 6] = [
    ("qwen3-0.6b", [1024, 3072, 28, 16], true),
    ("qwen3-1.7b", [2048, 6144, 28, 16], true),
    ("qwen3-4b", [2560, 9728, 36, 32], true),
    ("qwen3-8b", [4096, 12_288, 36, 32], false),
    ("qwen3-14b", [5120, 17_408, 40, 40], false),
    ("qwen3-32b", [5120, 25_600, 64, 64], false),
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
        r#""vocab_size":201088,"hidden_size":2880,"num_hidden_layers":24,"num_local_experts":32,"quantization_config":{"quant_method":"mxfp4"}"#,
    ),
];

pub fn shape_names() -> Vec<&'static str> {
    let qwen3 = QWEN3.iter().map(|(name, ..)| *name);
    qwen3.chain(OTHERS.iter().map(|(name, ..)| *name)).collect()
}

/// Configuration of a known shape, such as `qwen3-8b`.
pub fn named_shape(name: &str) -> Option<ModelConfig> {
    let parse = |model_type: &str, keys: &str| {
        let config = format!(r#"{{"model_type":"{model_type}",{keys}}}"#);
        ModelConfig::parse(&config, name).ok()
    };
    if let Some((_, model_type, keys)) = OTHERS.iter().find(|(known, ..)| *known == name) {
        return parse(model_type, keys);
    }
    let (_, [hidden, inner, layers, heads], is_tied) =
        QWEN3.iter().find(|(known, ..)| *known == name)?;
    let keys = format!(
        r#""vocab_size":151936,"hidden_size":{hidden},"intermediate_size":{inner},"num_hidden_layers":{layers},"num_attention_heads":{heads},"num_key_value_heads":8,"head_dim":128,"rope_theta":1e6,"tie_word_embeddings":{is_tied},"max_position_embeddings":40960"#
    );
    parse("qwen3", &keys)
}
