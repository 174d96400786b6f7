//! Memory by part, in bytes: what stays for the whole run, and what the rollout and the training need in turn.

use serde::Serialize;

use super::{DataShape, ModelShape, step_rows, trainable_parameters};
use crate::config::{Recompute, TrainConfig};
use crate::hub::ModelConfig;

/// How the engine holds numbers, and how much of a step it computes at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Engine {
    /// Bytes of a weight, an activation, a key or a value.
    pub number_bytes: usize,
    /// Bytes of a gradient's number.
    pub gradient_bytes: usize,
    /// Whether trained weights are kept once in f32 and used as they are (CPU), or as an f32 master beside a copy that is used (GPU).
    pub master_is_the_weight: bool,
    /// Micro-batches, and shards of a rollout, that are computed side by side: threads of a CPU, 1 on a GPU.
    pub side_by_side: usize,
    /// Completions that are decoded together in each of them.
    pub decode_rows: usize,
    /// Rows that go through the head together.
    pub head_rows: usize,
}

impl Engine {
    /// The CPU engine: f32 throughout, a micro-batch and a shard of 32 completions a thread.
    pub fn cpu(threads: usize) -> Self {
        Self {
            number_bytes: 4,
            gradient_bytes: 4,
            master_is_the_weight: true,
            side_by_side: threads.max(1),
            decode_rows: 32,
            head_rows: 2048,
        }
    }

    /// A GPU: bf16 weights and activations, f32 masters and moments; gradients in f32 for adapters, in bf16 for all weights.
    pub fn gpu(config: &TrainConfig, decode_rows: usize) -> Self {
        let gradient_bytes = if config.lora_rank == 0 { 2 } else { 4 };
        Self { number_bytes: 2, gradient_bytes, master_is_the_weight: false, side_by_side: 1, decode_rows, head_rows: 2048 }
    }
}

/// When a part is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// For the whole run.
    Always,
    /// While completions are drawn.
    Rollout,
    /// While the gradient is computed.
    Training,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryPart {
    /// Its name.
    pub name: &'static str,
    /// When it is there.
    pub phase: Phase,
    /// Its size.
    pub bytes: u64,
}

/// All parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// In the order in which they are shown; parts of no bytes are left out.
    pub parts: Vec<MemoryPart>,
    /// What stays, and the larger of rollout and training.
    pub peak_bytes: u64,
    /// The peak if activations were recomputed (or, where they are, the peak as planned).
    pub peak_recomputed_bytes: u64,
    /// What the machine, or the control group that the process is in, has; None where it does not say.
    pub machine_bytes: Option<u64>,
}

/// The program, a tokenizer, the prompts' texts and what the allocator holds back: a run of the embedded model peaks so far above the other parts (184 MB
/// of 167 MB, where the program alone takes 17 MB), and no farther.
const PROGRAM_BYTES: usize = 24_000_000;
/// A backward needs a layer's gradients beside its activations.
const LAYER_WORK: usize = 2;

/// The parts of a run. Sizes are those of the longest prompts and completions that the configuration allows: a plan that fits, fits.
pub fn memory(model: &ModelConfig, config: &TrainConfig, data: &DataShape, engine: &Engine, machine_bytes: Option<u64>) -> Memory {
    let recompute = config.recompute_activations == Recompute::Always;
    let parts = parts(model, config, data, engine, recompute);
    let peak_recomputed_bytes = if recompute { peak(&parts) } else { peak(&self::parts(model, config, data, engine, true)) };
    Memory { peak_bytes: peak(&parts), peak_recomputed_bytes, parts, machine_bytes }
}

fn peak(parts: &[MemoryPart]) -> u64 {
    let sum = |phase| parts.iter().filter(|part| part.phase == phase).map(|part| part.bytes).sum::<u64>();
    sum(Phase::Always) + sum(Phase::Rollout).max(sum(Phase::Training))
}

