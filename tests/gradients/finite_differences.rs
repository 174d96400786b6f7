//! Central differences in f64.

use candle_core::{Device, Tensor};

/// A repeatable number in [-1, 1) for each index and stream.
pub(super) fn noise(stream: u64, index: usize) -> f64 {
    let mut x = (stream << 32) ^ index as u64 ^ 0x9E37_79B9_7F4A_7C15;
    for _ in 0..3 {
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 27;
    }
    (x >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// A tensor of such numbers.
pub(super) fn random(stream: u64, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_vec(
        (0..count).map(|i| noise(stream, i)).collect::<Vec<f64>>(),
        shape,
        &Device::Cpu,
    )
    .unwrap()
}

/// Checks `gradient` of a scalar function at `x` (any shape), element by element.
pub(super) fn check(name: &str, x: &Tensor, gradient: &Tensor, function: impl Fn(&Tensor) -> f64) {
    let numbers: Vec<f64> = x.flatten_all().unwrap().to_vec1().unwrap();
    let gradient: Vec<f64> = gradient.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(numbers.len(), gradient.len(), "{name}");
    let step = 1e-5;
    for i in 0..numbers.len() {
        let at = |delta: f64| {
            let mut moved = numbers.clone();
            moved[i] += delta;
            function(&Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap())
        };
        let expected = (at(step) - at(-step)) / (2.0 * step);
        let error = (gradient[i] - expected).abs() / expected.abs().max(1.0);
        assert!(
            error < 1e-7,
            "{name}[{i}]: {} by hand, {expected} by differences",
            gradient[i]
        );
    }
}

/// `sum(y * seed)`: the scalar whose gradient by `y` is `seed`.
pub(super) fn seeded(y: &Tensor, seed: &Tensor) -> f64 {
    (y * seed).unwrap().sum_all().unwrap().to_scalar().unwrap()
}
