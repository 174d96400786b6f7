//! Gated activation of the MLP: `silu(gate) * up` or `gelu(gate) * up` (Shazeer 2020, arXiv
//! 2002.05202). Both are `x * sigmoid(z)`: with z = x, or for tanh-approximated GELU `z = 2 sqrt(2
//! / pi) (x + 0.044715 x^3)`. gpt-oss's is `x * sigmoid(slope * x) * (up + 1)` with bounded x and
//! up.

use candle_core::{DType, Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
use super::matmul::no_adapter_columns;
use super::open_rows::OpenRows;
use super::real::{sigmoid, vectorised};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Silu,
    /// Tanh approximation (`gelu_pytorch_tanh`).
    GeluTanh,
    /// Gate and up in alternating columns; the gate is at most `limit`, up within ±limit.
    Clamped {
        slope: f64,
        limit: f64,
    },
}

/// `gate_up`: [rows, 2 * width], gate first -> [rows, width + adapter_columns], last
/// `adapter_columns` columns unwritten (see [`super::matmul`]).
pub fn gated(gate_up: &Tensor, activation: Activation, adapter_columns: usize) -> Result<Tensor> {
    on_gpu!(gate_up => gpu::forward(gate_up, activation, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    match activation {
        Activation::Silu => by_number_type!(gate_up, forward(gate_up, |x| (x, None))),
        Activation::GeluTanh => by_number_type!(gate_up, forward(gate_up, gelu_argument)),
        Activation::Clamped { slope, limit } => {
            by_number_type!(gate_up, clamped(gate_up, slope, limit))
        }
    }
}

/// As [`gated`] for decoding, adding the adapters' part. `gate_up`: 2 * width outputs, f32 on a GPU
/// -> [rows, width] in `dtype`.
#[cfg_attr(
    not(feature = "cuda"),
    expect(unused_variables, reason = "the CPU has one dtype")
)]
pub fn gated_open(gate_up: &OpenRows, activation: Activation, dtype: DType) -> Result<Tensor> {
    on_gpu!(gate_up.rows => gpu::decode(gate_up, activation, dtype));
    gated(&gate_up.rows, activation, 0)
}

/// `gradient`: [rows, width], `gate_up`: [rows, 2 * width] -> gradient of `gate_up`: [rows, 2 *
/// width + adapter_columns].
pub fn gated_backward(
    gradient: &Tensor,
    gate_up: &Tensor,
    activation: Activation,
    adapter_columns: usize,
) -> Result<Tensor> {
    on_gpu!(gate_up => gpu::backward(gradient, gate_up, activation, adapter_columns));
    no_adapter_columns(adapter_columns)?;
    match activation {
        Activation::Silu => by_number_type!(gate_up, backward(gradient, gate_up, |x| (x, None))),
        Activation::GeluTanh => {
            by_number_type!(gate_up, backward(gradient, gate_up, gelu_argument))
        }
        Activation::Clamped { slope, limit } => {
            by_number_type!(gate_up, clamped_backward(gradient, gate_up, slope, limit))
        }
    }
}

/// Clamped gate and up.
#[inline(always)]
fn bounded<T: Real>(pair: &[T], limit: T) -> (T, T) {
    let below = |x: T| if x > limit { limit } else { x };
    (below(pair[0]), -below(-below(pair[1])))
}

fn clamped<T: Real>(gate_up: &Tensor, slope: f64, limit: f64) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let (slope, limit, one) = (T::constant(slope), T::constant(limit), T::one());
    numbers!(T: numbers = gate_up);
    let mut output = Vec::with_capacity(rows * double / 2);
    vectorised!(|| {
        output.extend(numbers.chunks_exact(2).map(|pair| {
            let (gate, up) = bounded(pair, limit);
            gate * sigmoid(slope * gate) * (up + one)
        }));
    });
    Tensor::from_vec(output, (rows, double / 2), gate_up.device())
}

fn clamped_backward<T: Real>(
    gradient: &Tensor,
    gate_up: &Tensor,
    slope: f64,
    limit: f64,
) -> Result<Tensor> {
    let (slope, limit, one) = (T::constant(slope), T::constant(limit), T::one());
    numbers!(T: gradients = gradient, numbers = gate_up);
    let mut output = vec![T::zero(); numbers.len()];
    vectorised!(|| {
        for ((pair, out), &d) in numbers
            .chunks_exact(2)
            .zip(output.chunks_exact_mut(2))
            .zip(gradients)
        {
            let (gate, up) = bounded(pair, limit);
            let share = sigmoid(slope * gate);
            // Clamped values pass no gradient.
            if pair[0] <= limit {
                out[0] = d * (up + one) * share * (one + slope * gate * (one - share));
            }
            if up == pair[1] {
                out[1] = d * gate * share;
            }
        }
    });
    Tensor::from_vec(output, gate_up.shape(), gate_up.device())
}

/// z of GELU, and its derivative by x.
#[inline(always)]
fn gelu_argument<T: Real>(x: T) -> (T, Option<T>) {
    let twice = T::constant(2.0 * (2.0 / std::f64::consts::PI).sqrt());
    let cubic = T::constant(0.044_715);
    let square = cubic * x * x;
    (
        twice * (x + square * x),
        Some(twice * (T::one() + T::constant(3.0) * square)),
    )
}

