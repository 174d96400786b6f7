//! Whole models on the GPU against the CPU: gradients, a whole step, rollouts; and that a rollout is what training says
//! of it.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use grpo_tui::config::{BasePrecision, PolicyLoss};
use grpo_tui::hub::ModelConfig;
use grpo_tui::kernels::device::Engine;
use grpo_tui::model::{Adapters, Decoder, ExpertRecord, Trainable, Weights};
use grpo_tui::rollout::{
    Completion, Request, RolloutMemory, RolloutOutput, Sampling, ThreadPool, generate,
};
use grpo_tui::update::{
    LossSettings, Optimizer, OptimizerSettings, PolicyGroup, PolicySample, PolicySettings,
    PolicyStatistics, StepOutcome, StepTotals, policy_gradient,
};

use super::families::{configs, mixtures};
use super::{assert_close, delta_rule_factor};
use crate::losses::loss_settings;

pub(super) const LORA: Trainable = Trainable::Lora {
    rank: 4,
    alpha: 8.0,
    has_experts: false,
};
pub(super) const LORA_EXPERTS: Trainable = Trainable::Lora {
    rank: 8,
    alpha: 16.0,
    has_experts: true,
};

#[test]
#[ignore = "needs a GPU"]
fn what_has_no_kernels_is_refused() {
    let engine = Engine::gpu(0).unwrap();
    let refused = |config: &ModelConfig, weights: &Weights, trainable: Trainable| {
        Decoder::new(config, weights, trainable, 0, engine.dtype, &engine.device)
            .unwrap_err()
            .to_string()
    };
    for config in mixtures() {
        let [mut many, mut odd] = [config.clone(), config.clone()];
        many.options.experts.as_mut().unwrap().count = 513;
        odd.options.experts.as_mut().unwrap().intermediate_size = 12;
        for (config, problem) in [
            (many, "3 of 513 experts: a GPU computes at most 32 of 512"),
            (
                odd,
                "experts of 12 numbers in a model of 64: a GPU computes multiples of 8",
            ),
        ] {
            let error = refused(&config, &Weights::from_tensors([], "nothing"), LORA);
            assert_eq!(error, format!("{problem}; compute on the CPU (`--cpu`)"));
        }
        let weights = Weights::fresh(&config, 0);
        let [fp8, nf4] = [BasePrecision::Fp8, BasePrecision::Nf4]
            .map(|precision| weights.clone().in_precision(precision));
        for (weights, trainable) in [(weights, Trainable::Full), (fp8, LORA), (nf4, LORA)] {
            let error = refused(&config, &weights, trainable);
            assert!(
                error.starts_with("a GPU neither trains nor rounds experts: set lora_rank"),
                "{error}"
            );
        }
        let adapted = Trainable::Lora {
            rank: 4,
            alpha: 8.0,
            has_experts: true,
        };
        let error = refused(&config, &Weights::from_tensors([], "nothing"), adapted);
        let problem = "adapters of experts with a rank of 4: a GPU computes multiples of 8; set lora_rank = 8, ";
        assert!(error.starts_with(problem), "{error}");
    }
}

/// Weights sharper than fresh ones, so that distributions are far from uniform and biases are not 0; the same on every
/// device.
pub(super) fn model(config: &ModelConfig, trainable: Trainable, engine: &Engine) -> Decoder {
    model_in(BasePrecision::Bf16, config, trainable, engine)
}

pub(super) fn model_in(
    precision: BasePrecision,
    config: &ModelConfig,
    trainable: Trainable,
    engine: &Engine,
) -> Decoder {
    let experts = config.options.experts.as_ref();
    if experts.is_some_and(|experts| experts.is_mxfp4) {
        return with_weights(&Weights::fresh(config, 5), config, trainable, engine);
    }
    model_of(sharp_tensors(config), precision, config, trainable, engine)
}

