//! Causal convolution of each column over its segment's tokens, then SiLU: `y[t] = silu(sum_i w[i]
//! x[t + 1 + i - kernel])`. A completion continues its prompt; before the first token are zeros.

use candle_core::{Result, Tensor};

use super::Real;
use super::attention::{Segment, Segments};
use super::cpu_slice::{by_number_type, in_place, numbers};
use super::decode_attention::{DecodeRow, DecodeRows};
use super::real::{sigmoid, vectorised};

/// `packed`: [rows, at least `width` columns], `weight`: [width, kernel] -> [rows, width], from the
/// first columns.
pub fn causal_convolution(packed: &Tensor, weight: &Tensor, segments: &Segments) -> Result<Tensor> {
    on_gpu!(packed => gpu::forward(packed, weight, segments));
    by_number_type!(packed, forward(packed, weight, segments.list()))
}

/// `gradient`: [rows, width] -> gradients of `packed`'s first columns, [rows, width], and, if
/// trained, of `weight`, f32 on a GPU.
pub fn causal_convolution_backward(
    gradient: &Tensor,
    packed: &Tensor,
    weight: &Tensor,
    segments: &Segments,
    is_trained: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    on_gpu!(packed => gpu::backward(gradient, packed, weight, segments, is_trained));
    let (own, weight) =
        by_number_type!(packed, backward(gradient, packed, weight, segments.list()))?;
    Ok((own, is_trained.then_some(weight)))
}

/// The last inputs of each segment, for its next token: [segments, (kernel - 1) * width], oldest
/// first.
pub fn convolution_states(packed: &Tensor, weight: &Tensor, segments: &Segments) -> Result<Tensor> {
    on_gpu!(packed => gpu::states(packed, weight, segments));
    by_number_type!(packed, states(packed, weight, segments.list()))
}

/// Decode step: `packed`: [rows, at least `width` columns] -> [rows, width]. `states`: [slots,
/// (kernel - 1) * width]; each row reads one slot and writes one.
pub fn convolution_step(
    packed: &Tensor,
    weight: &Tensor,
    states: &Tensor,
    rows: &DecodeRows,
) -> Result<Tensor> {
    on_gpu!(packed => gpu::step(packed, weight, states, rows.states()?));
    by_number_type!(packed, step(packed, weight, states, rows.listed()?))
}

/// [width, kernel] -> [kernel, width], oldest token first.
fn by_token<T: Real>(weight: &Tensor) -> Result<(Vec<T>, usize, usize)> {
    let (width, kernel) = weight.dims2()?;
    numbers!(T: numbers = weight);
    Ok((
        (0..kernel * width)
            .map(|i| numbers[i % width * kernel + i / width])
            .collect(),
        width,
        kernel,
    ))
}

/// `sums[c] += w[c] * x[c]`.
#[inline(always)]
fn add_products<T: Real>(sums: &mut [T], w: &[T], x: &[T]) {
    for ((sum, &w), &x) in sums.iter_mut().zip(w).zip(x) {
        *sum += w * x;
    }
}

/// Sums before SiLU of a segment's token.
#[inline(always)]
fn sums_at<T: Real>(
    (numbers, row_width): (&[T], usize),
    weights: &[T],
    (segment, token): (Segment, usize),
    sums: &mut [T],
) {
    let width = sums.len();
    sums.fill(T::zero());
    for (lag, w) in weights.chunks_exact(width).rev().enumerate() {
        if let Some(row) = segment.row_before(token, lag) {
            add_products(sums, w, &numbers[row * row_width..row * row_width + width]);
        }
    }
}

fn forward<T: Real>(packed: &Tensor, weight: &Tensor, segments: &[Segment]) -> Result<Tensor> {
    let (rows, row_width) = packed.dims2()?;
    let (weights, width, _) = by_token::<T>(weight)?;
    numbers!(T: numbers = packed);
    let mut output = vec![T::zero(); rows * width];
    vectorised!(|| {
        for &segment in segments {
            for token in 0..segment.length {
                let row = segment.start + token;
                let out = &mut output[row * width..(row + 1) * width];
                sums_at((numbers, row_width), &weights, (segment, token), out);
                out.iter_mut().for_each(|x| *x *= sigmoid(*x));
            }
        }
    });
    Tensor::from_vec(output, (rows, width), packed.device())
}

