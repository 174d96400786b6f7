//! A bias added to every row of a result.

use candle_core::{Result, Tensor};

/// `y`: [rows, width] + `bias`: `[width]`; on a GPU in place.
pub fn add_bias(y: Tensor, bias: &Tensor) -> Result<Tensor> {
    on_gpu!(y => gpu::add(y, bias));
    y.broadcast_add(bias)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{Result, Tensor, bail};

    use crate::cuda::{Grid, Module, arguments, device, module};

    static MODULE: Module = module!("bias");

    pub(super) fn add(y: Tensor, bias: &Tensor) -> Result<Tensor> {
        let (rows, width) = y.dims2()?;
        if bias.dims1()? != width || bias.dtype() != y.dtype() {
            bail!("a bias of {:?} for rows of {width}", bias.shape())
        }
        let arguments = arguments!(at &y, bias; long (rows * width); int width);
        MODULE.typed("add_bias", y.dtype()).launch(
            device(&y)?,
            Grid::elements(rows * width),
            &arguments,
        )?;
        Ok(y)
    }
}
