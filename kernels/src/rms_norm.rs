//! Root-mean-square norm: `y = x / sqrt(mean(x^2) + epsilon) * weight`, row by row (Zhang and Sennrich 2019, arXiv
//! 1910.07467).

use candle_core::{Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, read};
use super::real::{dot, vectorised};

/// `x`: [rows, width], `weight`: `[width]` -> [rows, width]. On a GPU `x` may be f32 where the weight, and so the
/// result, is bf16.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return gpu::forward(x, weight, epsilon);
    }
    by_number_type!(x, forward(x, weight, epsilon))
}

/// The residual stream moved on: `x + addend`, [rows, width] each, kept as `x` is.
pub fn add_to_stream(x: &Tensor, addend: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return gpu::add(x, addend);
    }
    x + addend
}

/// `sum = x + addend` and `rms_norm(sum)`, [rows, width] each; one pass on a GPU, where `x` and the sum may be f32
/// beside bf16.
pub fn add_rms_norm(x: &Tensor, addend: &Tensor, weight: &Tensor, epsilon: f64) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return gpu::add_forward(x, addend, weight, epsilon);
    }
    let sum = (x + addend)?;
    let normed = rms_norm(&sum, weight, epsilon)?;
    Ok((sum, normed))
}

/// Gradient of the input. `gradient` and `x`: [rows, width] -> [rows, width].
pub fn rms_norm_backward(gradient: &Tensor, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return gpu::backward(gradient, x, weight, epsilon);
    }
    by_number_type!(x, backward(gradient, x, weight, epsilon))
}

/// Gradient of the weight. `gradient` and `x`: [rows, width] -> `[width]`, in f32 on a GPU.
pub fn rms_norm_backward_weight(gradient: &Tensor, x: &Tensor, epsilon: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return gpu::backward_weight(gradient, x, epsilon);
    }
    by_number_type!(x, backward_weight(gradient, x, epsilon))
}

/// One row: `output = row * inverse_rms(row) * weight`.
#[inline(always)]
pub(super) fn norm_row<T: Real>(row: &[T], weight: &[T], epsilon: T, output: &mut [T]) {
    let inverse = inverse_rms(row, epsilon);
    for ((o, &x), &w) in output.iter_mut().zip(row).zip(weight) {
        *o = x * inverse * w;
    }
}

/// One row's gradient: with `g = gradient * weight` and `r = 1 / rms`, `dx = r * (g - x * r^2 * mean(g * x))`.
#[inline(always)]
pub(super) fn norm_row_backward<T: Real>(gradient: &[T], row: &[T], weight: &[T], epsilon: T, output: &mut [T]) {
    let inverse = inverse_rms(row, epsilon);
    for ((o, &g), &w) in output.iter_mut().zip(gradient).zip(weight) {
        *o = g * w;
    }
    let shared = dot(output, row) * inverse * inverse / T::of(row.len() as f64);
    for (o, &x) in output.iter_mut().zip(row) {
        *o = inverse * (*o - x * shared);
    }
}

#[inline(always)]
pub(super) fn inverse_rms<T: Real>(row: &[T], epsilon: T) -> T {
    T::of(1.0) / (dot(row, row) / T::of(row.len() as f64) + epsilon).sqrt()
}

fn forward<T: Real>(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let width = weight.dims1()?;
    let (x_read, weight_read) = (read(x)?, read(weight)?);
    let (numbers, weights) = (x_read.numbers::<T>()?, weight_read.numbers::<T>()?);
    let mut output = vec![T::of(0.0); numbers.len()];
    vectorised(|| {
        for (row, out) in numbers.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
            norm_row(row, weights, T::of(epsilon), out);
        }
    });
    Tensor::from_vec(output, x.shape(), x.device())
}

fn backward<T: Real>(gradient: &Tensor, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let width = weight.dims1()?;
    let (gradient_read, x_read, weight_read) = (read(gradient)?, read(x)?, read(weight)?);
    let (gradients, numbers, weights) =
        (gradient_read.numbers::<T>()?, x_read.numbers::<T>()?, weight_read.numbers::<T>()?);
    let mut output = vec![T::of(0.0); numbers.len()];
    vectorised(|| {
        for ((g, row), out) in
            gradients.chunks_exact(width).zip(numbers.chunks_exact(width)).zip(output.chunks_exact_mut(width))
        {
            norm_row_backward(g, row, weights, T::of(epsilon), out);
        }
    });
    Tensor::from_vec(output, x.shape(), x.device())
}