fn backward<T: Real>(
    gradient: &Tensor,
    packed: &Tensor,
    weight: &Tensor,
    segments: &[Segment],
) -> Result<(Tensor, Tensor)> {
    let (rows, row_width) = packed.dims2()?;
    let (weights, width, kernel) = by_token::<T>(weight)?;
    numbers!(T: numbers = packed, gradients = gradient);
    let mut output = vec![T::zero(); rows * width];
    let mut weight_sums = vec![T::zero(); kernel * width];
    let mut sums = vec![T::zero(); width];
    vectorised!(|| {
        for &segment in segments {
            for token in 0..segment.length {
                let row = segment.start + token;
                sums_at((numbers, row_width), &weights, (segment, token), &mut sums);
                for (x, &g) in sums
                    .iter_mut()
                    .zip(&gradients[row * width..(row + 1) * width])
                {
                    let s = sigmoid(*x);
                    *x = g * s * (T::one() + *x * (T::one() - s));
                }
                for lag in 0..kernel {
                    let Some(row) = segment.row_before(token, lag) else {
                        continue;
                    };
                    let of = (kernel - 1 - lag) * width..(kernel - lag) * width;
                    add_products(
                        &mut output[row * width..(row + 1) * width],
                        &weights[of.clone()],
                        &sums,
                    );
                    add_products(
                        &mut weight_sums[of],
                        &sums,
                        &numbers[row * row_width..row * row_width + width],
                    );
                }
            }
        }
    });
    let device = packed.device();
    let weight_gradient: Vec<T> = (0..kernel * width)
        .map(|i| weight_sums[i % kernel * width + i / kernel])
        .collect();
    Ok((
        Tensor::from_vec(output, (rows, width), device)?,
        Tensor::from_vec(weight_gradient, (width, kernel), device)?,
    ))
}

fn states<T: Real>(packed: &Tensor, weight: &Tensor, segments: &[Segment]) -> Result<Tensor> {
    let ((_, row_width), (width, kernel)) = (packed.dims2()?, weight.dims2()?);
    numbers!(T: numbers = packed);
    let size = (kernel - 1) * width;
    let mut output = vec![T::zero(); segments.len() * size];
    for (index, segment) in segments.iter().enumerate() {
        for lag in 0..kernel - 1 {
            if let Some(row) = segment.row_before(segment.length - 1, lag) {
                let at = index * size + (kernel - 2 - lag) * width;
                output[at..at + width]
                    .copy_from_slice(&numbers[row * row_width..row * row_width + width]);
            }
        }
    }
    Tensor::from_vec(output, (segments.len(), size), packed.device())
}

