//! What is known of a run before it starts: memory by a model's shape and a configuration, pace by a recorded run, and
//! whether it can learn.

mod forecast; // all of it, as JSON and as a page
mod gpu; // bytes by part on a GPU, and what fits
mod learnability; // "can it learn"
mod machine; // the memory and disk that there are
mod memory; // bytes by part
pub mod preflight; // the checks before a run starts
mod retention; // files that a run keeps
mod shape; // parameters and operations of a model

use serde::{Deserialize, Serialize};

use crate::config::{Source, TrainConfig};
use crate::hub::ModelConfig;

pub use forecast::{Forecast, ForecastShape, Pace, Size};
pub use gpu::{
    CONTEXT_BYTES, CUBLAS_WORKSPACE_BYTES, CachePlaces, DoesNotFit, GPU_DECODE_ROWS,
    GPU_DRAFTED_ROWS, GpuMemory, GpuPlan, ServerPlaces, StepShape, fit, gpu_decode_rows,
    gpu_kept_cache_bytes, gpu_memory, gpu_prefill_rows, gpu_rollout_places, gpu_server_places,
    longest_sequence, step_tokens,
};
pub use learnability::{
    Advice, GroupOutcome, Guidance, Signal, SignalReport, SignalSettings, TierMix, TierShares,
    Verdict, judge,
};
pub use machine::{free_disk_bytes, has_no_free_files, memory_limit_bytes};
pub use memory::{
    CPU_DECODE_ROWS, CPU_DRAFTED_ROWS, HEAD_ROWS, HEAD_ROWS_OF_ONE, Memory, MemoryPart, Phase,
    cpu_memory,
};
pub use retention::{
    BYTES_PER_TRAINED_NUMBER, COMPRESSED_SHARE, Retention, STEPS_PER_ROLLOUT_FILE,
};
pub use shape::{ModelShape, parameters};

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataShape {
    pub train_rows: usize,
    pub mean_prompt_tokens: f64,
    pub longest_prompt_tokens: usize,
    pub turns: usize,
    pub eval_rows: usize,
    pub test_rows: usize,
    /// Parameters of a teacher loaded with the student; 0 without one.
    pub teacher_parameters: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub key: String,
    pub value: serde_json::Value,
    pub source: Source,
}

/// Keys without their default, in the table's order.
pub fn differences(
    config: &TrainConfig,
    sources: &std::collections::BTreeMap<String, Source>,
) -> Vec<Difference> {
    let changed = |(key, value): (String, serde_json::Value)| {
        let source = sources.get(&key)?.clone();
        (source != Source::Default).then_some(Difference { key, value, source })
    };
    config.values().into_iter().filter_map(changed).collect()
}

/// Completions and prompt rows of a step that the engine computes; in later turns each completion has a prompt of its
/// own.
fn step_rows(
    config: &TrainConfig,
    turns: usize,
    prompt_tokens: f64,
    completion_tokens: f64,
) -> f64 {
    let (groups, completions) = (
        config.prompt_groups_per_step as f64,
        config.completions_per_prompt as f64,
    );
    let later = (turns - 1) as f64 * completions * (prompt_tokens + completion_tokens);
    groups * (prompt_tokens + completions * completion_tokens + later)
}

pub fn trainable_parameters(model: &ModelConfig, config: &TrainConfig) -> usize {
    let shape = ModelShape::from_config(model);
    let of_experts = if config.lora_experts {
        shape.expert_lora_per_rank
    } else {
        0
    };
    if config.lora_rank == 0 {
        shape.parameters
    } else {
        (shape.lora_per_rank + of_experts) * config.lora_rank
    }
}
