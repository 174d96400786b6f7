//! The gated activation of the MLP: `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202).

use candle_core::{DType, Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, read};
use super::matmul::no_room;
use super::open_rows::OpenRows;
use super::real::vectorised;

/// `gate_up`: [rows, 2 * width], the gate's columns first -> [rows, width + room], the last `room` columns unwritten
/// (see [`super::matmul`]).
pub fn swiglu(gate_up: &Tensor, room: usize) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if gate_up.device().is_cuda() {
        return gpu::forward(gate_up, room);
    }
    no_room(room)?;
    by_number_type!(gate_up, forward(gate_up))
}

/// As [`swiglu`] while decoding, with what adapters add. `gate_up`: 2 * width outputs, in f32 on a GPU -> [rows, width]
/// in `dtype`.
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "the CPU has one dtype"))]
pub fn swiglu_open(gate_up: &OpenRows, dtype: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if gate_up.rows.device().is_cuda() {
        return gpu::decode(gate_up, dtype);
    }
    swiglu(&gate_up.rows, 0)
}

/// `gradient`: [rows, width], `gate_up`: [rows, 2 * width] -> gradient of `gate_up`: [rows, 2 * width + room].
pub fn swiglu_backward(gradient: &Tensor, gate_up: &Tensor, room: usize) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if gate_up.device().is_cuda() {
        return gpu::backward(gradient, gate_up, room);
    }
    no_room(room)?;
    by_number_type!(gate_up, backward(gradient, gate_up))
}

fn forward<T: Real>(gate_up: &Tensor) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let width = double / 2;
    let gate_up_read = read(gate_up)?;
    let numbers = gate_up_read.numbers::<T>()?;
    let mut output = vec![T::of(0.0); rows * width];
    vectorised(|| {
        for (row, out) in numbers.chunks_exact(double).zip(output.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *o = g * sigmoid(g) * u;
            }
        }
    });
    Tensor::from_vec(output, (rows, width), gate_up.device())
}

fn backward<T: Real>(gradient: &Tensor, gate_up: &Tensor) -> Result<Tensor> {
    let (rows, double) = gate_up.dims2()?;
    let width = double / 2;
    let (gradient_read, gate_up_read) = (read(gradient)?, read(gate_up)?);
    let (gradients, numbers) = (gradient_read.numbers::<T>()?, gate_up_read.numbers::<T>()?);
    let mut output = vec![T::of(0.0); rows * double];
    vectorised(|| {
        for ((d, row), out) in
            gradients.chunks_exact(width).zip(numbers.chunks_exact(double)).zip(output.chunks_exact_mut(double))
        {
            let (gate, up) = row.split_at(width);
            let (gate_out, up_out) = out.split_at_mut(width);
            for i in 0..width {
                let (g, u, s) = (gate[i], up[i], sigmoid(gate[i]));
                gate_out[i] = d[i] * u * s * (T::of(1.0) + g * (T::of(1.0) - s));
                up_out[i] = d[i] * g * s;
            }
        }
    });
    Tensor::from_vec(output, (rows, double), gate_up.device())
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::of(1.0) / (T::of(1.0) + (-x).exponential())
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::OpenRows;
    use crate::cuda::{Grid, Module, at, device, empty, int, launch, launch_early, module};

    static MODULE: Module = module!("swiglu");

    /// A row, by shares of 16 bytes a thread.
    fn grid(rows: usize, width: usize, dtype: DType) -> Grid {
        let threads = (width * dtype.size_in_bytes()).div_ceil(16);
        Grid {
            blocks: (rows, threads.div_ceil(256), 1),
            threads: threads.next_multiple_of(32).min(256),
            shared_bytes: 0,
        }
    }

    pub(super) fn forward(gate_up: &Tensor, room: usize) -> Result<Tensor> {
        let (rows, double) = gate_up.dims2()?;
        let (device, dtype, width) = (device(gate_up)?, gate_up.dtype(), double / 2);
        let output = empty((rows, width + room), dtype, device)?;
        let arguments = [at(gate_up)?, at(&output)?, int(width + room), int(width)];
        launch(device, &MODULE, "swiglu", Some(dtype), grid(rows, width, dtype), &arguments)?;
        Ok(output)
    }

    pub(super) fn decode(gate_up: &OpenRows, dtype: DType) -> Result<Tensor> {
        let ((rows, double), device) = (gate_up.own()?.dims2()?, device(&gate_up.rows)?);
        let width = double / 2;
        if gate_up.rows.dtype() != DType::F32 {
            bail!("gate and up in {:?}; while decoding they are f32", gate_up.rows.dtype())
        }
        let output = empty((rows, width), dtype, device)?;
        let mut arguments = gate_up.arguments()?.to_vec();
        arguments.extend([at(&output)?, int(rows), int(width)]);
        // A warp has sixteen rows and columns.
        let (name, blocks, threads) = match dtype == DType::BF16 && width.is_multiple_of(16) {
            true => ("swiglu_decode_tensor", (width.div_ceil(64), rows.div_ceil(16), 1), 128),
            false => ("swiglu_decode", (width.div_ceil(256), rows, 1), 256),
        };
        let grid = Grid { blocks, threads, shared_bytes: 0 };
        launch_early(device, &MODULE, name, Some(dtype), grid, &arguments)?;
        Ok(output)
    }

    pub(super) fn backward(gradient: &Tensor, gate_up: &Tensor, room: usize) -> Result<Tensor> {
        let (rows, double) = gate_up.dims2()?;
        let (device, dtype, width) = (device(gate_up)?, gate_up.dtype(), double / 2);
        if gradient.dims2()? != (rows, width) || gradient.dtype() != dtype {
            bail!("a gradient of {:?} {:?} for {dtype:?} {:?}", gradient.dtype(), gradient.shape(), gate_up.shape())
        }
        let output = empty((rows, double + room), dtype, device)?;
        let arguments = [at(gradient)?, at(gate_up)?, at(&output)?, int(double + room), int(width)];
        launch(device, &MODULE, "swiglu_backward", Some(dtype), grid(rows, width, dtype), &arguments)?;
        Ok(output)
    }
}
