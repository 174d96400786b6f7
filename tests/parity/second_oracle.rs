//! Our decoder against candle-transformers, an independent implementation: every log-prob of every position, decoded there a token at a time.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{llama, qwen2, qwen3};
use grpo_tui::hub::{Architecture, ModelConfig, RopeScaling, find_model};
use grpo_tui::model::{Adapters, PackedBatch};

use super::decoder::{Golden, assert_close, checkpoints, logits};

/// A model of candle-transformers with its cache: one token and its position -> logits [1, .., vocabulary].
type Oracle = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

/// None for what candle-transformers does not compute: biases in a Llama, and heads of a Llama that are not `hidden_size / num_attention_heads` wide.
fn oracle(golden: &Golden, config: &ModelConfig) -> Option<Oracle> {
    let source = find_model(golden.folder().to_str().unwrap()).unwrap();
    let mut tensors = std::collections::HashMap::new();
    for file in source.weight_files().unwrap() {
        tensors.extend(candle_core::safetensors::load(golden.folder().join(file), &Device::Cpu).unwrap());
    }
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    match config.architecture {
        Architecture::Qwen3 => {
            let mut model = qwen3::ModelForCausalLM::new(&qwen3_config(config), weights).unwrap();
            Some(Box::new(move |token, position| model.forward(token, position)))
        }
        Architecture::Qwen2 => {
            let mut model = qwen2::ModelForCausalLM::new(&qwen2_config(config), weights).unwrap();
            Some(Box::new(move |token, position| model.forward(token, position)))
        }
        Architecture::Llama => {
            let plain = config.head_dim * config.num_attention_heads == config.hidden_size;
            if !plain || config.attention_bias != grpo_tui::hub::AttentionBias::Absent {
                return None;
            }
            let theirs = llama_config(config);
            let mut cache = llama::Cache::new(true, DType::F32, &theirs, &Device::Cpu).unwrap();
            let model = llama::Llama::load(weights, &theirs).unwrap();
            Some(Box::new(move |token, position| model.forward(token, position, &mut cache)))
        }
    }
}

fn qwen3_config(config: &ModelConfig) -> qwen3::Config {
    qwen3::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        head_dim: config.head_dim,
        attention_bias: false,
        num_key_value_heads: config.num_key_value_heads,
        max_position_embeddings: config.max_position_embeddings,
        sliding_window: None,
        max_window_layers: config.num_hidden_layers,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: config.rope_theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    }
}

fn qwen2_config(config: &ModelConfig) -> qwen2::Config {
    qwen2::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        max_position_embeddings: config.max_position_embeddings,
        sliding_window: config.max_position_embeddings,
        max_window_layers: config.num_hidden_layers,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: config.rope_theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    }
}

fn llama_config(config: &ModelConfig) -> llama::Config {
    let rope_scaling = match config.rope_scaling {
        RopeScaling::Unscaled => None,
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => Some(llama::Llama3RopeConfig {
            factor: factor as f32,
            low_freq_factor: low_frequency_factor as f32,
            high_freq_factor: high_frequency_factor as f32,
            original_max_position_embeddings: original_positions,
            rope_type: llama::Llama3RopeType::Llama3,
        }),
    };
    llama::Config {
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        vocab_size: config.vocab_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: config.rms_norm_eps,
        rope_theta: config.rope_theta as f32,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling,
        max_position_embeddings: config.max_position_embeddings,
        tie_word_embeddings: config.tie_word_embeddings,
    }
}

fn log_probs(logits: &Tensor) -> Vec<Vec<f32>> {
    candle_nn::ops::log_softmax(logits, D::Minus1).unwrap().to_vec2().unwrap()
}

#[test]
fn log_probs_equal_those_of_candle_transformers() {
    let mut compared = Vec::new();
    for golden in checkpoints() {
        let model = golden.decoder();
        for sequence in &golden.token_ids {
            let Some(mut oracle) = oracle(&golden, model.config()) else { continue };
            let rows = sequence.iter().enumerate().map(|(position, &token)| {
                let token = Tensor::new(&[[token]], &Device::Cpu).unwrap();
                oracle(&token, position).unwrap().reshape((1, model.config().vocab_size)).unwrap()
            });
            let expected = Tensor::cat(&rows.collect::<Vec<_>>(), 0).unwrap();
            let mut batch = PackedBatch::default();
            batch.push_prompt(sequence);
            let ours = logits(&model, &batch, Adapters::On);
            assert_close(&format!("{} in candle-transformers", golden.name), &log_probs(&ours), &log_probs(&expected));
        }
        compared.push(model.config().architecture);
    }
    for family in [Architecture::Qwen3, Architecture::Qwen2, Architecture::Llama] {
        assert!(compared.contains(&family), "{family:?} was not compared");
    }
}
