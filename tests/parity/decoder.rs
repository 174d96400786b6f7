//! Our decoder against transformers' logits, tiny checkpoint by tiny checkpoint: each sequence alone, all packed in one
//! batch, and decoded with the caches.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use grpo_tui::hub::find_model;
use grpo_tui::kernels::log_probs::token_log_probs;
use grpo_tui::model::{Adapters, Decoder, PackedBatch, Trainable, Weights};
use grpo_tui::rollout::{Completion, Request, RolloutMemory, Sampling, ThreadPool, generate};
use grpo_tui::update::{Example, SupervisedSettings, supervised_gradient};
use serde_json::Value;

use super::golden_folder;

/// Largest difference between two logits, or two log-probs, that still counts as the same number in f32.
pub(super) const TOLERANCE: f32 = 1e-4;

/// One checkpoint and what transformers made of it.
pub(super) struct Golden {
    pub(super) name: String,
    pub(super) token_ids: Vec<Vec<u32>>,
    /// For each sequence [positions][vocabulary].
    pub(super) logits: Vec<Vec<Vec<f32>>>,
    greedy: Value,
    /// By tensor, where there is one.
    gradient: Value,
}

impl Golden {
    pub(super) fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(golden_folder().join(name).join("golden.json")).unwrap();
        let golden: Value = serde_json::from_str(&text).unwrap();
        Self {
            name: name.to_owned(),
            token_ids: serde_json::from_value(golden["token_ids"].clone()).unwrap(),
            logits: serde_json::from_value(golden["logits"].clone()).unwrap(),
            greedy: golden["greedy"].clone(),
            gradient: golden["gradient"].clone(),
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        golden_folder().join(&self.name)
    }

    pub(super) fn decoder(&self) -> Decoder {
        self.trainable(Trainable::Frozen)
    }

    fn trainable(&self, trainable: Trainable) -> Decoder {
        let source = find_model(self.folder().to_str().unwrap()).unwrap();
        let weights = Weights::open(&source).unwrap();
        Decoder::new(
            &source.config().unwrap(),
            &weights,
            trainable,
            0,
            DType::F32,
            &Device::Cpu,
        )
        .unwrap()
    }
}

/// Every folder that holds a whole checkpoint with its golden numbers.
pub(super) fn checkpoints() -> Vec<Golden> {
    let entries = std::fs::read_dir(golden_folder())
        .unwrap()
        .map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| {
            entry.path().join("golden.json").is_file() && entry.path().join("config.json").is_file()
        })
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.iter().map(|name| Golden::read(name)).collect()
}

/// Logits [rows, vocabulary] of a batch.
pub(super) fn logits(model: &Decoder, batch: &PackedBatch, adapters: Adapters) -> Tensor {
    model
        .logits(&model.forward(batch, adapters).unwrap())
        .unwrap()
}

pub(super) fn assert_close(name: &str, ours: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(ours.len(), expected.len(), "{name}: positions");
    for (position, (ours, expected)) in ours.iter().zip(expected).enumerate() {
        assert_eq!(ours.len(), expected.len(), "{name}: vocabulary");
        for (token, (ours, expected)) in ours.iter().zip(expected).enumerate() {
            let near = (ours - expected).abs() < TOLERANCE;
            assert!(
                near,
                "{name}, position {position}, token {token}: {ours} here, {expected} in transformers"
            );
        }
    }
}

fn log_softmax(logits: &[f32], token: u32) -> f32 {
    let row = Tensor::from_slice(logits, (1, logits.len()), &Device::Cpu).unwrap();
    token_log_probs(&row, &[token], 1.0).unwrap()[0].log_prob
}

