//! Adds a gradient to its range of a flat buffer.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, WithDType, bail};

use super::real::vectorised;

/// `target += addend` in place; both contiguous, of equal size and type. On a GPU an f32 target
/// also takes bf16.
pub fn accumulate(target: &Tensor, addend: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if target.device().is_cuda() {
        return gpu::accumulate(target, addend);
    }
    target.inplace_op2(addend, &AddAssign)
}

struct AddAssign;

impl InplaceOp2 for AddAssign {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        addend: &CpuStorage,
        addend_layout: &Layout,
    ) -> Result<()> {
        match (target, addend) {
            (CpuStorage::F32(target), CpuStorage::F32(addend)) => {
                add(target, target_layout, addend, addend_layout)
            }
            (CpuStorage::F64(target), CpuStorage::F64(addend)) => {
                add(target, target_layout, addend, addend_layout)
            }
            _ => bail!("accumulate needs two tensors of f32 or of f64"),
        }
    }
}

fn add<T: WithDType>(
    target: &mut [T],
    target_layout: &Layout,
    addend: &[T],
    addend_layout: &Layout,
) -> Result<()> {
    let (Some((start, end)), Some((from, to))) = (
        target_layout.contiguous_offsets(),
        addend_layout.contiguous_offsets(),
    ) else {
        bail!("accumulate needs contiguous tensors")
    };
    if end - start != to - from {
        bail!("accumulate: {} numbers added to {}", to - from, end - start)
    }
    vectorised(|| {
        for (t, &a) in target[start..end].iter_mut().zip(&addend[from..to]) {
            *t += a;
        }
    });
    Ok(())
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{Argument, Grid, Module, at, device, launch, module};

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
        let arguments = [at(target)?, at(addend)?, Argument::Long(count as u64)];
        launch(
            device(target)?,
            &MODULE,
            kernel,
            None,
            Grid::elements(count.div_ceil(4)),
            &arguments,
        )
    }
}
