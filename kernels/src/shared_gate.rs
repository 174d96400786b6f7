//! Adds a shared expert's output times the sigmoid of a gate to the other experts' (Qwen3.5).

use candle_core::{Result, Tensor};

use super::matmul::no_adapter_columns;
use super::open_rows::OpenRows;

/// `sum`, `shared`: [rows, width], `gate`: [rows, 1] -> `sum + shared * sigmoid(gate)`, [rows, width].
pub fn add_shared(sum: &Tensor, shared: &Tensor, gate: &Tensor) -> Result<Tensor> {
    on_gpu!(sum => gpu::add(sum, shared, gate));
    sum + shared.broadcast_mul(&sigmoid(gate)?)?
}

/// As [`add_shared`] for decoding, adding the adapters' part to `shared` and `gate`; f32 on a GPU.
pub fn add_shared_open(sum: &Tensor, shared: &OpenRows, gate: &OpenRows) -> Result<Tensor> {
    on_gpu!(sum => gpu::add_open(sum, shared, gate));
    add_shared(sum, &shared.rows, &gate.rows)
}

/// `gradient`: [rows, width] of the sum -> those of `shared`, [rows, width + adapter_columns], and
/// `gate`, [rows, 1 + gate_columns], last columns unwritten (see [`super::matmul`]).
pub fn add_shared_backward(
    gradient: &Tensor,
    shared: &Tensor,
    gate: &Tensor,
    [adapter_columns, gate_columns]: [usize; 2],
) -> Result<(Tensor, Tensor)> {
    on_gpu!(gradient => gpu::backward(gradient, shared, gate, [adapter_columns, gate_columns]));
    no_adapter_columns(adapter_columns + gate_columns)?;
    let share = sigmoid(gate)?;
    let slope = (&share - share.sqr()?)?;
    Ok((
        gradient.broadcast_mul(&share)?,
        ((gradient * shared)?.sum_keepdim(1)? * slope)?,
    ))
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::OpenRows;
    use crate::cuda::{Grid, Module, arguments, at, device, empty, int, module};

    static MODULE: Module = module!("shared_gate");

    /// Rows and width.
    fn check(sum: &Tensor, shared: &Tensor, gate: &Tensor) -> Result<(usize, usize)> {
        let (rows, width) = sum.dims2()?;
        if shared.dims2()? != (rows, width)
            || gate.dims2()? != (rows, 1)
            || shared.dtype() != gate.dtype()
        {
            bail!("{sum:?} with {shared:?} and gates {gate:?}")
        }
        Ok((rows, width))
    }

    pub(super) fn add(sum: &Tensor, shared: &Tensor, gate: &Tensor) -> Result<Tensor> {
        let ((rows, width), device, dtype) = (check(sum, shared, gate)?, device(sum)?, sum.dtype());
        if shared.dtype() != dtype {
            bail!("{dtype:?} and {:?} in one sum", shared.dtype())
        }
        let output = empty((rows, width), dtype, device)?;
        let arguments = arguments!(at sum, shared, gate, &output; int width);
        MODULE
            .typed("shared_gate", dtype)
            .launch(device, Grid::rows(rows, 256), &arguments)?;
        Ok(output)
    }

    pub(super) fn add_open(sum: &Tensor, shared: &OpenRows, gate: &OpenRows) -> Result<Tensor> {
        let (rows, width) = check(sum, &shared.own()?, &gate.own()?)?;
        if shared.rows.dtype() != DType::F32 {
            bail!(
                "shared rows in {:?}; while decoding they are f32",
                shared.rows.dtype()
            )
        }
        let device = device(sum)?;
        let output = empty((rows, width), DType::F32, device)?;
        let mut arguments = vec![at(sum)?];
        arguments.extend(shared.arguments()?);
        arguments.extend(gate.arguments()?);
        arguments.extend([at(&output)?, int(width)]);
        let grid = Grid::blocks((width.div_ceil(256), rows, 1), 256);
        MODULE
            .typed("shared_gate_open", sum.dtype())
            .early()
            .launch(device, grid, &arguments)?;
        Ok(output)
    }

    pub(super) fn backward(
        gradient: &Tensor,
        shared: &Tensor,
        gate: &Tensor,
        [adapter_columns, gate_columns]: [usize; 2],
    ) -> Result<(Tensor, Tensor)> {
        let (rows, width) = check(gradient, shared, gate)?;
        let device = device(gradient)?;
        let dtype = gradient.dtype();
        if shared.dtype() != dtype {
            bail!("a gradient in {dtype:?} of {:?}", shared.dtype())
        }
        let (stride, gate_stride) = (width + adapter_columns, 1 + gate_columns);
        let of_shared = empty((rows, stride), dtype, device)?;
        let of_gate = empty((rows, gate_stride), dtype, device)?;
        let arguments = arguments!(
            at gradient, shared, gate, &of_shared; int stride; at &of_gate; int gate_stride, width
        );
        MODULE.typed("shared_gate_backward", dtype).launch(
            device,
            Grid::rows(rows, 256),
            &arguments,
        )?;
        Ok((of_shared, of_gate))
    }
}
