//! Sampling and random weights on the GPU against the CPU, and the sampler against its distribution.

use candle_core::{D, DType, Device, Tensor};
use grpo_tui::kernels::philox::{SampleKey, uniform, uniform_weights_on};
use grpo_tui::kernels::sampler::{
    LIKELIEST, SampleParams, mask_words, read_sampled, sample_into, sample_masked, sample_tokens,
};

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