fn step<T: Real>(
    packed: &Tensor,
    weight: &Tensor,
    states: &Tensor,
    rows: &[DecodeRow],
) -> Result<Tensor> {
    let (weights, width, kernel) = by_token::<T>(weight)?;
    let (size, row_width) = ((kernel - 1) * width, packed.dims2()?.1);
    let mut output = vec![T::zero(); rows.len() * width];
    let step = in_place("convolution step", |states: &mut [T], packed: &[T]| {
        let packed = &packed[..rows.len() * row_width];
        vectorised!(|| {
            let new = packed.chunks_exact(row_width);
            for ((out, row), new) in output.chunks_exact_mut(width).zip(rows).zip(new) {
                let (before, slot) = row.states;
                if before != slot {
                    states.copy_within(before * size..(before + 1) * size, slot * size);
                }
                let state = &mut states[slot * size..(slot + 1) * size];
                let newest = &new[..width];
                for (w, x) in weights
                    .chunks_exact(width)
                    .zip(state.chunks_exact(width).chain([newest]))
                {
                    add_products(out, w, x);
                }
                out.iter_mut().for_each(|x| *x *= sigmoid(*x));
                if kernel > 1 {
                    state.copy_within(width.., 0);
                    state[size - width..].copy_from_slice(newest);
                }
            }
        });
        Ok(())
    });
    states.inplace_op2(packed, &step)?;
    Tensor::from_vec(output, (rows.len(), width), packed.device())
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::Segments;
    use crate::cuda::{
        Argument, Grid, Module, arguments, at, device, empty, int, module, sum_parts,
    };

    static MODULE: Module = module!("convolution");

    /// Maximum kernel width.
    const TAPS: usize = 8;
    /// Rows per block in partial sums of the weight's gradient.
    const ROWS_A_PART: usize = 128;

    fn grid(rows: usize, width: usize) -> Grid {
        Grid::blocks((rows, width.div_ceil(256), 1), 256)
    }

    /// Width and kernel; rows and their stride.
    fn check(packed: &Tensor, weight: &Tensor) -> Result<((usize, usize), [Argument; 2])> {
        let ((_, stride), (width, taps)) = (packed.dims2()?, weight.dims2()?);
        if width > stride || taps == 0 || taps > TAPS || weight.dtype() != packed.dtype() {
            bail!("a convolution of {packed:?} by {weight:?}")
        }
        Ok(((width, taps), [at(packed)?, int(stride)]))
    }

    pub(super) fn forward(packed: &Tensor, weight: &Tensor, segments: &Segments) -> Result<Tensor> {
        let ((width, taps), [own, stride]) = check(packed, weight)?;
        let rows = packed.dims2()?.0;
        let device = device(packed)?;
        let dtype = packed.dtype();
        let [table, owners] = segments.tables()?;
        let output = empty((rows, width), dtype, device)?;
        let arguments = arguments!(
            given own, stride; at weight; int taps; at table, owners, &output; int width
        );
        MODULE
            .typed("convolution", dtype)
            .launch(device, grid(rows, width), &arguments)?;
        Ok(output)
    }

    pub(super) fn backward(
        gradient: &Tensor,
        packed: &Tensor,
        weight: &Tensor,
        segments: &Segments,
        is_trained: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let ((width, taps), [own, stride]) = check(packed, weight)?;
        let rows = packed.dims2()?.0;
        let device = device(packed)?;
        let dtype = packed.dtype();
        let [table, owners] = segments.tables()?;
        if gradient.dims2()? != (rows, width) || gradient.dtype() != dtype {
            bail!("a gradient of {gradient:?} for {rows} rows of {width}")
        }
        let sums = empty((rows, width), DType::F32, device)?;
        let arguments = arguments!(
            at gradient; given own, stride; at weight; int taps; at table, owners, &sums; int width
        );
        MODULE.typed("convolution_backward_sums", dtype).launch(
            device,
            grid(rows, width),
            &arguments,
        )?;
        let output = empty((rows, width), dtype, device)?;
        let arguments = arguments!(
            at &sums, weight; int taps; at table, owners, &output; int width
        );
        MODULE.typed("convolution_backward_rows", dtype).launch(
            device,
            grid(rows, width),
            &arguments,
        )?;
        if !is_trained {
            return Ok((output, None));
        }
        let parts = rows.div_ceil(ROWS_A_PART);
        let partial = empty((parts, width * taps), DType::F32, device)?;
        let arguments = arguments!(
            at &sums; given own, stride; int taps; at table, owners, &partial;
            int width, rows, ROWS_A_PART
        );
        MODULE.typed("convolution_weight_parts", dtype).launch(
            device,
            grid(parts, width),
            &arguments,
        )?;
        let weight_gradient = sum_parts(&MODULE, "convolution_weight_sums", &partial)?;
        Ok((output, Some(weight_gradient.reshape((width, taps))?)))
    }

    pub(super) fn states(packed: &Tensor, weight: &Tensor, segments: &Segments) -> Result<Tensor> {
        let ((width, taps), [own, stride]) = check(packed, weight)?;
        let (count, device, dtype) = (segments.list().len(), device(packed)?, packed.dtype());
        let output = empty((count, (taps - 1) * width), dtype, device)?;
        let arguments = arguments!(
            given own, stride; int taps; at segments.tables()?[0], &output; int width
        );
        MODULE
            .typed("convolution_states", dtype)
            .launch(device, grid(count, width), &arguments)?;
        Ok(output)
    }

    /// `slots`: [rows, 2], u32.
    pub(super) fn step(
        packed: &Tensor,
        weight: &Tensor,
        states: &Tensor,
        slots: &Tensor,
    ) -> Result<Tensor> {
        let ((width, taps), [own, stride]) = check(packed, weight)?;
        let (rows, device, dtype) = (packed.dims2()?.0, device(packed)?, packed.dtype());
        if states.dims2()?.1 != (taps - 1) * width
            || states.dtype() != dtype
            || slots.dims2()? != (rows, 2)
        {
            bail!("states {states:?} and {slots:?} for {rows} rows")
        }
        let output = empty((rows, width), dtype, device)?;
        let arguments = arguments!(
            given own, stride; at weight; int taps; at slots, states, &output; int width, rows
        );
        let grid = Grid::blocks((rows, width.div_ceil(1024), 1), 256);
        MODULE
            .typed("convolution_step", dtype)
            .early()
            .launch(device, grid, &arguments)?;
        Ok(output)
    }
}
