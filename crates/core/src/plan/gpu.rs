//! GPU memory by part, and the shape of a step that fits.

mod caches;
mod refusal;

use serde::{Deserialize, Serialize};

pub use caches::{
    CachePlaces, GPU_DECODE_ROWS, GPU_DRAFTED_ROWS, ServerPlaces, gpu_decode_rows,
    gpu_kept_cache_bytes, gpu_prefill_rows, gpu_rollout_places, gpu_server_places,
};
use caches::{prefill_row_bytes, row_layer_bytes, step_row_bytes};
use refusal::refusal;

use super::memory::{Memory, MemoryPart, Phase, head_rows, peak, peak_of_training};
use super::{DataShape, ModelShape, step_rows, trainable_parameters};
use crate::config::{BasePrecision, Recompute, TrainConfig};
use crate::hub::{ModelConfig, Scope, TensorSpec};

/// The driver's share: context, loaded kernels, cuBLAS. Depends on the driver's version.
pub const CONTEXT_BYTES: u64 = 512 << 20;
/// As the kernels set it.
pub const CUBLAS_WORKSPACE_BYTES: usize = 64 << 20;
/// The rest covers fragmentation of the memory pool.
const USABLE: f64 = 0.9;

/// An allowance, not measured: a GPU's share of what NCCL allocates to communicate.
const NCCL_BYTES: usize = 1 << 30;

/// States of the gated delta rule are f32: each token rounds them.
const STATE_BYTES: usize = 4;

/// The residual stream is f32 even in bf16 models.
const STREAM_BYTES: usize = 4;

/// Weights as the layers read them.
struct WeightBytes {
    gpu: usize,
    /// Tables that stay in host memory.
    host: usize,
}

impl WeightBytes {
    fn new(shape: &ModelShape, base: BasePrecision, number_bytes: usize) -> Self {
        let host = if base.is_quantized() {
            number_bytes * shape.gathered
        } else {
            0
        };
        let others = number_bytes * (shape.parameters - shape.layer_matrices);
        let saving = match base {
            BasePrecision::Bf16 => shape.mxfp4_saving(number_bytes),
            BasePrecision::Fp8 | BasePrecision::Nf4 => 0,
        };
        let matrices = base.matrix_bytes(shape.layer_matrices, number_bytes) - saving;
        let gpu = others - host + matrices;
        Self { gpu, host }
    }
}

/// Micro-batch size and recomputation of a step's gradient; affects only the last bits of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepShape {
    pub tokens_per_micro_batch: usize,
    /// Whether only layer inputs are kept and the rest is recomputed.
    pub recompute: bool,
}

impl std::fmt::Display for StepShape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let activations = if self.recompute { "recomputed" } else { "kept" };
        write!(
            formatter,
            "micro-batches of {} tokens with activations {activations}",
            self.tokens_per_micro_batch
        )
    }
}

impl StepShape {
    /// As configured, regardless of memory (CPU).
    pub fn for_config(config: &TrainConfig) -> Self {
        Self {
            tokens_per_micro_batch: config.tokens_per_micro_batch,
            recompute: config.recompute_activations == Recompute::Always,
        }
    }

    /// The next smaller one: recompute first, then half the tokens, down to `longest_sequence`. `None` if there is none.
    pub fn smaller(self, longest_sequence: usize) -> Option<Self> {
        if self.recompute {
            self.halved(longest_sequence)
        } else {
            Some(Self {
                recompute: true,
                ..self
            })
        }
    }

