//! A model's memory for sampling and training, by the plan's formulas.

use serde::Serialize;

use crate::cli::Failure;
use crate::config::{Layers, Recompute, TrainConfig};
use crate::hub::ModelConfig;
use crate::plan::{DataShape, GpuMemory, ModelShape, StepShape, cpu_memory, gpu_memory};

/// Sequences and tokens of the estimates; training prompts are half as long.
pub(super) const SEQUENCES: usize = 64;
pub(super) const TOKENS: usize = 1024;

/// Peak bytes of each use on one kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct MemoryEstimates {
    /// Weights, and keys and values of [`SEQUENCES`] sequences of [`TOKENS`] tokens.
    pub(super) sampling: u64,
    /// Adapters on all linear layers at the default configuration, activations kept.
    pub(super) lora: u64,
    /// The same with recomputed activations.
    pub(super) lora_recomputed: u64,
    /// Full fine-tuning, activations kept.
    pub(super) full: u64,
    /// The same with recomputed activations.
    pub(super) full_recomputed: u64,
}

/// Estimates for a GPU in bf16 and for one CPU thread in f32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct ByDevice {
    pub(super) gpu: MemoryEstimates,
    pub(super) cpu: MemoryEstimates,
}

impl ByDevice {
    pub(super) fn for_model(model: &ModelConfig) -> Result<Self, Failure> {
        let of = |gpu: bool| -> Result<MemoryEstimates, Failure> {
            let (lora, lora_recomputed) = peaks(model, &configuration("lora_rank=16")?, gpu);
            let (full, full_recomputed) = peaks(model, &configuration("lora_rank=0")?, gpu);
            let (shape, number_bytes) = (ModelShape::from_config(model), if gpu { 2 } else { 4 });
            let cached = TOKENS * shape.key_values_per_token + shape.state;
            let sampling = number_bytes * (shape.parameters + SEQUENCES * cached) as u64;
            Ok(MemoryEstimates {
                sampling,
                lora,
                lora_recomputed,
                full,
                full_recomputed,
            })
        };
        Ok(Self {
            gpu: of(true)?,
            cpu: of(false)?,
        })
    }
}

/// The defaults, with or without adapters.
fn configuration(rank: &str) -> Result<TrainConfig, Failure> {
    let mut config = Layers {
        set: vec![rank.to_owned()],
        ..Layers::default()
    }
    .resolve()?
    .config;
    config.recompute_activations = Recompute::Never;
    Ok(config)
}

fn peaks(model: &ModelConfig, config: &TrainConfig, gpu: bool) -> (u64, u64) {
    let data = DataShape {
        train_rows: 1,
        mean_prompt_tokens: (TOKENS / 2) as f64,
        longest_prompt_tokens: TOKENS / 2,
        turns: 1,
        eval_rows: 0,
        test_rows: 0,
        teacher_parameters: 0,
    };
    let found = if gpu {
        let any = GpuMemory {
            usable_bytes: u64::MAX,
            total_bytes: u64::MAX,
            number_bytes: 2,
        };
        gpu_memory(model, config, &data, StepShape::for_config(config), any)
    } else {
        cpu_memory(model, config, &data, 1, None)
    };
    (found.peak_bytes, found.peak_recomputed_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hub::named_shape;

    #[test]
    fn uses_stand_in_their_order() {
        let ByDevice { gpu, cpu } =
            ByDevice::for_model(&named_shape("qwen3-0.6b").unwrap()).unwrap();
        for uses in [gpu, cpu] {
            assert!(
                uses.sampling < uses.lora && uses.lora_recomputed < uses.lora,
                "{uses:?}"
            );
            assert!(
                uses.lora < uses.full && uses.full_recomputed < uses.full,
                "{uses:?}"
            );
        }
        assert!(gpu.lora < cpu.lora);
    }
}
