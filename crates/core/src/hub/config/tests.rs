//! Tests of reading and rejecting `config.json`.

mod families;

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

/// Reads a file's text, which is the same configuration after writing.
pub(super) fn reread(json: &str) -> ModelConfig {
    let config = ModelConfig::parse(json, "config.json").unwrap();
    let written = config.to_json("bfloat16", &[1]);
    assert_eq!(ModelConfig::parse(&written, "x").unwrap(), config, "{json}");
    config
}

/// Query heads, key and value heads, and their dimension.
pub(super) fn heads(config: &ModelConfig) -> [usize; 3] {
    let (query, key_value) = (config.num_attention_heads, config.num_key_value_heads);
    [query, key_value, config.head_dim]
}

/// Each line of `table`: what `json` makes a file's text from, and a part of the error.
pub(super) fn check_refused(table: &str, json: impl Fn(&str) -> String) {
    for line in table.trim().lines() {
        let (keys, expected) = line.split_once(" -> ").unwrap();
        let refused = ModelConfig::parse(&json(keys), "dir/config.json");
        let message = refused.unwrap_err().to_string();
        assert!(
            message.starts_with("dir/config.json: ") && message.contains(expected),
            "{message:?} lacks {expected:?}"
        );
    }
}

#[test]
fn every_key_is_read_and_defaults_are_those_of_the_format() {
    let read = |changes: &str| ModelConfig::parse(&with(changes), "config.json").unwrap();
    let plain = read("{}");
    let sizes = [
        plain.vocab_size,
        plain.hidden_size,
        plain.intermediate_size,
        plain.num_hidden_layers,
        plain.max_position_embeddings,
    ];
    assert_eq!(sizes, [100, 64, 96, 2, 32_768]);
    assert_eq!(heads(&plain), [4, 2, 16]);
    assert_eq!((plain.rms_norm_eps, plain.rope_theta), (1e-6, 1e4));
    assert!(!plain.tie_word_embeddings);
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
fn yarn_reads_what_its_paper_leaves_open() {
    let read = |more: &str| {
        let keys = format!(
            r#""rope_scaling":{{"rope_type":"yarn","factor":4,"original_max_position_embeddings":32768{more}}}"#
        );
        reread(&with(&format!("{{{keys}}}"))).rope_scaling
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
fn what_is_written_reads_back_equal() {
    let scaling = r#""rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}"#;
    for family in ["Qwen2ForCausalLM", "LlamaForCausalLM"] {
        reread(&with(&format!(
            r#"{{"architectures":["{family}"],{scaling}}}"#
        )));
    }
    let keys = r#"{"head_dim":32,"rope_theta":123456.5,"tie_word_embeddings":true}"#;
    let config = reread(&with(keys));
    let eos = |ids: &[u32]| {
        let written: Value = serde_json::from_str(&config.to_json("float32", ids)).unwrap();
        written["eos_token_id"].clone()
    };
    assert_eq!([eos(&[3]), eos(&[3, 4])], [json!(3), json!([3, 4])]);
}

#[test]
fn what_cannot_be_computed_is_said_in_words() {
    check_refused(REFUSED, |keys| with(&format!("{{{keys}}}")));
    let of = |family: &str, keys: &str| {
        with(&format!(
            r#"{{"architectures":["{family}ForCausalLM"],{keys}}}"#
        ))
    };
    check_refused(REFUSED_GEMMA3, |keys| of("Gemma3", keys));
    check_refused(REFUSED_QWEN3_5, |keys| of("Qwen3_5", keys));
}

const REFUSED: &str = r#"
"hidden_size":"absent" -> `hidden_size` is missing
"hidden_size":0 -> `hidden_size` = 0, expected a whole number above 0
"vocab_size":"many" -> `vocab_size` = "many"
"num_hidden_layers":2.5 -> `num_hidden_layers` = 2.5
"num_hidden_layers":1000000000 -> `num_hidden_layers` = 1000000000, the limit is 1024
"head_dim":1099511627776 -> `head_dim` = 1099511627776, the limit is 4096
"max_position_embeddings":1099511627776 -> `max_position_embeddings` = 1099511627776, the limit is 16777216
"max_position_embeddings":16777216,"head_dim":128 -> more than 268435456 angles; lower `max_position_embeddings`
"num_attention_heads":5 -> is not a multiple of `num_attention_heads` = 5
"num_key_value_heads":3 -> not a multiple of `num_key_value_heads` = 3
"head_dim":7 -> even
"rms_norm_eps":-1 -> `rms_norm_eps` = -1
"tie_word_embeddings":1 -> expected true or false
"architectures":["GemmaForCausalLM"] -> the architecture `GemmaForCausalLM` is not supported
"architectures":["MixtralForCausalLM"] -> `MixtralForCausalLM`
"architectures":"absent","model_type":"gemma" -> `gemma`
"architectures":"absent","model_type":"absent" -> are missing
"rope_scaling":{"rope_type":"dynamic","factor":4.0} -> `rope_scaling` =
"rope_parameters":{"rope_type":"longrope","rope_theta":1e6} -> `rope_parameters` =
"rope_parameters":{"rope_type":"yarn","rope_theta":1e6} -> `rope_parameters.factor` is missing
"rope_scaling":{"rope_type":"yarn","factor":4,"beta_fast":1} -> `beta_fast` above `beta_slow`
"rope_scaling":{"type":"dynamic","factor":2.0} -> only `default`, `linear`, `llama3` and `yarn`
"rope_scaling":{"type":"linear","factor":0.5} -> `factor` must be at least 1
"final_logit_softcapping":30.0 -> `final_logit_softcapping` = 30.0 is not supported
"rope_scaling":{"rope_type":"llama3","factor":8.0} -> `rope_scaling.low_freq_factor` is missing
"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":1,"original_max_position_embeddings":64} -> `high_freq_factor` above `low_freq_factor`
"mlp_bias":true -> `mlp_bias` = true
"use_sliding_window":true -> sliding attention window
"layer_types":["full_attention","sliding_attention"] -> sliding attention window
"quantization_config":{"quant_method":"awq"} -> a quantized checkpoint (awq) is not supported; use the
"hidden_act":"gelu" -> the activation `gelu` (`hidden_act`)
"architectures":["Qwen3NextForCausalLM"] -> the architecture `Qwen3NextForCausalLM`
"quantization_config":{"quant_method":"mxfp4"} -> MXFP4 outside gpt-oss
"architectures":"absent","model_type":"qwen4_exp" -> `qwen4_exp`
"#;

const REFUSED_GEMMA3: &str = r#"
"layer_types":["sliding_attention","chunked_attention"] -> the layer type "chunked_attention"
"layer_types":["sliding_attention"] -> `layer_types` has 1 entries for 2 layers
"attn_logit_softcapping":50.0 -> `attn_logit_softcapping` = 50.0
"use_bidirectional_attention":true -> `use_bidirectional_attention` = true
"hidden_activation":"relu" -> the activation `relu`
"sliding_window":0 -> `sliding_window` = 0
"rope_parameters":{"sliding_attention":{"rope_type":"linear","factor":2.0}} -> scaled rotary positions of layers with a window
"#;

const REFUSED_QWEN3_5: &str = r#"
"layer_types":["linear_attention","sliding_attention"] -> the layer type "sliding_attention"
"layer_types":["linear_attention"] -> `layer_types` has 1 entries for 2 layers
"linear_num_value_heads":24 -> is not a multiple of `linear_num_key_heads` = 16
"linear_key_head_dim":0 -> `linear_key_head_dim` = 0
"linear_conv_kernel_dim":65 -> `linear_conv_kernel_dim` = 65, the limit is 64
"partial_rotary_factor":0.001 -> `partial_rotary_factor` = 0.001 of a head's width
"partial_rotary_factor":2 -> rotary positions need an even width
"hidden_act":"gelu_pytorch_tanh" -> of the gated delta rule
"rope_scaling":{"rope_type":"yarn","factor":4,"original_max_position_embeddings":64} -> YaRN on a part of a head
"#;

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

/// Llama 3.1's settings; tests/parity compares whole models with these positions.
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
        for (has, column, words) in [
            (options.has_head_norms, 3, "of heads"),
            (options.has_output_norms, 3, "after each block"),
            (options.norm_offset == 1.0, 3, "1 + weight"),
            (options.window.is_some(), 5, "sliding window"),
            (options.experts.is_some(), 6, "experts"),
            (options.gated_delta.is_some(), 5, "gated delta rule"),
            (options.has_attention_sinks, 5, "sinks"),
            (options.has_attention_gate, 5, "with a gate"),
            (options.rotary_dimension.is_some(), 4, "of each head"),
            (options.activation == Activation::GeluTanh, 6, "GELU"),
            (config.attention_bias != AttentionBias::Absent, 5, "biases"),
        ] {
            assert_eq!(has, row[column].contains(words), "{row:?}: {words}");
        }
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
fn forms_of_quantized_checkpoints_are_read_and_others_named() {
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
    let bitsandbytes = |changes: Value| {
        let mut keys = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false,
            "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true, "bnb_4bit_quant_storage": "uint8"});
        keys.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        keys
    };
    let fp8 = |scales| Some(Quantization::Fp8(scales));
    for (quantization, expected) in [
        (json!(null), None),
        (
            json!({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}),
            Some(Quantization::Mxfp4),
        ),
        (bitsandbytes(json!({})), Some(Quantization::Nf4)),
        (
            bitsandbytes(json!({"bnb_4bit_use_double_quant": false})),
            Some(Quantization::Nf4),
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
            bitsandbytes(json!({"load_in_4bit": false, "load_in_8bit": true})),
            "(bitsandbytes, llm_int8)",
        ),
        (
            bitsandbytes(json!({"bnb_4bit_quant_type": null})),
            "(bitsandbytes, fp4)",
        ),
        (
            bitsandbytes(json!({"bnb_4bit_quant_storage": "bfloat16"})),
            "(bitsandbytes, codes stored as bfloat16)",
        ),
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
            message.contains(expected) && message.contains("in NF4 by `bitsandbytes`"),
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
