//! AdamW over one flat buffer (Loshchilov and Hutter 2017, arXiv 1711.05101), in place.

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor, bail};

use super::numbers::vectorised;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Share of each weight taken off an update, times the learning rate.
    pub weight_decay: f64,
    /// The gradient is multiplied by this (clipping); 1 leaves it.
    pub gradient_scale: f64,
    /// 1 for the first update.
    pub update: u64,
}

/// `parameters`, `moments` and `gradient` are f32; `moments` holds the first moments, then the second: [2 * n].
pub fn adamw(parameters: &Tensor, moments: &Tensor, gradient: &Tensor, step: AdamWStep) -> Result<()> {
    let n = parameters.dims1()?;
    let (first, second) = (moments.narrow(0, 0, n)?, moments.narrow(0, n, n)?);
    first.inplace_op2(gradient, &Decay { keep: step.beta1, power: 1, scale: step.gradient_scale })?;
    second.inplace_op2(gradient, &Decay { keep: step.beta2, power: 2, scale: step.gradient_scale })?;
    // The two halves share one storage; the parameters are written, both are only read.
    parameters.inplace_op3(&first, &second, &Move(step))
}

/// `moment = keep * moment + (1 - keep) * (scale * gradient)^power`.
struct Decay {
    keep: f64,
    power: i32,
    scale: f64,
}

impl candle_core::InplaceOp2 for Decay {
    fn name(&self) -> &'static str {
        "adamw moment"
    }

    fn cpu_fwd(&self, moment: &mut CpuStorage, moment_layout: &Layout, gradient: &CpuStorage, gradient_layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(moment), CpuStorage::F32(gradient)) = (moment, gradient) else { bail!("adamw works on f32") };
        let (moment, gradient) = (&mut moment[range(moment_layout)?], &gradient[range(gradient_layout)?]);
        let (keep, add, scale) = (self.keep as f32, (1.0 - self.keep) as f32, self.scale as f32);
        vectorised(|| {
            for (m, &g) in moment.iter_mut().zip(gradient) {
                let g = g * scale;
                *m = keep * *m + add * if self.power == 2 { g * g } else { g };
            }
        });
        Ok(())
    }
}

struct Move(AdamWStep);

impl InplaceOp3 for Move {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        parameters: &mut CpuStorage,
        parameters_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(parameters), CpuStorage::F32(first), CpuStorage::F32(second)) = (parameters, first, second) else {
            bail!("adamw works on f32")
        };
        let (parameters, first, second) =
            (&mut parameters[range(parameters_layout)?], &first[range(first_layout)?], &second[range(second_layout)?]);
        let step = self.0;
        let update = step.update as f64;
        let correct_first = (step.learning_rate / (1.0 - step.beta1.powf(update))) as f32;
        let correct_second = (1.0 / (1.0 - step.beta2.powf(update))) as f32;
        let keep = (1.0 - step.learning_rate * step.weight_decay) as f32;
        let epsilon = step.epsilon as f32;
        vectorised(|| {
            for ((p, &m), &v) in parameters.iter_mut().zip(first).zip(second) {
                *p = keep * *p - correct_first * m / ((v * correct_second).sqrt() + epsilon);
            }
        });
        Ok(())
    }
}

fn range(layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("adamw needs contiguous buffers"),
    }
}
