//! Soft-capped logits: `cap * tanh(logits / cap)` (Gemma). In place, as logits are the largest
//! tensors.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};

use super::Real;
use super::cpu_slice::{by_number_type, in_place};
use super::real::vectorised;

/// `logits`: contiguous, owning its memory; f32 on a GPU.
pub fn soft_cap(logits: &Tensor, cap: f64) -> Result<()> {
    on_gpu!(logits => gpu::soft_cap(logits, cap));
    logits.inplace_op1(&Cap(cap))
}

/// Turns `gradient` of capped logits into that of the logits, in place; `capped`: the result of
/// [`soft_cap`], of equal shape. On a GPU the gradient may be bf16.
pub fn soft_cap_backward(gradient: &Tensor, capped: &Tensor, cap: f64) -> Result<()> {
    on_gpu!(gradient => gpu::soft_cap_backward(gradient, capped, cap));
    by_number_type!(gradient, uncap(gradient, capped, cap))
}

struct Cap(f64);

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

/// `tanh(x) = 1 - 2 / (e^2x + 1)`; near 0 the absolute error is that of numbers near 1.
fn cap<T: Real>(logits: &mut [T], cap: f64) {
    let (one, two, cap) = (T::one(), T::constant(2.0), T::constant(cap));
    vectorised!(|| {
        for logit in logits {
            *logit = cap * (one - two / ((two * *logit / cap).exponential() + one));
        }
    });
}

fn uncap<T: Real>(gradient: &Tensor, capped: &Tensor, cap: f64) -> Result<()> {
    let (one, cap) = (T::one(), T::constant(cap));
    let uncap = in_place("soft cap backward", |gradient: &mut [T], capped: &[T]| {
        if gradient.len() != capped.len() {
            bail!(
                "{} gradients of {} capped logits",
                gradient.len(),
                capped.len()
            )
        }
        vectorised!(|| {
            for (own, &capped) in gradient.iter_mut().zip(capped) {
                let tanh = capped / cap;
                *own *= one - tanh * tanh;
            }
        });
        Ok(())
    });
    gradient.inplace_op2(capped, &uncap)
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor, bail};

    use crate::cuda::{Grid, Module, arguments, device, module};

    static MODULE: Module = module!("soft_cap");

    pub(super) fn soft_cap(logits: &Tensor, cap: f64) -> Result<()> {
        let count = logits.elem_count();
        if logits.dtype() != DType::F32 {
            bail!("capped logits are f32, not {:?}", logits.dtype())
        }
        let arguments = arguments!(at logits; float cap; long count);
        MODULE
            .kernel("soft_cap")
            .launch(device(logits)?, Grid::elements(count), &arguments)
    }

    pub(super) fn soft_cap_backward(gradient: &Tensor, capped: &Tensor, cap: f64) -> Result<()> {
        let count = gradient.elem_count();
        if capped.dtype() != DType::F32 || capped.elem_count() != count {
            bail!("{count} gradients of {capped:?}")
        }
        let arguments = arguments!(at gradient, capped; float cap; long count);
        let grid = Grid::elements(count);
        MODULE.typed("soft_cap_backward", gradient.dtype()).launch(
            device(gradient)?,
            grid,
            &arguments,
        )
    }
}
