//! Several adapters on one matrix: of a row's products with all A matrices, only its own adapter's
//! are kept.

use candle_core::{Result, Tensor, bail};

/// Row without an adapter.
pub const NO_ADAPTER: u32 = u32::MAX;

/// Zeroes the products of other adapters; in place on a GPU. `inner`: [rows, parts * rank], the
/// rank split into adapters of `slot` elements; `own`: `[rows]`, u32, adapter index or
/// [`NO_ADAPTER`].
pub fn keep_own(inner: Tensor, own: &Tensor, rank: usize, slot: usize) -> Result<Tensor> {
    keep_own_of_pairs(inner, own, None, rank, slot)
}

/// As [`keep_own`] for the rows named by `of_pairs`: `[pairs]`, u32; on a GPU.
pub fn keep_own_of_pairs(
    inner: Tensor,
    own: &Tensor,
    of_pairs: Option<&Tensor>,
    rank: usize,
    slot: usize,
) -> Result<Tensor> {
    let (rows, columns) = inner.dims2()?;
    if of_pairs.unwrap_or(own).dims() != [rows]
        || slot == 0
        || !rank.is_multiple_of(slot)
        || !columns.is_multiple_of(rank)
    {
        bail!("adapters {own:?} of {slot} numbers for rows of {inner:?}, rank {rank}")
    }
    on_gpu!(inner => gpu::keep_own(inner, own, of_pairs, rank, slot));
    let own = own.to_vec1::<u32>()?;
    let kept = own.iter().flat_map(|own| {
        (0..columns).map(move |column| f32::from(u8::from((column % rank / slot) as u32 == *own)))
    });
    let mask = Tensor::from_iter(kept, inner.device())?
        .reshape((rows, columns))?
        .to_dtype(inner.dtype())?;
    inner * mask
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{Result, Tensor};

    use crate::cuda::{Argument, Grid, Module, arguments, at, device, module, rows_at};

    static MODULE: Module = module!("row_adapters");

    pub(super) fn keep_own(
        inner: Tensor,
        own: &Tensor,
        of_pairs: Option<&Tensor>,
        rank: usize,
        slot: usize,
    ) -> Result<Tensor> {
        let (rows, columns) = inner.dims2()?;
        let [numbers, stride] = rows_at(&inner)?;
        let of_pairs = of_pairs.map_or(Ok(Argument::Address(0)), at)?;
        let arguments = arguments!(
            given numbers, stride; at own; given of_pairs; int rows, columns, rank, slot
        );
        let grid = Grid::elements(rows * columns);
        MODULE
            .typed("keep_own", inner.dtype())
            .launch(device(&inner)?, grid, &arguments)?;
        Ok(inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_keep_the_numbers_of_their_own_adapter() {
        // Two parts of rank 4, two adapters of two elements each.
        let inner = Tensor::from_iter((1..=24).map(|n| n as f32), &Device::Cpu)
            .unwrap()
            .reshape((3, 8))
            .unwrap();
        let own = Tensor::new(&[1_u32, NO_ADAPTER, 0], &Device::Cpu).unwrap();
        let kept = keep_own(inner.clone(), &own, 4, 2)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        assert_eq!(
            kept,
            [
                [0., 0., 3., 4., 0., 0., 7., 8.],
                [0.; 8],
                [17., 18., 0., 0., 21., 22., 0., 0.]
            ]
        );
        assert!(keep_own(inner, &own, 3, 2).is_err());
    }
}