/// `rope_scaling` beside `rope_parameters`, a head beside the embedding: scripts/golden/model_files.py changes the base alike.
#[test]
fn files_that_say_more_than_one_thing_are_read_as_by_transformers() {
    const NAMES: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];
    let text = std::fs::read_to_string(golden_folder().join("model_files.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let sequence: Vec<u32> = serde_json::from_value(golden["token_ids"].clone()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join("model");
        crate::program::copy_tree(
            &golden_folder().join(golden["base"].as_str().unwrap()),
            &folder,
        );
        let path = folder.join("config.json");
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (key, value) in case["config"].as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(path, config.to_string()).unwrap();
        if let Some(head) = case["head"].as_str() {
            let path = folder.join("model.safetensors");
            let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            let embedding = tensors[NAMES[0]].clone();
            let own = match head {
                "flipped" => embedding.flip(&[0]).unwrap().contiguous().unwrap(),
                _ => embedding,
            };
            tensors.insert(NAMES[1].to_owned(), own);
            tensors.retain(|name, _| head != "alone" || name != NAMES[0]);
            candle_core::safetensors::save(&tensors, path).unwrap();
        }
        let source = find_model(folder.to_str().unwrap()).unwrap();
        let weights = Weights::open(&source).unwrap();
        let model = Decoder::new(
            &source.config().unwrap(),
            &weights,
            Trainable::Frozen,
            0,
            DType::F32,
            &Device::Cpu,
        )
        .unwrap();
        let mut batch = PackedBatch::default();
        batch.push_prompt(&sequence);
        let ours: Vec<Vec<f32>> = logits(&model, &batch, Adapters::On).to_vec2().unwrap();
        let expected: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
        let last = &ours[ours.len() - expected.len()..];
        assert_close(case["name"].as_str().unwrap(), last, &expected);
    }
}

#[test]
fn logits_equal_those_of_transformers() {
    let checkpoints = checkpoints();
    assert!(checkpoints.len() >= 3);
    for golden in checkpoints {
        let model = golden.decoder();
        for (sequence, expected) in golden.token_ids.iter().zip(&golden.logits) {
            let mut batch = PackedBatch::default();
            batch.push_prompt(sequence);
            let name = format!("{}, {} tokens", golden.name, sequence.len());
            assert_close(
                &name,
                &logits(&model, &batch, Adapters::On).to_vec2().unwrap(),
                expected,
            );
        }
    }
}

#[test]
fn packed_sequences_do_not_see_each_other() {
    for golden in checkpoints() {
        let model = golden.decoder();
        // Forwards and backwards, so that each sequence has different neighbours.
        for reversed in [false, true] {
            let mut order: Vec<usize> = (0..golden.token_ids.len()).collect();
            if reversed {
                order.reverse();
            }
            let mut batch = PackedBatch::default();
            let places: Vec<_> = order
                .iter()
                .map(|&index| batch.push_prompt(&golden.token_ids[index]))
                .collect();
            let all = logits(&model, &batch, Adapters::On);
            for (place, &index) in places.iter().zip(&order) {
                let own = all
                    .narrow(0, place.start, place.length)
                    .unwrap()
                    .to_vec2()
                    .unwrap();
                assert_close(
                    &format!("{}, packed, sequence {index}", golden.name),
                    &own,
                    &golden.logits[index],
                );
            }
        }
    }
}

#[test]
fn a_completion_that_shares_its_prompt_sees_it_whole() {
    for golden in checkpoints() {
        let model = golden.decoder();
        let (sequence, expected) = (
            golden.token_ids.last().unwrap(),
            golden.logits.last().unwrap(),
        );
        for prompt_length in [1, 7, sequence.len() - 1] {
            let mut batch = PackedBatch::default();
            let prompt = batch.push_prompt(&sequence[..prompt_length]);
            batch.push_completion(prompt, &[5, 6, 7]);
            let completion = batch.push_completion(prompt, &sequence[prompt_length..]);
            let rows =
                Tensor::from_slice(&completion.rows, completion.rows.len(), &Device::Cpu).unwrap();
            let own = logits(&model, &batch, Adapters::On)
                .index_select(&rows, 0)
                .unwrap()
                .to_vec2()
                .unwrap();
            let name = format!("{}, completion after {prompt_length} tokens", golden.name);
            assert_close(
                &name,
                &own,
                &expected[prompt_length - 1..expected.len() - 1],
            );
        }
    }
}

