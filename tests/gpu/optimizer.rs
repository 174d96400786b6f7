//! A step of the optimizer on the GPU against the CPU: gradients added up, AdamW, and copies of the new weights.

use candle_core::{DType, Device, Tensor};
use grpo_tui::kernels::accumulate::accumulate;
use grpo_tui::kernels::adamw::{AdamWStep, MatrixCopies, MatrixCopy, adamw, cast_into, norm};

use super::{NUMBER_TYPES, assert_close, gpu, on_gpu, pair, random, rounded, tolerance};

#[test]
#[ignore = "needs a GPU"]
fn gradients_add_up_at_their_place() {
    for (target_type, addend_type) in [
        (DType::F32, DType::F32),
        (DType::F32, DType::BF16),
        (DType::BF16, DType::BF16),
    ] {
        for (first, count) in [(0, 1), (0, 4096), (1, 1003), (3, 5), (4, 70_001)] {
            let ((flat_cpu, flat), (addend_cpu, addend)) = (
                pair(1, &[first + count + 9], target_type),
                pair(2, &[count], addend_type),
            );
            accumulate(&flat.narrow(0, first, count).unwrap(), &addend).unwrap();
            accumulate(&flat_cpu.narrow(0, first, count).unwrap(), &addend_cpu).unwrap();
            assert_close(
                "accumulate",
                &flat,
                &flat_cpu,
                if target_type == DType::F32 {
                    1e-7
                } else {
                    tolerance(target_type)
                },
            );
        }
    }
    assert!(
        accumulate(
            &on_gpu(&random(1, &[4]), DType::BF16),
            &on_gpu(&random(1, &[4]), DType::F32)
        )
        .is_err()
    );
}

/// Parts of a flat buffer inside a matrix, and nothing beside them.
#[test]
#[ignore = "needs a GPU"]
fn copies_in_matrices_agree() {
    for dtype in NUMBER_TYPES {
        let (flat_cpu, flat) = pair(1, &[2000], DType::F32);
        let matrix = Tensor::full(7.0_f32, (40, 70), &gpu())
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let place = |row, rows, column, columns| {
            matrix
                .narrow(0, row, rows)
                .unwrap()
                .narrow(1, column, columns)
                .unwrap()
        };
        let copies = vec![
            MatrixCopy {
                offset: 3,
                place: place(0, 30, 61, 8),
                scale: 2.0,
            },
            MatrixCopy {
                offset: 243,
                place: place(32, 7, 0, 60),
                scale: 1.0,
            },
            MatrixCopy {
                offset: 800,
                place: place(0, 20, 0, 30).t().unwrap(),
                scale: 1.0,
            },
        ];
        MatrixCopies::new(copies)
            .unwrap()
            .unwrap()
            .write(&flat)
            .unwrap();
        let mut expected = vec![vec![7.0_f32; 70]; 40];
        let numbers = flat_cpu.to_vec1::<f32>().unwrap();
        (0..240).for_each(|n| expected[n / 8][61 + n % 8] = 2.0 * numbers[3 + n]);
        (0..600).for_each(|n| expected[n % 20][n / 20] = numbers[800 + n]);
        (0..420).for_each(|n| expected[32 + n / 60][n % 60] = numbers[243 + n]);
        let expected = rounded(&Tensor::new(expected, &Device::Cpu).unwrap(), dtype);
        assert_close("copies", &matrix, &expected, 0.0);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn adamw_agrees() {
    for count in [1, 1001, 300_000] {
        let [(parameters_cpu, parameters), (gradient_cpu, gradient)] =
            [1, 2].map(|n| pair(n, &[count], DType::F32));
        let moments_cpu = Tensor::zeros(2 * count, DType::F32, &Device::Cpu).unwrap();
        let moments = Tensor::zeros(2 * count, DType::F32, &gpu()).unwrap();
        let working = Tensor::zeros(count, DType::BF16, &gpu()).unwrap();
        for update in 1..4 {
            let step = AdamWStep {
                learning_rate: 0.01,
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-8,
                weight_decay: 0.1,
                gradient_scale: 0.3,
                update,
            };
            // In two stretches, as where norms do not decay.
            for range in [0..count / 3, count / 3..count]
                .into_iter()
                .filter(|range| !range.is_empty())
            {
                let step = AdamWStep {
                    weight_decay: if range.start == 0 { 0.0 } else { 0.1 },
                    ..step
                };
                adamw(
                    &parameters_cpu,
                    &moments_cpu,
                    &gradient_cpu,
                    step,
                    None,
                    range.clone(),
                )
                .unwrap();
                adamw(
                    &parameters,
                    &moments,
                    &gradient,
                    step,
                    (update != 2).then_some(&working),
                    range,
                )
                .unwrap();
            }
            assert_close("parameters", &parameters, &parameters_cpu, 1e-6);
            assert_close("moments", &moments, &moments_cpu, 1e-6);
        }
        assert_close(
            "working copy",
            &working,
            &parameters.to_dtype(DType::BF16).unwrap(),
            0.0,
        );
        let cast = Tensor::zeros(count, DType::BF16, &gpu()).unwrap();
        cast_into(&parameters, &cast).unwrap();
        assert_close("cast", &cast, &working, 0.0);
        let (found, expected) = (norm(&gradient).unwrap(), norm(&gradient_cpu).unwrap());
        assert!(
            (found - expected).abs() < 1e-12 * expected,
            "{found} instead of {expected}"
        );
        assert_eq!(
            found,
            norm(&gradient).unwrap(),
            "the same order of additions"
        );
        let [found, expected] =
            [&gradient, &gradient_cpu].map(|flat| flat.to_dtype(DType::BF16).unwrap());
        let (found, expected) = (
            norm(&found).unwrap(),
            norm(&expected.to_dtype(DType::F32).unwrap()).unwrap(),
        );
        assert!(
            (found - expected).abs() < 1e-12 * expected,
            "bf16: {found} instead of {expected}"
        );
    }
}
