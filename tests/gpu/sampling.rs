//! Sampling and random weights on the GPU against the CPU, and the sampler against its distribution.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use grpo_tui::kernels::device::Engine;
use grpo_tui::kernels::philox::{SampleKey, uniform, uniform_weights_on};
use grpo_tui::kernels::sampler::{
    LIKELIEST, SampleParams, SampledToken, mask_words, read_sampled, sample_into, sample_masked,
    sample_tokens,
};

use grpo_tui::kernels::shaping::{
    SeenTokens, ShapedRow, ShapedToken, Shaping, likeliest, sample_shaped,
};
use grpo_tui::model::Adapters;
use grpo_tui::rollout::{Request, RolloutMemory, Sampling, ThreadPool, generate};

use super::families::configs;
use super::model::{LORA, model};
use super::{NUMBER_TYPES, assert_close, gpu, on_gpu, poison, random};

#[test]
#[ignore = "needs a GPU"]
fn both_devices_draw_the_same_tokens() {
    for (rows, vocabulary) in [
        (40, 9),
        (40, 1),
        (20, 33),
        (20, 1024),
        (30, 5003),
        (64, 151_936),
    ] {
        for temperature in [1.0, 0.6, 0.0] {
            let logits = random(1, &[rows, vocabulary]).affine(9.0, 0.0).unwrap();
            // Whole numbers have ties, of which the lowest id wins.
            let logits = if temperature == 0.0 {
                logits.round().unwrap()
            } else {
                logits
            };
            let drawn = |sample| {
                uniform(
                    8,
                    SampleKey {
                        step: 0,
                        prompt: 0,
                        sample,
                        position: 0,
                    },
                )
            };
            let draw = |sample| SampleParams {
                uniform: if sample % 3 == 2 {
                    LIKELIEST
                } else {
                    drawn(sample)
                },
                temperature: if sample % 5 == 4 { 1.7 } else { temperature },
            };
            let draws: Vec<SampleParams> = (0..rows as u32).map(draw).collect();
            let found = sample_tokens(&on_gpu(&logits, DType::F32), &draws).unwrap();
            for (found, expected) in found.iter().zip(sample_tokens(&logits, &draws).unwrap()) {
                assert_eq!(
                    found.token_id, expected.token_id,
                    "vocabulary {vocabulary}, temperature {temperature}"
                );
                assert!(
                    (found.log_prob - expected.log_prob).abs() < 2e-6,
                    "{found:?}, not {expected:?}"
                );
            }
        }
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let logits = on_gpu(
            &Tensor::new(&[[0.0_f32, bad, 1.0]], &Device::Cpu).unwrap(),
            DType::F32,
        );
        let draw = SampleParams {
            uniform: 0.5,
            temperature: 1.0,
        };
        assert!(
            sample_tokens(&logits, &[draw])
                .unwrap_err()
                .to_string()
                .contains("not finite")
        );
    }
}

/// Masks of a third of the tokens, of one, of all and of none.
#[test]
#[ignore = "needs a GPU"]
fn both_devices_draw_the_same_tokens_under_masks() {
    for (rows, vocabulary) in [
        (40, 9),
        (40, 1),
        (20, 33),
        (20, 1024),
        (30, 5003),
        (64, 151_936),
    ] {
        let logits = random(2, &[rows, vocabulary]).affine(9.0, 0.0).unwrap();
        let device = on_gpu(&logits, DType::F32);
        let last = 1.0 - f64::EPSILON / 2.0;
        let draw = |sample: u32| SampleParams {
            uniform: [
                uniform(
                    8,
                    SampleKey {
                        step: 0,
                        prompt: 0,
                        sample,
                        position: 0,
                    },
                ),
                LIKELIEST,
                last,
            ][sample as usize % 3],
            temperature: 0.9,
        };
        let draws: Vec<SampleParams> = (0..rows as u32).map(draw).collect();
        let masks = |allows: &dyn Fn(usize, usize) -> bool| -> Vec<u32> {
            let mut words = vec![0; rows * mask_words(vocabulary)];
            for row in 0..rows {
                let for_row = row * mask_words(vocabulary);
                (0..vocabulary)
                    .filter(|id| allows(row, *id))
                    .for_each(|id| words[for_row + id / 32] |= 1 << (id % 32));
            }
            words
        };
        let some = masks(&|row, id| id % 3 == row % 3 || id == row % vocabulary);
        let one = masks(&|row, id| id == (row * 31) % vocabulary);
        for masks in [some, one, vec![u32::MAX; rows * mask_words(vocabulary)]] {
            let found = sample_masked(&device, &draws, &masks).unwrap();
            for (found, expected) in found
                .iter()
                .zip(sample_masked(&logits, &draws, &masks).unwrap())
            {
                assert_eq!(found.token_id, expected.token_id, "vocabulary {vocabulary}");
                assert!(
                    (found.log_prob - expected.log_prob).abs() < 2e-6,
                    "{found:?}, not {expected:?}"
                );
            }
        }
        assert!(sample_masked(&device, &draws, &vec![0; rows * mask_words(vocabulary)]).is_err());
    }
}