    fn halved(self, longest_sequence: usize) -> Option<Self> {
        let half = (self.tokens_per_micro_batch / 2).max(longest_sequence);
        (half < self.tokens_per_micro_batch).then_some(Self {
            tokens_per_micro_batch: half,
            ..self
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GpuMemory {
    /// Free memory, and what this process already holds.
    pub usable_bytes: u64,
    pub total_bytes: u64,
    /// Per weight and activation: 2 in bf16.
    pub number_bytes: usize,
}

impl GpuMemory {
    pub fn when_opened((free_bytes, total_bytes): (u64, u64), number_bytes: usize) -> Self {
        let own = CONTEXT_BYTES + CUBLAS_WORKSPACE_BYTES as u64;
        Self {
            usable_bytes: (free_bytes + own).min(total_bytes),
            total_bytes,
            number_bytes,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GpuPlan {
    pub shape: StepShape,
    pub memory: Memory,
    pub gpu: GpuMemory,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct DoesNotFit {
    /// The parts that are too large, and what to change.
    pub message: String,
    pub memory: Box<Memory>,
}

/// Keeps activations if they fit, else recomputes them, else reduces micro-batches.
///
/// # Errors
/// [`DoesNotFit`] if not even one sequence at a time fits.
pub fn fit(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    gpu: GpuMemory,
) -> Result<GpuPlan, DoesNotFit> {
    search(model, config, data, gpu).map_err(|memory| DoesNotFit {
        message: refusal(config, &memory, gpu, |other| {
            has_shape(model, other, data, gpu)
        }),
        memory: Box::new(memory),
    })
}

/// The memory of the smallest shape if it does not fit.
fn search(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    gpu: GpuMemory,
) -> Result<GpuPlan, Memory> {
    let longest = longest_sequence(config, data);
    let largest = step_tokens(config, data);
    let mut shape = StepShape::for_config(config);
    loop {
        let memory = gpu_memory(model, config, data, shape, gpu);
        // Smaller micro-batches leave a rollout as it is.
        let training = peak_of_training(&memory.parts) as f64;
        if training <= USABLE * gpu.usable_bytes as f64 && memory.peak_bytes <= gpu.usable_bytes {
            return Ok(GpuPlan { shape, memory, gpu });
        }
        let smaller = if shape.recompute || config.recompute_activations == Recompute::Never {
            // A micro-batch is never larger than the step, so halving starts there.
            StepShape {
                tokens_per_micro_batch: shape.tokens_per_micro_batch.min(largest),
                ..shape
            }
            .halved(longest)
        } else {
            shape.smaller(longest)
        };
        match smaller {
            Some(smaller) => shape = smaller,
            // Between the usable share and all of it, the smallest shape may still fit.
            None if memory.peak_bytes <= gpu.usable_bytes => {
                return Ok(GpuPlan { shape, memory, gpu });
            }
            None => return Err(memory),
        }
    }
}

/// Tokens of the longest prompt and completion, the minimum of a micro-batch.
pub fn longest_sequence(config: &TrainConfig, data: &DataShape) -> usize {
    data.longest_prompt_tokens + config.max_completion_tokens
}

/// Tokens of a step at the longest prompts and completions, each prompt once per group: the maximum of a micro-batch.
pub fn step_tokens(config: &TrainConfig, data: &DataShape) -> usize {
    step_rows(
        config,
        data.turns,
        data.longest_prompt_tokens as f64,
        config.max_completion_tokens as f64,
    ) as usize
}

/// At the longest prompts and completions.
pub fn gpu_memory(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    shape: StepShape,
    gpu: GpuMemory,
) -> Memory {
    let with = |recompute| {
        let parts = parts(model, config, data, StepShape { recompute, ..shape }, gpu);
        (peak(&parts), parts)
    };
    let (peak_recomputed_bytes, recomputed) = with(true);
    let (peak_bytes, parts) = if shape.recompute {
        (peak_recomputed_bytes, recomputed)
    } else {
        with(false)
    };
    Memory {
        parts,
        peak_bytes,
        peak_recomputed_bytes,
        machine_bytes: Some(gpu.usable_bytes),
    }
}

/// Of one rank, and of several, which have a copy each.
const EMBEDDINGS: [&str; 2] = [
    "embeddings (host memory)",
    "embeddings (host memory, all ranks)",
];

type Part = (&'static str, Phase, usize);

fn parts(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    step: StepShape,
    gpu: GpuMemory,
) -> Vec<MemoryPart> {
    let number = gpu.number_bytes;
    let all = [
        resident(model, config, number),
        vec![("teacher", Phase::Always, number * data.teacher_parameters)],
        rollout(model, config, data, gpu),
        training(model, config, data, step, number),
    ]
    .concat();
    let part = |(name, phase, bytes): Part| MemoryPart {
        name: name.to_owned(),
        phase,
        bytes: bytes as u64,
    };
    all.into_iter()
        .filter(|(_, _, bytes)| *bytes > 0)
        .map(part)
        .collect()
}

fn resident(model: &ModelConfig, config: &TrainConfig, number: usize) -> Vec<Part> {
    let shape = ModelShape::from_config(model);
    let parameters = shape.parameters;
    let weights = WeightBytes::new(&shape, config.base_precision, number);
    let trainable = trainable_parameters(model, config);
    let is_full = config.lora_rank == 0;
    // Ranks divide what an optimizer of every weight moves.
    let parts = if is_full { config.ranks.max(1) } else { 1 };
    let (trained, moments) = match parts {
        1 => ("trained parameters (f32)", "AdamW moments (f32)"),
        _ => (
            "trained parameters (f32, sharded)",
            "AdamW moments (f32, sharded)",
        ),
    };
    // In f32 the layers read the trained numbers themselves.
    let copy = if number < 4 { number } else { 0 };
    let has_reference = config.keeps_base();
    let scopes = [
        Some(Scope::Everything),
        model.options.window.as_ref().map(|_| Scope::Window),
    ];
    let angles: usize = scopes
        .into_iter()
        .flatten()
        .map(|scope| model.rope_frequencies(scope).len())
        .sum();
    let table = 2 * model.max_position_embeddings * angles * number.max(4);
    vec![
        (
            "CUDA context, cuBLAS's workspace",
            Phase::Always,
            CONTEXT_BYTES as usize + CUBLAS_WORKSPACE_BYTES,
        ),
        (
            "weights",
            Phase::Always,
            if is_full {
                copy * parameters
            } else {
                weights.gpu
            },
        ),
        (
            EMBEDDINGS[usize::from(config.ranks > 1)],
            Phase::Host,
            weights.host * config.ranks,
        ),
        (
            "NCCL (allowance)",
            Phase::Always,
            if config.ranks > 1 { NCCL_BYTES } else { 0 },
        ),
        (trained, Phase::Always, 4 * trainable.div_ceil(parts)),
        (
            "a matrix in bf16 (quantized base)",
            Phase::Always,
            widened_bytes(model, config.base_precision, number),
        ),
        (
            "adapters as used",
            Phase::Always,
            number * joined_adapters(model, config),
        ),
        (moments, Phase::Always, 8 * trainable.div_ceil(parts)),
        (
            "frozen reference",
            Phase::Always,
            if has_reference {
                number * parameters
            } else {
                0
            },
        ),
        (
            "rotary tables",
            Phase::Always,
            if has_reference { 2 } else { 1 } * table,
        ),
    ]
}

/// The largest packed matrix of a layer, gate and up: prefill and training widen one of a quantized base at a time.
fn widened_bytes(model: &ModelConfig, base: BasePrecision, number: usize) -> usize {
    if !base.is_quantized() {
        return 0;
    }
    let inner = (0..model.num_hidden_layers)
        .map(|layer| model.inner_size(layer))
        .max()
        .unwrap_or(0);
    number * 2 * inner * model.hidden_size
}

/// Numbers that adapters add to the matrices that the layers multiply by (`model::adapter`), and B once more.
fn joined_adapters(model: &ModelConfig, config: &TrainConfig) -> usize {
    let rank = config.lora_rank.next_multiple_of(8);
    if config.lora_rank == 0 {
        return 0;
    }
    let joined = |packed: &[TensorSpec]| {
        let outputs = packed.iter().map(|spec| spec.shape()[0]).sum::<usize>();
        let (inputs, used) = (packed[0].shape()[1], packed.len() * rank);
        let joined = match config.base_precision {
            BasePrecision::Bf16 => {
                (outputs + used) * (inputs + used.next_multiple_of(64)) - outputs * inputs
            }
            BasePrecision::Fp8 | BasePrecision::Nf4 => used * (inputs + outputs),
        };
        joined + rank * outputs
    };
    let added = (0..model.num_hidden_layers).map(|layer| {
        let adapted = model.adapted_matrices(layer);
        let packed = adapted.chunk_by(|one, next| one.role == next.role);
        packed.map(joined).sum::<usize>()
    });
    // Those of experts are also kept as they are.
    let of_experts = if config.lora_experts {
        rank * ModelShape::from_config(model).expert_lora_per_rank
    } else {
        0
    };
    added.sum::<usize>() + of_experts
}

/// The largest rollout, with an eval beside it, or eval. Completions that find no room wait.
fn rollout(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    gpu: GpuMemory,
) -> Vec<Part> {
    let number = gpu.number_bytes;
    let shape = ModelShape::from_config(model);
    let (longest, completion) = (
        data.longest_prompt_tokens.max(1),
        config.max_completion_tokens,
    );
    let trained = trainable_parameters(model, config);
    // With less than the whole GPU, a rollout that runs out of memory continues with smaller caches.
    let places = gpu_rollout_places(model, config.base_precision, trained, gpu);
    let layer = row_layer_bytes(model, &shape, number);
    // `beside`: prompts of an eval, with a completion each.
    let draw = |prompts: usize, samples: usize, beside: usize| {
        let most_rows = gpu_decode_rows(model, number, gpu.total_bytes);
        let rows = (prompts * samples + beside).min(most_rows);
        let together = match data.turns {
            1 => (prompts + beside).min(if beside > 0 {
                rows
            } else {
                rows.div_ceil(samples)
            }),
            // In later turns each completion has a prompt of its own.
            _ => rows,
        };
        // Conversations with tools continue in the cache, where replies are read as tokens of passes.
        let (later, read) = if data.turns > 1 {
            (longest, GPU_DRAFTED_ROWS)
        } else {
            (0, 0)
        };
        let (prompt_rows, slots) = (together * longest, rows * (completion + later));
        let slots = places.of_completions(slots, prompt_rows).max(completion);
        let prompt_rows = places.of_prompts(prompt_rows, slots).max(longest);
        let prefilled = prompt_rows.min(gpu_prefill_rows(gpu.total_bytes).max(longest));
        let step_rows = rows
            .max((rows * (1 + config.draft_tokens)).min(GPU_DRAFTED_ROWS))
            .max(read);
        let step = step_rows * step_row_bytes(&shape, layer);
        let token = shape.key_values_per_token * number;
        let caches = [prompt_rows * token, slots * token];
        let drafted = if config.draft_tokens > 0 {
            GPU_DRAFTED_ROWS
        } else {
            0
        };
        let states = (rows + drafted).min(most_rows) * shape.state * STATE_BYTES;
        let kept = caches.iter().sum::<usize>() + states <= gpu_kept_cache_bytes(gpu.total_bytes);
        vec![
            // A recorded graph has memory of its own, which it keeps.
            ("CUDA graph of a decode step", Phase::Always, step),
            (
                "KV cache, prompts",
                if kept { Phase::Always } else { Phase::Rollout },
                caches[0],
            ),
            (
                "prefill activations, one layer",
                Phase::Prefill,
                prefilled * prefill_row_bytes(&shape, layer, number),
            ),
            (
                "KV cache, completions",
                if kept { Phase::Always } else { Phase::Rollout },
                caches[1],
            ),
            (
                "recurrent states",
                if kept { Phase::Always } else { Phase::Rollout },
                states,
            ),
            ("decode logits (f32) and workspace", Phase::Decode, step),
        ]
    };
    let steps_together = config.weight_sync_interval as usize;
    let draws = [
        draw(
            config.prompt_groups_per_step * steps_together,
            config.completions_per_prompt,
            data.eval_rows,
        ),
        draw(data.eval_rows.max(data.test_rows), 1, 0),
    ];
    let size = |parts: &[Part]| parts.iter().map(|(_, _, bytes)| bytes).sum::<usize>();
    draws
        .into_iter()
        .max_by_key(|parts| size(parts))
        .unwrap_or_default()
}

/// The gradient of one micro-batch; all are summed in one buffer.
fn training(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    step: StepShape,
    number: usize,
) -> Vec<Part> {
    let shape = ModelShape::from_config(model);
    let tokens = micro_batch_tokens(config, data, step);
    let head_rows = head_rows(config, tokens);
    let (layer, stream) = (layer_bytes(&shape, number), STREAM_BYTES * shape.hidden);
    let derived = shape.derived_activations_per_token * number;
    // Attention keeps a sum per head and row, and needs another backward.
    let sums = 4 * model.num_attention_heads;
    let activations = tokens
        * (shape.layers
            * if step.recompute {
                stream
            } else {
                layer - derived + sums
            }
            + stream
            + shape.hidden * number);
    // A layer has as many gradients as activations, of which those that were not kept are restored first.
    let gradients = (shape.layer_activations_per_token + 3 * shape.hidden) * number + sums;
    let work = gradients
        + routed_bytes(model, number)
        + delta_bytes(model, config, data, number)
        + if step.recompute {
            layer + sums + stream
        } else {
            derived
        };
    // The embedding's gradient is computed after all activations are freed.
    let embedding = if config.lora_rank == 0 {
        4 * shape.vocabulary * shape.hidden
    } else {
        0
    };
    vec![
        (
            "gradients (f32)",
            Phase::Training,
            4 * trainable_parameters(model, config),
        ),
        (
            if step.recompute {
                "layer inputs"
            } else {
                "activations"
            },
            Phase::Training,
            activations,
        ),
        (
            "logits of a head chunk and gradient",
            Phase::Head,
            head_rows * shape.vocabulary * (4 + number) + 3 * tokens * shape.hidden * number,
        ),
        (
            "activations, one layer",
            Phase::Backward,
            (tokens * work).max(embedding.saturating_sub(activations)),
        ),
    ]
}

/// The activations of a layer, per token. Its input and its middle belong to the residual stream.
fn layer_bytes(shape: &ModelShape, number: usize) -> usize {
    (shape.layer_activations_per_token - 2 * shape.hidden) * number
        + 2 * shape.hidden * STREAM_BYTES
}

/// Per token, what a layer of experts holds for a while: a token's row for each of its experts, their results or gradients,
/// and one more of these.
fn routed_bytes(model: &ModelConfig, number: usize) -> usize {
    model
        .options
        .experts
        .as_ref()
        .map_or(0, |experts| 3 * experts.active * model.hidden_size * number)
}

/// Per token, what the backward of the gated delta rule holds (`kernels/src/delta_rule/gpu.rs`): of chunks of 64 tokens,
/// filled up, queries and keys, two matrices of tokens by tokens, and by 32 columns of a state what is recorded between
/// chunks; in f32 three times the values and what is convolved; and two states a sequence.
fn delta_bytes(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    number: usize,
) -> usize {
    let Some(delta) = &model.options.gated_delta else {
        return 0;
    };
    let tokens = data.longest_prompt_tokens / config.completions_per_prompt.max(1)
        + config.max_completion_tokens;
    // bf16 numbers that an input is the sum of, and a number that is computed.
    let [input, own] = if number == 2 { [1, 2] } else { [3, 3] };
    let columns = 2 * 224 * input + STATE_BYTES * 64;
    let of_head = STATE_BYTES * 8 + 2 * 128 * own + delta.value_dimension.div_ceil(32) * columns;
    let chunked = delta.key_heads * 2 * 256 * input + delta.value_heads * of_head;
    chunked * tokens.next_multiple_of(64) / tokens
        + STATE_BYTES * (3 * delta.values() + delta.convolved() + 2 * delta.state() / tokens)
}

/// At least one completion with its prompt, at most the step.
fn micro_batch_tokens(config: &TrainConfig, data: &DataShape, step: StepShape) -> usize {
    step.tokens_per_micro_batch
        .max(longest_sequence(config, data))
        .min(step_tokens(config, data))
}

/// Whether a GPU computes the model beside a base in fp8 or NF4: experts are in bf16 there.
fn has_quantized_form(model: &ModelConfig) -> bool {
    model.options.experts.is_none() && model.quantized_problem().is_none()
}

/// Whether the smallest shape fits, and a GPU computes it.
fn has_shape(model: &ModelConfig, config: &TrainConfig, data: &DataShape, gpu: GpuMemory) -> bool {
    if config.base_precision.is_quantized() && !has_quantized_form(model) {
        return false;
    }
    let tokens_per_micro_batch = longest_sequence(config, data);
    let shape = StepShape {
        tokens_per_micro_batch,
        recompute: config.recompute_activations != Recompute::Never,
    };
    gpu_memory(model, config, data, shape, gpu).peak_bytes <= gpu.usable_bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
