//! Sampling and random weights on the GPU against the CPU, and the sampler against its distribution.

use candle_core::{D, DType, Device, Tensor};
use grpo_tui::kernels::philox::{SampleKey, uniform, uniform_weights_on};
use grpo_tui::kernels::sampler::{SampleSettings, SampleState, done, sample_step, sample_tokens};

use super::{NUMBER_TYPES, assert_close, gpu, on_gpu, poison, random};

#[test]
#[ignore = "needs a GPU"]
fn both_devices_draw_the_same_tokens() {
    for (rows, vocabulary) in [(40, 9), (40, 1), (20, 33), (20, 1024), (30, 5003), (64, 151_936)] {
        for temperature in [1.0, 0.6, 0.0] {
            let logits = random(1, &[rows, vocabulary]).affine(9.0, 0.0).unwrap();
            // Whole numbers have ties, of which the lowest id wins.
            let logits = if temperature == 0.0 { logits.round().unwrap() } else { logits };
            let uniforms: Vec<f64> = (0..rows as u32)
                .map(|sample| uniform(8, SampleKey { step: 0, prompt: 0, sample, position: 0 }))
                .collect();
            let found = sample_tokens(&on_gpu(&logits, DType::F32), temperature, &uniforms).unwrap();
            for (found, expected) in found.iter().zip(sample_tokens(&logits, temperature, &uniforms).unwrap()) {
                assert_eq!(found.token_id, expected.token_id, "vocabulary {vocabulary}, temperature {temperature}");
                assert!((found.log_prob - expected.log_prob).abs() < 2e-6, "{found:?}, not {expected:?}");
            }
        }
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let logits = on_gpu(&Tensor::new(&[[0.0_f32, bad, 1.0]], &Device::Cpu).unwrap(), DType::F32);
        assert!(sample_tokens(&logits, 1.0, &[0.5]).unwrap_err().to_string().contains("not finite"));
    }
}