/// Pearson's test on a vocabulary of 20,000 with a Zipf-like tail, as tests/rollout.rs has it for the CPU.
#[test]
#[ignore = "needs a GPU"]
fn the_gpu_sampler_follows_its_distribution() {
    let (vocabulary, draws) = (20_000_usize, 200_000_usize);
    let logits: Vec<f32> = (0..vocabulary)
        .map(|i| -1.1 * (((i * 7919) % vocabulary) as f32 + 1.0).ln())
        .collect();
    let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
    let total: f64 = weights.iter().sum();
    let batch = on_gpu(
        &Tensor::from_vec(logits, (1, vocabulary), &Device::Cpu)
            .unwrap()
            .repeat((1000, 1))
            .unwrap(),
        DType::F32,
    );
    let mut counts = vec![0.0_f64; vocabulary];
    for prompt in 0..draws as u32 / 1000 {
        let draw = |sample| SampleParams {
            uniform: uniform(
                42,
                SampleKey {
                    step: 0,
                    prompt,
                    sample,
                    position: 0,
                },
            ),
            temperature: 1.0,
        };
        for drawn in sample_tokens(&batch, &(0..1000).map(draw).collect::<Vec<_>>()).unwrap() {
            counts[drawn.token_id as usize] += 1.0;
        }
    }
    let (mut statistic, mut cells, mut pooled) = (0.0, 0_usize, (0.0, 0.0));
    for (weight, count) in weights.iter().zip(counts) {
        let expected = weight / total * draws as f64;
        if expected >= 20.0 {
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        } else {
            pooled = (pooled.0 + expected, pooled.1 + count);
        }
    }
    statistic += (pooled.1 - pooled.0).powi(2) / pooled.0;
    let limit = cells as f64 + 5.0 * (2.0 * cells as f64).sqrt();
    assert!(
        cells > 150 && statistic < limit,
        "chi-square {statistic:.0} over {cells} cells, limit {limit:.0}"
    );
}

/// Into memory that is there, as a recorded step does; rows without finite logits are marked and the others drawn.
#[test]
#[ignore = "needs a GPU"]
fn tokens_are_drawn_into_their_places() {
    let (rows, vocabulary) = (3, 5003);
    let logits = on_gpu(
        &random(1, &[rows, vocabulary]).affine(9.0, 0.0).unwrap(),
        DType::F32,
    );
    let draws = [0.1, 0.5, 0.9].map(|uniform| SampleParams {
        uniform,
        temperature: 0.7,
    });
    let expected = sample_tokens(&logits, &draws).unwrap();
    let spoiled = Tensor::full(f32::NAN, (1, vocabulary), &gpu()).unwrap();
    let logits = Tensor::cat(&[logits.narrow(0, 0, 2).unwrap(), spoiled], 0).unwrap();
    let all = Tensor::zeros((5, 2), DType::U32, &gpu()).unwrap();
    let drawn = all.narrow(0, 1, rows).unwrap();
    let words: Vec<u32> = draws.iter().flat_map(|draw| draw.words()).collect();
    let draws = Tensor::from_vec(words, (rows, 4), &gpu()).unwrap();
    sample_into(&logits, &draws, &drawn).unwrap();
    let found = all.to_vec2::<u32>().unwrap();
    assert_eq!(
        (&found[0], &found[4], found[3][0]),
        (&vec![0, 0], &vec![0, 0], u32::MAX),
        "and nothing beside them"
    );
    let pairs: Vec<[u32; 2]> = found[1..3].iter().map(|pair| [pair[0], pair[1]]).collect();
    assert_eq!(read_sampled(&pairs).unwrap(), expected[..2]);
    assert!(
        read_sampled(&[[1, 0], [u32::MAX, 0]])
            .unwrap_err()
            .to_string()
            .contains("not finite")
    );
    assert!(sample_into(&logits, &draws.narrow(0, 0, 2).unwrap(), &drawn).is_err());
}

