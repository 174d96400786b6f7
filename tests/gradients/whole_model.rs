//! The whole model: the gradient of each parameter tensor against finite differences of the forward pass, which
//! `tests/parity` compares with transformers; nothing trainable is left out, nothing frozen moves.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use grpo_tui::config::{BasePrecision, PolicyLoss};
use grpo_tui::hub::{ModelConfig, ModelTensor};
use grpo_tui::kernels::quantized::{self, Precision};
use grpo_tui::model::{
    Adapters, Decoder, ExpertRecord, Gradients, PackedBatch, Sequence, Trainable, Weights,
};
use grpo_tui::rollout::ThreadPool;
use grpo_tui::update::{
    LossSettings, Optimizer, OptimizerSettings, PolicyGroup, PolicySample, PolicySettings,
    StepOutcome, StepTotals, policy_gradient,
};

use super::families::families;
use super::finite_differences::{noise, random};
use super::plain::log_softmax;
use crate::losses::loss_settings;

/// A model with adapters, without and with those of experts, which those beside a dense block do not get.
fn with_adapters(config: &ModelConfig) -> Vec<(ModelConfig, Trainable)> {
    let lora = |has_experts| {
        (
            config.clone(),
            Trainable::Lora {
                rank: 3,
                alpha: 6.0,
                has_experts,
            },
        )
    };
    let is_beside_dense = config
        .options
        .experts
        .as_ref()
        .is_some_and(|experts| experts.is_beside_dense);
    if is_beside_dense {
        vec![lora(false)]
    } else {
        vec![lora(false), lora(true)]
    }
}

/// Also all of it trained.
fn with_all(config: &ModelConfig) -> Vec<(ModelConfig, Trainable)> {
    [
        vec![(config.clone(), Trainable::Full)],
        with_adapters(config),
    ]
    .concat()
}

/// Weights with norms that are not 1 and biases that are not 0.
fn weights(config: &ModelConfig) -> Vec<(String, Tensor)> {
    let tensor = |(stream, ModelTensor { name, shape, .. }): (usize, ModelTensor)| {
        let noise = random(stream as u64 + 10, &shape);
        let tensor = if shape.len() == 1 {
            noise.affine(0.3, 1.0)
        } else {
            noise.affine(0.5, 0.0)
        };
        (name, tensor.unwrap())
    };
    config
        .tensors()
        .into_iter()
        .enumerate()
        .map(tensor)
        .collect()
}

fn model(config: &ModelConfig, trainable: Trainable) -> Decoder {
    let model = Decoder::new(
        config,
        &Weights::from_tensors(weights(config), "test"),
        trainable,
        3,
        DType::F64,
        &Device::Cpu,
    )
    .unwrap();
    if matches!(trainable, Trainable::Lora { .. }) {
        // B starts at zero, where A has no gradient: move everything.
        model
            .parameters()
            .restore(
                &random(99, &[model.parameters().count()])
                    .affine(0.3, 0.0)
                    .unwrap(),
            )
            .unwrap();
    }
    model
}

fn plain_sample(tokens: &[u32], advantage: f64) -> PolicySample<'static> {
    PolicySample {
        follows: None,
        sequence: None,
        forced: 0..0,
        experts: None,
        token_ids: tokens.to_vec().into(),
        sampled_log_probs: vec![0.0; tokens.len()].into(),
        old_log_probs: None,
        reference_log_probs: None,
        teacher_log_probs: None,
        advantage,
    }
}

fn groups() -> Vec<PolicyGroup<'static>> {
    vec![
        PolicyGroup {
            prompt: vec![3, 1, 4, 1].into(),
            teacher_prompt: None,
            samples: vec![
                plain_sample(&[5, 9, 2], 1.0),
                plain_sample(&[6], -0.5),
                plain_sample(&[5, 3, 5, 8], -0.5),
            ],
        },
        PolicyGroup {
            prompt: vec![7].into(),
            teacher_prompt: None,
            samples: vec![plain_sample(&[9, 3], 0.7), plain_sample(&[2, 3, 8], -0.7)],
        },
    ]
}

