//! What a run takes on cards of common sizes.

use serde::{Deserialize, Serialize};

use super::{
    DataShape, GpuMemory, ModelConfig, Recompute, StepShape, TrainConfig, gpu_decode_rows,
    gpu_rollout_places, has_quantized_form, search, trainable_parameters,
};
use crate::format::{bytes, counted};

/// As they are sold, in GB.
const SIZES: [u64; 5] = [12, 16, 24, 48, 80];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub gb: u64,
    /// The changes to the configuration with which it fits; empty: none.
    pub set: Vec<String>,
    /// `None`: does not fit.
    pub shape: Option<StepShape>,
    /// Completions of a step that are decoded together, at their longest.
    pub completions_together: usize,
    /// At the shape, or at the smallest of the last changes tried.
    pub peak_bytes: u64,
}

/// The same run on each, as configured if that fits, else with the first changes that make it fit.
pub fn cards(model: &ModelConfig, config: &TrainConfig, data: &DataShape) -> Vec<Card> {
    SIZES
        .into_iter()
        .map(|gb| {
            let gpu = GpuMemory {
                usable_bytes: gb * 1_000_000_000,
                total_bytes: gb * 1_000_000_000,
                number_bytes: 2,
            };
            let mut peak_bytes = 0;
            for (set, config) in variants(model, config) {
                match search(model, &config, data, gpu) {
                    Ok(plan) => {
                        return Card {
                            gb,
                            set,
                            shape: Some(plan.shape),
                            completions_together: completions_together(model, &config, gpu),
                            peak_bytes: plan.memory.peak_bytes,
                        };
                    }
                    Err(memory) => peak_bytes = memory.peak_bytes,
                }
            }
            Card {
                gb,
                set: Vec::new(),
                shape: None,
                completions_together: 0,
                peak_bytes,
            }
        })
        .collect()
}

/// The configuration, then with changes that save ever more memory.
fn variants(model: &ModelConfig, config: &TrainConfig) -> Vec<(Vec<String>, TrainConfig)> {
    let mut found = vec![(Vec::new(), config.clone())];
    let (mut set, mut changed) = (Vec::new(), config.clone());
    let mut then = |text: &str, change: fn(&mut TrainConfig)| {
        set.push(text.to_owned());
        change(&mut changed);
        found.push((set.clone(), changed.clone()));
    };
    if config.recompute_activations == Recompute::Never {
        then("recompute_activations = auto", |config| {
            config.recompute_activations = Recompute::Auto;
        });
    }
    if config.lora_rank == 0 {
        then("lora_rank = 16", |config| config.lora_rank = 16);
    }
    if has_quantized_form(model) {
        for precision in config.base_precision.smaller() {
            let set = [set.clone(), vec![format!("base_precision = {precision}")]].concat();
            let base_precision = *precision;
            found.push((
                set,
                TrainConfig {
                    base_precision,
                    ..changed.clone()
                },
            ));
        }
    }
    found
}

fn completions_together(model: &ModelConfig, config: &TrainConfig, gpu: GpuMemory) -> usize {
    let trained = trainable_parameters(model, config);
    let places = gpu_rollout_places(model, config.base_precision, trained, gpu);
    let places = places.of_completions(usize::MAX, usize::MAX);
    let step = config.prompt_groups_per_step * config.completions_per_prompt;
    (places / config.max_completion_tokens.max(1))
        .min(step * config.weight_sync_interval as usize)
        .clamp(1, gpu_decode_rows(model, gpu.number_bytes, gpu.total_bytes))
}

impl Card {
    /// What fits, without its size.
    pub fn described(&self) -> String {
        let Some(shape) = self.shape else {
            return format!(
                "does not fit: {} at the smallest micro-batch",
                bytes(self.peak_bytes)
            );
        };
        let set = match self.set.is_empty() {
            true => String::new(),
            false => format!("with {}: ", self.set.join(", ")),
        };
        format!(
            "{set}{}; {shape}; {} at a time",
            bytes(self.peak_bytes),
            counted(self.completions_together, "completion")
        )
    }
}
