//! Adds a gradient to its range of a flat buffer.

use candle_core::{Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, in_place};
use super::real::vectorised;

/// `target += addend` in place; both contiguous, of equal size and type. On a GPU an f32 target
/// also takes bf16.
pub fn accumulate(target: &Tensor, addend: &Tensor) -> Result<()> {
    on_gpu!(target => gpu::accumulate(target, addend));
    by_number_type!(target, add(target, addend))
}

fn add<T: Real>(target: &Tensor, addend: &Tensor) -> Result<()> {
    let add = in_place("accumulate", |target: &mut [T], addend: &[T]| {
        if target.len() != addend.len() {
            bail!(
                "accumulate: {} numbers added to {}",
                addend.len(),
                target.len()
            )
        }
        vectorised!(|| {
            for (t, &a) in target.iter_mut().zip(addend) {
                *t += a;
            }
        });
        Ok(())
    });
    target.inplace_op2(addend, &add)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{Grid, Module, arguments, device, module};

    static MODULE: Module = module!("accumulate");

    pub(super) fn accumulate(target: &Tensor, addend: &Tensor) -> Result<()> {
        let count = target.elem_count();
        if addend.elem_count() != count {
            bail!(
                "accumulate: {} numbers added to {count}",
                addend.elem_count()
            )
        }
        let kernel = match (target.dtype(), addend.dtype()) {
            (DType::F32, DType::F32) => "accumulate_f32",
            (DType::BF16, DType::BF16) => "accumulate_bf16",
            (DType::F32, DType::BF16) => "accumulate_bf16_into_f32",
            (target, addend) => bail!("accumulate cannot add {addend:?} to {target:?}"),
        };
        let arguments = arguments!(at target, addend; long count);
        MODULE.kernel(kernel).launch(
            device(target)?,
            Grid::elements(count.div_ceil(4)),
            &arguments,
        )
    }
}
