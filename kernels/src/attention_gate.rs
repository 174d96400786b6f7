//! Attention whose output is multiplied by the sigmoid of a gate (Qwen3.5): a query head's columns are followed by its
//! gate's. CPU alone.

use candle_core::{Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, read};
use super::heads::Heads;
use super::real::{sigmoid, vectorised};

/// `packed`: [rows, row_width + query_width] -> queries, keys and values, [rows, row_width], and gates, [rows,
/// query_width].
pub fn split_gate(packed: &Tensor, heads: Heads) -> Result<(Tensor, Tensor)> {
    by_number_type!(packed, split(packed, heads))
}

/// The inverse of [`split_gate`].
pub fn join_gate(rows: &Tensor, gate: &Tensor, heads: Heads) -> Result<Tensor> {
    by_number_type!(rows, join(rows, gate, heads))
}

/// `attended * sigmoid(gate)`, both [rows, query_width].
pub fn gated_attention(attended: &Tensor, gate: &Tensor) -> Result<Tensor> {
    by_number_type!(attended, forward(attended, gate))
}

/// The gradients of `attended` and of `gate`.
pub fn gated_attention_backward(gradient: &Tensor, attended: &Tensor, gate: &Tensor) -> Result<(Tensor, Tensor)> {
    by_number_type!(attended, backward(gradient, attended, gate))
}

fn split<T: Real>(packed: &Tensor, heads: Heads) -> Result<(Tensor, Tensor)> {
    let rows = packed.dims2()?.0;
    let (query, size, width) = (heads.query_width(), heads.dimension, heads.row_width());
    let packed_read = read(packed)?;
    let (mut own, mut gates) = (Vec::with_capacity(rows * width), Vec::with_capacity(rows * query));
    for row in packed_read.numbers::<T>()?.chunks_exact(width + query) {
        for pair in row[..2 * query].chunks_exact(2 * size) {
            own.extend_from_slice(&pair[..size]);
            gates.extend_from_slice(&pair[size..]);
        }
        own.extend_from_slice(&row[2 * query..]);
    }
    let device = packed.device();
    Ok((Tensor::from_vec(own, (rows, width), device)?, Tensor::from_vec(gates, (rows, query), device)?))
}

fn join<T: Real>(rows: &Tensor, gate: &Tensor, heads: Heads) -> Result<Tensor> {
    let (count, width) = rows.dims2()?;
    let (query, size) = (heads.query_width(), heads.dimension);
    let (rows_read, gate_read) = (read(rows)?, read(gate)?);
    let mut packed = Vec::with_capacity(count * (width + query));
    let both = rows_read.numbers::<T>()?.chunks_exact(width).zip(gate_read.numbers::<T>()?.chunks_exact(query));
    for (row, gates) in both {
        for (own, gate) in row[..query].chunks_exact(size).zip(gates.chunks_exact(size)) {
            packed.extend_from_slice(own);
            packed.extend_from_slice(gate);
        }
        packed.extend_from_slice(&row[query..]);
    }
    Tensor::from_vec(packed, (count, width + query), rows.device())
}

fn forward<T: Real>(attended: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let (attended_read, gate_read) = (read(attended)?, read(gate)?);
    let mut output = attended_read.numbers::<T>()?.to_vec();
    let gates = gate_read.numbers::<T>()?;
    vectorised(|| output.iter_mut().zip(gates).for_each(|(x, &gate)| *x *= sigmoid(gate)));
    Tensor::from_vec(output, attended.shape(), attended.device())
}

fn backward<T: Real>(gradient: &Tensor, attended: &Tensor, gate: &Tensor) -> Result<(Tensor, Tensor)> {
    let (gradient_read, attended_read, gate_read) = (read(gradient)?, read(attended)?, read(gate)?);
    let (attended_numbers, gates) = (attended_read.numbers::<T>()?, gate_read.numbers::<T>()?);
    let mut attended_gradient = gradient_read.numbers::<T>()?.to_vec();
    let mut gate_gradient = vec![T::constant(0.0); gates.len()];
    vectorised(|| {
        for i in 0..gates.len() {
            let s = sigmoid(gates[i]);
            gate_gradient[i] = attended_gradient[i] * attended_numbers[i] * s * (T::constant(1.0) - s);
            attended_gradient[i] *= s;
        }
    });
    let device = gradient.device();
    Ok((
        Tensor::from_vec(attended_gradient, attended.shape(), device)?,
        Tensor::from_vec(gate_gradient, gate.shape(), device)?,
    ))
}
