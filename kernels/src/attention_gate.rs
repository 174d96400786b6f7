//! Attention output gate (Qwen3.5): multiplies by a sigmoid; a query head's columns are followed by
//! its gate's.

use candle_core::{Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::heads::Heads;
use super::matmul::no_adapter_columns;
use super::real::{sigmoid, vectorised};

/// `packed`: [rows, row_width + query_width] -> queries, keys and values, [rows, row_width], and
/// gates, [rows, query_width].
pub fn split_gate(packed: &Tensor, heads: Heads) -> Result<(Tensor, Tensor)> {
    on_gpu!(packed => gpu::split(packed, heads, packed.dtype()));
    by_number_type!(packed, split(packed, heads))
}

/// As [`split_gate`] for decoding: on a GPU queries, keys and values are f32.
pub fn split_gate_open(packed: &Tensor, heads: Heads) -> Result<(Tensor, Tensor)> {
    on_gpu!(packed => gpu::split(packed, heads, candle_core::DType::F32));
    split_gate(packed, heads)
}

/// Inverse of [`split_gate`]: [rows, row_width + query_width + adapter_columns].
pub fn join_gate(
    rows: &Tensor,
    gate: &Tensor,
    heads: Heads,
    adapter_columns: usize,
) -> Result<Tensor> {
    on_gpu!(rows => gpu::join(rows, gate, heads, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    by_number_type!(rows, join(rows, gate, heads))
}

/// `attended * sigmoid(gate)`, both [rows, query_width] -> [rows, query_width + adapter_columns].
pub fn gated_attention(attended: &Tensor, gate: &Tensor, adapter_columns: usize) -> Result<Tensor> {
    on_gpu!(attended => gpu::forward(attended, gate, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    by_number_type!(attended, forward(attended, gate))
}

/// Gradients of `attended` and `gate`.
pub fn gated_attention_backward(
    gradient: &Tensor,
    attended: &Tensor,
    gate: &Tensor,
) -> Result<(Tensor, Tensor)> {
    on_gpu!(attended => gpu::backward(gradient, attended, gate));
    by_number_type!(attended, backward(gradient, attended, gate))
}

fn split<T: Real>(packed: &Tensor, heads: Heads) -> Result<(Tensor, Tensor)> {
    let rows = packed.dims2()?.0;
    let (query, size, width) = (heads.query_width(), heads.dimension, heads.row_width());
    numbers!(T: numbers = packed);
    let mut own = Vec::with_capacity(rows * width);
    let mut gates = Vec::with_capacity(rows * query);
    for row in numbers.chunks_exact(width + query) {
        for pair in row[..2 * query].chunks_exact(2 * size) {
            own.extend_from_slice(&pair[..size]);
            gates.extend_from_slice(&pair[size..]);
        }
        own.extend_from_slice(&row[2 * query..]);
    }
    let device = packed.device();
    Ok((
        Tensor::from_vec(own, (rows, width), device)?,
        Tensor::from_vec(gates, (rows, query), device)?,
    ))
}

fn join<T: Real>(rows: &Tensor, gate: &Tensor, heads: Heads) -> Result<Tensor> {
    let (count, width) = rows.dims2()?;
    let (query, size) = (heads.query_width(), heads.dimension);
    numbers!(T: numbers = rows, gates = gate);
    let mut packed = Vec::with_capacity(count * (width + query));
    for (row, gates) in numbers.chunks_exact(width).zip(gates.chunks_exact(query)) {
        for (own, gate) in row[..query]
            .chunks_exact(size)
            .zip(gates.chunks_exact(size))
        {
            packed.extend_from_slice(own);
            packed.extend_from_slice(gate);
        }
        packed.extend_from_slice(&row[query..]);
    }
    Tensor::from_vec(packed, (count, width + query), rows.device())
}

fn forward<T: Real>(attended: &Tensor, gate: &Tensor) -> Result<Tensor> {
    numbers!(T: numbers = attended, gates = gate);
    let mut output = numbers.to_vec();
    vectorised!(|| {
        output
            .iter_mut()
            .zip(gates)
            .for_each(|(x, &gate)| *x *= sigmoid(gate))
    });
    Tensor::from_vec(output, attended.shape(), attended.device())
}

fn backward<T: Real>(
    gradient: &Tensor,
    attended: &Tensor,
    gate: &Tensor,
) -> Result<(Tensor, Tensor)> {
    numbers!(T: gradients = gradient, numbers = attended, gates = gate);
    let mut attended_gradient = gradients.to_vec();
    let mut gate_gradient = vec![T::zero(); gates.len()];
    vectorised!(|| {
        for i in 0..gates.len() {
            let s = sigmoid(gates[i]);
            gate_gradient[i] = attended_gradient[i] * numbers[i] * s * (T::one() - s);
            attended_gradient[i] *= s;
        }
    });
    let device = gradient.device();
    Ok((
        Tensor::from_vec(attended_gradient, attended.shape(), device)?,
        Tensor::from_vec(gate_gradient, gate.shape(), device)?,
    ))
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::Heads;
    use crate::cuda::{Grid, Module, arguments, device, empty, module};

    static MODULE: Module = module!("attention_gate");

    fn grid(rows: usize, width: usize) -> Grid {
        Grid::blocks((rows, width.div_ceil(256), 1), 256)
    }

    pub(super) fn split(packed: &Tensor, heads: Heads, to: DType) -> Result<(Tensor, Tensor)> {
        let (rows, all) = packed.dims2()?;
        let (width, query) = (heads.row_width(), heads.query_width());
        if all != width + query {
            bail!("rows of {all} numbers for {heads:?} with gates")
        }
        let (device, dtype) = (device(packed)?, packed.dtype());
        let own = empty((rows, width), to, device)?;
        let gates = empty((rows, query), dtype, device)?;
        let arguments = arguments!(at packed, &own, &gates; int width, query, heads.dimension);
        let name = if to == dtype {
            "attention_gate_split"
        } else {
            "attention_gate_split_open"
        };
        MODULE
            .typed(name, dtype)
            .launch(device, grid(rows, all), &arguments)?;
        Ok((own, gates))
    }

    pub(super) fn join(
        own: &Tensor,
        gates: &Tensor,
        heads: Heads,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        let (rows, query) = gates.dims2()?;
        let (width, dtype) = (heads.row_width(), own.dtype());
        if own.dims2()? != (rows, width) || query != heads.query_width() || gates.dtype() != dtype {
            bail!("{own:?} and gates {gates:?} for {heads:?}")
        }
        let (device, stride) = (device(own)?, width + query + adapter_columns);
        let packed = empty((rows, stride), dtype, device)?;
        let arguments = arguments!(
            at own, gates, &packed; int stride, width, query, heads.dimension
        );
        MODULE.typed("attention_gate_join", dtype).launch(
            device,
            grid(rows, width + query),
            &arguments,
        )?;
        Ok(packed)
    }

    fn check(alike: &[&Tensor]) -> Result<(usize, usize)> {
        if alike
            .iter()
            .any(|tensor| tensor.dims() != alike[0].dims() || tensor.dtype() != alike[0].dtype())
        {
            bail!("attention and gates differ: {alike:?}")
        }
        alike[0].dims2()
    }

    pub(super) fn forward(
        attended: &Tensor,
        gates: &Tensor,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        let (rows, width) = check(&[attended, gates])?;
        let device = device(attended)?;
        let dtype = attended.dtype();
        let output = empty((rows, width + adapter_columns), dtype, device)?;
        let arguments = arguments!(
            at attended, gates, &output; int width + adapter_columns, width
        );
        MODULE
            .typed("attention_gate", dtype)
            .launch(device, grid(rows, width), &arguments)?;
        Ok(output)
    }

    pub(super) fn backward(
        gradient: &Tensor,
        attended: &Tensor,
        gates: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (rows, width) = check(&[gradient, attended, gates])?;
        let (device, dtype) = (device(attended)?, attended.dtype());
        let [of_attended, of_gates] = [(); 2].map(|()| empty((rows, width), dtype, device));
        let (of_attended, of_gates) = (of_attended?, of_gates?);
        let arguments = arguments!(
            at gradient, attended, gates, &of_attended, &of_gates; int width
        );
        MODULE.typed("attention_gate_backward", dtype).launch(
            device,
            grid(rows, width),
            &arguments,
        )?;
        Ok((of_attended, of_gates))
    }
}
