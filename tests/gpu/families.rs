//! Small models of every family, of sizes at which kernels differ.

use grpo_tui::hub::ModelConfig;

/// Norms of queries and keys with an untied head, biases with a tied one, neither; a window and norms around each block,
/// with heads of a size that the fast attention takes, and of Gemma 3's; hybrids of odd sizes, and of some of the published;
/// experts: beside dense layers, in a hybrid beside one that every token uses, and with biases, sinks and a window; Gemma 4's
/// layers with inputs of their own and an earlier layer's keys and values, with keys as values in wide heads, and with
/// experts beside each dense block.
pub(super) fn configs() -> [ModelConfig; 13] {
    let check = |architecture: &str, head: usize, tied: bool| {
        let json = format!(
            r#"{{"architectures":["{architecture}"],"vocab_size":211,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":3,
            "num_attention_heads":4,"num_key_value_heads":2,"head_dim":{head},"rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":{tied},
            "max_position_embeddings":256,"hidden_act":"silu"}}"#
        );
        ModelConfig::parse(&json, "config.json").unwrap()
    };
    let gemma = |head: usize| {
        let json = format!(
            r#"{{"architectures":["Gemma3ForCausalLM"],"vocab_size":211,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":3,
            "num_attention_heads":4,"num_key_value_heads":1,"head_dim":{head},"sliding_window":12,"sliding_window_pattern":2,
            "query_pre_attn_scalar":{head},"max_position_embeddings":256}}"#
        );
        ModelConfig::parse(&json, "config.json").unwrap()
    };
    let sparse = r#"{"architectures":["Qwen3MoeForCausalLM"],"vocab_size":211,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":3,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"num_experts":6,"num_experts_per_tok":3,"moe_intermediate_size":40,
        "norm_topk_prob":true,"mlp_only_layers":[1],"max_position_embeddings":256}"#;
    let sparse = ModelConfig::parse(sparse, "config.json").unwrap();
    let hybrid = |family: &str, head: usize, [keys, values, key, value, taps]: [usize; 5]| {
        let json = format!(
            r#"{{"architectures":["{family}"],"num_experts":6,"num_experts_per_tok":3,"moe_intermediate_size":40,
            "shared_expert_intermediate_size":24,"vocab_size":211,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":4,
            "num_attention_heads":4,"num_key_value_heads":2,"head_dim":{head},"full_attention_interval":2,"linear_num_key_heads":{keys},
            "linear_num_value_heads":{values},"linear_key_head_dim":{key},"linear_value_head_dim":{value},"linear_conv_kernel_dim":{taps},
            "max_position_embeddings":256}}"#
        );
        ModelConfig::parse(&json, "config.json").unwrap()
    };
    let odd = hybrid("Qwen3_5ForCausalLM", 32, [2, 4, 12, 20, 3]);
    let published = hybrid("Qwen3_5ForCausalLM", 256, [16, 32, 128, 40, 4]);
    let sparse_hybrid = hybrid("Qwen3_5MoeForCausalLM", 32, [2, 4, 128, 40, 4]);
    let (qwen2, llama) = (
        check("Qwen2ForCausalLM", 16, true),
        check("LlamaForCausalLM", 16, true),
    );
    let qwen3 = check("Qwen3ForCausalLM", 32, false);
    let oss = r#"{"architectures":["GptOssForCausalLM"],"vocab_size":211,"hidden_size":64,"intermediate_size":40,"num_hidden_layers":3,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,"sliding_window":12,"num_local_experts":6,"num_experts_per_tok":3,
        "max_position_embeddings":256}"#;
    let oss = ModelConfig::parse(oss, "config.json").unwrap();
    let gemma_4 = |wide: usize, own: &str| {
        let json = format!(
            r#"{{"architectures":["Gemma4ForCausalLM"],"vocab_size":211,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":4,
            "num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"global_head_dim":{wide},"sliding_window":12,
            "layer_types":["sliding_attention","full_attention","sliding_attention","full_attention"],"max_position_embeddings":256,
            "final_logit_softcapping":30.0,{own}}}"#
        );
        ModelConfig::parse(&json, "config.json").unwrap()
    };
    let shared = gemma_4(
        320,
        r#""num_kv_shared_layers":2,"use_double_wide_mlp":true,"hidden_size_per_layer_input":64,"vocab_size_per_layer_input":211"#,
    );
    let keys = gemma_4(
        512,
        r#""attention_k_eq_v":true,"num_global_key_value_heads":1,"hidden_size_per_layer_input":0,"vocab_size_per_layer_input":211"#,
    );
    let beside = gemma_4(
        64,
        r#""attention_k_eq_v":true,"num_global_key_value_heads":1,"hidden_size_per_layer_input":0,"vocab_size_per_layer_input":211,
        "enable_moe_block":true,"num_experts":6,"top_k_experts":3,"moe_intermediate_size":40"#,
    );
    [
        qwen3,
        qwen2,
        llama,
        gemma(32),
        gemma(256),
        odd,
        published,
        sparse,
        sparse_hybrid,
        oss,
        shared,
        keys,
        beside,
    ]
}

/// gpt-oss as published.
pub(super) fn mxfp4() -> ModelConfig {
    let oss = r#"{"architectures":["GptOssForCausalLM"],"vocab_size":211,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":3,
        "num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,"sliding_window":12,"num_local_experts":6,"num_experts_per_tok":3,
        "max_position_embeddings":256,"quantization_config":{"quant_method":"mxfp4"}}"#;
    ModelConfig::parse(oss, "config.json").unwrap()
}

pub(super) fn mixtures() -> impl Iterator<Item = ModelConfig> {
    configs()
        .into_iter()
        .filter(|config| config.options.experts.is_some())
}
