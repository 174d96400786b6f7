//! The norm of each head of the gated delta rule's output, times SiLU of its gate: `y = x / rms(x) * weight * silu(z)`.
//! CPU alone.

use candle_core::{Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, read};
use super::real::{sigmoid, vectorised};
use super::rms_norm::{Norm, inverse_rms, norm_row, norm_row_backward};

/// `x`: [rows, width], heads of as many columns as the norm has weights; the gates are `width` columns of `packed` from
/// `column` on -> [rows, width].
pub fn gated_norm(x: &Tensor, (packed, column): (&Tensor, usize), norm: Norm<'_>) -> Result<Tensor> {
    by_number_type!(x, forward(x, (packed, column), norm))
}

/// `gradient`: [rows, width] -> the gradients of `x` and of the gates, [rows, width], and of the norm's weight.
pub fn gated_norm_backward(
    gradient: &Tensor,
    x: &Tensor,
    (packed, column): (&Tensor, usize),
    norm: Norm<'_>,
) -> Result<(Tensor, Tensor, Tensor)> {
    by_number_type!(x, backward(gradient, x, (packed, column), norm))
}

fn forward<T: Real>(x: &Tensor, (packed, column): (&Tensor, usize), norm: Norm<'_>) -> Result<Tensor> {
    let ((_, width), (_, stride), size) = (x.dims2()?, packed.dims2()?, norm.weight.dims1()?);
    let (x_read, packed_read, weight_read) = (read(x)?, read(packed)?, read(norm.weight)?);
    let (numbers, gates, weights) = (x_read.numbers::<T>()?, packed_read.numbers::<T>()?, weight_read.numbers::<T>()?);
    let constants = (T::constant(norm.offset), T::constant(norm.epsilon));
    let mut output = vec![T::constant(0.0); numbers.len()];
    vectorised(|| {
        let rows = numbers.chunks_exact(width).zip(output.chunks_exact_mut(width)).zip(gates.chunks_exact(stride));
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
    let (gradient_read, x_read, packed_read, weight_read) =
        (read(gradient)?, read(x)?, read(packed)?, read(norm.weight)?);
    let (gradients, numbers) = (gradient_read.numbers::<T>()?, x_read.numbers::<T>()?);
    let (gates, weights) = (packed_read.numbers::<T>()?, weight_read.numbers::<T>()?);
    let (offset, epsilon, one) = (T::constant(norm.offset), T::constant(norm.epsilon), T::constant(1.0));
    let mut x_gradient = vec![T::constant(0.0); numbers.len()];
    let mut gate_gradient = x_gradient.clone();
    let (mut weight_gradient, mut inner) = (vec![T::constant(0.0); size], vec![T::constant(0.0); size]);
    vectorised(|| {
        for (index, row) in numbers.chunks_exact(size).enumerate() {
            let at = index * size;
            let from = at / width * stride + column + at % width;
            let inverse = inverse_rms(row, epsilon);
            for i in 0..size {
                let (z, d) = (gates[from + i], gradients[at + i]);
                let s = sigmoid(z);
                let (silu, normed) = (z * s, row[i] * inverse);
                gate_gradient[at + i] = d * normed * (weights[i] + offset) * s * (one + z * (one - s));
                inner[i] = d * silu;
                weight_gradient[i] += inner[i] * normed;
            }
            norm_row_backward(&inner, row, weights, (offset, epsilon), &mut x_gradient[at..at + size]);
        }
    });
    let device = x.device();
    Ok((
        Tensor::from_vec(x_gradient, x.shape(), device)?,
        Tensor::from_vec(gate_gradient, x.shape(), device)?,
        Tensor::from_vec(weight_gradient, size, device)?,
    ))
}