fn parts(model: &ModelConfig, config: &TrainConfig, data: &DataShape, engine: &Engine, recompute: bool) -> Vec<MemoryPart> {
    let shape = ModelShape::of(model);
    let trainable = trainable_parameters(model, config);
    let (is_full, number) = (config.lora_rank == 0, engine.number_bytes);
    let completion = config.max_completion_tokens;
    let step = step_rows(config, data.longest_prompt_tokens as f64, completion as f64).ceil() as usize;
    let whole_group = data.longest_prompt_tokens + completion;
    // A micro-batch is never smaller than one completion with its prompt, nor larger than the step.
    let tokens = config.tokens_per_micro_batch.max(whole_group).min(step);
    let in_flight = engine.side_by_side.min(step.div_ceil(tokens.max(1))).max(1);
    let completions = config.prompt_groups_per_step * config.completions_per_prompt * config.weight_sync_interval as usize;
    let decoding = completions.min(engine.decode_rows.max(config.completions_per_prompt) * engine.side_by_side);
    let prompts = decoding.div_ceil(config.completions_per_prompt);
    let predicted = tokens.min(engine.head_rows);
    let layers_kept = if recompute { shape.layers * shape.hidden } else { shape.layers * shape.layer_activations_per_token };
    let weights = if is_full && engine.master_is_the_weight { 4 } else { number } * shape.parameters;
    let master = if is_full && engine.master_is_the_weight { 0 } else { 4 * trainable };
    let copy = if !is_full && !engine.master_is_the_weight { number * trainable } else { 0 };
    let reference = if is_full && config.kl_beta > 0.0 { number * shape.parameters } else { 0 };
    // One buffer that sums, and one for each micro-batch under way where several are.
    let buffers = if engine.side_by_side > 1 || engine.master_is_the_weight { 1 + in_flight } else { 1 };
    let found = [
        ("program, tokenizer, texts", Phase::Always, PROGRAM_BYTES),
        ("weights", Phase::Always, weights),
        ("trained numbers (f32)", Phase::Always, master),
        ("adapters as used", Phase::Always, copy),
        ("AdamW moments (f32)", Phase::Always, 8 * trainable),
        ("frozen reference", Phase::Always, reference),
        ("prompts' keys and values", Phase::Rollout, prompts * data.longest_prompt_tokens * shape.packed_per_token * number),
        ("completions' keys and values", Phase::Rollout, decoding * completion * shape.key_values_per_token * number),
        ("logits of a decode step (f32)", Phase::Rollout, 2 * decoding * shape.vocabulary * 4),
        ("gradients", Phase::Training, buffers * engine.gradient_bytes * trainable),
        ("activations", Phase::Training, in_flight * tokens * layers_kept * number),
        ("one layer's work", Phase::Training, in_flight * tokens * LAYER_WORK * shape.layer_activations_per_token * number),
        ("logits of a head chunk and their gradient", Phase::Training, in_flight * predicted * shape.vocabulary * (4 + number)),
    ];
    let part = |(name, phase, bytes)| MemoryPart { name, phase, bytes: bytes as u64 };
    found.into_iter().filter(|(_, _, bytes)| *bytes > 0).map(part).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::shape::tests::qwen3_8b;
    use super::*;
    use crate::config::Layers;

    fn config(set: &[&str]) -> TrainConfig {
        Layers { set: set.iter().map(|text| (*text).to_owned()).collect(), ..Layers::default() }.resolve().unwrap().config
    }

    const DATA: DataShape = DataShape {
        train_rows: 200,
        mean_prompt_tokens: 120.0,
        longest_prompt_tokens: 250,
        eval_rows: 50,
        proof_rows: 500,
        mean_completion_tokens: 60.0,
    };

    fn gigabytes(memory: &Memory, name: &str) -> f64 {
        memory.parts.iter().find(|part| part.name == name).map_or(0.0, |part| part.bytes as f64 / 1e9)
    }

    /// The published table of Qwen3-8B on one H200: LoRA of rank 32, 32 prompts x 8 of at most 256 new tokens, micro-batches of 16k tokens.
    #[test]
    fn qwen3_8b_with_adapters() {
        let mut config =
            config(&["lora_rank=32", "prompt_groups_per_step=32", "max_completion_tokens=256", "tokens_per_micro_batch=16000"]);
        config.recompute_activations = Recompute::Always;
        let found = memory(&qwen3_8b(), &config, &DATA, &Engine::gpu(&config, 256), Some(150_800_000_000));
        let check = |name, expected: f64| assert!((gigabytes(&found, name) - expected).abs() < 0.06, "{name}: {}", gigabytes(&found, name));
        check("weights", 16.4);
        check("trained numbers (f32)", 0.35);
        check("AdamW moments (f32)", 0.70);
        check("adapters as used", 0.17);
        check("gradients", 0.35);
        check("activations", 4.72);
        check("logits of a head chunk and their gradient", 1.87);
        // 256 slots x 256 tokens x 144 KiB.
        check("completions' keys and values", 9.66);
        assert_eq!(gigabytes(&found, "frozen reference"), 0.0, "the adapters off are the reference");
        assert!((24e9..45e9).contains(&(found.peak_bytes as f64)), "{}", found.peak_bytes);
        assert_eq!(found.peak_bytes, found.peak_recomputed_bytes);
        // Kept instead: 36 layers x 69,632 numbers x 2 bytes are 5.0 MB a token.
        config.recompute_activations = Recompute::Never;
        let kept = memory(&qwen3_8b(), &config, &DATA, &Engine::gpu(&config, 256), None);
        assert!((gigabytes(&kept, "activations") - 16_000.0 * 5.013_504e-3).abs() < 0.1 && kept.peak_recomputed_bytes == found.peak_bytes);
    }

    #[test]
    fn qwen3_8b_with_every_weight_does_not_fit() {
        let config = config(&["lora_rank=0", "kl_beta=0.001"]);
        let found = memory(&qwen3_8b(), &config, &DATA, &Engine::gpu(&config, 256), None);
        let trained = gigabytes(&found, "trained numbers (f32)") + gigabytes(&found, "AdamW moments (f32)");
        assert!((trained - 98.3).abs() < 0.1 && (gigabytes(&found, "gradients") - 16.4).abs() < 0.05, "{found:?}");
        assert!((gigabytes(&found, "frozen reference") - 16.4).abs() < 0.05);
    }

    #[test]
    fn a_processor_holds_trained_weights_once_and_a_gradient_a_thread() {
        let config = config(&["lora_rank=0", "tokens_per_micro_batch=1024"]);
        let found = memory(&qwen3_8b(), &config, &DATA, &Engine::cpu(2), None);
        let parameters = ModelShape::of(&qwen3_8b()).parameters as u64;
        let bytes = |name| found.parts.iter().find(|part| part.name == name).map(|part| part.bytes);
        assert_eq!(bytes("weights"), Some(4 * parameters));
        assert_eq!(bytes("trained numbers (f32)"), None);
        assert_eq!(bytes("gradients"), Some(3 * 4 * parameters));
    }
}
