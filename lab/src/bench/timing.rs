//! Device limits, and timing of figures.

use std::time::Instant;

use candle_core::{DType, Result, Tensor};

use grpo_tui_engine::kernels::device::Engine;
use grpo_tui_engine::kernels::matmul::matmul;

/// Peak throughput and bandwidth of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) operations_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) launch_seconds: f64,
}

impl Limits {
    pub(super) fn measure(engine: &Engine) -> Result<Self> {
        // Small matrices suffice for a small machine's limit.
        let size = if engine.device.is_cpu() { 512 } else { 8192 };
        let copied = if engine.device.is_cpu() {
            1 << 22
        } else {
            1 << 29
        };
        let random = |stream: u64| {
            Tensor::rand(-1.0_f32, 1.0, (size, size), &engine.device)?
                .affine(1.0, stream as f64 * 1e-6)?
                .to_dtype(engine.dtype)
        };
        let (a, b) = (random(1)?, random(2)?);
        let gemm = seconds(engine, 10, || matmul(&a, &b).map(drop))?;
        let source = Tensor::rand(0.0_f32, 1.0, copied, &engine.device)?;
        let copy = seconds(engine, 10, || source.copy().map(drop))?;
        // Warm-up: the first launches load the kernel and open the pool.
        let small = Tensor::zeros(256, DType::F32, &engine.device)?;
        let launches = 500;
        let launch_all = || {
            (0..launches)
                .try_for_each(|_| (&small + &small).map(|sum| drop(std::hint::black_box(sum))))
        };
        // Host time: the GPU is waited for between repeats.
        let launch = median(REPEATS + 1, || {
            engine.synchronize()?;
            let start = Instant::now();
            launch_all()?;
            Ok(start.elapsed().as_secs_f64())
        })?;
        Ok(Self {
            operations_per_second: 2.0 * (size as f64).powi(3) / gemm,
            bytes_per_second: 2.0 * 4.0 * copied as f64 / copy,
            launch_seconds: launch / f64::from(launches),
        })
    }
}

/// Repeats per figure after a warm-up; the median counts.
pub(super) const REPEATS: usize = 5;

/// Seconds per measurement from which two, and one, are enough: one-time work takes less than a
/// second.
const LONG_SECONDS: [f64; 2] = [10.0, 60.0];

/// Median of repeated measurements without the first; a single slow one counts.
pub(super) fn median(repeats: usize, mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let start = Instant::now();
    let first = measure()?;
    let repeats = match start.elapsed().as_secs_f64() {
        taken if taken > LONG_SECONDS[1] => 0,
        taken if taken > LONG_SECONDS[0] => repeats.min(1),
        _ => repeats,
    };
    if repeats == 0 {
        return Ok(first);
    }
    let mut found = (0..repeats)
        .map(|_| measure())
        .collect::<Result<Vec<_>>>()?;
    found.sort_by(f64::total_cmp);
    Ok((found[(found.len() - 1) / 2] + found[found.len() / 2]) / 2.0)
}

/// Seconds of one call: median over `repeats`.
pub(super) fn seconds(
    engine: &Engine,
    repeats: usize,
    mut work: impl FnMut() -> Result<()>,
) -> Result<f64> {
    median(repeats, || {
        engine.synchronize()?;
        let start = Instant::now();
        work()?;
        engine.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    })
}
