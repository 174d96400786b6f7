//! GPU memory by part, and the shape of a step that fits.

use serde::Serialize;

use super::memory::{HEAD_ROWS, Memory, MemoryPart, Phase, peak};
use super::{DataShape, ModelShape, step_rows, trainable_parameters};
use crate::config::{Recompute, TrainConfig};
use crate::format::bytes;
use crate::hub::ModelConfig;

/// The driver's share: context, loaded kernels, cuBLAS. Depends on the driver's version.
pub const CONTEXT_BYTES: u64 = 512 << 20;
/// As the kernels set it.
pub const CUBLAS_WORKSPACE_BYTES: usize = 64 << 20;
/// The rest covers fragmentation of the memory pool.
const USABLE: f64 = 0.9;
/// The KV cache of completions takes as much as the weights, within these bounds. It follows from the model alone, so that
/// a rollout's batches do not depend on what else uses the GPU.
const CACHE_BYTES: std::ops::RangeInclusive<usize> = 8 << 30..=24 << 30;
/// A larger batch does not decode faster.
const MOST_DECODE_ROWS: usize = 512;
/// Prompt rows that are prefilled together; a longer prompt is alone.
pub const GPU_PREFILL_ROWS: usize = 16_384;
/// The KV caches of a rollout that stay for the next, with the passes that were recorded for them, if they are not larger.
pub const GPU_KEPT_CACHE_BYTES: usize = 4 << 30;
/// Rows of a decode step with drafted tokens.
pub const GPU_DRAFTED_ROWS: usize = 256;

/// The residual stream is f32 even in bf16 models.
const STREAM_BYTES: usize = 4;

/// The number of completions that a GPU decodes together.
pub fn gpu_decode_rows(model: &ModelConfig, max_completion_tokens: usize, number_bytes: usize) -> usize {
    let shape = ModelShape::of(model);
    let row_bytes = shape.key_values_per_token * max_completion_tokens * number_bytes;
    (cache_bytes(&shape, number_bytes) / row_bytes.max(1)).clamp(1, MOST_DECODE_ROWS)
}

fn cache_bytes(shape: &ModelShape, number_bytes: usize) -> usize {
    (shape.parameters * number_bytes).clamp(*CACHE_BYTES.start(), *CACHE_BYTES.end())
}

/// The number of prompt tokens whose keys and values a GPU keeps while it decodes.
pub fn gpu_prompt_rows(model: &ModelConfig, number_bytes: usize) -> usize {
    let shape = ModelShape::of(model);
    let row_bytes = shape.key_values_per_token * number_bytes;
    (cache_bytes(&shape, number_bytes) / 2 / row_bytes.max(1)).max(GPU_PREFILL_ROWS)
}

/// How a step's gradient is computed within the memory; affects results only in the last bits of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepShape {
    pub tokens_per_micro_batch: usize,
    /// Whether only layer inputs are kept and the rest is recomputed.
    pub recompute: bool,
}

impl std::fmt::Display for StepShape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let activations = if self.recompute { "recomputed" } else { "kept" };
        write!(formatter, "micro-batches of {} tokens with activations {activations}", self.tokens_per_micro_batch)
    }
}

impl StepShape {
    /// As configured, regardless of memory (CPU).
    pub fn of(config: &TrainConfig) -> Self {
        Self {
            tokens_per_micro_batch: config.tokens_per_micro_batch,
            recompute: config.recompute_activations == Recompute::Always,
        }
    }

    /// The next smaller one: recompute first, then half the tokens, down to `longest_sequence`. `None` if there is
    /// none.
    pub fn smaller(self, longest_sequence: usize) -> Option<Self> {
        if self.recompute { self.halved(longest_sequence) } else { Some(Self { recompute: true, ..self }) }
    }

