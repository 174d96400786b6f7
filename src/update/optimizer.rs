//! AdamW over the flat buffer, with warm-up and clipping; a gradient that is not finite changes nothing.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};

use crate::kernels::adamw::{AdamWStep, adamw};
use crate::model::{Gradients, ParameterSlot, Parameters};

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), with warm-up, a cosine, and clipping by the norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Rate after warm-up.
    pub learning_rate: f64,
    /// Updates over which the rate rises linearly from 0; the first update already moves.
    pub warmup_steps: u64,
    /// Total updates over which the rate falls to a tenth along a cosine; 0 keeps it constant.
    pub cosine_steps: u64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    pub weight_decay: f64,
    /// Whether one-dimensional tensors decay too.
    pub decay_norms_and_biases: bool,
    /// The gradient's norm is held below this; 0 leaves it.
    pub grad_clip_norm: f64,
}

impl OptimizerSettings {
    /// A constant rate and no decay, clipped at 1.
    pub const PLAIN: Self = Self {
        learning_rate: 1e-3,
        warmup_steps: 0,
        cosine_steps: 0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decay_norms_and_biases: false,
        grad_clip_norm: 1.0,
    };
}

/// What became of a gradient.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Applied {
    Moved {
        /// Norm before clipping.
        grad_norm: f64,
        /// Rate of this update.
        learning_rate: f64,
    },
    /// The gradient's norm was not finite; nothing changed.
    NotFinite,
}

/// Moments and the count of updates: with the parameters, all that a resume needs.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// First moments, then second: [2 * n], f32.
    moments: Tensor,
    updates: u64,
}

impl Optimizer {
    /// Before the first update.
    pub fn new(settings: OptimizerSettings, parameters: &Parameters, device: &Device) -> Result<Self> {
        Ok(Self { settings, moments: Tensor::zeros(2 * parameters.count(), DType::F32, device)?, updates: 0 })
    }

    /// As it was when `moments` and `updates` were read from [`Optimizer::moments`] and [`Optimizer::updates`].
    pub fn restored(settings: OptimizerSettings, moments: Tensor, updates: u64) -> Self {
        Self { settings, moments, updates }
    }

    /// First moments, then second: [2 * n].
    pub fn moments(&self) -> &Tensor {
        &self.moments
    }

    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Clips the gradient, then moves the parameters against it.
    pub fn apply(&mut self, parameters: &Parameters, gradients: &Gradients) -> Result<Applied> {
        let grad_norm = gradients.norm()?;
        if !grad_norm.is_finite() {
            return Ok(Applied::NotFinite);
        }
        let settings = self.settings;
        let clip = settings.grad_clip_norm;
        let gradient_scale = if clip > 0.0 && grad_norm > clip { clip / grad_norm } else { 1.0 };
        let learning_rate = self.learning_rate(self.updates);
        self.updates += 1;
        let mut step = AdamWStep {
            learning_rate,
            beta1: settings.beta1,
            beta2: settings.beta2,
            epsilon: settings.epsilon,
            weight_decay: settings.weight_decay,
            gradient_scale,
            update: self.updates,
        };
        for (range, weight_decay) in decays(&settings, parameters) {
            step.weight_decay = weight_decay;
            adamw(parameters.flat(), &self.moments, gradients.flat(), step, parameters.working(), range)?;
        }
        parameters.refresh_copies()?;
        Ok(Applied::Moved { grad_norm, learning_rate })
    }

    /// Another rate after warm-up, from the next update on.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.settings.learning_rate = learning_rate;
    }

    /// The rate of the update that follows `updates` others.
    pub fn learning_rate(&self, updates: u64) -> f64 {
        let OptimizerSettings { learning_rate, warmup_steps, cosine_steps, .. } = self.settings;
        if updates < warmup_steps {
            return learning_rate * (updates + 1) as f64 / warmup_steps as f64;
        }
        if cosine_steps == 0 {
            return learning_rate;
        }
        let span = cosine_steps.saturating_sub(warmup_steps).max(1) as f64;
        let progress = ((updates - warmup_steps) as f64 / span).min(1.0);
        learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
    }
}

/// Stretches of the flat buffer and their weight decay: one-dimensional tensors (norms, biases) have none unless they
/// are asked for.
fn decays(settings: &OptimizerSettings, parameters: &Parameters) -> Vec<(Range<usize>, f64)> {
    if settings.weight_decay == 0.0 || settings.decay_norms_and_biases {
        return vec![(0..parameters.count(), settings.weight_decay)];
    }
    let decay = |slot: &ParameterSlot| if slot.shape.len() == 1 { 0.0 } else { settings.weight_decay };
    let of_one_decay = parameters.slots().chunk_by(|a, b| decay(a) == decay(b));
    of_one_decay
        .filter_map(|slots| Some((slots.first()?.offset..slots.last()?.range().end, decay(slots.first()?))))
        .collect()
}
