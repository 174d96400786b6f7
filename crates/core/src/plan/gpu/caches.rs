//! The KV caches and batches of a GPU, which follow from the model and the GPU.

use super::{
    BasePrecision, CONTEXT_BYTES, CUBLAS_WORKSPACE_BYTES, GpuMemory, ModelConfig, ModelShape,
    STATE_BYTES, USABLE, WeightBytes, layer_bytes, routed_bytes, widened_bytes,
};

/// The KV cache of completions may take as much as the weights, within these bounds.
const CACHE_BYTES: std::ops::RangeInclusive<usize> = 8 << 30..=24 << 30;
/// But no more than a third of a GPU, and a sixth of one below 64 GB.
const CACHE_PARTS: [u64; 2] = [3, 6];
const SMALL_GPU_BYTES: u64 = 64_000_000_000;
/// A rollout's caches may take more: this share of what weights and their training leave of the GPU.
const CACHE_SHARE: f64 = 0.75;
/// Completions that are decoded together at most: a larger batch is not faster.
pub const GPU_DECODE_ROWS: usize = 512;
/// Prompt rows that are prefilled together, on a small GPU and on others; a longer prompt is alone.
const GPU_PREFILL_ROWS: [usize; 2] = [4096, 16_384];
/// The KV caches of a rollout that stay for the next, with the passes that were recorded for them, if they are not larger.
/// On a small GPU and on others.
const GPU_KEPT_CACHE_BYTES: [usize; 2] = [1 << 30, 4 << 30];
/// Rows of a decode step with drafted tokens.
pub const GPU_DRAFTED_ROWS: usize = 256;

/// Tokens whose keys and values a GPU keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePlaces {
    /// Of prompts and completions.
    pub all: usize,
    /// Of prompts, if completions need all others.
    pub prompts: usize,
}

impl CachePlaces {
    pub const UNLIMITED: Self = Self {
        all: usize::MAX,
        prompts: usize::MAX,
    };

    /// Of completions that need `completions`, beside prompts that need `prompts`.
    pub fn of_completions(self, completions: usize, prompts: usize) -> usize {
        completions.min(self.all.saturating_sub(prompts.min(self.prompts)))
    }

    /// Of prompts that need `prompts`, beside `completions` places of completions.
    pub fn of_prompts(self, prompts: usize, completions: usize) -> usize {
        prompts.min(self.all.saturating_sub(completions))
    }
}

/// Of a rollout. They follow from the model and the GPU, so that a rollout's batches do not depend on what else uses the GPU.
/// `trained`: numbers that an optimizer moves.
pub fn gpu_rollout_places(
    model: &ModelConfig,
    base: BasePrecision,
    trained: usize,
    gpu: GpuMemory,
) -> CachePlaces {
    let (shape, number_bytes) = (ModelShape::from_config(model), gpu.number_bytes);
    // Gradients, f32 weights and two moments.
    let held = WeightBytes::new(&shape, base, number_bytes).gpu + 16 * trained;
    let share = CACHE_SHARE * gpu.usable_bytes.saturating_sub(held as u64) as f64;
    // On a small GPU the rest of that is less than a rollout works with.
    let working = held + CONTEXT_BYTES as usize + rollout_work(model, base, gpu);
    let beside = USABLE * gpu.usable_bytes as f64 - working as f64;
    let least = least_places(&shape, gpu);
    CachePlaces {
        all: (share.min(beside) as usize / token_bytes(&shape, number_bytes)).max(least.all),
        ..least
    }
}

/// Tokens of a server whose model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerPlaces {
    /// Completions that are decoded together.
    pub rows: usize,
    /// Whose keys and values it keeps.
    pub all: usize,
    /// Of a prompt, which is prefilled at once.
    pub longest_prompt: usize,
}

