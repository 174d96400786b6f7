//! The engine on a GPU against the same operations on the CPU. Ignored where there is no GPU: `scripts/gpu-check` runs
//! them with `--ignored gpu::`.

mod attention;
mod experts;
mod families;
mod hybrid;
mod model;
mod nccl;
mod operations;
mod optimizer;
mod quantized;
mod same_bits;
mod sampling;

use candle_core::{DType, Device, Tensor};
use grpo_tui::kernels::device::Engine;
use grpo_tui::kernels::philox::uniform_weights;

const NUMBER_TYPES: [DType; 2] = [DType::F32, DType::BF16];

/// The first GPU.
fn gpu() -> Device {
    Engine::gpu(0).unwrap().device
}

/// Fills and frees memory of about the size that a kernel's result takes next, so that what a kernel leaves out shows
/// as NaN.
fn poison(count: usize) {
    for dtype in NUMBER_TYPES {
        let spoiled = Tensor::full(f32::NAN, count, &gpu())
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        drop(spoiled);
    }
}

/// Numbers in [-1, 1) on the CPU, in f32.
fn random(stream: u32, shape: &[usize]) -> Tensor {
    Tensor::from_vec(
        uniform_weights(11, stream, shape.iter().product(), 1.0),
        shape,
        &Device::Cpu,
    )
    .unwrap()
    .to_dtype(DType::F32)
    .unwrap()
}

/// The same numbers on the GPU in `dtype`.
fn on_gpu(tensor: &Tensor, dtype: DType) -> Tensor {
    tensor.to_device(&gpu()).unwrap().to_dtype(dtype).unwrap()
}

/// The CPU's numbers as the GPU reads them: rounded to `dtype`, in f32.
fn rounded(tensor: &Tensor, dtype: DType) -> Tensor {
    tensor
        .to_dtype(dtype)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap()
}

/// A random tensor on the CPU as the GPU reads it, and on the GPU.
fn pair(stream: u32, shape: &[usize], dtype: DType) -> (Tensor, Tensor) {
    let tensor = random(stream, shape);
    (rounded(&tensor, dtype), on_gpu(&tensor, dtype))
}

/// How far results in `dtype` may be from f32's, relative to the norm of the expected tensor.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::BF16 { 6e-3 } else { 1e-5 }
}

/// How much less exact the delta rule over chunks is in f32 than on Hopper: below 9.0 a number is the sum of two in bf16,
/// not of three, which take more shared memory than there is.
fn delta_rule_factor() -> f64 {
    if Engine::gpu(0).unwrap().capability() < Some(90) {
        32.0
    } else {
        1.0
    }
}

/// Asserts `|found - expected| / |expected| <= tolerance`, in f64 norms over all numbers, and that nothing is NaN.
#[track_caller]
fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_close_beside(what, found, expected, expected, tolerance);
}

/// The same, relative to the norm of `whole`, of which the two are a part that may be nearly nothing.
#[track_caller]
fn assert_close_beside(
    what: &str,
    found: &Tensor,
    expected: &Tensor,
    whole: &Tensor,
    tolerance: f64,
) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let numbers = |tensor: &Tensor| {
        let flat = tensor
            .to_device(&Device::Cpu)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_dtype(DType::F64)
            .unwrap();
        flat.to_vec1::<f64>().unwrap()
    };
    let (found, expected) = (numbers(found), numbers(expected));
    let difference: f64 = found
        .iter()
        .zip(&expected)
        .map(|(f, e)| (f - e).powi(2))
        .sum();
    let size: f64 = numbers(whole).iter().map(|number| number * number).sum();
    let relative = (difference / size.max(1e-30)).sqrt();
    println!("{what}: relative difference {relative:.2e}");
    assert!(
        relative <= tolerance,
        "{what}: relative difference {relative:.3e}, allowed {tolerance:.1e}"
    );
}
