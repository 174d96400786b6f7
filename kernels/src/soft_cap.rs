//! Soft-capped logits: `cap * tanh(logits / cap)` (Gemma). In place, as logits are the largest
//! tensors.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};

use super::Real;
use super::real::vectorised;

/// `logits`: contiguous, owning its memory; f32 on a GPU.
pub fn soft_cap(logits: &Tensor, cap: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        return gpu::soft_cap(logits, cap);
    }
    logits.inplace_op1(&Cap(cap))
}

/// Turns `gradient` of capped logits into that of the logits, in place; `capped`: the result of
/// [`soft_cap`], of equal shape. On a GPU the gradient may be bf16.
pub fn soft_cap_backward(gradient: &Tensor, capped: &Tensor, cap: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if gradient.device().is_cuda() {
        return gpu::soft_cap_backward(gradient, capped, cap);
    }
    gradient.inplace_op2(capped, &CapBackward(cap))
}

struct Cap(f64);
struct CapBackward(f64);

impl InplaceOp1 for Cap {
    fn name(&self) -> &'static str {
        "soft cap"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(numbers), Some((start, end))) => cap(&mut numbers[start..end], self.0),
            (CpuStorage::F64(numbers), Some((start, end))) => cap(&mut numbers[start..end], self.0),
            _ => bail!("capped logits are f32 or f64, and contiguous"),
        }
        Ok(())
    }
}

impl InplaceOp2 for CapBackward {
    fn name(&self) -> &'static str {
        "soft cap backward"
    }

    fn cpu_fwd(
        &self,
        gradient: &mut CpuStorage,
        gradient_layout: &Layout,
        capped: &CpuStorage,
        capped_layout: &Layout,
    ) -> Result<()> {
        let (Some((start, end)), Some((from, to))) = (
            gradient_layout.contiguous_offsets(),
            capped_layout.contiguous_offsets(),
        ) else {
            bail!("capped logits and their gradient must be contiguous")
        };
        match (gradient, capped) {
            _ if end - start != to - from => {
                bail!("{} gradients of {} capped logits", end - start, to - from)
            }
            (CpuStorage::F32(gradient), CpuStorage::F32(capped)) => {
                uncap(&mut gradient[start..end], &capped[from..to], self.0);
            }
            (CpuStorage::F64(gradient), CpuStorage::F64(capped)) => {
                uncap(&mut gradient[start..end], &capped[from..to], self.0);
            }
            _ => bail!("capped logits and their gradient are both f32 or both f64"),
        }
        Ok(())
    }
}

/// `tanh(x) = 1 - 2 / (e^2x + 1)`; near 0 the absolute error is that of numbers near 1.
fn cap<T: Real>(logits: &mut [T], cap: f64) {
    let (one, two, cap) = (T::constant(1.0), T::constant(2.0), T::constant(cap));
    vectorised(|| {
        for logit in logits {
            *logit = cap * (one - two / ((two * *logit / cap).exponential() + one));
        }
    });
}

fn uncap<T: Real>(gradient: &mut [T], capped: &[T], cap: f64) {
    let (one, cap) = (T::constant(1.0), T::constant(cap));
    vectorised(|| {
        for (own, &capped) in gradient.iter_mut().zip(capped) {
            let tanh = capped / cap;
            *own *= one - tanh * tanh;
        }
    });
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{Argument, Grid, Module, at, device, float, launch, module};

    static MODULE: Module = module!("soft_cap");

    pub(super) fn soft_cap(logits: &Tensor, cap: f64) -> Result<()> {
        let count = logits.elem_count();
        if logits.dtype() != DType::F32 {
            bail!("capped logits are f32, not {:?}", logits.dtype())
        }
        let arguments = [at(logits)?, float(cap), Argument::Long(count as u64)];
        launch(
            device(logits)?,
            &MODULE,
            "soft_cap",
            None,
            Grid::elements(count),
            &arguments,
        )
    }

    pub(super) fn soft_cap_backward(gradient: &Tensor, capped: &Tensor, cap: f64) -> Result<()> {
        let count = gradient.elem_count();
        if capped.dtype() != DType::F32 || capped.elem_count() != count {
            bail!(
                "{count} gradients of {:?} {:?}",
                capped.shape(),
                capped.dtype()
            )
        }
        let arguments = [
            at(gradient)?,
            at(capped)?,
            float(cap),
            Argument::Long(count as u64),
        ];
        let grid = Grid::elements(count);
        launch(
            device(gradient)?,
            &MODULE,
            "soft_cap_backward",
            Some(gradient.dtype()),
            grid,
            &arguments,
        )
    }
}
