//! Every other operation on the GPU against the CPU, forward and backward.

use candle_core::DType;
use grpo_tui::kernels::rms_norm::{rms_norm, rms_norm_backward};

use super::{assert_close, on_gpu, random, rounded, tolerance};

#[test]
#[ignore = "needs a GPU"]
fn rms_norm_agrees() {
    for number_type in [DType::F32, DType::BF16] {
        for (rows, width) in [(1, 8), (5, 40), (64, 4096)] {
            let (x, weight, seed) = (random(1, &[rows, width]), random(2, &[width]), random(3, &[rows, width]));
            let [x_cpu, weight_cpu, seed_cpu] = [&x, &weight, &seed].map(|tensor| rounded(tensor, number_type));
            let [x, weight, seed] = [&x, &weight, &seed].map(|tensor| on_gpu(tensor, number_type));
            let y = rms_norm(&x, &weight, 1e-6).unwrap();
            assert_close("rms_norm", &y, &rms_norm(&x_cpu, &weight_cpu, 1e-6).unwrap(), tolerance(number_type));
            let dx = rms_norm_backward(&seed, &x, &weight, 1e-6).unwrap();
            let expected = rms_norm_backward(&seed_cpu, &x_cpu, &weight_cpu, 1e-6).unwrap();
            assert_close("rms_norm backward", &dx, &expected, tolerance(number_type));
        }
    }
}
