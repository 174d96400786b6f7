//! AdamW over the flat buffer, with warm-up and clipping; a non-finite gradient changes nothing.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::config::Schedule;
use crate::kernels::adamw::{AdamWStep, adamw};
use crate::model::{Gradients, ParameterSlot, Parameters};

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with warm-up, schedule, and clipping by
/// norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Rate after warm-up.
    pub learning_rate: f64,
    /// Updates of the linear warm-up from 0; the first update already moves.
    pub warmup_steps: u64,
    /// Schedule after warm-up.
    pub schedule: Schedule,
    /// Steps of the schedule, including warm-up; the last one has the floor.
    pub total_steps: u64,
    /// Final rate as a share of `learning_rate`, in [0, 1].
    pub floor: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    pub weight_decay: f64,
    /// Whether one-dimensional tensors decay too.
    pub decay_norms_and_biases: bool,
    /// 0: off.
    pub grad_clip_norm: f64,
}

impl OptimizerSettings {
    /// Constant rate, no decay, clipped at 1.
    pub const PLAIN: Self = Self {
        learning_rate: 1e-3,
        warmup_steps: 0,
        schedule: Schedule::Constant,
        total_steps: 0,
        floor: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decay_norms_and_biases: false,
        grad_clip_norm: 1.0,
    };
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepOutcome {
    Updated {
        /// Norm before clipping.
        grad_norm: f64,
        /// Rate of this update.
        learning_rate: f64,
    },
    /// The gradient's norm was not finite; nothing changed.
    NotFinite,
}

/// AdamW's moments and update count: with the parameters, all that a resume needs.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// First moments of this rank's parameters, then second: [2 * n], f32.
    moments: Tensor,
    updates: u64,
    /// Position in the schedule: steps so far, including those without an update.
    steps: u64,
}

impl Optimizer {
    /// State before the first update.
    pub fn new(
        settings: OptimizerSettings,
        parameters: &Parameters,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            settings,
            moments: Tensor::zeros(2 * parameters.flat().elem_count(), DType::F32, device)?,
            updates: 0,
            steps: 0,
        })
    }

    /// Restores the state saved from [`Optimizer::moments`] and [`Optimizer::updates`].
    pub fn restored(settings: OptimizerSettings, moments: Tensor, updates: u64) -> Self {
        Self {
            settings,
            moments,
            updates,
            steps: updates,
        }
    }

    /// First, then second: [2 * n].
    pub fn moments(&self) -> &Tensor {
        &self.moments
    }

    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Sets the schedule's position.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Clips the gradient, then updates the parameters.
    pub fn apply(&mut self, parameters: &Parameters, gradients: &Gradients) -> Result<StepOutcome> {
        self.apply_shard(parameters, gradients.flat(), gradients.norm()?)
    }

    /// As [`Optimizer::apply`] for this rank's shard. `gradient`: the shard of one with norm
    /// `grad_norm`.
    pub fn apply_shard(
        &mut self,
        parameters: &Parameters,
        gradient: &Tensor,
        grad_norm: f64,
    ) -> Result<StepOutcome> {
        if !grad_norm.is_finite() {
            return Ok(StepOutcome::NotFinite);
        }
        let settings = self.settings;
        let clip = settings.grad_clip_norm;
        let gradient_scale = if clip > 0.0 && grad_norm > clip {
            clip / grad_norm
        } else {
            1.0
        };
        let learning_rate = self.learning_rate(self.steps);
        self.updates += 1;
        self.steps += 1;
        let mut step = AdamWStep {
            learning_rate,
            beta1: settings.beta1,
            beta2: settings.beta2,
            epsilon: settings.epsilon,
            weight_decay: settings.weight_decay,
            gradient_scale,
            update: self.updates,
        };
        let own = parameters.shard().range(parameters.count());
        let working = parameters.working()?;
        for (range, weight_decay) in decays(&settings, parameters) {
            let (first, end) = (range.start.max(own.start), range.end.min(own.end));
            if first < end {
                step.weight_decay = weight_decay;
                let range = first - own.start..end - own.start;
                adamw(
                    parameters.flat(),
                    &self.moments,
                    gradient,
                    step,
                    working.as_ref(),
                    range,
                )?;
            }
        }
        parameters.refresh_copies()?;
        Ok(StepOutcome::Updated {
            grad_norm,
            learning_rate,
        })
    }

    /// Changes settings from the next update on.
    pub fn set(&mut self, settings: OptimizerSettings) {
        self.settings = settings;
    }

    /// Rate of the step after `steps` others.
    pub fn learning_rate(&self, steps: u64) -> f64 {
        let OptimizerSettings {
            learning_rate,
            warmup_steps,
            schedule,
            total_steps,
            floor,
            ..
        } = self.settings;
        if steps < warmup_steps {
            return learning_rate * (steps + 1) as f64 / warmup_steps as f64;
        }
        let span = total_steps.saturating_sub(warmup_steps + 1).max(1) as f64;
        let progress = ((steps - warmup_steps) as f64 / span).min(1.0);
        let left = match schedule {
            Schedule::Constant => return learning_rate,
            Schedule::Linear => 1.0 - progress,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        learning_rate * (floor + (1.0 - floor) * left)
    }
}

