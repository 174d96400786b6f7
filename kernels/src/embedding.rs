//! Gathers rows of a table, such as token embeddings, and scatters gradients back.

#[cfg(feature = "cuda")]
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::Real;
use super::cpu_slice::{by_number_type, numbers};
#[cfg(feature = "cuda")]
use super::pinned_memory::HostTable;
use super::real::add_scaled;

/// A matrix that is only read by [`Table::gather`].
#[derive(Clone, Debug)]
pub enum Table {
    Tensor {
        tensor: Tensor,
        /// Why it is not in host memory, where it was meant to be.
        refusal: Option<String>,
    },
    #[cfg(feature = "cuda")]
    Host(Arc<HostTable>),
}

impl From<Tensor> for Table {
    fn from(tensor: Tensor) -> Self {
        let refusal = None;
        Self::Tensor { tensor, refusal }
    }
}

impl Table {
    /// Moves a contiguous matrix of a GPU to host memory, from which kernels read rows over the
    /// bus; freed with the last clone. It stays on the GPU if no such memory can be locked, and on
    /// the CPU.
    pub fn in_host_memory(tensor: Tensor) -> Self {
        on_gpu!(tensor => match HostTable::new(&tensor) {
            Ok(table) => Self::Host(Arc::new(table)),
            Err(error) => {
                let refusal = Some(error.to_string());
                Self::Tensor { tensor, refusal }
            }
        });
        tensor.into()
    }

    /// As [`gather_rows`].
    pub fn gather(&self, rows: &Tensor, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Tensor { tensor, .. } => gather_rows(tensor, rows, dtype),
            #[cfg(feature = "cuda")]
            Self::Host(table) => gpu::gather_from_host(table, rows, dtype),
        }
    }

    /// Bytes of host memory that a GPU reads.
    pub fn host_bytes(&self) -> usize {
        match self {
            Self::Tensor { .. } => 0,
            #[cfg(feature = "cuda")]
            Self::Host(table) => table.bytes(),
        }
    }

    /// Why it is not in host memory, where it was meant to be.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Tensor { refusal, .. } => refusal.as_deref(),
            #[cfg(feature = "cuda")]
            Self::Host(_) => None,
        }
    }
}

/// `table`: [count, width], `rows`: `[n]`, u32 -> [n, width] in `dtype`, which on a GPU is the
/// table's, or f32 for bf16. There indices are unchecked, and the table may have strided rows.
pub fn gather_rows(table: &Tensor, rows: &Tensor, dtype: DType) -> Result<Tensor> {
    on_gpu!(table => gpu::gather_rows(table, rows, dtype));
    table.index_select(rows, 0)?.to_dtype(dtype)
}

/// Sums the rows of `gradient` [ids, width] per id, in order -> [vocabulary, width], f32 on a GPU.
pub fn embedding_backward(
    gradient: &Tensor,
    token_ids: &[u32],
    vocabulary: usize,
) -> Result<Tensor> {
    on_gpu!(gradient =>
        gpu::sum_rows("embedding_backward", gradient, token_ids, vocabulary, DType::F32));
    by_number_type!(gradient, scatter(gradient, token_ids, vocabulary))
}

/// Adds row i of `gradient` [n, width] to row `rows[i]` of zeros, in order -> [count, width] in the
/// gradient's dtype.
pub fn scatter_rows(gradient: &Tensor, rows: &[u32], count: usize) -> Result<Tensor> {
    on_gpu!(gradient => gpu::sum_rows("scatter_rows", gradient, rows, count, gradient.dtype()));
    by_number_type!(gradient, scatter(gradient, rows, count))
}

fn scatter<T: Real>(gradient: &Tensor, token_ids: &[u32], vocabulary: usize) -> Result<Tensor> {
    let (_, width) = gradient.dims2()?;
    numbers!(T: gradients = gradient);
    let mut output = vec![T::zero(); vocabulary * width];
    for (row, &id) in gradients.chunks_exact(width).zip(token_ids) {
        let at = id as usize * width;
        add_scaled(&mut output[at..at + width], T::one(), row);
    }
    Tensor::from_vec(output, (vocabulary, width), gradient.device())
}