/// `argument`: x -> z, and the derivative of z if not 1.
fn forward<T: Real>(gate_up: &Tensor, argument: impl Fn(T) -> (T, Option<T>)) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let width = double / 2;
    numbers!(T: numbers = gate_up);
    let mut output = vec![T::zero(); rows * width];
    vectorised!(|| {
        for (row, out) in numbers
            .chunks_exact(double)
            .zip(output.chunks_exact_mut(width))
        {
            let (gate, up) = row.split_at(width);
            for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *o = g * sigmoid(argument(g).0) * u;
            }
        }
    });
    Tensor::from_vec(output, (rows, width), gate_up.device())
}

fn backward<T: Real>(
    gradient: &Tensor,
    gate_up: &Tensor,
    argument: impl Fn(T) -> (T, Option<T>),
) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let width = double / 2;
    numbers!(T: gradients = gradient, numbers = gate_up);
    let mut output = vec![T::zero(); rows * double];
    vectorised!(|| {
        for ((d, row), out) in gradients
            .chunks_exact(width)
            .zip(numbers.chunks_exact(double))
            .zip(output.chunks_exact_mut(double))
        {
            let (gate, up) = row.split_at(width);
            let (gate_out, up_out) = out.split_at_mut(width);
            for i in 0..width {
                let (z, slope) = argument(gate[i]);
                let (g, u, s) = (gate[i], up[i], sigmoid(z));
                let bend = g * (T::one() - s);
                gate_out[i] = d[i] * u * s * (T::one() + slope.map_or(bend, |slope| bend * slope));
                up_out[i] = d[i] * g * s;
            }
        }
    });
    Tensor::from_vec(output, (rows, double), gate_up.device())
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::{Activation, OpenRows};
    use crate::cuda::{Argument, Grid, Module, arguments, device, empty, float, module};

    static MODULE: Module = module!("swiglu");

    /// The kernel for SiLU, GELU or clamped, with additional arguments.
    fn named(
        activation: Activation,
        [silu, gelu, clamped]: [&'static str; 3],
    ) -> (&'static str, Vec<Argument>) {
        match activation {
            Activation::Silu => (silu, Vec::new()),
            Activation::GeluTanh => (gelu, Vec::new()),
            Activation::Clamped { slope, limit } => (clamped, vec![float(slope), float(limit)]),
        }
    }

    /// A block per row, a thread per 16 bytes.
    fn grid(rows: usize, width: usize, dtype: DType) -> Grid {
        let threads = (width * dtype.size_in_bytes()).div_ceil(16);
        Grid::blocks(
            (rows, threads.div_ceil(256), 1),
            threads.next_multiple_of(32).min(256),
        )
    }

    pub(super) fn forward(
        gate_up: &Tensor,
        activation: Activation,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        let (rows, double) = gate_up.dims2()?;
        let (device, dtype, width) = (device(gate_up)?, gate_up.dtype(), double / 2);
        let output = empty((rows, width + adapter_columns), dtype, device)?;
        let (name, own) = named(activation, ["swiglu", "geglu", "clamped"]);
        let sizes = arguments!(at gate_up, &output; int width + adapter_columns, width);
        let arguments = [sizes.as_slice(), &own].concat();
        MODULE
            .typed(name, dtype)
            .launch(device, grid(rows, width, dtype), &arguments)?;
        Ok(output)
    }

    pub(super) fn decode(
        gate_up: &OpenRows,
        activation: Activation,
        dtype: DType,
    ) -> Result<Tensor> {
        let ((rows, double), device) = (gate_up.own()?.dims2()?, device(&gate_up.rows)?);
        let width = double / 2;
        if gate_up.rows.dtype() != DType::F32 {
            bail!(
                "gate and up in {:?}; while decoding they are f32",
                gate_up.rows.dtype()
            )
        }
        let output = empty((rows, width), dtype, device)?;
        let mut arguments = gate_up.arguments()?.to_vec();
        arguments.extend(arguments!(at &output; int rows, width));
        // A warp has sixteen rows and columns. Clamped activations only occur in experts, whose
        // rows are never open.
        let (names, blocks, threads) = match dtype == DType::BF16 && width.is_multiple_of(16) {
            true => (
                ["swiglu_decode_tensor", "geglu_decode_tensor"],
                (width.div_ceil(64), rows.div_ceil(16), 1),
                128,
            ),
            false => (
                ["swiglu_decode", "geglu_decode"],
                (width.div_ceil(256), rows, 1),
                256,
            ),
        };
        let grid = Grid::blocks(blocks, threads);
        let name = match activation {
            Activation::Silu => names[0],
            Activation::GeluTanh => names[1],
            Activation::Clamped { .. } => bail!("a clamped activation of open rows"),
        };
        MODULE
            .typed(name, dtype)
            .early()
            .launch(device, grid, &arguments)?;
        Ok(output)
    }

    pub(super) fn backward(
        gradient: &Tensor,
        gate_up: &Tensor,
        activation: Activation,
        adapter_columns: usize,
    ) -> Result<Tensor> {
        let (rows, double) = gate_up.dims2()?;
        let (device, dtype, width) = (device(gate_up)?, gate_up.dtype(), double / 2);
        if gradient.dims2()? != (rows, width) || gradient.dtype() != dtype {
            bail!("a gradient of {gradient:?} for {gate_up:?}")
        }
        let output = empty((rows, double + adapter_columns), dtype, device)?;
        let (name, own) = named(
            activation,
            ["swiglu_backward", "geglu_backward", "clamped_backward"],
        );
        let sizes = arguments!(at gradient, gate_up, &output; int double + adapter_columns, width);
        let arguments = [sizes.as_slice(), &own].concat();
        MODULE
            .typed(name, dtype)
            .launch(device, grid(rows, width, dtype), &arguments)?;
        Ok(output)
    }
}
