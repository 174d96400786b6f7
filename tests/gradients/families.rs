//! Small models of every family, for their gradients.

use grpo_tui::hub::ModelConfig;

fn config(tied: bool) -> ModelConfig {
    family(&format!(
        r#""architectures":["Qwen3ForCausalLM"],"tie_word_embeddings":{tied}"#
    ))
}

/// A small model of any family, from the keys in which it differs.
fn family(keys: &str) -> ModelConfig {
    let json = format!(
        r#"{{"vocab_size":19,"hidden_size":12,"intermediate_size":20,"num_hidden_layers":2,"num_attention_heads":4,
        "num_key_value_heads":2,"head_dim":6,"rms_norm_eps":1e-6,"rope_theta":10000.0,"max_position_embeddings":64,"hidden_act":"silu",{keys}}}"#
    );
    ModelConfig::parse(&json, "config.json").unwrap()
}

/// One of each family: every part that some have and others lack.
pub(super) fn families() -> Vec<ModelConfig> {
    let scaling = r#""rope_scaling":{"rope_type":"llama3","factor":4,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}"#;
    let window = r#""layer_types":["sliding_attention","full_attention"],"sliding_window":3,"rope_local_base_freq":50.0,
        "rope_scaling":{"rope_type":"linear","factor":2.0},"query_pre_attn_scalar":9"#;
    let delta = r#""partial_rotary_factor":0.4,"linear_num_key_heads":3,"linear_num_value_heads":6,"linear_key_head_dim":5,"linear_value_head_dim":3"#;
    let experts = r#""architectures":["Qwen3MoeForCausalLM"],"num_experts":3,"num_experts_per_tok":2,"moe_intermediate_size":7"#;
    let gpt_oss = r#""architectures":["GptOssForCausalLM"],"num_local_experts":3,"num_experts_per_tok":2,"sliding_window":3,"swiglu_limit":1.2"#;
    let yarn = r#""rope_scaling":{"rope_type":"yarn","factor":4,"original_max_position_embeddings":64,"truncate":false}"#;
    let shared = r#""architectures":["Qwen3_5MoeForCausalLM"],"num_experts":3,"num_experts_per_tok":2,"moe_intermediate_size":7,"shared_expert_intermediate_size":5"#;
    let gemma4 = r#""architectures":["Gemma4ForCausalLM"],"vocab_size_per_layer_input":19,"sliding_window":3"#;
    vec![
        config(true),
        config(false),
        family(r#""architectures":["Qwen3ForCausalLM"],"attention_bias":true"#),
        family(r#""architectures":["Qwen2ForCausalLM"]"#),
        family(&format!(
            r#""architectures":["LlamaForCausalLM"],{scaling}"#
        )),
        family(
            r#""architectures":["LlamaForCausalLM"],"tie_word_embeddings":true,"attention_bias":true"#,
        ),
        family(r#""architectures":["MistralForCausalLM"],"sliding_window":3"#),
        family(
            r#""architectures":["Qwen3ForCausalLM"],"rope_scaling":{"rope_type":"yarn","factor":4,"original_max_position_embeddings":4096}"#,
        ),
        family(&format!(
            r#""architectures":["Gemma3ForCausalLM"],{window},"tie_word_embeddings":true"#
        )),
        family(&format!(
            r#""architectures":["Gemma3ForCausalLM"],{window},"tie_word_embeddings":false"#
        )),
        family(&format!(
            r#""architectures":["Qwen3_5ForCausalLM"],{delta},"tie_word_embeddings":true,"full_attention_interval":2"#
        )),
        family(&format!(
            r#""architectures":["Qwen3_5ForCausalLM"],{delta},"layer_types":["full_attention","linear_attention"],"attention_bias":true,"linear_conv_kernel_dim":3"#
        )),
        family(&format!(r#"{experts},"norm_topk_prob":true"#)),
        family(&format!(
            r#"{experts},"tie_word_embeddings":true,"mlp_only_layers":[1]"#
        )),
        family(&format!(r#"{gpt_oss},{yarn},"attention_bias":true"#)),
        family(&format!(
            r#"{gpt_oss},"rope_scaling":null,"layer_types":["full_attention","sliding_attention"],"tie_word_embeddings":true"#
        )),
        family(&format!(r#"{shared},{delta},"full_attention_interval":2"#)),
        family(&format!(
            r#"{shared},{delta},"layer_types":["full_attention","full_attention"],"tie_word_embeddings":true"#
        )),
        family(&format!(
            r#"{gemma4},"num_hidden_layers":5,"num_kv_shared_layers":2,"use_double_wide_mlp":true,"hidden_size_per_layer_input":4,
            "layer_types":["sliding_attention","full_attention","sliding_attention","sliding_attention","full_attention"],
            "global_head_dim":10,"final_logit_softcapping":2.0,"tie_word_embeddings":true"#
        )),
        family(&format!(
            r#"{gemma4},"layer_types":["sliding_attention","full_attention"],"attention_k_eq_v":true,"attention_bias":true,
            "num_global_key_value_heads":1,"global_head_dim":8,"hidden_size_per_layer_input":0,"tie_word_embeddings":false"#
        )),
        family(&format!(
            r#"{gemma4},"layer_types":["sliding_attention","full_attention"],"global_head_dim":8,"hidden_size_per_layer_input":0,
            "enable_moe_block":true,"num_experts":3,"top_k_experts":2,"moe_intermediate_size":7"#
        )),
    ]
}