pub(super) fn sharp_tensors(config: &ModelConfig) -> Vec<(String, Tensor)> {
    let fresh = Decoder::new(
        config,
        &Weights::fresh(config, 5),
        Trainable::Full,
        1,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    // As sharp as others, gpt-oss would change its gradient by 1e-4 for noise of 3e-7 in the adapters.
    let sharpness = if config.options.has_attention_sinks {
        1.0
    } else {
        1.5
    };
    let all = fresh
        .parameters()
        .named()
        .unwrap()
        .into_iter()
        .chain(fresh.untrained());
    let sharp = |(stream, (name, tensor)): (usize, (String, Tensor))| {
        let is_embedding = name.contains("embed") || name.contains("lm_head");
        let factor = if is_embedding {
            8.0 / config.options.embedding_scale.sqrt()
        } else {
            sharpness
        };
        let is_offset = config.options.norm_offset > 0.0 && name.contains("norm");
        let is_around_zero = is_offset || name.contains("bias") || name.ends_with("sinks");
        let is_changed = is_around_zero || name.contains("router.") && name.ends_with("scale");
        let noise = super::random(100 + stream as u32, tensor.dims());
        let noise = noise
            .affine(if is_changed { 0.3 } else { 0.0 }, 0.0)
            .unwrap();
        (name, (tensor.affine(factor, 0.0).unwrap() + noise).unwrap())
    };
    all.enumerate().map(sharp).collect()
}

pub(super) fn model_of(
    tensors: Vec<(String, Tensor)>,
    precision: BasePrecision,
    config: &ModelConfig,
    trainable: Trainable,
    engine: &Engine,
) -> Decoder {
    let weights = Weights::from_tensors(tensors, "test").in_precision(precision);
    with_weights(&weights, config, trainable, engine)
}

fn with_weights(
    weights: &Weights,
    config: &ModelConfig,
    trainable: Trainable,
    engine: &Engine,
) -> Decoder {
    let model = Decoder::new(config, weights, trainable, 1, engine.dtype, &engine.device).unwrap();
    if matches!(trainable, Trainable::Lora { .. }) {
        let n = model.parameters().count();
        model
            .parameters()
            .restore(&super::random(99, &[n]).affine(0.1, 0.0).unwrap())
            .unwrap();
    }
    model
}

pub(super) fn requests() -> Vec<Request> {
    let prompt = |n: u32| (0..3 + n * 9).map(|i| (i * 7 + n) % 211).collect();
    (0..6).map(|n| Request::new(prompt(n), n, 4, 8)).collect()
}

pub(super) fn sampled(model: &Decoder, engine: &Engine, temperature: f64) -> Vec<Vec<Completion>> {
    drafted(model, engine, temperature, 0, &RolloutMemory::default()).completions
}

fn drafted(
    model: &Decoder,
    engine: &Engine,
    temperature: f64,
    draft_tokens: usize,
    memory: &RolloutMemory,
) -> RolloutOutput {
    let stop_ids = vec![3, 50, 120];
    let sampling = Sampling {
        stop_ids,
        draft_tokens,
        records_experts: true,
        ..Sampling::plain(temperature, 40, 11)
    };
    let threads = ThreadPool::for_engine(engine, 1).unwrap();
    generate(
        model,
        Adapters::On,
        &requests(),
        &sampling,
        memory,
        &threads,
    )
    .unwrap()
}

pub(super) fn gradient(
    model: &Decoder,
    engine: &Engine,
    completions: &[Vec<Completion>],
    recompute: bool,
) -> (Tensor, PolicyStatistics, StepOutcome) {
    let requests = requests();
    let mut groups: Vec<PolicyGroup<'_>> = Vec::new();
    for (request, completions) in requests.iter().zip(completions) {
        let sample = |(index, completion)| {
            PolicySample::on_policy(completion, [1.0, -0.7, 0.2, -0.5][index % 4])
        };
        groups.push(PolicyGroup {
            prompt: (&request.prompt).into(),
            teacher_prompt: None,
            samples: completions.iter().enumerate().map(sample).collect(),
        });
    }
    let totals = StepTotals {
        sequences: 48,
        tokens: completions
            .iter()
            .flatten()
            .map(|completion| completion.token_ids.len())
            .sum(),
    };
    let loss = LossSettings {
        kl_importance: true,
        max_completion_tokens: 40,
        ..loss_settings(PolicyLoss::Grpo)
    };
    let settings = PolicySettings {
        loss,
        temperature: 1.0,
        tokens_per_micro_batch: 600,
        recompute,
    };
    let (gradients, statistics) = policy_gradient(
        model,
        &groups,
        totals,
        &settings,
        &ThreadPool::for_engine(engine, 1).unwrap(),
    )
    .unwrap();
    let settings = OptimizerSettings {
        weight_decay: 0.01,
        ..OptimizerSettings::PLAIN
    };
    let mut optimizer = Optimizer::new(settings, model.parameters(), &engine.device).unwrap();
    let applied = optimizer.apply(model.parameters(), &gradients).unwrap();
    (gradients.flat().clone(), statistics, applied)
}

/// How far a gradient in f32 may be from the CPU's. Noise of 3e-7 in the weights changes that of the hybrid of odd sizes by
/// 8e-4, those of the others by at most 2e-5 (on the CPU). The gradient of the decay's rate is a sum of differences on a
/// GPU (1.5e-3 on an H200).
fn allowed(config: &ModelConfig, name: &str) -> f64 {
    let key = config
        .options
        .gated_delta
        .as_ref()
        .map(|delta| delta.key_dimension);
    let plain = key.map_or(1e-4, |dimension| {
        if dimension < 128 || name.ends_with("A_log") {
            3e-3
        } else {
            1e-3
        }
    });
    plain * factor(config, DType::F32)
}

/// See [`delta_rule_factor`].
fn factor(config: &ModelConfig, dtype: DType) -> f64 {
    match config.options.gated_delta {
        Some(_) if dtype == DType::F32 => delta_rule_factor(),
        _ => 1.0,
    }
}

/// Every trained tensor's gradient, embedding and biases among them, and the weights after the step.
#[test]
#[ignore = "needs a GPU"]
fn a_whole_step_agrees() {
    let (cpu, gpu) = (Engine::cpu(), Engine::gpu(0).unwrap().in_f32());
    for config in configs() {
        let (has_experts, is_beside_dense) = config
            .options
            .experts
            .as_ref()
            .map_or((false, false), |experts| (true, experts.is_beside_dense));
        let all = [
            (Trainable::Full, false),
            (Trainable::Full, true),
            (LORA, false),
            (LORA_EXPERTS, false),
        ];
        // Experts are frozen, as `what_has_no_kernels_is_refused` checks.
        let computed = |trainable| match trainable {
            LORA => true,
            LORA_EXPERTS => has_experts && !is_beside_dense,
            _ => !has_experts,
        };
        for (trainable, recompute) in all
            .into_iter()
            .filter(|(trainable, _)| computed(*trainable))
        {
            let [there, here] = [&gpu, &cpu].map(|engine| model(&config, trainable, engine));
            let completions = sampled(&here, &cpu, 1.0);
            let (found, statistics, StepOutcome::Updated { grad_norm, .. }) =
                gradient(&there, &gpu, &completions, recompute)
            else {
                panic!("the GPU's gradient is not finite")
            };
            let (expected, expected_statistics, _) = gradient(&here, &cpu, &completions, recompute);
            assert!(grad_norm > 1e-6);
            for slot in here.parameters().slots() {
                let part = |flat: &Tensor| flat.narrow(0, slot.offset, slot.range().len()).unwrap();
                let what = format!("{:?}: {}", config.architecture, slot.name);
                assert_close(
                    &what,
                    &part(&found),
                    &part(&expected),
                    allowed(&config, &slot.name),
                );
            }
            assert!(
                (statistics.loss - expected_statistics.loss).abs() < 1e-5
                    && statistics.rows == expected_statistics.rows
            );
            assert!((statistics.entropy / expected_statistics.entropy - 1.0).abs() < 1e-5);
            assert_close(
                "weights after the step",
                there.parameters().flat(),
                here.parameters().flat(),
                allowed(&config, "weights"),
            );
        }
    }
}

/// Families and precisions of a quantized base, in shapes that a GPU computes.
pub(super) fn quantized() -> impl Iterator<Item = (ModelConfig, BasePrecision)> {
    let has_whole_tiles = |config: &ModelConfig| {
        let delta = config.options.gated_delta.as_ref();
        config.options.experts.is_none() && delta.is_none_or(|delta| delta.value_heads == 32)
    };
    let dense = configs().into_iter().filter(has_whole_tiles);
    let dense = dense.map(|config| ModelConfig {
        intermediate_size: 128,
        ..config
    });
    dense.flat_map(|config| {
        [BasePrecision::Fp8, BasePrecision::Nf4].map(|precision| (config.clone(), precision))
    })
}

/// With a quantized base both compute with the same rounded numbers; and what the sampler recorded is what training
/// computes, as with a base in bf16.
#[test]
#[ignore = "needs a GPU"]
fn a_quantized_base_agrees() {
    let (cpu, bf16) = (Engine::cpu(), Engine::gpu(0).unwrap());
    let gpu = bf16.clone().in_f32();
    for (config, precision) in quantized() {
        let model = |engine: &Engine| model_in(precision, &config, LORA, engine);
        let completions = sampled(&model(&cpu), &cpu, 1.0);
        let (expected, ..) = gradient(&model(&cpu), &cpu, &completions, false);
        for recompute in [false, true] {
            let (found, ..) = gradient(&model(&gpu), &gpu, &completions, recompute);
            let what = format!("gradient in {precision}");
            assert_close(&what, &found, &expected, 1e-4 * factor(&config, gpu.dtype));
        }
        for (engine, mean) in [(&gpu, 1e-5), (&bf16, 3e-2)] {
            let model = model(engine);
            let completions = sampled(&model, engine, 1.0);
            assert_eq!(
                completions,
                sampled(&model, engine, 1.0),
                "a rollout repeats itself"
            );
            let (_, statistics, _) = gradient(&model, engine, &completions, false);
            let average = statistics.sampling_difference / statistics.tokens as f64;
            println!(
                "{precision}, {:?} {:?}: mean {average:.2e}",
                config.architecture, engine.dtype
            );
            let mean = mean * factor(&config, engine.dtype);
            assert!(average < mean, "{average}");
        }
    }
}

/// In f32 the GPU draws what the CPU draws, but for the few tokens where the last bits decide; greedy and sampled.
#[test]
#[ignore = "needs a GPU"]
fn rollouts_agree() {
    let (cpu, gpu) = (Engine::cpu(), Engine::gpu(0).unwrap().in_f32());
    for config in configs() {
        for temperature in [1.0, 0.0] {
            let [found, expected] = [&gpu, &cpu]
                .map(|engine| sampled(&model(&config, LORA, engine), engine, temperature));
            let pairs = || found.iter().flatten().zip(expected.iter().flatten());
            let same = pairs()
                .filter(|(f, e)| f.token_ids == e.token_ids && f.stop == e.stop)
                .count();
            println!(
                "{:?} at {temperature}: {same} of {} completions alike",
                config.architecture,
                pairs().count()
            );
            assert!(same * 100 >= pairs().count() * 95);
            for (f, e) in pairs().filter(|(f, e)| f.token_ids == e.token_ids) {
                let allowed = allowed(&config, "log-probs") as f32;
                assert!(
                    f.log_probs
                        .iter()
                        .zip(&e.log_probs)
                        .all(|(f, e)| (f - e).abs() < allowed)
                );
            }
        }
    }
}

/// Drafts change the number of steps: in f32 the tokens are those without drafts, but for the few where the last bits
/// decide; in bf16, where the sizes of products decide more of them, what was drawn is still what training computes.
#[test]
#[ignore = "needs a GPU"]
fn drafted_rollouts_agree() {
    let bf16 = Engine::gpu(0).unwrap();
    for (engine, least_alike, mean) in [(bf16.clone().in_f32(), 95, 1e-5), (bf16, 0, 3e-2)] {
        for config in configs() {
            let model = model(&config, LORA, &engine);
            for temperature in [1.0, 0.0] {
                let plain = drafted(&model, &engine, temperature, 0, &RolloutMemory::default());
                let mut memory = RolloutMemory::default();
                memory.history.add(
                    1,
                    plain
                        .completions
                        .iter()
                        .flatten()
                        .map(|found| found.token_ids.as_slice()),
                    0,
                );
                let found = drafted(&model, &engine, temperature, 8, &memory);
                assert_eq!(
                    found,
                    drafted(&model, &engine, temperature, 8, &memory),
                    "a rollout repeats itself"
                );
                let pairs = || {
                    found
                        .completions
                        .iter()
                        .flatten()
                        .zip(plain.completions.iter().flatten())
                };
                let same = pairs()
                    .filter(|(f, p)| f.token_ids == p.token_ids && f.stop == p.stop)
                    .count();
                println!(
                    "{:?} {:?} at {temperature}: {same} of {} alike, {:?}",
                    config.architecture,
                    engine.dtype,
                    pairs().count(),
                    found.counts
                );
                assert!(same * 100 >= pairs().count() * least_alike);
                assert!(found.counts.accepted > 0 && found.counts.steps < plain.counts.steps);
                if temperature == 1.0 {
                    let (_, statistics, _) = gradient(&model, &engine, &found.completions, false);
                    let average = statistics.sampling_difference / (statistics.tokens as f64);
                    assert!(average < mean * factor(&config, engine.dtype));
                }
            }
        }
    }
}

/// What the sampler recorded is what training computes: within 1e-4 in f32; in bf16, with distributions as sharp as
/// here, 0.03 on average (models of real shapes are measured by `bench gpu` and recorded at every step of a run).
/// Sampled again, a rollout is the same.
#[test]
#[ignore = "needs a GPU"]
fn rollout_and_training_agree() {
    let bf16 = Engine::gpu(0).unwrap();
    for (engine, largest, mean) in [(bf16.clone().in_f32(), 1e-4, 1e-5), (bf16, 1.0, 3e-2)] {
        for config in configs() {
            let model = model(&config, LORA, &engine);
            let completions = sampled(&model, &engine, 1.0);
            assert_eq!(
                completions,
                sampled(&model, &engine, 1.0),
                "a rollout repeats itself"
            );
            let (_, statistics, _) = gradient(&model, &engine, &completions, false);
            let average = statistics.sampling_difference / statistics.tokens as f64;
            println!(
                "{:?} {:?}: mean {average:.2e}, largest {:.2e}",
                config.architecture, engine.dtype, statistics.sampling_difference_max
            );
            let factor = factor(&config, engine.dtype);
            assert!(
                statistics.sampling_difference_max < largest * factor && average < mean * factor
            );
        }
    }
}

/// Rows go through the experts that are recorded, whatever their router would select: in f32 the gradient is the CPU's, also
/// where the records are no router's and some completions have none. With those of the sampler, drafts and all, training
/// says in f32 what sampling said, and in bf16 it is nearer to it than without.
#[test]
#[ignore = "needs a GPU"]
fn replayed_experts_agree() {
    mixtures().for_each(|config| replayed_experts_of(&config));
}

fn replayed_experts_of(config: &ModelConfig) {
    let (cpu, bf16) = (Engine::cpu(), Engine::gpu(0).unwrap());
    let gpu = bf16.clone().in_f32();
    let here = model(config, LORA, &cpu);
    let mut completions = sampled(&here, &cpu, 1.0);
    // A gradient moves its model.
    let (own, ..) = gradient(&model(config, LORA, &cpu), &cpu, &completions, false);
    for (index, completion) in completions.iter_mut().flatten().enumerate() {
        let next = |experts: &[u16]| {
            Arc::new(
                experts
                    .iter()
                    .map(|expert| (expert + 1) % 6)
                    .collect::<Vec<u16>>(),
            )
        };
        let record = completion.experts.take().filter(|_| index % 3 != 2);
        completion.experts = record.map(|ExpertRecord { prompt, completion }| ExpertRecord {
            prompt: prompt.iter().map(|piece| next(piece)).collect(),
            completion: next(&completion),
        });
    }
    let (expected, ..) = gradient(&here, &cpu, &completions, false);
    assert!(
        (&own - &expected)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
            > 1e-3
    );
    for recompute in [false, true] {
        let (found, ..) = gradient(&model(config, LORA, &gpu), &gpu, &completions, recompute);
        let what = format!("{:?}: gradient with other experts", config.architecture);
        assert_close(&what, &found, &expected, allowed(config, "replayed"));
    }
    for engine in [&gpu, &bf16] {
        let sampler = model(config, LORA, engine);
        let mut memory = RolloutMemory::default();
        let plain = drafted(&sampler, engine, 1.0, 0, &memory).completions;
        memory.history.add(
            1,
            plain
                .iter()
                .flatten()
                .map(|found| found.token_ids.as_slice()),
            0,
        );
        let mut completions = drafted(&sampler, engine, 1.0, 8, &memory).completions;
        let gap = |completions: &[Vec<Completion>]| {
            let (_, statistics, _) =
                gradient(&model(config, LORA, engine), engine, completions, false);
            (
                statistics.sampling_difference / statistics.tokens as f64,
                statistics.sampling_difference_max,
            )
        };
        let replayed = gap(&completions);
        completions
            .iter_mut()
            .flatten()
            .for_each(|completion| completion.experts = None);
        let free = gap(&completions);
        for ((mean, largest), how) in [(replayed, "with"), (free, "without")] {
            let family = config.architecture;
            println!(
                "{family:?} {:?}, {how} replay: mean {mean:.2e}, largest {largest:.2e}",
                engine.dtype
            );
        }
        match engine.dtype {
            DType::F32 => {
                let factor = factor(config, DType::F32);
                assert!(replayed.0 < 1e-5 * factor && replayed.1 < 1e-4 * factor);
            }
            _ => assert!(replayed.0 < free.0),
        }
    }
}

/// Where the cache has no room for all completions at their longest, keys and values are moved as these grow: what was
/// sampled is still what training computes.
#[test]
#[ignore = "needs a GPU"]
fn completions_that_grow_agree() {
    let [small, ..] = configs();
    // 48 completions of 12,000 tokens are 9.4 GB of keys and values in bf16, and there is room for 8.6 GB.
    let config = ModelConfig {
        num_hidden_layers: 1,
        num_attention_heads: 32,
        num_key_value_heads: 32,
        head_dim: 128,
        max_position_embeddings: 16_384,
        ..small
    };
    let sampling = Sampling {
        draft_tokens: 0,
        ..Sampling::plain(1.0, 12_000, 11)
    };
    let bf16 = Engine::gpu(0).unwrap();
    for (engine, largest, mean) in [(bf16.clone().in_f32(), 1e-4, 1e-5), (bf16, 1.0, 3e-2)] {
        let (model, threads) = (
            model(&config, LORA, &engine),
            ThreadPool::for_engine(&engine, 1).unwrap(),
        );
        let mut requests = requests();
        for (number, request) in requests.iter_mut().enumerate() {
            request.lengths = (0..8).map(|sample| 10 + 40 * sample + number).collect();
        }
        let completions = generate(
            &model,
            Adapters::On,
            &requests,
            &sampling,
            &RolloutMemory::default(),
            &threads,
        )
        .unwrap()
        .completions;
        for (request, completions) in requests.iter().zip(&completions) {
            let found: Vec<usize> = completions
                .iter()
                .map(|completion| completion.token_ids.len())
                .collect();
            assert_eq!(found, request.lengths);
        }
        let (_, statistics, _) = gradient(&model, &engine, &completions, false);
        let average = statistics.sampling_difference / statistics.tokens as f64;
        println!(
            "{:?}: mean {average:.2e}, largest {:.2e}",
            engine.dtype, statistics.sampling_difference_max
        );
        assert!(statistics.sampling_difference_max < largest && average < mean);
    }
}
