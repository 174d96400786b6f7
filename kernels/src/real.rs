//! Dtypes of CPU kernels, and a vectorisable exponential.

use candle_core::{CpuStorage, WithDType};

/// `f32` for work, `f64` for gradient checks.
pub trait Real: WithDType + num_traits::Float + std::iter::Sum {
    /// e^x. For `f32` within 2 ulp, flushed to about 1e-38 below -87; preserves NaN.
    fn exponential(self) -> Self;
    fn constant(value: f64) -> Self;
    fn double(self) -> f64;
    /// `None` for another dtype.
    fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Real for f32 {
    #[inline(always)]
    fn exponential(self) -> Self {
        exponential_f32(self)
    }
    #[inline(always)]
    fn constant(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn double(self) -> f64 {
        f64::from(self)
    }
    fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(numbers) => Some(numbers),
            _ => None,
        }
    }
}

impl Real for f64 {
    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn constant(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn double(self) -> f64 {
        self
    }
    fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(numbers) => Some(numbers),
            _ => None,
        }
    }
}

/// Runs a closure compiled for this processor's widest vector instructions. It is inlined there
/// whatever its size: called, it would have those of every processor.
macro_rules! vectorised {
    ($($work:tt)*) => {
        pulp::Arch::new().dispatch(#[inline(always)] $($work)*)
    };
}
pub(super) use vectorised;

#[inline(always)]
pub(super) fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exponential())
}

/// Sum of `a[i] * b[i]` over 16 lanes: vectorisable, with a fixed order of additions.
#[inline(always)]
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    const LANES: usize = 16;
    let mut lanes = [T::zero(); LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut tail = T::zero();
    // By index: iterator adaptors were not inlined, and took a third of the time.
    for at in 0..a_rest.len().min(b_rest.len()) {
        tail += a_rest[at] * b_rest[at];
    }
    for at in 0..a_chunks.len().min(b_chunks.len()) {
        for lane in 0..LANES {
            lanes[lane] += a_chunks[at][lane] * b_chunks[at][lane];
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            let other = lanes[lane + width];
            lanes[lane] += other;
        }
        width /= 2;
    }
    lanes[0] + tail
}

/// `target[i] += factor * source[i]`.
#[inline(always)]
pub(super) fn add_scaled<T: Real>(target: &mut [T], factor: T, source: &[T]) {
    for (t, &s) in target.iter_mut().zip(source) {
        *t += factor * s;
    }
}

/// Range reduction to |r| <= ln(2)/2 and a polynomial, after Cephes' `expf`; without branches and
/// integer conversions, so vectorisable.
#[inline(always)]
fn exponential_f32(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_add(127).wrapping_shl(23);
    value * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_close_everywhere() {
        let mut worst = 0.0_f64;
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exponential_f32(x)) - exact).abs() / exact);
        }
        assert!(worst < 3e-7, "{worst}");
        assert!(exponential_f32(f32::NAN).is_nan());
        assert!(exponential_f32(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn dot_sums_every_element() {
        for n in [0, 1, 15, 16, 17, 47, 64] {
            let a: Vec<f64> = (0..n).map(f64::from).collect();
            let expected: f64 = a.iter().map(|x| x * x).sum();
            assert_eq!(dot(&a, &a), expected);
        }
    }
}