fn backward_weight<T: Real>(gradient: &Tensor, x: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    let (gradient_read, x_read) = (read(gradient)?, read(x)?);
    let (gradients, numbers) = (gradient_read.numbers::<T>()?, x_read.numbers::<T>()?);
    let mut output = vec![T::of(0.0); width];
    vectorised(|| {
        for (g, row) in gradients.chunks_exact(width).zip(numbers.chunks_exact(width)) {
            let inverse = inverse_rms(row, T::of(epsilon));
            for ((o, &g), &x) in output.iter_mut().zip(g).zip(row) {
                *o += g * x * inverse;
            }
        }
    });
    Tensor::from_vec(output, width, x.device())
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{Argument, Grid, Module, address, at, device, empty, float, int, launch, module};

    static MODULE: Module = module!("rms_norm");

    /// One block a row, a thread for each 16 bytes of it.
    fn grid(rows: usize, width: usize, dtype: DType) -> Grid {
        Grid::rows(rows, (width * dtype.size_in_bytes() / 16).next_multiple_of(32).clamp(32, 512))
    }

    /// The names of a kernel by what the stream and what the rest is kept in.
    macro_rules! variant {
        ($stream:expr, $rest:expr, $name:literal) => {
            match ($stream, $rest) {
                (DType::F32, DType::F32) => concat!($name, "_f32"),
                (DType::BF16, DType::BF16) => concat!($name, "_bf16"),
                (DType::F32, DType::BF16) => concat!($name, "_mixed"),
                (stream, rest) => bail!("a norm of a stream in {stream:?} with weights in {rest:?}"),
            }
        };
    }

    fn check(x: &Tensor, alike: &[&Tensor], weight: &Tensor) -> Result<(usize, usize)> {
        let (rows, width) = x.dims2()?;
        let fits = alike.iter().all(|tensor| tensor.dims() == x.dims() && tensor.dtype() == weight.dtype());
        if !fits || weight.dims() != [width] {
            bail!("a norm of rows {:?} {:?} with {alike:?} and weight {weight:?}", x.dtype(), x.shape())
        }
        Ok((rows, width))
    }

    pub(super) fn forward(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
        let (rows, width) = check(x, &[], weight)?;
        let (device, dtype) = (device(x)?, weight.dtype());
        let y = empty((rows, width), dtype, device)?;
        let arguments = [at(x)?, at(weight)?, at(&y)?, int(width), float(epsilon)];
        let name = variant!(x.dtype(), dtype, "rms_norm");
        launch(device, &MODULE, name, None, grid(rows, width, dtype), &arguments)?;
        Ok(y)
    }

    pub(super) fn add_forward(x: &Tensor, addend: &Tensor, weight: &Tensor, epsilon: f64) -> Result<(Tensor, Tensor)> {
        let (rows, width) = check(x, &[addend], weight)?;
        let (device, dtype) = (device(x)?, weight.dtype());
        let (sum, y) = (empty((rows, width), x.dtype(), device)?, empty((rows, width), dtype, device)?);
        let arguments = [at(x)?, at(addend)?, at(weight)?, at(&sum)?, at(&y)?, int(width), float(epsilon)];
        let name = variant!(x.dtype(), dtype, "add_rms_norm");
        launch(device, &MODULE, name, None, grid(rows, width, dtype), &arguments)?;
        Ok((sum, y))
    }

    pub(super) fn add(x: &Tensor, addend: &Tensor) -> Result<Tensor> {
        if x.dims() != addend.dims() {
            bail!("a stream of {:?} and {:?}", x.shape(), addend.shape())
        }
        let (device, count) = (device(x)?, x.elem_count());
        let sum = empty(x.shape(), x.dtype(), device)?;
        let together = 16 / addend.dtype().size_in_bytes();
        let aligned = (address(x)? | address(addend)?).is_multiple_of(32) && count.is_multiple_of(together);
        let (name, threads) = if aligned {
            (variant!(x.dtype(), addend.dtype(), "add_to_stream_wide"), count / together)
        } else {
            (variant!(x.dtype(), addend.dtype(), "add_to_stream"), count)
        };
        let arguments = [at(x)?, at(addend)?, at(&sum)?, Argument::Long(count as u64)];
        launch(device, &MODULE, name, None, Grid::elements(threads), &arguments)?;
        Ok(sum)
    }

    pub(super) fn backward(gradient: &Tensor, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
        let (rows, width) = check(x, &[gradient], weight)?;
        let (device, dtype) = (device(x)?, weight.dtype());
        let dx = empty((rows, width), dtype, device)?;
        let arguments = [at(gradient)?, at(x)?, at(weight)?, at(&dx)?, int(width), float(epsilon)];
        let name = variant!(x.dtype(), dtype, "rms_norm_backward");
        launch(device, &MODULE, name, None, grid(rows, width, dtype), &arguments)?;
        Ok(dx)
    }

    /// Rows are summed in parts side by side, then the parts in their order.
    pub(super) fn backward_weight(gradient: &Tensor, x: &Tensor, epsilon: f64) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        if gradient.dims() != x.dims() {
            bail!("a gradient of {:?} for rows of {:?}", gradient.shape(), x.shape())
        }
        let device = device(x)?;
        if rows == 0 {
            return Tensor::zeros(width, DType::F32, x.device());
        }
        let inverse = empty(rows, DType::F32, device)?;
        let arguments = [at(x)?, at(&inverse)?, int(rows), int(width), float(epsilon)];
        launch(device, &MODULE, "inverse_rms", Some(x.dtype()), Grid::rows(rows.div_ceil(8), 256), &arguments)?;
        let parts = rows.div_ceil(128).min(256);
        let partial = empty((parts, width), DType::F32, device)?;
        let arguments =
            [at(gradient)?, at(x)?, at(&inverse)?, at(&partial)?, int(rows), int(width), int(rows.div_ceil(parts))];
        let grid = Grid { blocks: (width.div_ceil(256), parts, 1), threads: 256, shared_bytes: 0 };
        launch(device, &MODULE, variant!(x.dtype(), gradient.dtype(), "weight_parts"), None, grid, &arguments)?;
        let sums = empty(width, DType::F32, device)?;
        let arguments = [at(&partial)?, at(&sums)?, int(parts), int(width)];
        launch(device, &MODULE, "weight_sums", None, Grid::rows(width.div_ceil(32), 256), &arguments)?;
        Ok(sums)
    }
}