#[test]
#[ignore = "needs a GPU"]
fn fresh_weights_are_the_cpus() {
    for dtype in NUMBER_TYPES {
        let [found, expected] = [gpu(), Device::Cpu].map(|device| {
            poison(3 * 1001);
            uniform_weights_on(&device, 0x0123_4567_89ab_cdef, 9, &[3, 1001], 0.02, dtype).unwrap()
        });
        assert_eq!((found.dtype(), found.dims()), (dtype, [3, 1001].as_slice()));
        assert_close(
            "fresh weights",
            &found,
            &expected,
            if dtype == DType::F32 { 1e-7 } else { 1e-4 },
        );
        let largest = found
            .to_dtype(DType::F32)
            .unwrap()
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(D::Minus1)
            .unwrap();
        assert!((0.0199..=0.0201).contains(&largest.to_scalar::<f32>().unwrap()));
    }
}

/// Options of which each narrows a distribution in its own way.
fn shapings() -> Vec<Shaping> {
    let plain = Shaping::default;
    vec![
        Shaping {
            top_k: 20,
            top_p: 0.9,
            alternatives: 5,
            ..plain()
        },
        Shaping {
            top_k: 1,
            ..plain()
        },
        Shaping {
            top_k: 3000,
            alternatives: 20,
            ..plain()
        },
        Shaping {
            top_p: 0.0,
            ..plain()
        },
        Shaping {
            top_p: 0.5,
            ..plain()
        },
        Shaping {
            top_p: 0.999,
            min_p: 0.01,
            ..plain()
        },
        Shaping {
            min_p: 0.2,
            alternatives: 20,
            ..plain()
        },
        Shaping {
            alternatives: 20,
            ..plain()
        },
        Shaping {
            repetition_penalty: 1.3,
            top_p: 0.95,
            ..plain()
        },
        Shaping {
            presence_penalty: 1.5,
            frequency_penalty: 0.1,
            min_tokens: 9,
            ..plain()
        },
    ]
}

