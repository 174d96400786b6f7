//! A bias added to every row of a result.

use candle_core::{Result, Tensor};

/// `y`: [rows, width], `bias`: `[width]` -> their sum; on a GPU in `y`'s own memory, where its rows may be parts of wider ones, and
/// in f32 beside a bias in bf16.
pub fn add_bias(y: Tensor, bias: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if y.device().is_cuda() {
        return gpu::add(y, bias);
    }
    y.broadcast_add(bias)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{Argument, Grid, Module, at, device, int, launch, module, rows_at};

    static MODULE: Module = module!("bias");

    pub(super) fn add(y: Tensor, bias: &Tensor) -> Result<Tensor> {
        let (rows, width) = y.dims2()?;
        let (kernel, suffix) = match (y.dtype(), bias.dtype()) {
            (own, other) if own == other => ("add_bias", Some(own)),
            (DType::F32, DType::BF16) => ("add_bias_bf16_into_f32", None),
            (own, other) => bail!("a bias in {other:?} for rows in {own:?}"),
        };
        if bias.dims1()? != width {
            bail!("a bias of {:?} for rows of {width}", bias.shape())
        }
        let [rows_at, stride] = rows_at(&y)?;
        let arguments = [rows_at, stride, at(bias)?, Argument::Long((rows * width) as u64), int(width)];
        launch(device(&y)?, &MODULE, kernel, suffix, Grid::elements(rows * width), &arguments)?;
        Ok(y)
    }
}
