//! Rows without their adapters' part: in decoding, the operation that reads them adds it, or
//! [`complete_rows`], which saves a narrow matrix product for each.

#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{Result, Tensor, bail};

#[cfg(feature = "cuda")]
use super::cuda::{Argument, at, int, rows_at};

/// Products of rows with a matrix and with its adapters' A matrices, before B.
#[derive(Clone, Debug)]
pub struct OpenRows {
    /// [rows, outputs], then the A products of each part; f32 with adapters, so that the sum is
    /// rounded once, as in training.
    pub rows: Tensor,
    /// Set on a GPU.
    pub adapters: Option<OpenAdapters>,
}

/// B matrices of a packed matrix times the adapters' scale.
#[derive(Clone, Debug)]
pub struct OpenAdapters {
    /// [outputs, rank], the rank a multiple of 8.
    pub b: Tensor,
    pub parts: usize,
}

/// On a GPU: adds the adapters' part, rounding the sum once to the dtype of `b`. `rows`: [rows,
/// outputs + rank], f32, A products last; `b`: [outputs, rank], rows may be strided -> [rows,
/// outputs].
pub fn complete_rows(rows: &Tensor, b: &Tensor) -> Result<Tensor> {
    on_gpu!(rows => gpu::complete(rows, b));
    bail!("open rows {rows:?} and {b:?} are for a GPU")
}

impl OpenRows {
    /// [rows, outputs].
    pub fn complete(rows: Tensor) -> Self {
        Self {
            rows,
            adapters: None,
        }
    }

    /// Rows without A products: [rows, outputs].
    #[cfg(feature = "cuda")]
    pub(super) fn own(&self) -> Result<Tensor> {
        match &self.adapters {
            Some(adapters) => self.rows.narrow(1, 0, adapters.b.dims2()?.0),
            None => Ok(self.rows.clone()),
        }
    }

    /// Rows in f32 with stride; B and rank.
    #[cfg(feature = "cuda")]
    pub(super) fn arguments(&self) -> Result<[Argument; 4]> {
        let [rows, stride] = rows_at(&self.rows)?;
        let Some(OpenAdapters { b, parts }) = &self.adapters else {
            return Ok([rows, stride, Argument::Address(0), int(0)]);
        };
        let (outputs, rank) = b.dims2()?;
        if !rank.is_multiple_of(8)
            || self.rows.dims2()?.1 != outputs + parts * rank
            || self.rows.dtype() != DType::F32
        {
            bail!(
                "rows of {:?} {:?} with {parts} times B {b:?}",
                self.rows.dtype(),
                self.rows.shape()
            )
        }
        Ok([rows, stride, at(b)?, int(rank)])
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{Grid, Module, arguments, device, empty, int, module, rows_at};

    static MODULE: Module = module!("open_rows");

    pub(super) fn complete(rows: &Tensor, b: &Tensor) -> Result<Tensor> {
        let ((count, columns), (width, rank)) = (rows.dims2()?, b.dims2()?);
        let (device, dtype) = (device(rows)?, b.dtype());
        let [own, stride] = rows_at(rows)?;
        let [matrix, matrix_stride] = rows_at(b)?;
        if columns != width + rank || !rank.is_multiple_of(8) || rows.dtype() != DType::F32 {
            bail!("open rows {rows:?} for {b:?}")
        }
        let output = empty((count, width), dtype, device)?;
        let arguments = arguments!(
            given own, stride, matrix, matrix_stride, int(rank); at &output; int count, width
        );
        // A warp has sixteen rows and columns.
        let (name, grid) = if dtype == DType::BF16 && width.is_multiple_of(16) {
            let blocks = (width.div_ceil(64), count.div_ceil(16), 1);
            ("open_rows_complete_tensor", Grid::blocks(blocks, 128))
        } else {
            let blocks = (width.div_ceil(256), count, 1);
            ("open_rows_complete", Grid::blocks(blocks, 256))
        };
        MODULE
            .typed(name, dtype)
            .early()
            .launch(device, grid, &arguments)?;
        Ok(output)
    }
}
