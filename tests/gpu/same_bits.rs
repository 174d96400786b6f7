//! What may differ in place or time, never in a bit: an embedding in host memory, rows that pad a pass, a gradient that
//! begins beside a rollout.

use candle_core::Tensor;
use grpo_tui::config::{BasePrecision, PolicyLoss};
use grpo_tui::hub::ModelConfig;
use grpo_tui::kernels::device::Engine;
use grpo_tui::model::{Adapters, Decoder, Gradients, Weights};
use grpo_tui::rollout::{Completion, Request, RolloutMemory, Sampling, ThreadPool, generate};
use grpo_tui::update::{
    PolicyGroup, PolicySettings, PolicyUpdate, SecondStream, StepTotals, policy_gradient,
    update_beside,
};

use super::families::{configs, mxfp4};
use super::model::{
    LORA, LORA_EXPERTS, gradient, model, model_in, model_of, quantized, requests, sampled,
    sharp_tensors,
};
use crate::losses::loss_settings;

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

/// Begun in the second stream beside a rollout, and continued in the first, a gradient has the bits of one after it; the
/// rollout samples the same.
#[test]
#[ignore = "needs a GPU"]
fn a_gradient_that_begins_beside_a_rollout_is_the_same() {
    let engine = Engine::gpu(0).unwrap();
    let threads = ThreadPool::for_engine(&engine, 1).unwrap();
    let plain = configs().into_iter().map(|one| (one, BasePrecision::Bf16));
    let [dense, ..] = configs();
    let wide = ModelConfig {
        intermediate_size: 128,
        ..dense
    };
    let quantized = [BasePrecision::Fp8, BasePrecision::Nf4].map(|one| (wide.clone(), one));
    let experts = [(mxfp4(), BasePrecision::Bf16)];
    for (config, precision) in plain.chain(quantized).chain(experts) {
        let model = model_in(precision, &config, LORA, &engine);
        let completions = sampled(&model, &engine, 1.0);
        let requests = requests();
        let groups = requests.iter().zip(&completions);
        let groups = groups.map(|(one, own)| PolicyGroup::alternating(&one.prompt, own));
        let groups: Vec<PolicyGroup<'_>> = groups.collect();
        let totals = StepTotals {
            sequences: 48,
            tokens: 1000,
        };
        let settings = PolicySettings {
            loss: loss_settings(PolicyLoss::Grpo),
            temperature: 1.0,
            tokens_per_micro_batch: 300,
            recompute: false,
        };
        let (expected, statistics) =
            policy_gradient(&model, &groups, totals, &settings, &threads).unwrap();
        let stream = SecondStream::open(&engine, &model).unwrap();
        let update = |model: &Decoder, sum| {
            let mut update = PolicyUpdate::begin(sum, totals, &settings);
            update.extend(&groups[..4]);
            let computed = update.compute(model, &groups, &threads);
            (computed.map(|()| update), ())
        };
        let rollout = || sampled(&model, &engine, 1.0);
        let stream = stream.as_ref();
        let beside = update_beside((&engine, &model), stream, update, rollout).unwrap();
        let update = beside.update.unwrap();
        assert!(update.groups() == 4 && beside.rollout == completions);
        let (found, own) = update.finish(&model, &groups, &threads).unwrap();
        let bits = |sum: Gradients| sum.flat().to_vec1::<f32>().unwrap();
        let expected = bits(expected);
        assert!(expected.iter().any(|number| *number != 0.0));
        assert!(
            bits(found) == expected && own == statistics,
            "{precision:?} {config:?}"
        );
    }
}