/// Ranges of the flat buffer with their weight decay: by default none for one-dimensional tensors
/// (norms, biases).
fn decays(settings: &OptimizerSettings, parameters: &Parameters) -> Vec<(Range<usize>, f64)> {
    if settings.weight_decay == 0.0 || settings.decay_norms_and_biases {
        return vec![(0..parameters.count(), settings.weight_decay)];
    }
    let decay = |slot: &ParameterSlot| {
        if slot.shape.len() == 1 {
            0.0
        } else {
            settings.weight_decay
        }
    };
    let of_one_decay = parameters.slots().chunk_by(|a, b| decay(a) == decay(b));
    of_one_decay
        .filter_map(|slots| {
            Some((
                slots.first()?.offset..slots.last()?.range().end,
                decay(slots.first()?),
            ))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::Shard;

    #[test]
    fn rates_follow_warm_up_and_schedule() {
        // (schedule, floor) -> rates of steps 1, 2, 3, 7, 11 and 12 of 11, the first two in
        // warm-up.
        let check = |schedule, floor, expected: [f64; 6]| {
            let base = OptimizerSettings {
                learning_rate: 1.0,
                warmup_steps: 2,
                ..OptimizerSettings::PLAIN
            };
            let settings = OptimizerSettings {
                schedule,
                total_steps: 11,
                floor,
                ..base
            };
            let optimizer = Optimizer::restored(
                settings,
                Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap(),
                0,
            );
            let rates = [0, 1, 2, 6, 10, 11].map(|steps| optimizer.learning_rate(steps));
            assert!(
                rates
                    .iter()
                    .zip(expected)
                    .all(|(a, b)| (a - b).abs() < 1e-12),
                "{schedule:?}: {rates:?}"
            );
        };
        check(Schedule::Constant, 0.1, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        check(Schedule::Linear, 0.2, [0.5, 1.0, 1.0, 0.6, 0.2, 0.2]);
        check(Schedule::Linear, 0.0, [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]);
        check(Schedule::Cosine, 0.1, [0.5, 1.0, 1.0, 0.55, 0.1, 0.1]);
    }

    /// Sharded updates equal the whole, in f32 and bf16, partly with weight decay.
    #[test]
    fn parts_move_as_the_whole_does() {
        const RANKS: usize = 3;
        let settings = OptimizerSettings {
            weight_decay: 0.1,
            grad_clip_norm: 0.5,
            ..OptimizerSettings::PLAIN
        };
        let ramp = |count: usize, scale: f64| {
            Tensor::arange(0f32, count as f32, &Device::Cpu)
                .unwrap()
                .affine(scale, -0.7)
                .unwrap()
        };
        let shapes: [(&str, &[usize]); 4] = [
            ("a", &[5, 3]),
            ("norm", &[7]),
            ("b", &[2, 9]),
            ("bias", &[1]),
        ];
        let tensors = || {
            let tensor = |(name, shape): (&str, &[usize])| {
                (
                    name.to_owned(),
                    ramp(shape.iter().product(), 0.13).reshape(shape).unwrap(),
                )
            };
            shapes.map(tensor).to_vec()
        };
        let numbers = |tensor: &Tensor, count| {
            tensor
                .narrow(0, 0, count)
                .unwrap()
                .to_dtype(DType::F32)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        for dtype in [DType::F32, DType::BF16] {
            let whole = Parameters::new(tensors(), dtype, &Device::Cpu).unwrap();
            let count = whole.count();
            let mut alone = Optimizer::new(settings, &whole, &Device::Cpu).unwrap();
            let mut ranks: Vec<(Parameters, Optimizer)> = (0..RANKS)
                .map(|rank| {
                    let shard = Shard { rank, ranks: RANKS };
                    let parameters =
                        Parameters::sharded(tensors(), dtype, &Device::Cpu, shard).unwrap();
                    assert_eq!(
                        numbers(parameters.read(), count),
                        numbers(whole.read(), count)
                    );
                    let optimizer = Optimizer::new(settings, &parameters, &Device::Cpu).unwrap();
                    (parameters, optimizer)
                })
                .collect();
            for update in 1..=3 {
                let mut gradients = Gradients::zeros(&whole).unwrap();
                gradients
                    .add(&(0..count), &ramp(count, 0.01 * f64::from(update)))
                    .unwrap();
                let grad_norm = gradients.norm().unwrap();
                let applied = alone.apply(&whole, &gradients).unwrap();
                for (parameters, optimizer) in &mut ranks {
                    let shard = parameters.shard();
                    let padded = gradients
                        .flat()
                        .pad_with_zeros(0, 0, shard.padded(count) - count)
                        .unwrap();
                    let own = padded
                        .narrow(0, shard.start(count), shard.size(count))
                        .unwrap();
                    assert_eq!(
                        optimizer.apply_shard(parameters, &own, grad_norm).unwrap(),
                        applied
                    );
                    let range = shard.range(count);
                    let expected = numbers(whole.read(), count)[range.clone()].to_vec();
                    let found = numbers(parameters.read(), count)[range.clone()].to_vec();
                    assert_eq!(found, expected, "{dtype:?} {shard:?}");
                    let exact = numbers(whole.flat(), count)[range.clone()].to_vec();
                    assert_eq!(
                        numbers(parameters.flat(), range.len()),
                        exact,
                        "{dtype:?} {shard:?}"
                    );
                }
            }
        }
    }
}