/// Distinct ids ascending, the offsets of their rows in the third list (with the end), and the
/// rows.
#[cfg(any(feature = "cuda", test))]
fn rows_by_id(token_ids: &[u32]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut rows: Vec<u32> = (0..token_ids.len() as u32).collect();
    rows.sort_by_key(|&row| token_ids[row as usize]);
    let (mut ids, mut starts) = (Vec::new(), Vec::new());
    for (place, &row) in rows.iter().enumerate() {
        let id = token_ids[row as usize];
        if ids.last() != Some(&id) {
            ids.push(id);
            starts.push(place as u32);
        }
    }
    starts.push(rows.len() as u32);
    (ids, starts, rows)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use super::rows_by_id;
    use crate::cuda::{Argument, Grid, Module, arguments, device, empty, int, module, rows_at};
    use crate::pinned_memory::HostTable;

    static MODULE: Module = module!("embedding");

    pub(super) fn gather_rows(table: &Tensor, rows: &Tensor, dtype: DType) -> Result<Tensor> {
        let (_, width) = table.dims2()?;
        gather(rows_at(table)?, (width, table.dtype()), rows, dtype)
    }

    pub(super) fn gather_from_host(
        table: &HostTable,
        rows: &Tensor,
        dtype: DType,
    ) -> Result<Tensor> {
        let at = [Argument::Address(table.address()), int(table.width)];
        gather(at, (table.width, table.dtype), rows, dtype)
    }

    /// `table`: address and row stride, then width and dtype.
    fn gather(
        [table_at, stride]: [Argument; 2],
        (width, stored): (usize, DType),
        rows: &Tensor,
        dtype: DType,
    ) -> Result<Tensor> {
        let count = rows.dims1()?;
        let kernel = match (stored, dtype) {
            (from, to) if from == to => MODULE.typed("gather_rows", dtype),
            (DType::BF16, DType::F32) => MODULE.kernel("gather_rows_bf16_into_f32"),
            (from, to) => bail!("rows of {from:?} cannot be gathered in {to:?}"),
        };
        if rows.dtype() != DType::U32 {
            bail!("rows are numbered in u32, not {:?}", rows.dtype())
        }
        let device = device(rows)?;
        let output = empty((count, width), dtype, device)?;
        let threads = (width * dtype.size_in_bytes() / 16)
            .next_multiple_of(32)
            .clamp(32, 256);
        let arguments = arguments!(given table_at, stride; at rows, &output; int width);
        kernel.launch(device, Grid::rows(count, threads), &arguments)?;
        Ok(output)
    }

    pub(super) fn sum_rows(
        kernel: &'static str,
        gradient: &Tensor,
        token_ids: &[u32],
        count: usize,
        output_type: DType,
    ) -> Result<Tensor> {
        let (rows, width) = gradient.dims2()?;
        if token_ids.len() != rows {
            bail!("{} ids for {rows} rows", token_ids.len())
        }
        if let Some(id) = token_ids.iter().find(|&&id| id as usize >= count) {
            bail!("row {id} is outside the {count} of the result")
        }
        let output = Tensor::zeros((count, width), output_type, gradient.device())?;
        if rows == 0 {
            return Ok(output);
        }
        let (ids, starts, rows) = rows_by_id(token_ids);
        let lists = Tensor::from_vec(
            [ids.as_slice(), &starts, &rows].concat(),
            ids.len() + starts.len() + rows.len(),
            gradient.device(),
        )?;
        let starts_list = lists.narrow(0, ids.len(), starts.len())?;
        let rows_list = lists.narrow(0, ids.len() + starts.len(), rows.len())?;
        let arguments = arguments!(
            at gradient, &lists, &starts_list, &rows_list, &output; int width
        );
        let grid = Grid::blocks(
            (ids.len(), width.div_ceil(256), 1),
            width.next_multiple_of(32).min(256),
        );
        MODULE
            .typed(kernel, gradient.dtype())
            .launch(device(gradient)?, grid, &arguments)?;
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_by_id_in_their_order() {
        assert_eq!(
            rows_by_id(&[7, 2, 7, 0, 2, 7]),
            (vec![0, 2, 7], vec![0, 1, 3, 6], vec![3, 1, 4, 0, 2, 5])
        );
        assert_eq!(rows_by_id(&[]), (vec![], vec![0], vec![]));
    }
}