/// Pearson's test on a vocabulary of 20,000 with a Zipf-like tail, as tests/rollout.rs has it for the CPU.
#[test]
#[ignore = "needs a GPU"]
fn the_gpu_sampler_follows_its_distribution() {
    let (vocabulary, draws) = (20_000_usize, 200_000_usize);
    let logits: Vec<f32> = (0..vocabulary).map(|i| -1.1 * (((i * 7919) % vocabulary) as f32 + 1.0).ln()).collect();
    let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
    let total: f64 = weights.iter().sum();
    let batch = on_gpu(
        &Tensor::from_vec(logits, (1, vocabulary), &Device::Cpu).unwrap().repeat((1000, 1)).unwrap(),
        DType::F32,
    );
    let mut counts = vec![0.0_f64; vocabulary];
    for prompt in 0..draws as u32 / 1000 {
        let uniforms: Vec<f64> =
            (0..1000).map(|sample| uniform(42, SampleKey { step: 0, prompt, sample, position: 0 })).collect();
        for drawn in sample_tokens(&batch, 1.0, &uniforms).unwrap() {
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
    assert!(cells > 150 && statistic < limit, "chi-square {statistic:.0} over {cells} cells, limit {limit:.0}");
}

/// Three rows in slots 3, 0 and 4: one fills up, one meets logits that are not finite, one draws a stop token.
#[test]
#[ignore = "needs a GPU"]
fn a_sampling_step_moves_its_rows_on() {
    let (vocabulary, most, slots) = (1500_usize, 4_usize, [3_u32, 0, 4]);
    let on_device = |numbers: &[u32], shape: &[usize]| Tensor::from_slice(numbers, shape, &gpu()).unwrap();
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &gpu()).unwrap();
    let settings = SampleSettings {
        temperature: 0.8,
        seed: 0x1234_5678_9abc,
        stop_ids: on_device(&[u32::MAX, 7], &[2]),
        max_completion_tokens: most,
    };
    let state = SampleState {
        rows: on_device(&[3, 0, 5, 0, 0, 10, 6, 0, 4, 20, 7, 0], &[3, 4]),
        places: on_device(&[2, 0, 1, 2, 1, 2, 2, 2, 3], &[3, 3]),
        newest: zeros(&[3], DType::U32),
        positions: zeros(&[3], DType::U32),
        done: zeros(&[3], DType::U32),
        token_ids: zeros(&[5, most], DType::U32),
        log_probs: zeros(&[5, most], DType::F32),
        lengths: zeros(&[5], DType::U32),
    };
    let mut drawn: [Vec<(u32, f32)>; 3] = Default::default();
    let mut ended = [0_u32; 3];
    for step in 0..5 {
        let mut logits = random(20 + step, &[3, vocabulary]).affine(5.0, 0.0).unwrap().to_vec2::<f32>().unwrap();
        if step == 1 {
            logits[2][7] = 60.0;
        }
        if step == 2 {
            logits[1][3] = f32::NAN;
        }
        for row in 0..3 {
            if ended[row] != 0 {
                continue;
            }
            let position = drawn[row].len() as u32;
            let place = SampleKey { step: 2, prompt: row as u32, sample: row as u32 + 1, position };
            let own = Tensor::from_slice(&logits[row], (1, vocabulary), &Device::Cpu).unwrap();
            match sample_tokens(&own, settings.temperature, &[uniform(settings.seed, place)]) {
                Ok(token) => drawn[row].push((token[0].token_id, token[0].log_prob)),
                Err(_) => drawn[row].push((u32::MAX, f32::NAN)),
            }
            ended[row] = match drawn[row].last() {
                Some((u32::MAX, _)) => done::NOT_FINITE,
                Some((7, _)) => done::STOPPED,
                _ if drawn[row].len() == most => done::FULL,
                _ => 0,
            };
        }
        let logits = Tensor::from_vec(logits.concat(), (3, vocabulary), &gpu()).unwrap();
        sample_step(&logits, &settings, &state).unwrap();
        assert_eq!(state.done.to_vec1::<u32>().unwrap(), ended, "step {step}");
        let (table, lengths) = (state.rows.to_vec2::<u32>().unwrap(), state.lengths.to_vec1::<u32>().unwrap());
        let (newest, positions) = (state.newest.to_vec1::<u32>().unwrap(), state.positions.to_vec1::<u32>().unwrap());
        let (token_ids, log_probs) =
            (state.token_ids.to_vec2::<u32>().unwrap(), state.log_probs.to_vec2::<f32>().unwrap());
        for (row, drawn) in drawn.iter().enumerate() {
            let (slot, count) = (slots[row] as usize, drawn.len());
            assert_eq!((lengths[slot], table[row][3]), (count as u32, count as u32));
            assert_eq!(positions[row], table[row][2] + count as u32 - 1);
            let last_good = drawn.iter().rev().find(|(token_id, _)| *token_id != u32::MAX);
            assert_eq!(Some(newest[row]), last_good.map(|&(token_id, _)| token_id));
            for (place, &(token_id, log_prob)) in drawn.iter().enumerate() {
                assert_eq!(token_ids[slot][place], token_id, "step {step}, row {row}, token {place}");
                let found = log_probs[slot][place];
                assert!(
                    (found - log_prob).abs() < 2e-6 || found.is_nan() && log_prob.is_nan(),
                    "{found}, not {log_prob}"
                );
            }
        }
    }
    assert!(
        ended.contains(&done::NOT_FINITE) && ended.contains(&done::STOPPED) && ended.contains(&done::FULL),
        "{ended:?}"
    );
}

#[test]
#[ignore = "needs a GPU"]
fn fresh_weights_are_the_cpus() {
    for dtype in NUMBER_TYPES {
        let [found, expected] = [gpu(), Device::Cpu].map(|device| {
            poison(3 * 1001);
            uniform_weights_on(&device, 0x0123_4567_89ab_cdef, 9, (3, 1001), 0.02, dtype).unwrap()
        });
        assert_eq!((found.dtype(), found.dims()), (dtype, [3, 1001].as_slice()));
        assert_close("fresh weights", &found, &expected, if dtype == DType::F32 { 1e-7 } else { 1e-4 });
        let largest = found.to_dtype(DType::F32).unwrap().abs().unwrap().flatten_all().unwrap().max(D::Minus1).unwrap();
        assert!((0.0199..=0.0201).contains(&largest.to_scalar::<f32>().unwrap()));
    }
}
