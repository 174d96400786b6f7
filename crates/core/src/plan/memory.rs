//! Memory by part in bytes: parts for the whole run, and parts of rollout and training, which alternate; the parts on a
//! CPU.

use serde::{Deserialize, Serialize};

use super::{DataShape, ModelShape, step_rows, trainable_parameters};
use crate::config::{Recompute, TrainConfig};
use crate::hub::ModelConfig;

/// The phase of a step in which a part is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Always,
    /// The whole run, in host memory beside a GPU.
    Host,
    Rollout,
    Prefill,
    Decode,
    Training,
    Head,
    /// The layers on a GPU, after the head.
    Backward,
}

impl Phase {
    /// For people; empty for the whole run.
    pub fn label(self) -> &'static str {
        match self {
            Self::Always | Self::Host => "",
            Self::Rollout => "decode",
            Self::Prefill => "prefill",
            Self::Decode => "decode, after prefill",
            Self::Training => "training",
            Self::Head => "training, head",
            Self::Backward => "training, layers",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryPart {
    pub name: String,
    pub phase: Phase,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// In display order, without empty parts.
    pub parts: Vec<MemoryPart>,
    /// Permanent parts, and the larger of rollout and training.
    pub peak_bytes: u64,
    /// The peak with recomputed activations.
    pub peak_recomputed_bytes: u64,
    /// Memory of the machine or the control group; `None` if the system does not say.
    pub machine_bytes: Option<u64>,
}

impl Memory {
    /// Suggests a change where it does not fit; starts with a semicolon.
    pub fn remedy(&self) -> &'static str {
        if self
            .machine_bytes
            .is_some_and(|machine| self.peak_recomputed_bytes <= machine)
        {
            "; set recompute_activations = always"
        } else {
            "; lower tokens_per_micro_batch, threads or lora_rank, or take a smaller model"
        }
    }
}

/// The program, tokenizer, prompt texts and allocator overhead: a run of the embedded model was measured to peak at 184 MB
/// with 167 MB in the other parts.
const PROGRAM_BYTES: usize = 24_000_000;
/// The backward needs a layer's gradients beside its activations.
const LAYER_WORK: usize = 2;
/// Completions that a CPU thread decodes together. Fixed, so that a rollout does not depend on the number of cores.
pub const CPU_DECODE_ROWS: usize = 32;
/// Rows of a step with drafts of a CPU thread.
pub const CPU_DRAFTED_ROWS: usize = 2 * CPU_DECODE_ROWS;
/// Completion rows of several sequences that go through the head together.
pub const HEAD_ROWS: usize = 1024;
/// Rows of one long sequence; the logits of a longer one are computed twice.
pub const HEAD_ROWS_OF_ONE: usize = 2048;
/// All numbers are f32, and trained weights are used as they are.
const NUMBER_BYTES: usize = 4;

/// The parts of a run on a CPU, where each thread has a micro-batch or a shard of a rollout. Sized for the longest
/// prompts and completions, so that a plan that fits is safe.
pub fn cpu_memory(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    threads: usize,
    machine_bytes: Option<u64>,
) -> Memory {
    let recompute = config.recompute_activations == Recompute::Always;
    let parts = parts(model, config, data, threads.max(1), recompute);
    let peak_recomputed_bytes = if recompute {
        peak(&parts)
    } else {
        peak(&self::parts(model, config, data, threads.max(1), true))
    };
    Memory {
        peak_bytes: peak(&parts),
        peak_recomputed_bytes,
        parts,
        machine_bytes,
    }
}

/// Alternating phases share memory.
pub(super) fn peak(parts: &[MemoryPart]) -> u64 {
    let sum = |phase| sum(parts, phase);
    let rollout = sum(Phase::Rollout) + sum(Phase::Prefill).max(sum(Phase::Decode));
    peak_of_training(parts).max(sum(Phase::Always) + rollout)
}

pub(super) fn peak_of_training(parts: &[MemoryPart]) -> u64 {
    let sum = |phase| sum(parts, phase);
    sum(Phase::Always) + sum(Phase::Training) + sum(Phase::Head).max(sum(Phase::Backward))
}

fn sum(parts: &[MemoryPart], phase: Phase) -> u64 {
    parts
        .iter()
        .filter(|part| part.phase == phase)
        .map(|part| part.bytes)
        .sum()
}

fn parts(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    threads: usize,
    recompute: bool,
) -> Vec<MemoryPart> {
    let shape = ModelShape::from_config(model);
    let trainable = trainable_parameters(model, config);
    let is_full = config.lora_rank == 0;
    let completion = config.max_completion_tokens;
    let step = step_rows(
        config,
        data.turns,
        data.longest_prompt_tokens as f64,
        completion as f64,
    )
    .ceil() as usize;
    let whole_group = data.longest_prompt_tokens + completion;
    // At least one completion with its prompt, at most the step.
    let tokens = config.tokens_per_micro_batch.max(whole_group).min(step);
    let in_flight = threads.min(step.div_ceil(tokens.max(1))).max(1);
    let completions = config.prompt_groups_per_step
        * config.completions_per_prompt
        * config.weight_sync_interval as usize;
    let decoding = (completions + data.eval_rows)
        .min(CPU_DECODE_ROWS.max(config.completions_per_prompt) * threads);
    // In later turns each completion has a prompt of its own.
    let prompts = if data.turns > 1 {
        decoding
    } else {
        decoding.div_ceil(config.completions_per_prompt)
    };
    // One for each completion and, after it, each drafted token.
    let states =
        (decoding * (1 + config.draft_tokens)).min(decoding.max(CPU_DRAFTED_ROWS * threads));
    let predicted = head_rows(config, tokens);
    let layers_kept = shape.layers
        * if recompute {
            shape.hidden
        } else {
            shape.layer_activations_per_token
        };
    // Each rank of this host has the model, and a sum of gradients; all together they have these threads.
    let ranks = config.ranks;
    let reference = if config.keeps_base() {
        shape.parameters
    } else {
        0
    };
    let found = [
        (
            "program, tokenizer, texts",
            Phase::Always,
            ranks * PROGRAM_BYTES,
        ),
        (
            "weights",
            Phase::Always,
            ranks * NUMBER_BYTES * shape.parameters,
        ),
        (
            "trained parameters (f32)",
            Phase::Always,
            if is_full { 0 } else { ranks * 4 * trainable },
        ),
        // Those of every weight are divided among the ranks.
        (
            "AdamW moments (f32)",
            Phase::Always,
            if is_full { 1 } else { ranks } * 8 * trainable,
        ),
        (
            "frozen reference",
            Phase::Always,
            ranks * NUMBER_BYTES * reference,
        ),
        (
            "teacher",
            Phase::Always,
            ranks * NUMBER_BYTES * data.teacher_parameters,
        ),
        (
            "KV cache, prompts",
            Phase::Rollout,
            prompts * data.longest_prompt_tokens * shape.key_values_per_token * NUMBER_BYTES,
        ),
        (
            "KV cache, completions",
            Phase::Rollout,
            decoding * completion * shape.key_values_per_token * NUMBER_BYTES,
        ),
        (
            "recurrent states",
            Phase::Rollout,
            states * shape.state * NUMBER_BYTES,
        ),
        (
            "decode logits (f32)",
            Phase::Rollout,
            2 * decoding * shape.vocabulary * 4,
        ),
        // The sums, and one buffer per micro-batch in progress.
        (
            "gradients",
            Phase::Training,
            (ranks + in_flight) * 4 * trainable,
        ),
        (
            "activations",
            Phase::Training,
            in_flight * tokens * layers_kept * NUMBER_BYTES,
        ),
        (
            "activations, one layer",
            Phase::Training,
            in_flight * tokens * LAYER_WORK * shape.layer_activations_per_token * NUMBER_BYTES,
        ),
        (
            "logits of a head chunk and gradient",
            Phase::Training,
            in_flight * predicted * shape.vocabulary * (4 + NUMBER_BYTES),
        ),
    ];
    let part = |(name, phase, bytes): (&str, Phase, usize)| MemoryPart {
        name: name.to_owned(),
        phase,
        bytes: bytes as u64,
    };
    found
        .into_iter()
        .filter(|(_, _, bytes)| *bytes > 0)
        .map(part)
        .collect()
}

/// The most rows of a micro-batch of so many tokens that go through the head together.
pub(super) fn head_rows(config: &TrainConfig, tokens: usize) -> usize {
    tokens.min(
        config
            .max_completion_tokens
            .clamp(HEAD_ROWS, HEAD_ROWS_OF_ONE),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shape::tests::{DATA, config, qwen3_8b};
    use super::*;

    #[test]
    fn states_are_of_completions_and_of_drafted_tokens() {
        let json = r#"{"architectures":["Qwen3_5ForCausalLM"],"vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":4}"#;
        let model = ModelConfig::parse(json, "x").unwrap();
        let bytes = |set: &[&str]| {
            let found = cpu_memory(&model, &config(set), &DATA, 1, None);
            found
                .parts
                .iter()
                .find(|part| part.name == "recurrent states")
                .map(|part| part.bytes)
        };
        // Three layers: 32 heads of 128 x 128, and three tokens of 2 * 16 + 32 heads of 128 before a convolution.
        let state = 4 * 3 * (32 * 128 * 128 + 3 * 64 * 128);
        assert_eq!(bytes(&["draft_tokens=0"]), Some(32 * state));
        assert_eq!(bytes(&["draft_tokens=8"]), Some(64 * state));
    }

    #[test]
    fn a_processor_holds_trained_weights_once_and_a_gradient_a_thread() {
        let config = config(&["lora_rank=0", "tokens_per_micro_batch=1024"]);
        let found = cpu_memory(&qwen3_8b(), &config, &DATA, 2, None);
        let parameters = ModelShape::from_config(&qwen3_8b()).parameters as u64;
        let bytes = |name: &str| {
            found
                .parts
                .iter()
                .find(|part| part.name == name)
                .map(|part| part.bytes)
        };
        assert_eq!(bytes("weights"), Some(4 * parameters));
        assert_eq!(bytes("trained parameters (f32)"), None);
        assert_eq!(bytes("gradients"), Some(3 * 4 * parameters));
    }
}