/// Of spiky, flat, tied and equal logits, beside rows without options.
#[test]
#[ignore = "needs a GPU"]
fn both_devices_draw_the_same_tokens_of_shaped_rows() {
    for vocabulary in [33, 4096, 5003, 151_936] {
        for (kind, scale) in [("spiky", 9.0), ("flat", 0.5), ("tied", 9.0), ("equal", 0.0)] {
            let rows = 24;
            let logits = random(5, &[rows, vocabulary]).affine(scale, 0.0).unwrap();
            let logits = match kind {
                "tied" => logits.round().unwrap(),
                _ => logits,
            };
            let row = |(index, shaping): (usize, Shaping)| {
                let key = SampleKey {
                    step: 0,
                    prompt: 0,
                    sample: index as u32,
                    position: 0,
                };
                let id = |i: usize| ((i * 31 + index) % vocabulary) as u32;
                let prompt: Vec<u32> = (0..400).map(id).collect();
                let mut seen = SeenTokens::new(&shaping, &prompt);
                for i in 0..90 {
                    seen.iter_mut().for_each(|seen| seen.push(id(i * i)));
                }
                ShapedRow {
                    row: 2 * index + 1,
                    suppressed: vec![id(7); shaping.min_tokens.min(1)],
                    shaping: Arc::new(shaping),
                    params: SampleParams {
                        uniform: match index {
                            4 => LIKELIEST,
                            _ => uniform(8, key),
                        },
                        temperature: [1.0, 0.6, 1.7, 0.0][index % 4],
                    },
                    seen: seen.map(Arc::new),
                    newest: (index % 2 == 0).then_some(index % 3),
                }
            };
            let shaped: Vec<ShapedRow> = shapings().into_iter().enumerate().map(row).collect();
            let last = [3_u32, 31, 5].map(|token_id| SampledToken {
                token_id,
                log_prob: 0.0,
            });
            let mut mask = vec![0; rows * mask_words(vocabulary)];
            for (index, word) in mask.iter_mut().enumerate() {
                *word = 0x9249_2492_u32.rotate_left(index as u32 % 3);
            }
            for masks in [None, Some(&mask[..])] {
                let device = on_gpu(&logits, DType::F32);
                let found = sample_shaped(&device, &shaped, &last, masks).unwrap();
                let expected = sample_shaped(&logits, &shaped, &last, masks).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    let ids = |token: &ShapedToken| {
                        let others = token.alternatives.iter().map(|one| one.0);
                        let ids = token.token.map(|token| token.token_id);
                        ids.into_iter().chain(others).collect::<Vec<_>>()
                    };
                    let what = format!("{kind}, {vocabulary} tokens, row {}", found.row);
                    assert_eq!(ids(found), ids(expected), "{what}");
                    let log_probs = |token: &ShapedToken| {
                        let others = token.alternatives.iter().map(|one| one.1);
                        let own = token.token.map(|token| token.log_prob);
                        own.into_iter().chain(others).collect::<Vec<_>>()
                    };
                    for (one, other) in log_probs(found).iter().zip(log_probs(expected)) {
                        assert!((one - other).abs() < 1e-5, "{what}: {one}, not {other}");
                    }
                }
                let (found, expected) = (likeliest(&device, 9), likeliest(&logits, 9));
                for (found, expected) in found.unwrap().iter().zip(expected.unwrap()) {
                    for (one, other) in found.iter().zip(expected) {
                        assert!(
                            one.0 == other.0 && (one.1 - other.1).abs() < 1e-5,
                            "{kind}, {vocabulary} tokens: {one:?}, not {other:?}"
                        );
                    }
                }
                let on_gpu = device.to_vec2::<f32>().unwrap();
                assert!(
                    on_gpu == logits.to_vec2::<f32>().unwrap(),
                    "logits were changed"
                );
            }
        }
    }
    let wrong = Tensor::full(f32::NAN, (1, 5003), &gpu()).unwrap();
    let row = ShapedRow {
        row: 0,
        shaping: Arc::new(shapings().remove(0)),
        params: SampleParams {
            uniform: 0.5,
            temperature: 1.0,
        },
        seen: None,
        newest: None,
        suppressed: Vec::new(),
    };
    let error = sample_shaped(&wrong, &[row], &[], None).unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
}

/// In a rollout that runs ahead: what is penalized never comes again, not even next; rows without options have the same
/// bits beside such rows.
#[test]
#[ignore = "needs a GPU"]
fn rollouts_of_shaped_rows_run_ahead() {
    let engine = Engine::gpu(0).unwrap();
    let [config, ..] = configs();
    let model = model(&config, LORA, &engine);
    let threads = ThreadPool::for_engine(&engine, 1).unwrap();
    let request = |n: u32, shaping: Option<Shaping>| Request {
        shaping: shaping.map(Arc::new),
        ..Request::new((0..20).map(|i| (i * 7 + n) % 60).collect(), n, 4, 8)
    };
    let sampled = |shaping: Option<Shaping>| {
        let requests: Vec<Request> = (0..8)
            .map(|n| request(n, shaping.clone().filter(|_| n % 2 == 1)))
            .collect();
        let (sampling, memory) = (Sampling::plain(1.0, 24, 11), RolloutMemory::default());
        generate(
            &model,
            Adapters::On,
            &requests,
            &sampling,
            &memory,
            &threads,
        )
        .unwrap()
        .completions
    };
    let plain = sampled(None);
    let penalized = Shaping {
        presence_penalty: 1e4,
        ..Shaping::default()
    };
    let nucleus = Shaping {
        top_k: 5,
        top_p: 0.9,
        ..Shaping::default()
    };
    for shaping in [penalized.clone(), nucleus] {
        let found = sampled(Some(shaping.clone()));
        for (n, (found, plain)) in found.iter().zip(&plain).enumerate() {
            assert!((n % 2 == 1) != (found == plain), "prompt {n}");
            for completion in found.iter().filter(|_| n % 2 == 1 && shaping == penalized) {
                let mut ids = completion.token_ids.clone();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), completion.token_ids.len(), "prompt {n}");
            }
        }
        assert!(sampled(Some(shaping)) == found, "repeats itself");
    }
}
