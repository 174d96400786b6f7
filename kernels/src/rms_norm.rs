//! RMS norm by row: `y = x / sqrt(mean(x^2) + epsilon) * (offset + weight)` (Zhang and Sennrich
//! 2019, arXiv 1910.07467; Gemma stores weights around 0, offset 1).

use candle_core::{Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::matmul::no_adapter_columns;
use super::open_rows::OpenRows;
use super::real::{dot, vectorised};

#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[width]`.
    pub weight: &'a Tensor,
    /// Added to each weight.
    pub offset: f64,
    /// Added to the mean square.
    pub epsilon: f64,
}

impl<'a> Norm<'a> {
    /// A norm without offset.
    pub fn plain(weight: &'a Tensor, epsilon: f64) -> Self {
        Self {
            weight,
            offset: 0.0,
            epsilon,
        }
    }
}

/// `x`: [rows, width] -> [rows, width + adapter_columns], last `adapter_columns` columns unwritten
/// (see [`super::matmul`]). On a GPU `x` may be f32 with a bf16 weight and result.
pub fn rms_norm(x: &Tensor, norm: Norm<'_>, adapter_columns: usize) -> Result<Tensor> {
    on_gpu!(x => gpu::forward(x, norm, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    by_number_type!(x, forward(x, norm))
}

/// `sum = x + addend`, [rows, width], and `rms_norm(sum)`, [rows, width + adapter_columns]; one
/// pass on a GPU, where `x` and the sum may be f32 with bf16.
pub fn add_rms_norm(
    x: &Tensor,
    addend: &OpenRows,
    norm: Norm<'_>,
    adapter_columns: usize,
) -> Result<(Tensor, Tensor)> {
    on_gpu!(x => gpu::add_forward(x, addend, norm, adapter_columns));
    let sum = (x + &addend.rows)?;
    let normed = rms_norm(&sum, norm, adapter_columns)?;
    Ok((sum, normed))
}

/// Norm for decoding, adding the adapters' part: [rows, width] in the weight's dtype.
pub fn rms_norm_open(rows: &OpenRows, norm: Norm<'_>) -> Result<Tensor> {
    on_gpu!(rows.rows => gpu::open_forward(rows, norm));
    rms_norm(&rows.rows, norm, 0)
}

/// Gradient of the input, plus `residual`. `gradient`, `x`, `residual`: [rows, width] -> [rows,
/// width + adapter_columns].
pub fn rms_norm_backward(
    gradient: &Tensor,
    x: &Tensor,
    norm: Norm<'_>,
    residual: Option<&Tensor>,
    adapter_columns: usize,
) -> Result<Tensor> {
    on_gpu!(x => gpu::backward(gradient, x, norm, residual, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    let through = by_number_type!(x, backward(gradient, x, norm))?;
    match residual {
        Some(residual) => residual + through,
        None => Ok(through),
    }
}

/// Gradient of the weight. `gradient` and `x`: [rows, width] -> `[width]`, f32 on a GPU.
pub fn rms_norm_backward_weight(gradient: &Tensor, x: &Tensor, epsilon: f64) -> Result<Tensor> {
    on_gpu!(x => gpu::backward_weight(gradient, x, epsilon));
    by_number_type!(x, backward_weight(gradient, x, epsilon))
}

/// One row: `output = row * inverse_rms(row) * (offset + weight)`.
#[inline(always)]
pub(super) fn norm_row<T: Real>(
    row: &[T],
    weight: &[T],
    (offset, epsilon): (T, T),
    output: &mut [T],
) {
    let inverse = inverse_rms(row, epsilon);
    for ((o, &x), &w) in output.iter_mut().zip(row).zip(weight) {
        *o = x * inverse * (w + offset);
    }
}

/// One row's gradient: with `g = gradient * (offset + weight)` and `r = 1 / rms`, `dx = r * (g -
/// x * r^2 * mean(g * x))`.
#[inline(always)]
pub(super) fn norm_row_backward<T: Real>(
    gradient: &[T],
    row: &[T],
    weight: &[T],
    (offset, epsilon): (T, T),
    output: &mut [T],
) {
    let inverse = inverse_rms(row, epsilon);
    for ((o, &g), &w) in output.iter_mut().zip(gradient).zip(weight) {
        *o = g * (w + offset);
    }
    let shared = dot(output, row) * inverse * inverse / T::constant(row.len() as f64);
    for (o, &x) in output.iter_mut().zip(row) {
        *o = inverse * (*o - x * shared);
    }
}

#[inline(always)]
pub(super) fn inverse_rms<T: Real>(row: &[T], epsilon: T) -> T {
    T::one() / (dot(row, row) / T::constant(row.len() as f64) + epsilon).sqrt()
}

fn forward<T: Real>(x: &Tensor, norm: Norm<'_>) -> Result<Tensor> {
    let width = norm.weight.dims1()?;
    let constants = (T::constant(norm.offset), T::constant(norm.epsilon));
    numbers!(T: numbers = x, weights = norm.weight);
    let mut output = vec![T::zero(); numbers.len()];
    vectorised!(|| {
        for (row, out) in numbers
            .chunks_exact(width)
            .zip(output.chunks_exact_mut(width))
        {
            norm_row(row, weights, constants, out);
        }
    });
    Tensor::from_vec(output, x.shape(), x.device())
}

fn backward<T: Real>(gradient: &Tensor, x: &Tensor, norm: Norm<'_>) -> Result<Tensor> {
    let width = norm.weight.dims1()?;
    let constants = (T::constant(norm.offset), T::constant(norm.epsilon));
    numbers!(T: gradients = gradient, numbers = x, weights = norm.weight);
    let mut output = vec![T::zero(); numbers.len()];
    vectorised!(|| {
        for ((g, row), out) in gradients
            .chunks_exact(width)
            .zip(numbers.chunks_exact(width))
            .zip(output.chunks_exact_mut(width))
        {
            norm_row_backward(g, row, weights, constants, out);
        }
    });
    Tensor::from_vec(output, x.shape(), x.device())
}

fn backward_weight<T: Real>(gradient: &Tensor, x: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    numbers!(T: gradients = gradient, numbers = x);
    let mut output = vec![T::zero(); width];
    vectorised!(|| {
        for (g, row) in gradients
            .chunks_exact(width)
            .zip(numbers.chunks_exact(width))
        {
            let inverse = inverse_rms(row, T::constant(epsilon));
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

    use super::{Norm, OpenRows};
    use crate::cuda::{
        Argument, Grid, Module, arguments, at, capability, device, empty, int, module, rows_at,
        sum_parts,
    };

    static MODULE: Module = module!("rms_norm");

    /// One block per row, a thread per 16 bytes.
    fn grid(rows: usize, width: usize, dtype: DType) -> Grid {
        Grid::rows(
            rows,
            (width * dtype.size_in_bytes() / 16)
                .next_multiple_of(32)
                .clamp(32, 512),
        )
    }

    /// Kernel names by dtypes of the stream and of the rest.
    macro_rules! variant {
        ($stream:expr, $rest:expr, $name:literal) => {
            match ($stream, $rest) {
                (DType::F32, DType::F32) => concat!($name, "_f32"),
                (DType::BF16, DType::BF16) => concat!($name, "_bf16"),
                (DType::F32, DType::BF16) => concat!($name, "_mixed"),
                (stream, rest) => {
                    bail!("a norm of a stream in {stream:?} with weights in {rest:?}")
                }
            }
        };
    }

    fn check(x: &Tensor, alike: &[&Tensor], weight: &Tensor) -> Result<(usize, usize)> {
        let (rows, width) = x.dims2()?;
        let fits = alike
            .iter()
            .all(|tensor| tensor.dims() == x.dims() && tensor.dtype() == weight.dtype());
        if !fits || weight.dims() != [width] {
            bail!("a norm of rows {x:?} with {alike:?} and weight {weight:?}")
        }
        Ok((rows, width))
    }

    pub(super) fn forward(x: &Tensor, norm: Norm<'_>, adapter_columns: usize) -> Result<Tensor> {
        let (rows, width) = check(x, &[], norm.weight)?;
        let (device, dtype) = (device(x)?, norm.weight.dtype());
        let y = empty((rows, width + adapter_columns), dtype, device)?;
        let arguments = arguments!(
            at x, norm.weight, &y; int width + adapter_columns, width; float norm.offset, norm.epsilon
        );
        let name = variant!(x.dtype(), dtype, "rms_norm");
        MODULE
            .kernel(name)
            .launch(device, grid(rows, width, dtype), &arguments)?;
        Ok(y)
    }

    pub(super) fn add_forward(
        x: &Tensor,
        addend: &OpenRows,
        norm: Norm<'_>,
        adapter_columns: usize,
    ) -> Result<(Tensor, Tensor)> {
        let (rows, width) = check(x, &[], norm.weight)?;
        let added = addend.own()?;
        let is_open = addend.adapters.is_some() || addend.rows.dtype() != norm.weight.dtype();
        if added.dims() != x.dims() || (is_open && added.dtype() != DType::F32) {
            bail!("a stream of {x:?} and {added:?}")
        }
        let (device, dtype) = (device(x)?, norm.weight.dtype());
        let sum = empty((rows, width), x.dtype(), device)?;
        let y = empty((rows, width + adapter_columns), dtype, device)?;
        let mut arguments = vec![at(x)?];
        arguments.extend(addend.arguments()?);
        arguments.extend(arguments!(at norm.weight, &sum, &y));
        // A cluster of eight blocks has sixteen rows, a warp 64 columns of them.
        let warps = width.div_ceil(8 * 64);
        let serves = (x.dtype(), dtype, adapter_columns) == (DType::F32, DType::BF16, 0)
            && width.is_multiple_of(64)
            && warps <= 16;
        if addend.adapters.is_some() && serves && capability(device)?.has_clusters() {
            arguments.extend(arguments!(int rows, width; float norm.offset, norm.epsilon));
            let grid = Grid::blocks((8, rows.div_ceil(16), 1), 32 * warps);
            MODULE
                .kernel("add_rms_norm_tensor_mixed")
                .early()
                .launch(device, grid, &arguments)?;
            return Ok((sum, y));
        }
        arguments.extend(
            arguments!(int width + adapter_columns, width; float norm.offset, norm.epsilon),
        );
        let name = match is_open {
            true => variant!(x.dtype(), dtype, "add_open_rms_norm"),
            false => variant!(x.dtype(), dtype, "add_rms_norm"),
        };
        let kernel = MODULE.kernel(name);
        let kernel = if is_open { kernel.early() } else { kernel };
        kernel.launch(device, grid(rows, width, dtype), &arguments)?;
        Ok((sum, y))
    }

    pub(super) fn open_forward(rows: &OpenRows, norm: Norm<'_>) -> Result<Tensor> {
        let own = rows.own()?;
        let (count, width) = check(&own, &[], norm.weight)?;
        if own.dtype() != DType::F32 {
            bail!("rows in {:?}; while decoding they are f32", own.dtype())
        }
        let (device, dtype) = (device(&own)?, norm.weight.dtype());
        let sum = empty((count, width), DType::F32, device)?;
        let y = empty((count, width), dtype, device)?;
        let mut arguments = rows.arguments()?.to_vec();
        arguments.extend(
            arguments!(at norm.weight, &sum, &y; int width; float norm.offset, norm.epsilon),
        );
        let name = variant!(DType::F32, dtype, "open_rms_norm");
        MODULE
            .kernel(name)
            .early()
            .launch(device, grid(count, width, dtype), &arguments)?;
        Ok(y)
    }

    pub(super) fn backward(
        gradient: &Tensor,
        x: &Tensor,
        norm: Norm<'_>,
        residual: Option<&Tensor>,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        let (rows, width) = check(x, &[gradient, residual.unwrap_or(gradient)], norm.weight)?;
        let (device, dtype) = (device(x)?, norm.weight.dtype());
        let dx = empty((rows, width + adapter_columns), dtype, device)?;
        let [residual, residual_stride] =
            residual.map_or(Ok([Argument::Address(0), int(0)]), rows_at)?;
        let arguments = arguments!(
            at gradient, x, norm.weight; given residual, residual_stride; at &dx;
            int width + adapter_columns, width; float norm.offset, norm.epsilon
        );
        let name = variant!(x.dtype(), dtype, "rms_norm_backward");
        MODULE
            .kernel(name)
            .launch(device, grid(rows, width, dtype), &arguments)?;
        Ok(dx)
    }

    /// Sums rows in parallel parts, then the parts in order.
    pub(super) fn backward_weight(gradient: &Tensor, x: &Tensor, epsilon: f64) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        if gradient.dims() != x.dims() {
            bail!("a gradient of {gradient:?} for rows of {x:?}")
        }
        let device = device(x)?;
        if rows == 0 {
            return Tensor::zeros(width, DType::F32, x.device());
        }
        let inverse = empty(rows, DType::F32, device)?;
        let arguments = arguments!(at x, &inverse; int rows, width; float epsilon);
        MODULE.typed("inverse_rms", x.dtype()).launch(
            device,
            Grid::rows(rows.div_ceil(8), 256),
            &arguments,
        )?;
        let parts = rows.div_ceil(128).min(256);
        let partial = empty((parts, width), DType::F32, device)?;
        let arguments = arguments!(
            at gradient, x, &inverse, &partial; int rows, width, rows.div_ceil(parts)
        );
        let grid = Grid::blocks((width.div_ceil(256), parts, 1), 256);
        MODULE
            .kernel(variant!(x.dtype(), gradient.dtype(), "weight_parts"))
            .launch(device, grid, &arguments)?;
        sum_parts(&MODULE, "weight_sums", &partial)
    }
}
