//! Tests of family-specific keys.

use super::*;

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
        // As in a model card, added to a file of transformers 5: it replaces `rope_parameters`.
        format!(
            r#"{{"rope_parameters":{{"rope_type":"default","rope_theta":1e4}},"rope_scaling":{{"rope_type":"llama3",{numbers}}},"rope_theta":5e5}}"#
        ),
        format!(
            r#"{{"rope_parameters":{{"rope_type":"default","rope_theta":1e4}},"rope_scaling":{{"rope_type":"llama3","rope_theta":5e5,{numbers}}}}}"#
        ),
        format!(
            r#"{{"rope_scaling":{{}},"rope_parameters":{{"rope_type":"llama3","rope_theta":5e5,{numbers}}}}}"#
        ),
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
fn mistral_has_a_window_where_its_file_has_one_that_hides_something() {
    let of = |changes: &str| {
        with(&format!(
            r#"{{"architectures":["MistralForCausalLM"],{changes}}}"#
        ))
    };
    let window = |changes: &str| {
        reread(&of(changes))
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

/// transformers' `Gemma3TextConfig` reads the same.
#[test]
fn gemma_3_is_read_in_all_its_spellings() {
    let keys = r#""vocab_size":100,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":7,"sliding_window":512"#;
    let read = |json: String| reread(&json);
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
    assert_eq!(heads(&config), [8, 4, 256]);
    assert_eq!(
        (
            config.rope_theta,
            config.tie_word_embeddings,
            config.max_position_embeddings
        ),
        (1e6, true, 131_072)
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
        r#""rope_parameters":{"full_attention":{"rope_type":"default","rope_theta":5e5},"sliding_attention":{"rope_type":"default","rope_theta":7e3}},"rope_scaling":{"rope_type":"linear","factor":8.0}"#,
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
    }
}

/// transformers' `Qwen3_5TextConfig` reads the same.
#[test]
fn qwen3_5_is_read_in_all_its_spellings() {
    let keys = r#""vocab_size":100,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":8"#;
    let read = |json: String| reread(&json);
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
    assert_eq!(heads(&config), [16, 4, 256]);
    assert_eq!(
        (
            config.rotary_dimension(),
            config.adapted_matrices(3)[0].shape()[0],
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
    }
}

/// transformers' `Qwen3MoeConfig` reads the same.
#[test]
fn mixtures_of_experts_are_read_in_all_their_spellings() {
    let of = |changes: &str| {
        with(&format!(
            r#"{{"model_type":"qwen3_moe","architectures":"absent"{changes}}}"#
        ))
    };
    let read = |changes: &str| reread(&of(changes)).options.experts.unwrap();
    let all = Experts {
        count: 128,
        active: 8,
        intermediate_size: 768,
        is_renormalised: false,
        layers: vec![true; 2],
        tensors: ExpertTensors::Separate,
        is_mxfp4: false,
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
    check_refused(REFUSED_MIXTURES, |keys| of(&format!(",{keys}")));
}

const REFUSED_MIXTURES: &str = r#"
"num_experts":0 -> `num_experts` = 0, expected a whole number above 0
"num_experts":5000 -> `num_experts` = 5000, the limit is 4096
"num_experts":4,"num_experts_per_tok":5 -> `num_experts_per_tok` = 5 is more than `num_experts` = 4
"norm_topk_prob":1 -> `norm_topk_prob` = 1, expected true or false
"mlp_only_layers":[2] -> `mlp_only_layers` = [2], expected a list of layers from 0 to 1
"mlp_only_layers":3 -> `mlp_only_layers` = 3, expected a list
"decoder_sparse_step":0 -> `decoder_sparse_step` = 0
"#;