fn settings(recompute: bool, tokens_per_micro_batch: usize) -> PolicySettings {
    let loss = LossSettings {
        kl_importance: true,
        max_completion_tokens: 8,
        ..loss_settings(PolicyLoss::Grpo)
    };
    PolicySettings {
        loss,
        temperature: 1.0,
        tokens_per_micro_batch,
        recompute,
    }
}

fn gradient(model: &Decoder, settings: PolicySettings, threads: usize) -> Gradients {
    gradient_of(model, &groups(), settings, threads)
}

fn gradient_of(
    model: &Decoder,
    groups: &[PolicyGroup<'_>],
    settings: PolicySettings,
    threads: usize,
) -> Gradients {
    let totals = StepTotals {
        sequences: 5,
        tokens: 13,
    };
    policy_gradient(
        model,
        groups,
        totals,
        &settings,
        &ThreadPool::new(threads).unwrap(),
    )
    .unwrap()
    .0
}

/// The loss by the forward pass: on-policy its gradient is that of `-A log p`, averaged over tokens and sequences.
fn loss(model: &Decoder, groups: &[PolicyGroup<'_>]) -> f64 {
    let mut batch = PackedBatch::default();
    let mut sequences = Vec::new();
    for group in groups {
        for sample in &group.samples {
            let first = batch.rows();
            let prompt = batch.push_prompt(&group.prompt);
            sequences.push((
                batch.push_completion(prompt, &sample.token_ids),
                sample.advantage,
            ));
            if let Some(record) = sample.experts {
                let pieces = record.prompt.iter().chain([&record.completion]);
                let experts = pieces.flat_map(|piece| piece.iter().copied()).collect();
                batch
                    .replayed
                    .push((first..batch.rows(), Arc::new(experts)));
            }
        }
    }
    let normed = model.forward(&batch, Adapters::On).unwrap();
    let logits = model.logits(&normed).unwrap().to_dtype(DType::F64).unwrap();
    let log_probs = log_softmax(&logits).to_vec2::<f64>().unwrap();
    let mean = |sequence: &Sequence| {
        let tokens = sequence.rows.iter().zip(&sequence.targets);
        let sum: f64 = tokens
            .map(|(&row, &token)| log_probs[row as usize][token as usize])
            .sum();
        sum / sequence.targets.len() as f64
    };
    sequences
        .iter()
        .map(|(sequence, advantage)| -advantage / 5.0 * mean(sequence))
        .sum()
}

/// Compares the gradient of each parameter tensor with a central difference along a random direction, and the gradients
/// of other micro-batches and threads, and with recomputation, with that one.
fn compare(config: &ModelConfig, model: &Decoder, groups: &[PolicyGroup<'_>]) {
    let found = |recompute, tokens_per_micro_batch, threads| -> Vec<f64> {
        let settings = settings(recompute, tokens_per_micro_batch);
        let gradients = gradient_of(model, groups, settings, threads);
        gradients.flat().to_vec1().unwrap()
    };
    let gradient = found(false, 1000, 1);
    let flat: Vec<f64> = model.parameters().flat().to_vec1().unwrap();
    let at = |moved: Vec<f64>| {
        let moved = Tensor::new(moved, &Device::Cpu).unwrap();
        model.parameters().restore(&moved).unwrap();
        loss(model, groups)
    };
    for (index, slot) in model.parameters().slots().iter().enumerate() {
        let range = slot.range();
        let direction: Vec<f64> = range
            .clone()
            .map(|place| noise(index as u64 + 7, place))
            .collect();
        let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        let along = |step: f64| {
            let mut moved = flat.clone();
            for (number, part) in moved[range.clone()].iter_mut().zip(&direction) {
                *number += step * part / length;
            }
            at(moved)
        };
        let expected = (along(1e-5) - along(-1e-5)) / 2e-5;
        let own = &gradient[range.clone()];
        let ours = own.iter().zip(&direction).map(|(g, d)| g * d / length);
        let ours: f64 = ours.sum();
        assert!(
            own.iter().any(|g| *g != 0.0),
            "{} has an empty gradient",
            slot.name
        );
        assert!(
            (ours - expected).abs() < 1e-8 + 1e-6 * expected.abs(),
            "{}: {ours} by hand, {expected} by differences, {config:?}",
            slot.name
        );
    }
    at(flat);
    let scale = gradient.iter().fold(1e-3_f64, |most, g| most.max(g.abs()));
    for (recompute, micro_batch, threads) in [(true, 1000, 1), (false, 6, 3), (true, 4, 2)] {
        let other = found(recompute, micro_batch, threads);
        let differ = gradient
            .iter()
            .zip(&other)
            .find(|(a, b)| (*a - *b).abs() > 1e-9 * scale);
        assert_eq!(differ, None, "{config:?}");
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for (config, trainable) in families().iter().flat_map(with_all) {
        let model = model(&config, trainable);
        if trainable != Trainable::Full {
            let adapters = model.parameters().named().unwrap();
            assert!(
                adapters.iter().all(|(name, _)| name.contains("lora_")),
                "biases stay frozen beside adapters"
            );
        }
        compare(&config, &model, &groups());
    }
}

/// Other experts than the router would select, of the first group alone: a fixed selection of each token, with weights and
/// gradients of the router that there is.
#[test]
fn gradients_with_replayed_experts_equal_finite_differences() {
    let sparse = families()
        .into_iter()
        .filter(|config| config.options.experts.is_some());
    for (config, trainable) in sparse.flat_map(|config| with_all(&config)) {
        let model = model(&config, trainable);
        let layers = (0..config.num_hidden_layers)
            .filter(|&layer| config.experts(layer).is_some())
            .count();
        // Two of three experts.
        let of_token = |token: usize| {
            (0..layers).flat_map(move |layer| [(token + layer) % 3, (token + layer + 1) % 3])
        };
        let of_tokens = |count: usize, salt: usize| {
            Arc::new(
                (0..count)
                    .flat_map(|token| of_token(token * token + salt))
                    .map(|e| e as u16)
                    .collect::<Vec<u16>>(),
            )
        };
        let (prompt, samples) = (of_tokens(4, 1), groups()[0].samples.len());
        let completions: Vec<usize> = groups()[0]
            .samples
            .iter()
            .map(|sample| sample.token_ids.len() - 1)
            .collect();
        let record = |sample: usize| ExpertRecord {
            prompt: vec![prompt.clone()],
            completion: of_tokens(completions[sample], sample),
        };
        let records: Vec<ExpertRecord> = (0..samples).map(record).collect();
        let mut groups = groups();
        groups[0]
            .samples
            .iter_mut()
            .zip(&records)
            .for_each(|(sample, own)| sample.experts = Some(own));
        compare(&config, &model, &groups);
        let free = gradient(&model, settings(false, 1000), 1)
            .flat()
            .to_vec1::<f64>()
            .unwrap();
        assert_ne!(
            gradient_of(&model, &groups, settings(false, 1000), 1)
                .flat()
                .to_vec1::<f64>()
                .unwrap(),
            free
        );
    }
}

/// Two conversations that begin with one prompt, beside a completion of it; in `apart` each completion has its own prompt.
/// `experts`: those of a token, by its place in its conversation.
#[test]
fn completions_of_a_conversation_are_computed_as_one_sequence() {
    let [one, other]: [&[&[u32]]; 2] = [
        &[&[5, 9, 2], &[1, 8], &[6, 3]],
        &[&[5, 7], &[4], &[9], &[2, 2, 6], &[3, 1, 7]],
    ];
    for (config, trainable) in families().iter().flat_map(with_all) {
        let model = model(&config, trainable);
        let layers = (0..config.num_hidden_layers)
            .filter(|&layer| config.experts(layer).is_some())
            .count();
        let of_token = |place: usize| {
            (0..layers).flat_map(move |layer| [(place + layer) % 3, (place + layer + 1) % 3])
        };
        let experts = |places: std::ops::Range<usize>| {
            Arc::new(
                places
                    .flat_map(of_token)
                    .map(|expert| expert as u16)
                    .collect::<Vec<u16>>(),
            )
        };
        let mut parts = Vec::new();
        for (chain, advantage) in [(one, 1.0), (&[&[6][..]][..], -0.2), (other, -0.8)] {
            let mut read = vec![3, 1, 4, 1];
            for (number, token_ids) in chain.iter().step_by(2).enumerate() {
                let follows = number.checked_sub(1).map(|before| chain[2 * before + 1]);
                read.extend_from_slice(follows.unwrap_or_default());
                let end = read.len() + token_ids.len();
                let record = ExpertRecord {
                    prompt: vec![experts(0..2), experts(2..read.len())],
                    completion: experts(read.len()..end - 1),
                };
                parts.push((read.clone(), follows, *token_ids, advantage, record));
                read.extend_from_slice(token_ids);
            }
        }
        for is_replayed in [false, true] {
            let sample = |part: usize| {
                let (_, follows, token_ids, advantage, record) = &parts[part];
                let experts = Some(record).filter(|_| is_replayed && layers > 0);
                let follows = follows.map(|tokens| tokens.to_vec().into());
                PolicySample {
                    follows,
                    experts,
                    ..plain_sample(token_ids, *advantage)
                }
            };
            let group = |prompt: &[u32], samples| PolicyGroup {
                prompt: prompt.to_vec().into(),
                teacher_prompt: None,
                samples,
            };
            let together = [group(&[3, 1, 4, 1], (0..parts.len()).map(sample).collect())];
            let alone = |part: usize| {
                group(
                    &parts[part].0,
                    vec![PolicySample {
                        follows: None,
                        ..sample(part)
                    }],
                )
            };
            let apart: Vec<_> = (0..parts.len()).map(alone).collect();
            let expected = gradient_of(&model, &apart, settings(false, 1000), 1)
                .flat()
                .to_vec1::<f64>()
                .unwrap();
            let scale = expected
                .iter()
                .fold(1e-3_f64, |most, number| most.max(number.abs()));
            for (recompute, micro_batch, threads) in [(false, 1000, 1), (true, 14, 2)] {
                let found =
                    gradient_of(&model, &together, settings(recompute, micro_batch), threads);
                let found = found.flat().to_vec1::<f64>().unwrap();
                let differ = found
                    .iter()
                    .zip(&expected)
                    .find(|(found, expected)| (*found - *expected).abs() > 1e-9 * scale);
                assert_eq!(differ, None, "{config:?} {is_replayed}");
            }
        }
    }
}

#[test]
fn what_routers_do_is_counted_over_all_micro_batches() {
    let totals = StepTotals {
        sequences: 5,
        tokens: 13,
    };
    for config in families() {
        let model = model(&config, with_adapters(&config)[0].1);
        let layers = (0..config.num_hidden_layers)
            .filter_map(|layer| config.experts(layer))
            .collect::<Vec<_>>();
        for tokens in [1000, 6] {
            let settings = settings(tokens == 6, tokens);
            let threads = ThreadPool::new(2).unwrap();
            let found = policy_gradient(&model, &groups(), totals, &settings, &threads)
                .unwrap()
                .1;
            assert_eq!(found.routers.len(), layers.len());
            for (router, experts) in found.routers.iter().zip(&layers) {
                let chosen = router.expert_rows.iter().sum::<usize>();
                assert_eq!(
                    (router.rows, chosen),
                    (found.rows, found.rows * experts.active)
                );
                let most = found.rows as f64 * (experts.count as f64).ln();
                assert!(
                    router.entropy > 0.1 * most && router.entropy < most,
                    "{router:?}"
                );
                let even = experts.count as f64 / experts.active as f64;
                assert!(router.load() >= 1.0 && router.load() <= even, "{router:?}");
            }
        }
    }
}

/// A quantized base is one of rounded numbers.
#[test]
fn a_gradient_beside_a_quantized_base_is_that_of_its_rounded_weights() {
    for (precision, form) in [
        (BasePrecision::Fp8, Precision::Fp8),
        (BasePrecision::Nf4, Precision::Nf4),
    ] {
        check_quantized_base(precision, form);
    }
}

fn check_quantized_base(precision: BasePrecision, form: Precision) {
    for (config, lora) in families()
        .iter()
        .filter_map(|config| with_adapters(config).pop())
    {
        let matrices = [
            "_proj.weight",
            "in_proj_",
            "per_layer_input_gate.",
            "per_layer_projection.",
        ];
        let rounded = |(name, tensor): (String, Tensor)| {
            let is_matrix = matrices.iter().any(|part| name.contains(part));
            let tensor = if is_matrix {
                quantized::rounded(&tensor, form).unwrap()
            } else {
                tensor
            };
            (name, tensor)
        };
        let gradient_of = |weights: Weights| {
            let model = Decoder::new(&config, &weights, lora, 3, DType::F64, &Device::Cpu).unwrap();
            let start = random(99, &[model.parameters().count()])
                .affine(0.3, 0.0)
                .unwrap();
            model.parameters().restore(&start).unwrap();
            gradient(&model, settings(false, 1000), 1)
                .flat()
                .to_vec1::<f64>()
                .unwrap()
        };
        let plain = || weights(&config).into_iter();
        let found = gradient_of(Weights::from_tensors(plain(), "test").in_precision(precision));
        assert_eq!(
            found,
            gradient_of(Weights::from_tensors(plain().map(rounded), "test"))
        );
        assert_ne!(found, gradient_of(Weights::from_tensors(plain(), "test")));
    }
}

#[test]
fn one_step_moves_everything_trainable_and_nothing_frozen() {
    for (config, trainable) in families().iter().flat_map(with_all) {
        let weights = Weights::from_tensors(
            weights(&config)
                .into_iter()
                .map(|(n, t)| (n, t.to_dtype(DType::F32).unwrap())),
            "test",
        );
        let model =
            Decoder::new(&config, &weights, trainable, 3, DType::F32, &Device::Cpu).unwrap();
        if matches!(trainable, Trainable::Lora { .. }) {
            let start = random(99, &[model.parameters().count()])
                .affine(0.3, 0.0)
                .unwrap();
            model.parameters().restore(&start).unwrap();
        }
        let before: Vec<f32> = model.parameters().flat().to_vec1().unwrap();
        let mut optimizer =
            Optimizer::new(OptimizerSettings::PLAIN, model.parameters(), &Device::Cpu).unwrap();
        let gradients = gradient(&model, settings(false, 1000), 1);
        assert!(matches!(
            optimizer.apply(model.parameters(), &gradients).unwrap(),
            StepOutcome::Updated { .. }
        ));
        let after: Vec<f32> = model.parameters().flat().to_vec1().unwrap();
        for slot in model.parameters().slots() {
            assert!(
                before[slot.range()] != after[slot.range()],
                "{} did not move",
                slot.name
            );
        }
        if trainable != Trainable::Full {
            let frozen = Decoder::new(
                &config,
                &weights,
                Trainable::Frozen,
                3,
                DType::F32,
                &Device::Cpu,
            )
            .unwrap();
            let batch = {
                let mut batch = grpo_tui::model::PackedBatch::default();
                batch.push_prompt(&[1, 2, 3]);
                batch
            };
            let off = model
                .forward(&batch, grpo_tui::model::Adapters::Off)
                .unwrap()
                .to_vec2::<f32>()
                .unwrap();
            assert_eq!(
                off,
                frozen
                    .forward(&batch, grpo_tui::model::Adapters::On)
                    .unwrap()
                    .to_vec2::<f32>()
                    .unwrap()
            );
        }
    }
}
