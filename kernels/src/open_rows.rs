//! Rows without their adapters' part: in decoding, the operation that reads them adds it, which
//! saves a narrow matrix product for each.

use candle_core::Tensor;
#[cfg(feature = "cuda")]
use candle_core::{DType, Result, bail};

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
