//! Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): `y += scale * (x A^T) B^T` on a frozen
//! matrix.

use std::ops::Range;

use candle_core::{Result, Tensor, bail};

use super::Gradients;
use super::expert_adapters::OneExpert;
use super::matrix::Matrix;
use crate::kernels::adamw::MatrixCopy;
use crate::kernels::matmul::{matmul, matmul_add, matmul_f32, matmul_into};
use crate::kernels::open_rows::{OpenAdapters, OpenRows, complete_rows};
use crate::kernels::row_adapters::keep_own;

/// Whether a forward uses the adapters: on for the policy, off for the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Adapters {
    /// The trained model.
    On,
    /// The base model.
    Off,
}

/// Whether adapters are on and, if there are several, which one each row uses.
#[derive(Clone, Copy, Debug)]
pub struct AdapterUse<'a> {
    pub adapters: Adapters,
    /// Adapter index by row, or [`NO_ADAPTER`](crate::kernels::row_adapters::NO_ADAPTER): `[rows]`,
    /// u32; and the rank of each slot. `None`: every row uses the whole rank.
    pub own: Option<(&'a Tensor, usize)>,
}

impl<'a> AdapterUse<'a> {
    /// `slot`: rank per adapter, with `own`.
    pub(crate) fn for_rows(adapters: Adapters, own: Option<&'a Tensor>, slot: usize) -> Self {
        Self {
            adapters,
            own: own.map(|own| (own, slot)),
        }
    }
}

impl From<Adapters> for AdapterUse<'_> {
    fn from(adapters: Adapters) -> Self {
        Self {
            adapters,
            own: None,
        }
    }
}

/// Adapters of one matrix, or of the parts of a packed one, with stacked A matrices, since all read
/// the same input.
#[derive(Clone, Debug)]
pub(super) struct AdapterSet {
    /// [parts * rank, inputs].
    pub(super) a: Tensor,
    pub(super) a_range: Range<usize>,
    pub(super) parts: Vec<AdapterPart>,
    /// Rank per part.
    pub(super) rank: usize,
    /// `lora_alpha / rank`.
    pub(super) scale: f64,
    /// GPU form.
    pub(super) joined: Option<JoinedAdapter>,
}

/// An adapted matrix on a GPU, with the parts' B matrices block-diagonal.
#[derive(Clone, Debug)]
pub(super) struct JoinedAdapter {
    /// `[[W, scale * B], [A, 0]]`: one product with `[x, x A^T]` includes the adapters and is
    /// rounded once; likewise the backward. `None` for a quantized matrix, which is widened for each product.
    pub(super) whole: Option<Tensor>,
    /// A: [joined rank of all parts, inputs].
    pub(super) a: Tensor,
    /// `scale * B`: [outputs, joined rank of all parts].
    pub(super) diagonal: Tensor,
    /// `scale * B`, parts stacked: [outputs, joined rank]; for decoding.
    pub(super) b: Tensor,
}

impl JoinedAdapter {
    /// `[[W, scale * B], [A, 0]]`, with adapter columns.
    fn whole(&self, weight: &Matrix) -> Result<Tensor> {
        match (&self.whole, weight) {
            (Some(whole), _) => Ok(whole.clone()),
            (None, Matrix::Quantized(matrix)) => matrix.joined(
                &self.diagonal,
                &self.a,
                self.diagonal.dims2()?.1.next_multiple_of(COLUMN_MULTIPLE),
            ),
            (None, _) => bail!("adapters beside a matrix that they are not joined with"),
        }
    }
}

/// B of one part.
#[derive(Clone, Debug)]
pub(super) struct AdapterPart {
    /// Columns of the part in the packed result.
    pub(super) columns: Range<usize>,
    /// [outputs, rank]; initially zeros, so that the model equals the base.
    pub(super) b: Tensor,
    pub(super) b_range: Range<usize>,
    /// Set for an expert's matrix: `b_range` covers the B of all experts.
    pub(super) expert: Option<OneExpert>,
}

/// Columns of a part in a joined matrix: multiples of 16 bytes in bf16, zero-padded.
pub(super) fn joined_rank(rank: usize) -> usize {
    rank.next_multiple_of(8)
}