fn decode(
    model: &Decoder,
    prompt: &[u32],
    temperature: f64,
    tokens: usize,
    samples: usize,
) -> Vec<Completion> {
    let sampling = Sampling::plain(temperature, tokens, 7);
    let request = Request::new(prompt.to_vec(), 0, 0, samples);
    let (memory, threads) = (RolloutMemory::default(), ThreadPool::new(1).unwrap());
    generate(
        model,
        Adapters::On,
        &[request],
        &sampling,
        &memory,
        &threads,
    )
    .unwrap()
    .completions
    .remove(0)
}

#[test]
fn greedy_decoding_equals_that_of_transformers() {
    for golden in checkpoints() {
        let read = |key: &str| golden.greedy[key].clone();
        let prompt: Vec<u32> = serde_json::from_value(read("prompt")).unwrap();
        let expected_ids: Vec<u32> = serde_json::from_value(read("token_ids")).unwrap();
        let expected: Vec<f32> = serde_json::from_value(read("log_probs")).unwrap();
        for completion in decode(&golden.decoder(), &prompt, 0.0, expected.len(), 3) {
            assert_eq!(completion.token_ids, expected_ids, "{}", golden.name);
            assert_close(
                &format!("{}, decoded", golden.name),
                &[completion.log_probs],
                std::slice::from_ref(&expected),
            );
        }
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    let with_gradient: Vec<Golden> = checkpoints()
        .into_iter()
        .filter(|golden| golden.gradient.is_object())
        .collect();
    assert_eq!(with_gradient.len(), 13);
    for golden in with_gradient {
        let (model, sequence) = (
            golden.trainable(Trainable::Full),
            golden.token_ids.last().unwrap(),
        );
        assert_gradients(&golden.name, &model, sequence, |slot| {
            Some(golden.gradient[slot].clone())
        });
    }
}

/// `expected`: by trained tensor what the scripts write of the gradient of a sequence's mean loss; `None`: not compared.
pub(super) fn assert_gradients(
    name: &str,
    model: &Decoder,
    sequence: &[u32],
    expected: impl Fn(&str) -> Option<Value>,
) {
    let example = Example {
        prompt: sequence[..1].to_vec(),
        completion: sequence[1..].to_vec(),
        ..Example::default()
    };
    for recompute in [false, true] {
        let settings = SupervisedSettings {
            loss_tokens: sequence.len() - 1,
            tokens_per_micro_batch: 1000,
            recompute,
        };
        let threads = ThreadPool::new(1).unwrap();
        let gradients =
            supervised_gradient(model, std::slice::from_ref(&example), settings, &threads)
                .unwrap()
                .0;
        let flat: Vec<f32> = gradients.flat().to_vec1().unwrap();
        for slot in model.parameters().slots() {
            let Some(expected) = expected(&slot.name) else {
                continue;
            };
            let (norm, sum) = (expected[0].as_f64().unwrap(), expected[1].as_f64().unwrap());
            let numbers = flat[slot.range()].iter().map(|&number| f64::from(number));
            let found = numbers
                .clone()
                .map(|number| number * number)
                .sum::<f64>()
                .sqrt();
            let weighted: f64 = numbers
                .enumerate()
                .map(|(i, number)| number * ((i * 7 % 11) as f64 - 5.0))
                .sum();
            // The sum is that of numbers of both signs: compared by the size of what is summed.
            let size = norm * 5.0 * (slot.range().len() as f64).sqrt();
            assert!(
                (found - norm).abs() <= 1e-4 * norm,
                "{name}, {}: {found}, {norm}",
                slot.name
            );
            assert!(
                (weighted - sum).abs() <= 1e-4 * size,
                "{name}, {}: {weighted}, {sum}",
                slot.name
            );
        }
    }
}

#[test]
fn recorded_log_probs_are_those_of_transformers() {
    for golden in checkpoints() {
        let model = golden.decoder();
        for (sequence, expected) in golden.token_ids.iter().zip(&golden.logits) {
            for completion in decode(&model, sequence, 1.0, 1, 8) {
                let (token, recorded) = (completion.token_ids[0], completion.log_probs[0]);
                let expected = log_softmax(expected.last().unwrap(), token);
                assert!(
                    (recorded - expected).abs() < TOLERANCE,
                    "{}: token {token}: {recorded} here, {expected}",
                    golden.name
                );
            }
        }
    }
}