    fn halved(self, longest_sequence: usize) -> Option<Self> {
        let half = (self.tokens_per_micro_batch / 2).max(longest_sequence);
        (half < self.tokens_per_micro_batch).then_some(Self { tokens_per_micro_batch: half, ..self })
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
    /// From the driver's numbers right after this process has opened the GPU.
    pub fn when_opened((free_bytes, total_bytes): (u64, u64), number_bytes: usize) -> Self {
        let own = CONTEXT_BYTES + CUBLAS_WORKSPACE_BYTES as u64;
        Self { usable_bytes: (free_bytes + own).min(total_bytes), total_bytes, number_bytes }
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
    /// Of the smallest shape.
    pub memory: Box<Memory>,
}

/// Keeps activations if they fit, else recomputes them, else reduces micro-batches.
///
/// # Errors
/// [`DoesNotFit`] if not even one sequence at a time fits.
pub fn fit(model: &ModelConfig, config: &TrainConfig, data: &DataShape, gpu: GpuMemory) -> Result<GpuPlan, DoesNotFit> {
    let longest = longest_sequence(config, data);
    let largest = step_tokens(config, data);
    let mut shape = StepShape::of(config);
    loop {
        let memory = gpu_memory(model, config, data, shape, gpu);
        if memory.peak_bytes as f64 <= USABLE * gpu.usable_bytes as f64 {
            return Ok(GpuPlan { shape, memory, gpu });
        }
        let smaller = if shape.recompute || config.recompute_activations == Recompute::Never {
            // A micro-batch is never larger than the step, so halving starts there.
            StepShape { tokens_per_micro_batch: shape.tokens_per_micro_batch.min(largest), ..shape }.halved(longest)
        } else {
            shape.smaller(longest)
        };
        match smaller {
            Some(smaller) => shape = smaller,
            // Between the usable share and all of it, the smallest shape may still fit.
            None if memory.peak_bytes <= gpu.usable_bytes => return Ok(GpuPlan { shape, memory, gpu }),
            None => return Err(DoesNotFit { message: refusal(config, &memory, gpu), memory: Box::new(memory) }),
        }
    }
}

/// Tokens of the longest prompt and completion, the minimum of a micro-batch.
pub fn longest_sequence(config: &TrainConfig, data: &DataShape) -> usize {
    data.longest_prompt_tokens + config.max_completion_tokens
}

/// Tokens of a step at the longest prompts and completions, each prompt once per group: the maximum of a micro-batch.
pub fn step_tokens(config: &TrainConfig, data: &DataShape) -> usize {
    step_rows(config, data.longest_prompt_tokens as f64, config.max_completion_tokens as f64) as usize
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
        let parts = parts(model, config, data, StepShape { recompute, ..shape }, gpu.number_bytes);
        (peak(&parts), parts)
    };
    let (peak_recomputed_bytes, recomputed) = with(true);
    let (peak_bytes, parts) = if shape.recompute { (peak_recomputed_bytes, recomputed) } else { with(false) };
    Memory { parts, peak_bytes, peak_recomputed_bytes, machine_bytes: Some(gpu.usable_bytes) }
}

/// Name, phase, bytes.
type Part = (&'static str, Phase, usize);

fn parts(
    model: &ModelConfig,
    config: &TrainConfig,
    data: &DataShape,
    step: StepShape,
    number: usize,
) -> Vec<MemoryPart> {
    let all = [
        resident(model, config, number),
        rollout(model, config, data, number),
        training(model, config, data, step, number),
    ]
    .concat();
    let part = |(name, phase, bytes): Part| MemoryPart { name: name.to_owned(), phase, bytes: bytes as u64 };
    all.into_iter().filter(|(_, _, bytes)| *bytes > 0).map(part).collect()
}

/// Parts that exist for the whole run.
fn resident(model: &ModelConfig, config: &TrainConfig, number: usize) -> Vec<Part> {
    let parameters = ModelShape::of(model).parameters;
    let trainable = trainable_parameters(model, config);
    let is_full = config.lora_rank == 0;
    // In f32 the layers read the trained numbers themselves.
    let copy = if number < 4 { number } else { 0 };
    let has_reference = is_full && config.kl_beta > 0.0;
    let table = 2 * model.max_position_embeddings * (model.head_dim / 2) * number.max(4);
    vec![
        ("CUDA context, cuBLAS's workspace", Phase::Always, CONTEXT_BYTES as usize + CUBLAS_WORKSPACE_BYTES),
        ("weights", Phase::Always, if is_full { copy } else { number } * parameters),
        ("trained parameters (f32)", Phase::Always, 4 * trainable),
        ("adapters as used", Phase::Always, number * joined_adapters(model, config.lora_rank)),
        ("AdamW moments (f32)", Phase::Always, 8 * trainable),
        ("frozen reference", Phase::Always, if has_reference { number * parameters } else { 0 }),
        ("rotary tables", Phase::Always, if has_reference { 2 } else { 1 } * table),
    ]
}

/// Numbers that adapters add to the matrices that the layers multiply by (`model::adapter`), and B once more.
fn joined_adapters(model: &ModelConfig, rank: usize) -> usize {
    let (hidden, inner, head) = (model.hidden_size, model.intermediate_size, model.head_dim);
    let (query, key) = (model.num_attention_heads * head, model.num_key_value_heads * head);
    let rank = rank.next_multiple_of(8);
    // Outputs, inputs and adapters of what a layer packs together.
    let packed = [(query + 2 * key, hidden, 3), (hidden, query, 1), (2 * inner, hidden, 2), (hidden, inner, 1)];
    let added = packed.map(|(outputs, inputs, parts)| {
        let used = parts * rank;
        (outputs + used) * (inputs + used.next_multiple_of(64)) - outputs * inputs + rank * outputs
    });
    if rank == 0 { 0 } else { model.num_hidden_layers * added.iter().sum::<usize>() }
}

/// The largest rollout, with an eval beside it, or eval. Completions that find no room wait.
fn rollout(model: &ModelConfig, config: &TrainConfig, data: &DataShape, number: usize) -> Vec<Part> {
    let shape = ModelShape::of(model);
    let (longest, completion) = (data.longest_prompt_tokens.max(1), config.max_completion_tokens);
    let most_rows = gpu_decode_rows(model, completion, number);
    let layer = layer_bytes(&shape, number);
    // `beside`: prompts of an eval, with a completion each.
    let draw = |prompts: usize, samples: usize, beside: usize| {
        let rows = (prompts * samples + beside).min(most_rows.max(samples));
        let together = (prompts + beside).min(if beside > 0 { rows } else { rows / samples });
        let prompt_rows = (together * longest).min(gpu_prompt_rows(model, number).max(longest));
        let prefilled = prompt_rows.min(GPU_PREFILL_ROWS.max(longest));
        let step_rows = rows.max((rows * (1 + config.draft_tokens)).min(GPU_DRAFTED_ROWS));
        let step = step_rows * (4 * shape.vocabulary + 2 * layer);
        let token = shape.key_values_per_token * number;
        let caches = [prompt_rows * token, rows * completion * token];
        let kept = caches.iter().sum::<usize>() <= GPU_KEPT_CACHE_BYTES;
        vec![
            // A recorded graph has memory of its own, which it keeps.
            ("CUDA graph of a decode step", Phase::Always, step),
            ("KV cache, prompts", if kept { Phase::Always } else { Phase::Rollout }, caches[0]),
            ("keys and values of a prefill", Phase::Rollout, prefilled * token),
            ("prefill activations, one layer", Phase::Prefill, prefilled * (layer + 2 * shape.hidden * number)),
            ("KV cache, completions", if kept { Phase::Always } else { Phase::Decode }, caches[1]),
            ("decode logits (f32) and workspace", Phase::Decode, step),
        ]
    };
    let steps_together = config.weight_sync_interval as usize;
    let draws = [
        draw(config.prompt_groups_per_step * steps_together, config.completions_per_prompt, data.eval_rows),
        draw(data.eval_rows.max(data.test_rows), 1, 0),
    ];
    let size = |parts: &[Part]| parts.iter().map(|(_, _, bytes)| bytes).sum::<usize>();
    draws.into_iter().max_by_key(|parts| size(parts)).unwrap_or_default()
}

/// The gradient of one micro-batch; all are summed in one buffer.
fn training(model: &ModelConfig, config: &TrainConfig, data: &DataShape, step: StepShape, number: usize) -> Vec<Part> {
    let shape = ModelShape::of(model);
    let tokens = micro_batch_tokens(config, data, step);
    let head_rows = tokens.min(HEAD_ROWS);
    let (layer, stream) = (layer_bytes(&shape, number), STREAM_BYTES * shape.hidden);
    let derived = shape.derived_activations_per_token * number;
    // Attention keeps a sum per head and row, and needs another backward.
    let sums = 4 * model.num_attention_heads;
    let activations = tokens
        * (shape.layers * if step.recompute { stream } else { layer - derived + sums }
            + stream
            + shape.hidden * number);
    // A layer has as many gradients as activations, of which those that were not kept are restored first.
    let gradients = (shape.layer_activations_per_token + 3 * shape.hidden) * number + sums;
    let work = gradients + if step.recompute { layer + sums + stream } else { derived };
    // The embedding's gradient is computed after all activations are freed.
    let embedding = if config.lora_rank == 0 { 4 * shape.vocabulary * shape.hidden } else { 0 };
    vec![
        ("gradients (f32)", Phase::Training, 4 * trainable_parameters(model, config)),
        (if step.recompute { "layer inputs" } else { "activations" }, Phase::Training, activations),
        (
            "logits of a head chunk and gradient",
            Phase::Head,
            head_rows * shape.vocabulary * (4 + number) + 3 * tokens * shape.hidden * number,
        ),
        ("activations, one layer", Phase::Backward, (tokens * work).max(embedding.saturating_sub(activations))),
    ]
}

/// The activations of a layer, per token. Its input and its middle belong to the residual stream.
fn layer_bytes(shape: &ModelShape, number: usize) -> usize {
    (shape.layer_activations_per_token - 2 * shape.hidden) * number + 2 * shape.hidden * STREAM_BYTES
}

/// At least one completion with its prompt, at most the step.
fn micro_batch_tokens(config: &TrainConfig, data: &DataShape, step: StepShape) -> usize {
    step.tokens_per_micro_batch.max(longest_sequence(config, data)).min(step_tokens(config, data))
}

fn refusal(config: &TrainConfig, memory: &Memory, gpu: GpuMemory) -> String {
    let sum = |phases: &[Phase]| {
        memory.parts.iter().filter(|part| phases.contains(&part.phase)).map(|part| part.bytes).sum::<u64>()
    };
    let mut parts: Vec<&MemoryPart> = memory.parts.iter().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let largest: Vec<String> =
        parts.iter().take(4).map(|part| format!("{} {}", part.name, bytes(part.bytes))).collect();
    let mut changes = Vec::new();
    if config.lora_rank == 0 {
        changes.push("train adapters instead of all weights (lora_rank = 16)");
        if config.kl_beta > 0.0 {
            changes.push("set kl_beta = 0, which saves the frozen copy");
        }
    } else if config.lora_rank > 16 {
        changes.push("lower lora_rank");
    }
    if sum(&[Phase::Rollout, Phase::Prefill, Phase::Decode]) > sum(&[Phase::Training, Phase::Head, Phase::Backward]) {
        changes.push("lower max_completion_tokens, prompt_groups_per_step or completions_per_prompt");
    } else {
        changes.push("lower max_completion_tokens or shorten the longest prompts");
    }
    if config.recompute_activations == Recompute::Never {
        changes.push("set recompute_activations = auto");
    }
    if gpu.total_bytes - gpu.usable_bytes > 2 << 30 {
        changes.push("free the memory that other processes use there");
    }
    changes.push("take a smaller model or a larger GPU");
    format!(
        "the run needs {} of GPU memory, and {} of {} are free, even at the smallest micro-batch: {}; {}",
        bytes(memory.peak_bytes),
        bytes(gpu.usable_bytes),
        bytes(gpu.total_bytes),
        largest.join(", "),
        changes.join(", or ")
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shape::tests::{DATA, config, qwen3_8b};
    use super::*;

    fn h200() -> GpuMemory {
        GpuMemory::when_opened((149_500_000_000, 150_100_000_000), 2)
    }

    fn of(memory: &Memory, name: &str) -> f64 {
        memory.parts.iter().find(|part| part.name == name).map_or(0.0, |part| part.bytes as f64 / 1e9)
    }

    /// Qwen3-8B on one H200: LoRA of rank 32, 32 prompts x 8 of at most 256 new tokens, micro-batches of 16k tokens.
    #[test]
    fn qwen3_8b_with_adapters() {
        let set =
            ["lora_rank=32", "prompt_groups_per_step=32", "max_completion_tokens=256", "tokens_per_micro_batch=16000"];
        let config = config(&set);
        let shape = StepShape { recompute: true, ..StepShape::of(&config) };
        let found = gpu_memory(&qwen3_8b(), &config, &DATA, shape, h200());
        let check =
            |name, expected: f64| assert!((of(&found, name) - expected).abs() < 0.06, "{name}: {}", of(&found, name));
        check("weights", 16.4);
        check("trained parameters (f32)", 0.35);
        check("AdamW moments (f32)", 0.70);
        check("adapters as used", 0.38);
        check("gradients (f32)", 0.35);
        // 16,000 tokens x (37 x 4,096 x 4 + 4,096 x 2) bytes.
        check("layer inputs", 9.83);
        check("logits of a head chunk and gradient", 1.87 + 0.39);
        // As much as the weights: 433 slots x 256 tokens x 144 KiB.
        check("KV cache, completions", 16.35);
        check("rotary tables", 0.02);
        assert_eq!(of(&found, "frozen reference"), 0.0, "the adapters off are the reference");
        assert!((30e9..50e9).contains(&(found.peak_bytes as f64)), "{}", found.peak_bytes);
        assert_eq!(found.peak_bytes, found.peak_recomputed_bytes);
        // Kept instead, without what follows: 36 layers x (34,816 x 2 + 8,192 x 4) bytes are 3.7 MB a token.
        let without = gpu_memory(&qwen3_8b(), &config, &DATA, StepShape { recompute: false, ..shape }, h200());
        assert!(
            (of(&without, "activations") - 16_000.0 * 3.711e-3).abs() < 0.2
                && without.peak_recomputed_bytes == found.peak_bytes
        );
    }

    #[test]
    fn every_weight_has_a_master_a_working_copy_two_moments_and_one_gradient() {
        let found = gpu_memory(
            &qwen3_8b(),
            &config(&["lora_rank=0", "kl_beta=0.001"]),
            &DATA,
            StepShape::of(&config(&[])),
            h200(),
        );
        let check =
            |name, expected: f64| assert!((of(&found, name) - expected).abs() < 0.06, "{name}: {}", of(&found, name));
        check("weights", 16.38);
        check("trained parameters (f32)", 32.76);
        check("AdamW moments (f32)", 65.53);
        check("gradients (f32)", 32.76);
        check("frozen reference", 16.38);
    }

    #[test]
    fn a_rollout_is_bounded_by_its_caches() {
        let rows = |completion| gpu_decode_rows(&qwen3_8b(), completion, 2);
        // 144 KiB a token: 16.4 GB are 512 rows of 217 tokens.
        assert_eq!((rows(64), rows(217), rows(218), rows(1 << 20)), (512, 511, 509, 1));
        let long = DataShape { longest_prompt_tokens: 8000, ..DATA };
        let parts = rollout(&qwen3_8b(), &config(&["max_completion_tokens=64", "prompt_groups_per_step=64"]), &long, 2);
        let prompts = parts.iter().find(|(name, ..)| *name == "KV cache, prompts").unwrap().2;
        // Half as much as the weights.
        assert_eq!(prompts, 55_546 * ModelShape::of(&qwen3_8b()).key_values_per_token * 2);
    }

    #[test]
    fn the_shape_follows_the_memory() {
        // Without evals, whose prefill would be the peak.
        let (model, data) = (qwen3_8b(), DataShape { eval_rows: 0, test_rows: 0, ..DATA });
        let check = |set: &[&str], gigabytes: u64, expected: (usize, bool)| {
            let gpu = GpuMemory {
                usable_bytes: gigabytes * 1_000_000_000,
                total_bytes: gigabytes * 1_000_000_000,
                number_bytes: 2,
            };
            let found = fit(&model, &config(set), &data, gpu).unwrap();
            assert_eq!(
                (found.shape.tokens_per_micro_batch, found.shape.recompute),
                expected,
                "{set:?} {gigabytes}: {}",
                found.memory.peak_bytes
            );
            assert!(found.memory.peak_bytes <= gpu.usable_bytes);
        };
        let set = ["max_completion_tokens=256"];
        check(&set, 150, (8192, false));
        check(&set, 48, (8192, true));
        check(&["max_completion_tokens=256", "recompute_activations=always"], 150, (8192, true));
        // Halved from 2,298 tokens, a whole step; a single sequence is 506.
        let never = ["max_completion_tokens=256", "recompute_activations=never", "prompt_groups_per_step=1"];
        check(&never, 32, (1149, false));
        check(&never, 23, (506, false));
        check(
            &["max_completion_tokens=64", "prompt_groups_per_step=1", "tokens_per_micro_batch=100000"],
            20,
            (314, true),
        );
    }

    #[test]
    fn what_cannot_fit_is_refused_with_what_to_change() {
        let check = |set: &[&str], free: u64, expected: &[&str]| {
            let gpu = GpuMemory { usable_bytes: free * 1_000_000_000, total_bytes: 150_000_000_000, number_bytes: 2 };
            let found = fit(&qwen3_8b(), &config(set), &DATA, gpu).unwrap_err();
            for part in expected {
                assert!(found.message.contains(part), "{:?} lacks {part:?}", found.message);
            }
        };
        check(
            &["lora_rank=0"],
            150,
            &["AdamW moments (f32) 65.5 GB", "150 GB of 150 GB are free", "lora_rank = 16", "a smaller model"],
        );
        check(&["lora_rank=0", "kl_beta=0.1"], 150, &["kl_beta = 0"]);
        check(
            &["max_completion_tokens=1024"],
            20,
            &["weights 16.4 GB", "lower max_completion_tokens, prompt_groups", "other processes"],
        );
        check(
            &["lora_rank=256", "recompute_activations=never"],
            20,
            &["lower lora_rank", "recompute_activations = auto"],
        );
    }

    #[test]
    fn a_smaller_shape_recomputes_first_and_ends_at_one_sequence() {
        let mut shape = StepShape { tokens_per_micro_batch: 4000, recompute: false };
        let mut seen = Vec::new();
        while let Some(smaller) = shape.smaller(900) {
            seen.push((smaller.tokens_per_micro_batch, smaller.recompute));
            shape = smaller;
        }
        assert_eq!(seen, [(4000, true), (2000, true), (1000, true), (900, true)]);
        assert_eq!(StepShape { tokens_per_micro_batch: 100, recompute: true }.smaller(900), None);
    }
}