/// Alignment of a joined matrix's additional columns: rows of whole 128 bytes in bf16 are read
/// faster.
const COLUMN_MULTIPLE: usize = 64;

/// Additional rows and columns of a joined matrix.
pub(super) fn joined_size(parts: usize, rank: usize) -> (usize, usize) {
    let used = parts * joined_rank(rank);
    (used, used.next_multiple_of(COLUMN_MULTIPLE))
}

impl AdapterSet {
    /// Additional columns of `x` and of the gradient.
    pub(super) fn adapter_columns(&self) -> usize {
        if self.joined.is_some() {
            joined_size(self.parts.len(), self.rank).1
        } else {
            0
        }
    }

    /// Columns that hold values.
    fn used(&self) -> usize {
        joined_size(self.parts.len(), self.rank).0
    }

    /// Decoding: `x`: [rows, inputs] -> product with `[W; A]`; `None` if unsupported.
    pub(super) fn open(
        &self,
        x: &Tensor,
        weight: &Matrix,
        used: AdapterUse<'_>,
    ) -> Result<Option<OpenRows>> {
        let (outputs, inputs) = weight.dims2()?;
        // Single outputs are read element-wise, wider rows vectorised.
        let Some(joined) = self
            .joined
            .as_ref()
            .filter(|_| outputs == 1 || outputs.is_multiple_of(8))
        else {
            return Ok(None);
        };
        let rows = match weight {
            Matrix::Quantized(matrix) => matrix.decode(x, Some(&joined.a))?,
            Matrix::Numbers(_) | Matrix::Transposed(_) => {
                let whole = joined
                    .whole(weight)?
                    .narrow(0, 0, outputs + self.used())?
                    .narrow(1, 0, inputs)?;
                matmul_f32(x, &whole.t()?)?
            }
        };
        self.keep_own(rows.narrow(1, outputs, self.used())?, used)?;
        let adapters = OpenAdapters {
            b: joined.b.clone(),
            parts: self.parts.len(),
        };
        Ok(Some(OpenRows {
            rows,
            adapters: Some(adapters),
        }))
    }

    /// As [`AdapterSet::open`], including the adapters' part: [rows, outputs], in the dtype of `x`.
    pub(super) fn complete(
        &self,
        x: &Tensor,
        weight: &Matrix,
        used: AdapterUse<'_>,
    ) -> Result<Option<Tensor>> {
        // B follows the matrix's rows, and is read eight numbers at a time.
        let is_aligned = weight.dims2()?.1.is_multiple_of(8);
        let Some(joined) = self.joined.as_ref().filter(|_| is_aligned) else {
            return Ok(None);
        };
        let open = self.open(x, weight, used)?;
        open.map(|open| complete_rows(&open.rows, &joined.diagonal))
            .transpose()
    }

    /// Writes `x A^T` after `x`, [rows, inputs + adapter_columns], on a GPU.
    pub(super) fn write_inner(&self, x: &Tensor, used: AdapterUse<'_>) -> Result<()> {
        let Some(JoinedAdapter { a, .. }) = &self.joined else {
            return Ok(());
        };
        let inputs = a.dims2()?.1;
        let (own, tail) = (x.narrow(1, 0, inputs)?, x.narrow(1, inputs, self.used())?);
        matmul_into(&tail, &own, &a.t()?)?;
        self.keep_own(tail, used).map(drop)
    }

    /// Keeps only the A products of each row's own adapter.
    fn keep_own(&self, inner: Tensor, used: AdapterUse<'_>) -> Result<Tensor> {
        let rank = if self.joined.is_some() {
            joined_rank(self.rank)
        } else {
            self.rank
        };
        used.own.map_or(Ok(inner.clone()), |(own, slot)| {
            keep_own(inner, own, rank, slot)
        })
    }

