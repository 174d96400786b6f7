//! What may differ in place or time, never in a bit: an embedding in host memory, rows that pad a pass.

use candle_core::Tensor;
use grpo_tui::config::BasePrecision;
use grpo_tui::hub::ModelConfig;
use grpo_tui::kernels::device::Engine;
use grpo_tui::model::{Adapters, Decoder, Weights};
use grpo_tui::rollout::{Completion, Request, RolloutMemory, Sampling, ThreadPool, generate};

use super::families::mxfp4;
use super::model::{
    LORA, LORA_EXPERTS, gradient, model, model_of, quantized, sampled, sharp_tensors,
};

/// Beside a quantized base the embedding is in host memory, unless it is the head too: with equal numbers both models
/// draw and learn the same, to the last bit.
#[test]
#[ignore = "needs a GPU"]
fn an_embedding_in_host_memory_changes_no_bit() {
    let bf16 = Engine::gpu(0).unwrap();
    for (config, precision) in quantized() {
        let [tied, untied] = [true, false].map(|tie_word_embeddings| ModelConfig {
            tie_word_embeddings,
            ..config.clone()
        });
        let tensors = sharp_tensors(&tied);
        let is_embedding = |(name, _): &&(String, Tensor)| name == "model.embed_tokens.weight";
        let (_, embedding) = tensors.iter().find(is_embedding).unwrap();
        let head = ("lm_head.weight".to_owned(), embedding.clone());
        let with_head = [tensors.as_slice(), &[head]].concat();
        for engine in [bf16.clone().in_f32(), bf16.clone()] {
            let of = |tensors: &[(String, Tensor)], config| {
                model_of(tensors.to_vec(), precision, config, LORA, &engine)
            };
            let (on_gpu, in_host) = (of(&tensors, &tied), of(&with_head, &untied));
            let bytes = embedding.elem_count() * engine.dtype.size_in_bytes();
            assert_eq!(in_host.host_bytes(), on_gpu.host_bytes() + bytes);
            let completions = sampled(&on_gpu, &engine, 1.0);
            assert_eq!(sampled(&in_host, &engine, 1.0), completions);
            let bits = |model| gradient_bits(model, &engine, &completions);
            assert!(bits(&in_host) == bits(&on_gpu), "{:?}", config.architecture);
        }
    }
}

fn gradient_bits(model: &Decoder, engine: &Engine, completions: &[Vec<Completion>]) -> Vec<u32> {
    let (flat, ..) = gradient(model, engine, completions, false);
    let numbers = flat.to_vec1::<f32>().unwrap();
    numbers.into_iter().map(f32::to_bits).collect()
}

/// Experts that stay in MXFP4 and dequantized ones draw and learn the same, to the last bit.
#[test]
#[ignore = "needs a GPU"]
fn experts_in_mxfp4_change_no_bit() {
    let (config, engine) = (mxfp4(), Engine::gpu(0).unwrap());
    let numbers = Weights::fresh(&config, 5).stored(&config).unwrap();
    for trainable in [LORA, LORA_EXPERTS] {
        let codes = model(&config, trainable, &engine);
        assert!(format!("{codes:?}").contains("Mxfp4Stack"));
        let bf16 = BasePrecision::Bf16;
        let dequantized = model_of(numbers.clone(), bf16, &config, trainable, &engine);
        let completions = sampled(&codes, &engine, 1.0);
        assert_eq!(sampled(&dequantized, &engine, 1.0), completions);
        let bits = |model| gradient_bits(model, &engine, &completions);
        assert!(bits(&codes) == bits(&dequantized), "{trainable:?}");
    }
}

/// Rows pad a pass once some have ended, and repeat its last one beside other rows than it has itself.
#[test]
#[ignore = "needs a GPU"]
fn a_rollout_whose_rows_end_one_by_one_repeats_itself() {
    let json = r#"{"architectures":["Qwen3ForCausalLM"],"vocab_size":512,"hidden_size":512,
        "intermediate_size":768,"num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":2,
        "head_dim":64,"max_position_embeddings":512}"#;
    let config = ModelConfig::parse(json, "config.json").unwrap();
    let engine = Engine::gpu(0).unwrap();
    let model = model(&config, LORA, &engine);
    let threads = ThreadPool::for_engine(&engine, 1).unwrap();
    let requests: Vec<Request> = (0..16_u32)
        .map(|n| {
            let prompt = (0..100).map(|i| (i * 7 + n) % 511).collect();
            let lengths = (0..8).map(|i| 8 + (5 * i + 3 * n as usize) % 57).collect();
            Request {
                lengths,
                ..Request::new(prompt, n, 4, 8)
            }
        })
        .collect();
    let (sampling, memory) = (Sampling::plain(1.0, 64, 11), RolloutMemory::default());
    let sampled = || {
        let on = Adapters::On;
        generate(&model, on, &requests, &sampling, &memory, &threads).unwrap()
    };
    let expected = sampled().completions;
    for _ in 0..8 {
        assert!(sampled().completions == expected);
    }
}