/// `gpu.usable_bytes`: what is free. `shares_gpu`: with a run.
pub fn gpu_server_places(
    model: &ModelConfig,
    base: BasePrecision,
    gpu: GpuMemory,
    shares_gpu: bool,
) -> ServerPlaces {
    let (shape, number) = (ModelShape::from_config(model), gpu.number_bytes);
    let fragments = (1.0 - USABLE) * gpu.total_bytes as f64;
    let room = gpu.usable_bytes as f64 - fragments - rollout_work(model, base, gpu) as f64;
    // Where a completion has states, these take at most half.
    let state = shape.state * STATE_BYTES;
    let rows = gpu_decode_rows(model, number, gpu.total_bytes)
        .min((room / 2.0) as usize / state.max(1))
        .max(1);
    let states = (rows * state) as f64;
    let (free, room) = (gpu.usable_bytes as f64 - states, (room - states).max(0.0));
    let (token, planned) = (
        token_bytes(&shape, number),
        gpu_prefill_rows(gpu.total_bytes),
    );
    let prefill_row = prefill_row_bytes(&shape, row_layer_bytes(model, &shape, number), number);
    // For the longest prompt, up to a quarter.
    let longer = model.max_position_embeddings.saturating_sub(planned) * prefill_row;
    let kept = (longer as f64).min((1.0 - CACHE_SHARE) * room);
    let all = (CACHE_SHARE * free).min(room - kept) as usize / token;
    let all = match shares_gpu {
        true => all.min(least_places(&shape, gpu).all),
        false => all,
    };
    let left = (room - (all * token) as f64) as usize;
    ServerPlaces {
        rows,
        all,
        longest_prompt: planned + left / prefill_row.max(1),
    }
}

/// What a rollout has on any GPU.
fn least_places(shape: &ModelShape, gpu: GpuMemory) -> CachePlaces {
    let completions = cache_bytes(shape, gpu.number_bytes, gpu.total_bytes);
    let token = token_bytes(shape, gpu.number_bytes);
    let prompts = (completions / 2 / token).max(gpu_prefill_rows(gpu.total_bytes));
    CachePlaces {
        all: completions / token + prompts,
        prompts,
    }
}

/// Keys and values of a token.
fn token_bytes(shape: &ModelShape, number_bytes: usize) -> usize {
    (shape.key_values_per_token * number_bytes).max(1)
}

/// What decoding at the most rows takes beside weights, caches and CUDA's context, but for adapters.
fn rollout_work(model: &ModelConfig, base: BasePrecision, gpu: GpuMemory) -> usize {
    let (shape, number) = (ModelShape::from_config(model), gpu.number_bytes);
    let layer = row_layer_bytes(model, &shape, number);
    let step = gpu_decode_rows(model, number, gpu.total_bytes) * step_row_bytes(&shape, layer);
    let prefill = gpu_prefill_rows(gpu.total_bytes) * prefill_row_bytes(&shape, layer, number);
    let widened = widened_bytes(model, base, number);
    CUBLAS_WORKSPACE_BYTES + widened + step + step.max(prefill)
}

/// Activations of a row in one layer.
pub(super) fn row_layer_bytes(model: &ModelConfig, shape: &ModelShape, number: usize) -> usize {
    layer_bytes(shape, number) + routed_bytes(model, number)
}

/// Of a row of a decode step. `layer`: its activations in one.
pub(super) fn step_row_bytes(shape: &ModelShape, layer: usize) -> usize {
    4 * shape.vocabulary + 2 * layer
}

pub(super) fn prefill_row_bytes(shape: &ModelShape, layer: usize, number: usize) -> usize {
    layer + 2 * shape.hidden * number
}

/// Completions that a GPU decodes together at most; where a completion has states, these take no more than its KV cache may.
pub fn gpu_decode_rows(model: &ModelConfig, number_bytes: usize, gpu_bytes: u64) -> usize {
    let shape = ModelShape::from_config(model);
    (cache_bytes(&shape, number_bytes, gpu_bytes) / (shape.state * STATE_BYTES).max(1))
        .clamp(1, GPU_DECODE_ROWS)
}

/// `gpu_bytes`: 0 if unknown.
fn cache_bytes(shape: &ModelShape, number_bytes: usize, gpu_bytes: u64) -> usize {
    let most = match gpu_bytes {
        0 => usize::MAX,
        _ => (gpu_bytes / CACHE_PARTS[usize::from(gpu_bytes < SMALL_GPU_BYTES)]) as usize,
    };
    (shape.parameters * number_bytes)
        .clamp(*CACHE_BYTES.start(), *CACHE_BYTES.end())
        .min(most)
}

/// Prompt rows that are prefilled together. `gpu_bytes`: 0 if unknown.
pub fn gpu_prefill_rows(gpu_bytes: u64) -> usize {
    GPU_PREFILL_ROWS[usize::from(!is_small(gpu_bytes))]
}

/// The largest KV caches that stay for the next rollout. `gpu_bytes`: 0 if unknown.
pub fn gpu_kept_cache_bytes(gpu_bytes: u64) -> usize {
    GPU_KEPT_CACHE_BYTES[usize::from(!is_small(gpu_bytes))]
}

fn is_small(gpu_bytes: u64) -> bool {
    (1..SMALL_GPU_BYTES).contains(&gpu_bytes)
}