    /// `x`: [rows, inputs + adapter_columns] -> [rows, outputs], of matrix and adapters.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        weight: &Matrix,
        used: AdapterUse<'_>,
    ) -> Result<Tensor> {
        let (outputs, inputs) = weight.dims2()?;
        if let Some(joined) = &self.joined {
            self.write_inner(x, used)?;
            let columns = inputs + self.used();
            let whole = joined
                .whole(weight)?
                .narrow(0, 0, outputs)?
                .narrow(1, 0, columns)?;
            return matmul(&x.narrow(1, 0, columns)?, &whole.t()?);
        }
        let y = weight.forward(x)?;
        let inner = self.keep_own(matmul(x, &self.a.t()?)?, used)?;
        for (index, part) in self.parts.iter().enumerate() {
            let own = inner.narrow(1, index * self.rank, self.rank)?;
            matmul_add(
                &y.narrow(1, part.columns.start, part.columns.len())?,
                &own,
                &part.b.t()?,
                self.scale,
            )?;
        }
        Ok(y)
    }

    /// `gradient`: [rows, outputs + adapter_columns], `x` as left by the forward. Adds the
    /// gradients of A and B, returns the input's, [rows, inputs].
    pub(super) fn backward(
        &self,
        gradient: &Tensor,
        x: &Tensor,
        weight: &Matrix,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let (outputs, inputs) = weight.dims2()?;
        let (inner, rank) = match &self.joined {
            Some(_) => (x.narrow(1, inputs, self.used())?, joined_rank(self.rank)),
            None => (matmul(x, &self.a.t()?)?, self.rank),
        };
        let mut inner_gradients = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let part_gradient = gradient.narrow(1, part.columns.start, part.columns.len())?;
            let own = inner.narrow(1, index * rank, self.rank)?;
            let transposed = part_gradient.t()?;
            match part.expert {
                None => gradients.matmul_add(&part.b_range, &transposed, &own, self.scale)?,
                Some(expert) => {
                    gradients.matmul_add_expert(
                        &part.b_range,
                        expert,
                        (&transposed, &own),
                        self.scale,
                    )?;
                }
            }
            if self.joined.is_none() {
                inner_gradients.push(matmul(&part_gradient, &part.b)?);
            }
        }
        let Some(joined) = &self.joined else {
            let x_gradient = weight.backward(gradient)?;
            let inner_gradient = if let [one] = inner_gradients.as_slice() {
                one.clone()
            } else {
                Tensor::cat(&inner_gradients, 1)?
            };
            gradients.matmul_add(&self.a_range, &inner_gradient.t()?, x, self.scale)?;
            matmul_add(&x_gradient, &inner_gradient, &self.a, self.scale)?;
            return Ok(x_gradient);
        };
        let own = gradient.narrow(1, 0, outputs)?;
        let tail = gradient.narrow(1, outputs, self.used())?;
        matmul_into(&tail, &own, &joined.diagonal)?;
        // A matrices are contiguous unless padded.
        let together = if rank == self.rank {
            self.parts.len()
        } else {
            1
        };
        for first in (0..self.parts.len()).step_by(together) {
            let start = self.a_range.start + first * self.rank * inputs;
            let range = start..start + together * self.rank * inputs;
            let inner_gradient = tail.narrow(1, first * rank, together * self.rank)?;
            gradients.matmul_add(&range, &inner_gradient.t()?, &x.narrow(1, 0, inputs)?, 1.0)?;
        }
        let columns = outputs + self.used();
        let whole = joined
            .whole(weight)?
            .narrow(0, 0, columns)?
            .narrow(1, 0, inputs)?;
        matmul(&gradient.narrow(1, 0, columns)?, &whole)
    }

    /// Copies of the adapters in the joined matrices.
    pub(super) fn copies(&self) -> Result<Vec<MatrixCopy>> {
        let Some(JoinedAdapter { a, diagonal, b, .. }) = &self.joined else {
            return Ok(Vec::new());
        };
        let inputs = a.dims2()?.1;
        let mut copies = Vec::with_capacity(3 * self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let offset = self.a_range.start + index * self.rank * inputs;
            let at = index * joined_rank(self.rank);
            copies.push(MatrixCopy {
                offset,
                place: a.narrow(0, at, self.rank)?,
                scale: 1.0,
            });
            let place = diagonal
                .narrow(0, part.columns.start, part.columns.len())?
                .narrow(1, at, self.rank)?;
            let beside = b
                .narrow(0, part.columns.start, part.columns.len())?
                .narrow(1, 0, self.rank)?;
            let copy = |place| MatrixCopy {
                offset: part.b_range.start,
                place,
                scale: self.scale,
            };
            copies.extend([place, beside].map(copy));
        }
        Ok(copies)
    }
}
