//! Norm of each head of the gated delta rule's output, times SiLU of its gate: `y = x / rms(x) *
//! weight * silu(z)`.

use candle_core::{Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::matmul::no_adapter_columns;
use super::real::{sigmoid, vectorised};
use super::rms_norm::{Norm, inverse_rms, norm_row, norm_row_backward};

/// `x`: [rows, width], in heads as wide as the norm's weight; gates: `width` columns of `packed`
/// from `column` on -> [rows, width + adapter_columns].
pub fn gated_norm(
    x: &Tensor,
    (packed, column): (&Tensor, usize),
    norm: Norm<'_>,
    adapter_columns: usize,
) -> Result<Tensor> {
    on_gpu!(x => gpu::forward(x, (packed, column), norm, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    by_number_type!(x, forward(x, (packed, column), norm))
}

/// `gradient`: [rows, width] -> gradients of `x` and of the gates, [rows, width], and of the norm's
/// weight, f32 on a GPU.
pub fn gated_norm_backward(
    gradient: &Tensor,
    x: &Tensor,
    (packed, column): (&Tensor, usize),
    norm: Norm<'_>,
) -> Result<(Tensor, Tensor, Tensor)> {
    on_gpu!(x => gpu::backward(gradient, x, (packed, column), norm));
    by_number_type!(x, backward(gradient, x, (packed, column), norm))
}

fn forward<T: Real>(
    x: &Tensor,
    (packed, column): (&Tensor, usize),
    norm: Norm<'_>,
) -> Result<Tensor> {
    let ((_, width), (_, stride), size) = (x.dims2()?, packed.dims2()?, norm.weight.dims1()?);
    numbers!(T: numbers = x, gates = packed, weights = norm.weight);
    let constants = (T::constant(norm.offset), T::constant(norm.epsilon));
    let mut output = vec![T::zero(); numbers.len()];
    vectorised!(|| {
        let rows = numbers
            .chunks_exact(width)
            .zip(output.chunks_exact_mut(width))
            .zip(gates.chunks_exact(stride));
        for ((row, out), gates) in rows {
            for (head, out) in row.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
                norm_row(head, weights, constants, out);
            }
            for (y, &z) in out.iter_mut().zip(&gates[column..column + width]) {
                *y *= z * sigmoid(z);
            }
        }
    });
    Tensor::from_vec(output, x.shape(), x.device())
}

fn backward<T: Real>(
    gradient: &Tensor,
    x: &Tensor,
    (packed, column): (&Tensor, usize),
    norm: Norm<'_>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let ((_, width), (_, stride), size) = (x.dims2()?, packed.dims2()?, norm.weight.dims1()?);
    numbers!(T: gradients = gradient, numbers = x, gates = packed, weights = norm.weight);
    let offset = T::constant(norm.offset);
    let epsilon = T::constant(norm.epsilon);
    let one = T::one();
    let mut x_gradient = vec![T::zero(); numbers.len()];
    let mut gate_gradient = x_gradient.clone();
    let mut weight_gradient = vec![T::zero(); size];
    let mut inner = vec![T::zero(); size];
    vectorised!(|| {
        for (index, row) in numbers.chunks_exact(size).enumerate() {
            let at = index * size;
            let from = at / width * stride + column + at % width;
            let inverse = inverse_rms(row, epsilon);
            for i in 0..size {
                let (z, d) = (gates[from + i], gradients[at + i]);
                let s = sigmoid(z);
                let (silu, normed) = (z * s, row[i] * inverse);
                gate_gradient[at + i] =
                    d * normed * (weights[i] + offset) * s * (one + z * (one - s));
                inner[i] = d * silu;
                weight_gradient[i] += inner[i] * normed;
            }
            norm_row_backward(
                &inner,
                row,
                weights,
                (offset, epsilon),
                &mut x_gradient[at..at + size],
            );
        }
    });
    let device = x.device();
    Ok((
        Tensor::from_vec(x_gradient, x.shape(), device)?,
        Tensor::from_vec(gate_gradient, x.shape(), device)?,
        Tensor::from_vec(weight_gradient, size, device)?,
    ))
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::Norm;
    use crate::cuda::{
        Argument, Grid, Module, address, arguments, device, empty, int, module, sum_parts,
    };

    static MODULE: Module = module!("gated_norm");

    const WARPS: usize = 8;

    /// Rows, heads and head size; gates and their stride.
    fn check(
        x: &Tensor,
        (packed, column): (&Tensor, usize),
        norm: Norm<'_>,
    ) -> Result<([usize; 3], [Argument; 2])> {
        let (rows, width) = x.dims2()?;
        let (gate_rows, stride) = packed.dims2()?;
        let size = norm.weight.dims1()?;
        let dtype = x.dtype();
        let fits = gate_rows == rows
            && column + width <= stride
            && packed.is_contiguous()
            && width % size == 0;
        if !fits || size > 256 || packed.dtype() != dtype || norm.weight.dtype() != dtype {
            bail!("heads of {size} in rows {x:?} with gates {packed:?} from {column} on")
        }
        let first = address(packed)? + (column * dtype.size_in_bytes()) as u64;
        Ok((
            [rows, width / size, size],
            [Argument::Address(first), int(stride)],
        ))
    }

    pub(super) fn forward(
        x: &Tensor,
        packed: (&Tensor, usize),
        norm: Norm<'_>,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        let ([rows, heads, size], [gates, stride]) = check(x, packed, norm)?;
        let (device, dtype, width) = (device(x)?, x.dtype(), heads * size);
        let y = empty((rows, width + adapter_columns), dtype, device)?;
        let arguments = arguments!(
            at x; given gates, stride; at norm.weight, &y;
            int width + adapter_columns, rows, heads, size; float norm.offset, norm.epsilon
        );
        let grid = Grid::rows((rows * heads).div_ceil(WARPS), 32 * WARPS);
        MODULE
            .typed("gated_norm", dtype)
            .early()
            .launch(device, grid, &arguments)?;
        Ok(y)
    }

    pub(super) fn backward(
        gradient: &Tensor,
        x: &Tensor,
        packed: (&Tensor, usize),
        norm: Norm<'_>,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let ([rows, heads, size], [gates, stride]) = check(x, packed, norm)?;
        if gradient.dims() != x.dims() || gradient.dtype() != x.dtype() {
            bail!("a gradient of {gradient:?} for {x:?}")
        }
        let (device, dtype) = (device(x)?, x.dtype());
        let dx = empty(x.shape(), dtype, device)?;
        let of_gates = empty(x.shape(), dtype, device)?;
        let blocks = (rows * heads).div_ceil(WARPS).min(1024);
        let partial = empty((blocks * WARPS, size), DType::F32, device)?;
        let arguments = arguments!(
            at gradient, x; given gates, stride; at norm.weight, &dx, &of_gates, &partial;
            int rows, heads, size; float norm.offset, norm.epsilon
        );
        MODULE.typed("gated_norm_backward", dtype).launch(
            device,
            Grid::rows(blocks, 32 * WARPS),
            &arguments,
        )?;
        let sums = sum_parts(&MODULE, "gated_norm_weight_sums", &partial)?;
        Ok((dx, of_gates, sums))
    }
}
