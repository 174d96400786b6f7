//! Tests: how each `config.json` is read, and what is refused.

use super::*;

const QWEN3: &str = r#"{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","vocab_size":100,"hidden_size":64,"intermediate_size":96,
    "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2}"#;

/// The smallest configuration with some keys changed (or removed, by null).
fn with(changes: &str) -> String {
    let mut keys: Map<String, Value> = serde_json::from_str(QWEN3).unwrap();
    let changes: Map<String, Value> = serde_json::from_str(changes).unwrap();
    for (key, value) in changes {
        if value == "absent" {
            keys.remove(&key);
        } else {
            keys.insert(key, value);
        }
    }
    Value::Object(keys).to_string()
}

#[test]
fn every_key_is_read_and_defaults_are_those_of_the_format() {
    let read = |changes: &str| ModelConfig::parse(&with(changes), "config.json").unwrap();
    let plain = read("{}");
    assert_eq!(
        (
            plain.vocab_size,
            plain.hidden_size,
            plain.intermediate_size,
            plain.num_hidden_layers
        ),
        (100, 64, 96, 2)
    );
    assert_eq!(
        (
            plain.num_attention_heads,
            plain.num_key_value_heads,
            plain.head_dim
        ),
        (4, 2, 16)
    );
    assert_eq!(
        (
            plain.rms_norm_eps,
            plain.rope_theta,
            plain.tie_word_embeddings,
            plain.max_position_embeddings
        ),
        (1e-6, 1e4, false, 32_768)
    );
    assert_eq!(read(r#"{"head_dim":32}"#).head_dim, 32);
    assert_eq!(
        read(r#"{"num_key_value_heads":null}"#).num_key_value_heads,
        4
    );
    assert_eq!(read(r#"{"rope_theta":1e6}"#).rope_theta, 1e6);
    assert_eq!(
        read(r#"{"rope_parameters":{"rope_type":"default","rope_theta":5e5}}"#).rope_theta,
        5e5
    );
    assert_eq!(
        read(r#"{"rope_scaling":null,"sliding_window":4096,"use_sliding_window":false}"#),
        plain
    );
    assert_eq!(
        read(r#"{"layer_types":["full_attention","full_attention"]}"#),
        plain
    );
    assert_eq!(read(r#"{"architectures":"absent"}"#), plain);
    assert!(read(r#"{"tie_word_embeddings":true}"#).tie_word_embeddings);
}

#[test]
fn the_families_differ_in_biases_and_rotary_positions() {
    let read = |changes: &str| ModelConfig::parse(&with(changes), "config.json").unwrap();
    let check = |changes: &str, architecture, bias| {
        let config = read(changes);
        assert_eq!(
            (config.architecture, config.attention_bias),
            (architecture, bias),
            "{changes}"
        );
    };
    check("{}", Architecture::Qwen3, AttentionBias::Absent);
    check(
        r#"{"attention_bias":true}"#,
        Architecture::Qwen3,
        AttentionBias::All,
    );
    check(
        r#"{"architectures":["Qwen2ForCausalLM"]}"#,
        Architecture::Qwen2,
        AttentionBias::QueryKeyValue,
    );
    check(
        r#"{"architectures":"absent","model_type":"qwen2"}"#,
        Architecture::Qwen2,
        AttentionBias::QueryKeyValue,
    );
    check(
        r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama"}"#,
        Architecture::Llama,
        AttentionBias::Absent,
    );
    check(
        r#"{"architectures":"absent","model_type":"llama","attention_bias":true}"#,
        Architecture::Llama,
        AttentionBias::All,
    );
    let llama = r#"{"architectures":["LlamaForCausalLM"],"max_position_embeddings":"absent"}"#;
    assert_eq!(read(llama).max_position_embeddings, 2048);

    let numbers = r#""factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192"#;
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_positions: 8192,
    };
    let spellings = [
        format!(r#"{{"rope_scaling":{{"rope_type":"llama3",{numbers}}},"rope_theta":5e5}}"#),
        format!(r#"{{"rope_scaling":{{"type":"llama3",{numbers}}},"rope_theta":5e5}}"#),
        format!(r#"{{"rope_parameters":{{"rope_type":"llama3","rope_theta":5e5,{numbers}}}}}"#),
    ];
    for spelling in spellings {
        assert_eq!(
            (read(&spelling).rope_scaling, read(&spelling).rope_theta),
            (expected, 5e5),
            "{spelling}"
        );
    }
}

#[test]
fn yarn_reads_what_its_paper_leaves_open() {
    let read = |more: &str| {
        let keys = format!(
            r#""rope_scaling":{{"rope_type":"yarn","factor":4,"original_max_position_embeddings":32768{more}}}"#
        );
        let config = ModelConfig::parse(&with(&format!("{{{keys}}}")), "config.json").unwrap();
        assert_eq!(
            ModelConfig::parse(&config.to_json("float32", &[2]), "x").unwrap(),
            config,
            "{more}"
        );
        config.rope_scaling
    };
    let plain = RopeScaling::yarn(4.0, 32_768);
    assert_eq!(read(""), plain);
    assert_eq!(read(r#","mscale":1,"mscale_all_dim":0"#), plain);
    let factor = |more: &str| match read(more) {
        RopeScaling::Yarn {
            attention_factor,
            has_whole_bounds,
            ..
        } => (attention_factor, has_whole_bounds),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        factor(r#","mscale":1,"mscale_all_dim":1,"truncate":false"#),
        (1.0, false)
    );
    assert_eq!(
        factor(r#","attention_factor":1.25,"mscale":2"#),
        (1.25, true)
    );
}

#[test]
fn mistral_has_a_window_where_its_file_has_one_that_hides_something() {
    let of = |changes: &str| {
        with(&format!(
            r#"{{"architectures":["MistralForCausalLM"],{changes}}}"#
        ))
    };
    let window = |changes: &str| {
        let config = ModelConfig::parse(&of(changes), "config.json").unwrap();
        assert_eq!(
            ModelConfig::parse(&config.to_json("float32", &[2]), "x").unwrap(),
            config,
            "{changes}"
        );
        config
            .options
            .window
            .map(|window| (window.tokens, window.rope_theta))
    };
    assert_eq!(window(r#""sliding_window":null"#), None);
    // transformers' default.
    assert_eq!(
        window(r#""max_position_embeddings":32768,"rope_theta":1e6"#),
        Some((4096, 1e6))
    );
    assert_eq!(
        window(r#""sliding_window":32768,"max_position_embeddings":32768"#),
        None
    );
    let error = |json: &str| {
        ModelConfig::parse(json, "config.json")
            .unwrap_err()
            .to_string()
    };
    assert!(error(&of(r#""sliding_window":0"#)).contains("`sliding_window` = 0"));
    let scaled = r#""sliding_window":8,"rope_scaling":{"rope_type":"linear","factor":2.0}"#;
    assert!(error(&of(scaled)).contains("scaled rotary positions of layers with a window"));
    let newer = r#"{"architectures":["Mistral3ForConditionalGeneration"],"text_config":{"model_type":"ministral3"}}"#;
    assert!(error(newer).contains("the text model `ministral3`"));
}

#[test]
fn what_is_written_reads_back_equal() {
    let scaling = r#""rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}"#;
    for family in ["Qwen2ForCausalLM", "LlamaForCausalLM"] {
        let config = ModelConfig::parse(
            &with(&format!(r#"{{"architectures":["{family}"],{scaling}}}"#)),
            "x",
        )
        .unwrap();
        assert_eq!(
            ModelConfig::parse(&config.to_json("float32", &[3, 4]), "x").unwrap(),
            config
        );
    }
    let config = ModelConfig::parse(
        &with(r#"{"head_dim":32,"rope_theta":123456.5,"tie_word_embeddings":true}"#),
        "x",
    )
    .unwrap();
    assert_eq!(
        ModelConfig::parse(&config.to_json("float32", &[3]), "x").unwrap(),
        config
    );
    assert!(
        config
            .to_json("float32", &[3])
            .contains("\"eos_token_id\": 3")
    );
}

#[test]
fn what_cannot_be_computed_is_said_in_words() {
    let check = |changes: &str, expected: &str| {
        let message = ModelConfig::parse(&with(changes), "dir/config.json")
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("dir/config.json: ") && message.contains(expected),
            "{message:?} lacks {expected:?}"
        );
    };
    check(r#"{"hidden_size":"absent"}"#, "`hidden_size` is missing");
    check(
        r#"{"hidden_size":0}"#,
        "`hidden_size` = 0, expected a whole number above 0",
    );
    check(r#"{"vocab_size":"many"}"#, "`vocab_size` = \"many\"");
    check(r#"{"num_hidden_layers":2.5}"#, "`num_hidden_layers` = 2.5");
    check(
        r#"{"num_hidden_layers":1000000000}"#,
        "`num_hidden_layers` = 1000000000, the limit is 1024",
    );
    check(
        r#"{"head_dim":1099511627776}"#,
        "`head_dim` = 1099511627776, the limit is 4096",
    );
    check(
        r#"{"max_position_embeddings":1099511627776}"#,
        "`max_position_embeddings` = 1099511627776, the limit is 16777216",
    );
    check(
        r#"{"max_position_embeddings":16777216,"head_dim":128}"#,
        "more than 268435456 angles; lower `max_position_embeddings`",
    );
    check(
        r#"{"num_attention_heads":5}"#,
        "is not a multiple of `num_attention_heads` = 5",
    );
    check(
        r#"{"num_key_value_heads":3}"#,
        "not a multiple of `num_key_value_heads` = 3",
    );
    check(r#"{"head_dim":7}"#, "even");
    check(r#"{"rms_norm_eps":-1}"#, "`rms_norm_eps` = -1");
    check(r#"{"tie_word_embeddings":1}"#, "expected true or false");
    check(
        r#"{"architectures":["GemmaForCausalLM"]}"#,
        "the architecture `GemmaForCausalLM` is not supported",
    );
    check(
        r#"{"architectures":["MixtralForCausalLM"]}"#,
        "`MixtralForCausalLM`",
    );
    check(
        r#"{"architectures":"absent","model_type":"gemma"}"#,
        "`gemma`",
    );
    check(
        r#"{"architectures":"absent","model_type":"absent"}"#,
        "are missing",
    );
    check(
        r#"{"rope_scaling":{"rope_type":"dynamic","factor":4.0}}"#,
        "`rope_scaling` =",
    );
    check(
        r#"{"rope_parameters":{"rope_type":"longrope","rope_theta":1e6}}"#,
        "`rope_parameters` =",
    );
    check(
        r#"{"rope_parameters":{"rope_type":"yarn","rope_theta":1e6}}"#,
        "`rope_parameters.factor` is missing",
    );
    check(
        r#"{"rope_scaling":{"rope_type":"yarn","factor":4,"beta_fast":1}}"#,
        "`beta_fast` above `beta_slow`",
    );
    check(
        r#"{"rope_scaling":{"type":"dynamic","factor":2.0}}"#,
        "only `default`, `linear`, `llama3` and `yarn`",
    );
    check(
        r#"{"rope_scaling":{"type":"linear","factor":0.5}}"#,
        "`factor` must be at least 1",
    );
    check(
        r#"{"final_logit_softcapping":30.0}"#,
        "`final_logit_softcapping` = 30.0 is not supported",
    );
    check(
        r#"{"rope_scaling":{"rope_type":"llama3","factor":8.0}}"#,
        "`rope_scaling.low_freq_factor` is missing",
    );
    let turned = r#"{"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1,"original_max_position_embeddings":64}}"#;
    check(turned, "`high_freq_factor` above `low_freq_factor`");
    check(r#"{"mlp_bias":true}"#, "`mlp_bias` = true");
    check(r#"{"use_sliding_window":true}"#, "sliding attention window");
    check(
        r#"{"layer_types":["full_attention","sliding_attention"]}"#,
        "sliding attention window",
    );
    check(
        r#"{"quantization_config":{"quant_method":"awq"}}"#,
        "a quantized checkpoint (awq) is not supported; use the",
    );
    check(
        r#"{"hidden_act":"gelu"}"#,
        "the activation `gelu` (`hidden_act`)",
    );
    let gemma = |changes: &str, expected: &str| {
        check(
            &changes.replacen('{', r#"{"architectures":["Gemma3ForCausalLM"],"#, 1),
            expected,
        );
    };
    gemma(
        r#"{"layer_types":["sliding_attention","chunked_attention"]}"#,
        "the layer type \"chunked_attention\"",
    );
    gemma(
        r#"{"layer_types":["sliding_attention"]}"#,
        "`layer_types` has 1 entries for 2 layers",
    );
    gemma(
        r#"{"attn_logit_softcapping":50.0}"#,
        "`attn_logit_softcapping` = 50.0",
    );
    gemma(
        r#"{"use_bidirectional_attention":true}"#,
        "`use_bidirectional_attention` = true",
    );
    gemma(r#"{"hidden_activation":"relu"}"#, "the activation `relu`");
    gemma(r#"{"sliding_window":0}"#, "`sliding_window` = 0");
    let local = r#"{"rope_parameters":{"sliding_attention":{"rope_type":"linear","factor":2.0}}}"#;
    gemma(local, "scaled rotary positions of layers with a window");
    let qwen = |changes: &str, expected: &str| {
        check(
            &changes.replacen('{', r#"{"architectures":["Qwen3_5ForCausalLM"],"#, 1),
            expected,
        );
    };
    qwen(
        r#"{"layer_types":["linear_attention","sliding_attention"]}"#,
        "the layer type \"sliding_attention\"",
    );
    qwen(
        r#"{"layer_types":["linear_attention"]}"#,
        "`layer_types` has 1 entries for 2 layers",
    );
    qwen(
        r#"{"linear_num_value_heads":24}"#,
        "is not a multiple of `linear_num_key_heads` = 16",
    );
    qwen(r#"{"linear_key_head_dim":0}"#, "`linear_key_head_dim` = 0");
    qwen(
        r#"{"linear_conv_kernel_dim":65}"#,
        "`linear_conv_kernel_dim` = 65, the limit is 64",
    );
    qwen(
        r#"{"partial_rotary_factor":0.001}"#,
        "`partial_rotary_factor` = 0.001 of a head's width",
    );
    qwen(
        r#"{"partial_rotary_factor":2}"#,
        "rotary positions need an even width",
    );
    qwen(
        r#"{"hidden_act":"gelu_pytorch_tanh"}"#,
        "of the gated delta rule",
    );
    qwen(
        r#"{"rope_scaling":{"rope_type":"yarn","factor":4,"original_max_position_embeddings":64}}"#,
        "YaRN on a part of a head",
    );
    check(
        r#"{"architectures":["Qwen3NextForCausalLM"]}"#,
        "the architecture `Qwen3NextForCausalLM`",
    );
    check(
        r#"{"quantization_config":{"quant_method":"mxfp4"}}"#,
        "MXFP4 outside gpt-oss",
    );
    check(
        r#"{"architectures":"absent","model_type":"qwen4_exp"}"#,
        "`qwen4_exp`",
    );
}

/// transformers' `Gemma3TextConfig` reads the same of each.
#[test]
fn gemma_3_is_read_in_all_its_spellings() {
    let keys = r#""vocab_size":100,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":7,"sliding_window":512"#;
    let read = |json: String| ModelConfig::parse(&json, "config.json").unwrap();
    let config = read(format!(r#"{{"model_type":"gemma3_text",{keys}}}"#));
    let mut scopes = vec![Scope::Window; 7];
    scopes[5] = Scope::Everything;
    let window = SlidingWindow {
        tokens: 512,
        scopes,
        rope_theta: 1e4,
        rope_scaling: RopeScaling::Unscaled,
    };
    assert_eq!(
        config.options,
        DecoderOptions::gemma3(64, 256.0, Some(window))
    );
    assert_eq!(config.options.embedding_scale, 8.0);
    assert_eq!(
        (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim
        ),
        (8, 4, 256)
    );
    assert_eq!(
        (
            config.rope_theta,
            config.tie_word_embeddings,
            config.max_position_embeddings
        ),
        (1e6, true, 131_072)
    );
    assert_eq!(
        ModelConfig::parse(&config.to_json("bfloat16", &[1]), "x").unwrap(),
        config
    );

    let nested = format!(
        r#"{{"architectures":["Gemma3ForConditionalGeneration"],"torch_dtype":"bfloat16","text_config":{{{keys}}}}}"#
    );
    assert_eq!(read(nested.clone()), config);
    let text = super::copied_config(&nested).unwrap();
    assert!(
        text.contains("Gemma3ForCausalLM")
            && text.contains("bfloat16")
            && super::copied_config(&text).is_none()
    );
    assert_eq!(read(text), config);

    let scaled = [
        r#""rope_scaling":{"rope_type":"linear","factor":8.0},"rope_theta":5e5,"rope_local_base_freq":7e3"#,
        r#""rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":5e5},"sliding_attention":{"rope_type":"default","rope_theta":7e3}}"#,
    ];
    for scaling in scaled {
        let config = read(format!(
            r#"{{"model_type":"gemma3_text",{keys},{scaling}}}"#
        ));
        assert_eq!(
            (config.rope_scaling, config.rope_theta),
            (RopeScaling::Linear { factor: 8.0 }, 5e5),
            "{scaling}"
        );
        assert_eq!(
            config.options.window.as_ref().unwrap().rope_theta,
            7e3,
            "{scaling}"
        );
        assert_eq!(config.rope_frequencies(Scope::Everything)[0], 1.0 / 8.0);
        assert_eq!(config.rope_frequencies(Scope::Window)[0], 1.0);
        assert_eq!(
            ModelConfig::parse(&config.to_json("bfloat16", &[1]), "x").unwrap(),
            config
        );
    }
}

/// transformers' `Qwen3_5TextConfig` reads the same of each.
#[test]
fn qwen3_5_is_read_in_all_its_spellings() {
    let keys = r#""vocab_size":100,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":8"#;
    let read = |json: String| ModelConfig::parse(&json, "config.json").unwrap();
    let config = read(format!(r#"{{"model_type":"qwen3_5_text",{keys}}}"#));
    let delta = config.options.gated_delta.as_ref().unwrap();
    let every_fourth = [true, true, true, false].repeat(2);
    assert_eq!(
        (delta.key_heads, delta.value_heads, delta.kernel),
        (16, 32, 4)
    );
    assert_eq!(
        (delta.key_dimension, delta.value_dimension, &delta.layers),
        (128, 128, &every_fourth)
    );
    assert_eq!(
        (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim
        ),
        (16, 4, 256)
    );
    assert_eq!(
        (
            config.rotary_dimension(),
            config.attention_inputs(0)[0].1,
            config.attention_layers()
        ),
        (64, 8192, 2)
    );
    assert_eq!(config.rope_frequencies(Scope::Everything).len(), 32);
    assert_eq!(
        (config.mixer(2), config.mixer(3)),
        (
            Mixer::GatedDelta(delta),
            Mixer::Attention(Scope::Everything)
        )
    );
    assert_eq!(config.gpu_problem(), None);
    let wide = read(format!(
        r#"{{"model_type":"qwen3_5_text",{keys},"linear_key_head_dim":192}}"#
    ));
    let expected = "heads of 192 and 128 numbers after a convolution of 4 tokens: a GPU computes at most 128 and 8; ";
    assert!(wide.gpu_problem().unwrap().starts_with(expected));
    assert_eq!(
        ModelConfig::parse(&config.to_json("bfloat16", &[1]), "x").unwrap(),
        config
    );

    let nested = format!(
        r#"{{"architectures":["Qwen3_5ForConditionalGeneration"],"text_config":{{{keys}}},"vision_config":{{}}}}"#
    );
    assert_eq!(read(nested.clone()), config);
    let text = super::copied_config(&nested).unwrap();
    assert!(text.contains("Qwen3_5ForCausalLM") && super::copied_config(&text).is_none());
    assert_eq!(read(text), config);

    let shares = [
        r#""partial_rotary_factor":0.5,"rope_theta":1e7,"full_attention_interval":2"#,
        r#""rope_parameters":{"rope_type":"default","rope_theta":1e7,"partial_rotary_factor":0.5,"mrope_section":[11,11,10]},
        "layer_types":["linear_attention","full_attention","linear_attention","full_attention","linear_attention","full_attention","linear_attention","full_attention"]"#,
    ];
    for share in shares {
        let config = read(format!(r#"{{"model_type":"qwen3_5_text",{keys},{share}}}"#));
        assert_eq!(
            (
                config.rotary_dimension(),
                config.rope_theta,
                config.attention_layers()
            ),
            (128, 1e7, 4),
            "{share}"
        );
        assert_eq!(
            ModelConfig::parse(&config.to_json("bfloat16", &[1]), "x").unwrap(),
            config
        );
    }
}

/// transformers' `Qwen3MoeConfig` reads the same of each.
#[test]
fn mixtures_of_experts_are_read_in_all_their_spellings() {
    let of = |changes: &str| {
        with(&format!(
            r#"{{"model_type":"qwen3_moe","architectures":"absent"{changes}}}"#
        ))
    };
    let read = |changes: &str| {
        let config = ModelConfig::parse(&of(changes), "config.json").unwrap();
        assert_eq!(
            ModelConfig::parse(&config.to_json("bfloat16", &[1]), "x").unwrap(),
            config,
            "{changes}"
        );
        config.options.experts.unwrap()
    };
    let all = Experts {
        count: 128,
        active: 8,
        intermediate_size: 768,
        is_renormalised: false,
        layers: vec![true; 2],
        tensors: ExpertTensors::Separate,
        clamped: None,
        shared_size: None,
        is_beside_dense: false,
    };
    assert_eq!(read(""), all);
    assert_eq!(
        read(r#","num_local_experts":16"#),
        Experts {
            count: 16,
            ..all.clone()
        }
    );
    let own = r#","num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":24,"norm_topk_prob":true,"router_aux_loss_coef":0.1"#;
    assert_eq!(
        read(own),
        Experts {
            count: 4,
            active: 2,
            intermediate_size: 24,
            is_renormalised: true,
            ..all.clone()
        }
    );
    for (changes, layers) in [
        (
            r#","num_hidden_layers":5,"decoder_sparse_step":2"#,
            vec![false, true, false, true, false],
        ),
        (
            r#","num_hidden_layers":3,"mlp_only_layers":[0,2]"#,
            vec![false, true, false],
        ),
        (
            r#","num_hidden_layers":4,"decoder_sparse_step":2,"mlp_only_layers":[3]"#,
            vec![false, true, false, false],
        ),
    ] {
        assert_eq!(
            read(changes),
            Experts {
                layers,
                ..all.clone()
            },
            "{changes}"
        );
    }
    let config = ModelConfig::parse(&of(r#","mlp_only_layers":[1]"#), "x").unwrap();
    assert!(config.experts(0).is_some() && config.experts(1).is_none());
    assert_eq!(config.gpu_problem(), None);
    for (changes, expected) in [
        (
            r#","num_experts":0"#,
            "`num_experts` = 0, expected a whole number above 0",
        ),
        (
            r#","num_experts":5000"#,
            "`num_experts` = 5000, the limit is 4096",
        ),
        (
            r#","num_experts":4,"num_experts_per_tok":5"#,
            "`num_experts_per_tok` = 5 is more than `num_experts` = 4",
        ),
        (
            r#","norm_topk_prob":1"#,
            "`norm_topk_prob` = 1, expected true or false",
        ),
        (
            r#","mlp_only_layers":[2]"#,
            "`mlp_only_layers` = [2], expected a list of layers from 0 to 1",
        ),
        (
            r#","mlp_only_layers":3"#,
            "`mlp_only_layers` = 3, expected a list",
        ),
        (r#","decoder_sparse_step":0"#, "`decoder_sparse_step` = 0"),
    ] {
        let message = ModelConfig::parse(&of(changes), "x")
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}

#[test]
fn text_that_is_no_object_is_refused() {
    for (text, expected) in [
        ("", "not valid JSON"),
        ("{\"a\":", "not valid JSON"),
        ("[]", "not a JSON object"),
    ] {
        assert!(
            ModelConfig::parse(text, "config.json")
                .unwrap_err()
                .to_string()
                .contains(expected),
            "{text:?}"
        );
    }
}

/// Llama 3.1's own settings; tests/parity compares whole models with these positions.
#[test]
fn long_wavelengths_are_stretched_short_ones_kept() {
    let plain = ModelConfig {
        head_dim: 128,
        rope_theta: 5e5,
        ..ModelConfig::parse(QWEN3, "config.json").unwrap()
    };
    let rope_scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_positions: 8192,
    };
    let scaled = ModelConfig {
        rope_scaling,
        ..plain.clone()
    }
    .rope_frequencies(Scope::Everything);
    for (i, (plain, scaled)) in plain
        .rope_frequencies(Scope::Everything)
        .iter()
        .zip(&scaled)
        .enumerate()
    {
        let wavelength = std::f64::consts::TAU / plain;
        let ratio = plain / scaled;
        match wavelength {
            short if short < 8192.0 / 4.0 => assert_eq!(ratio, 1.0, "{i}"),
            long if long > 8192.0 => assert!((ratio - 8.0).abs() < 1e-12, "{i}"),
            _ => assert!(ratio > 1.0 && ratio < 8.0, "{i}"),
        }
    }
}

/// Every row's architecture is read, every architecture has a row.
#[test]
fn the_table_of_families_is_that_of_the_code() {
    let table = include_str!("../../../../../docs/models.md");
    let cells = |line: &str| {
        line.split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = table
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains("ForCausalLM`"))
        .map(cells)
        .collect();
    for row in rows.iter().filter(|row| row[1] != "architectures") {
        let config = ModelConfig::parse(
            &with(&format!(r#"{{"architectures":["{}"]}}"#, row[1])),
            "x",
        )
        .unwrap();
        let options = &config.options;
        assert_eq!(config.architecture.names().0, row[1]);
        assert_eq!(
            options.has_head_norms,
            row[3].contains("of heads"),
            "{row:?}"
        );
        assert_eq!(
            options.has_output_norms,
            row[3].contains("after each block"),
            "{row:?}"
        );
        assert_eq!(
            options.norm_offset == 1.0,
            row[3].contains("1 + weight"),
            "{row:?}"
        );
        assert_eq!(
            options.window.is_some(),
            row[5].contains("sliding window"),
            "{row:?}"
        );
        assert_eq!(
            options.experts.is_some(),
            row[6].contains("experts"),
            "{row:?}"
        );
        assert_eq!(
            options.gated_delta.is_some(),
            row[5].contains("gated delta rule"),
            "{row:?}"
        );
        assert_eq!(
            options.has_attention_sinks,
            row[5].contains("sinks"),
            "{row:?}"
        );
        assert_eq!(
            options.has_attention_gate,
            row[5].contains("with a gate"),
            "{row:?}"
        );
        assert_eq!(
            options.rotary_dimension.is_some(),
            row[4].contains("of each head"),
            "{row:?}"
        );
        assert_eq!(
            options.activation == Activation::GeluTanh,
            row[6].contains("GELU"),
            "{row:?}"
        );
        assert_eq!(
            config.attention_bias != AttentionBias::Absent,
            row[5].contains("biases"),
            "{row:?}"
        );
    }
    let all = [
        Architecture::Qwen3,
        Architecture::Qwen3Moe,
        Architecture::Qwen2,
        Architecture::Llama,
        Architecture::Mistral,
        Architecture::Gemma3,
        Architecture::Gemma4,
        Architecture::Qwen35,
        Architecture::Qwen35Moe,
        Architecture::GptOss,
    ];
    assert_eq!(rows.len(), all.len());
}

#[test]
fn scales_of_fp8_are_read_and_other_quantized_checkpoints_named() {
    let read = |quantization: Value| {
        let keys = json!({ "quantization_config": quantization });
        let nested = json!({ "text_config": keys, "quantization_config": null });
        let [whole, text] = [keys, nested].map(|keys| {
            Quantization::parse(keys.as_object().unwrap(), "x").map_err(|error| error.to_string())
        });
        assert_eq!(whole, text);
        whole
    };
    let compressed = |changes: Value| {
        let weights =
            json!({"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true});
        let mut keys = json!({"quant_method": "compressed-tensors", "format": "float-quantized", "transform_config": {},
            "sparsity_config": {"format": "dense"}, "config_groups": {"group_0": {"weights": weights}}});
        keys.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        keys
    };
    let group = |weights: Value| json!({"config_groups": {"group_0": {"weights": weights}}});
    let strategy = |name: &str| {
        group(
            json!({"num_bits": 8, "type": "float", "strategy": name, "block_structure": [128, 64]}),
        )
    };
    let fp8 = |scales| Some(Quantization::Fp8(scales));
    for (quantization, expected) in [
        (json!(null), None),
        (
            json!({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}),
            Some(Quantization::Mxfp4),
        ),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
            fp8(Fp8Scales::PerBlock([128, 128])),
        ),
        (
            json!({"quant_method": "fp8", "weight_block_size": null}),
            fp8(Fp8Scales::PerTensor),
        ),
        (
            json!({"quant_method": "fbgemm_fp8"}),
            fp8(Fp8Scales::PerOutput),
        ),
        (compressed(json!({})), fp8(Fp8Scales::PerOutput)),
        (compressed(strategy("tensor")), fp8(Fp8Scales::PerTensor)),
        (
            compressed(strategy("block")),
            fp8(Fp8Scales::PerBlock([128, 64])),
        ),
    ] {
        assert_eq!(read(quantization), Ok(expected));
    }
    let two = json!({"a": strategy("tensor")["config_groups"]["group_0"], "b": strategy("block")["config_groups"]["group_0"]});
    for (quantization, expected) in [
        (json!({"quant_method": "gptq", "bits": 4}), "(gptq)"),
        (json!({"load_in_4bit": true}), "(unnamed)"),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128]}),
            "(blocks of [128])",
        ),
        (
            json!({"quant_method": "fp8", "weight_block_size": [0, 128]}),
            "(blocks of [0,128])",
        ),
        (
            compressed(json!({"format": "pack-quantized"})),
            "(compressed-tensors, format `pack-quantized`)",
        ),
        (
            compressed(json!({"format": null})),
            "(compressed-tensors, format `null`)",
        ),
        (
            compressed(json!({"sparsity_config": {"format": "sparse-24-bitmask"}})),
            "sparsity `sparse-24-bitmask`",
        ),
        (
            compressed(json!({"transform_config": {"config_groups": {}}})),
            "`transform_config`",
        ),
        (
            compressed(json!({"config_groups": {}})),
            "no `config_groups`",
        ),
        (
            compressed(json!({"config_groups": two})),
            "groups with different scales",
        ),
        (compressed(strategy("group")), "strategy `group`"),
        (
            compressed(group(json!({"num_bits": 4, "type": "float"}))),
            r#"weights {"num_bits":4,"type":"float"}"#,
        ),
    ] {
        let message = read(quantization).unwrap_err();
        assert!(
            message.contains(expected) && message.contains("in fp8 as `fp8`"),
            "{message} lacks {expected}"
        );
    }
}

#[test]
fn a_copy_of_a_model_in_fp8_is_described_in_bf16() {
    let quantized =
        r#"{"quantization_config":{"quant_method":"fbgemm_fp8"},"torch_dtype":"float16"}"#;
    let copied: Value = serde_json::from_str(&copied_config(&with(quantized)).unwrap()).unwrap();
    assert_eq!(
        (copied.get("quantization_config"), &copied["torch_dtype"]),
        (None, &json!("bfloat16"))
    );
    assert_eq!(copied_config(&with("{}")), None);
    let seeing = format!(
        r#"{{"architectures":["Gemma3ForConditionalGeneration"],"text_config":{}}}"#,
        with(quantized)
    );
    assert!(
        !copied_config(&seeing)
            .unwrap()
            .contains("quantization_config")
    );
}
