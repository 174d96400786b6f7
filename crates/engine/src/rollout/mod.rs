//! Rollouts: each prompt is prefilled once and its completions are decoded side by side; ended ones
//! free their slots.

mod decode; // continuous batching from a queue
#[cfg(feature = "cuda")]
mod decode_gpu; // decode steps as CUDA graphs
mod draft; // n-gram drafts from prompt and history
mod kv_cache; // limits, caches, rows of a pass
mod masks; // masks of constrained rows
mod queue; // requests and clients
mod source; // sources of requests
mod thinking; // limit of think blocks
mod thread_pool; // ordered parallel work

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use candle_core::Result;
use parking_lot::Mutex;

use crate::constraint::Constraint;
use crate::kernels::device::memory;
use crate::model::{Adapters, CacheWidth, Decoder, ExpertRecord};
use crate::plan::{CPU_DECODE_ROWS, CPU_DRAFTED_ROWS, CachePlaces, GpuMemory, gpu_server_places};
use crate::text::Tokenizer;
use kv_cache::{Capacity, DecodeLimits};
use source::FixedRequests;

pub use crate::kernels::shaping::Shaping;
pub(crate) use crate::kernels::shaping::likeliest;
pub use draft::DraftHistory;
pub use masks::MaskOverhead;
pub(crate) use queue::{
    Client, Decoding, Job, Order, Queue, QueueError, QueuedConversation, QueuedQuestion, Worker,
};
pub use source::{Arrivals, QueuedRequest, RequestSource};
pub use thinking::ThinkingLimit;
pub use thread_pool::ThreadPool;

/// A prompt, and the number of completions to sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Not empty.
    pub prompt: Vec<u32>,
    /// Prompt id in the random numbers; unique within a step.
    pub prompt_number: u32,
    /// Optimizer step or another counter in the random numbers.
    pub step: u32,
    pub samples: usize,
    /// Index of the first sample in the random numbers; later turns use other ranges.
    pub first_sample: u32,
    /// Greedy decoding at any temperature, as in evals.
    pub greedy: bool,
    /// Token limit per sample, besides [`Sampling::max_completion_tokens`]: of one of several
    /// tasks, or recorded lengths replayed by a benchmark. Empty: none.
    pub lengths: Vec<usize>,
    pub constraint: Option<Arc<Constraint>>,
    /// Completions of the conversation under the constraint; the later ones are free.
    pub constrained: u32,
    /// Sampling options that change the distribution.
    pub shaping: Option<Arc<Shaping>>,
}

impl Request {
    /// Samples at the rollout's temperature, to any length.
    pub fn new(prompt: Vec<u32>, prompt_number: u32, step: u32, samples: usize) -> Self {
        Self {
            prompt,
            prompt_number,
            step,
            samples,
            first_sample: 0,
            greedy: false,
            lengths: Vec::new(),
            constraint: None,
            constrained: u32::MAX,
            shaping: None,
        }
    }

    /// The highest of its own limits, if all samples have one.
    fn longest(&self) -> Option<usize> {
        let lengths = self.lengths.get(..self.samples)?;
        lengths.iter().copied().max()
    }
}

/// Sampling parameters. No top-p or top-k: training needs samples of the model's own distribution.
/// For servers see [`Request::shaping`].
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: greedy.
    pub temperature: f64,
    /// Including the stop token.
    pub max_completion_tokens: usize,
    pub stop_ids: Vec<u32>,
    /// Determines every random number, with the request's step and prompt number, the sample index
    /// and the position.
    pub seed: u64,
    /// Maximum drafted tokens per row; 0: none. Drafts only affect speed.
    pub draft_tokens: usize,
    /// `None`: unlimited.
    pub thinking: Option<Arc<ThinkingLimit>>,
    /// Whether to record [`Completion::experts`].
    pub records_experts: bool,
}

impl Sampling {
    /// Uses the tokenizer's stop tokens and default drafts.
    pub fn new(
        tokenizer: &Tokenizer,
        temperature: f64,
        max_completion_tokens: usize,
        seed: u64,
    ) -> Self {
        Self {
            stop_ids: tokenizer.stop_ids().to_vec(),
            ..Self::plain(temperature, max_completion_tokens, seed)
        }
    }

    /// Uses default drafts and no stop tokens.
    pub fn plain(temperature: f64, max_completion_tokens: usize, seed: u64) -> Self {
        Self {
            temperature,
            max_completion_tokens,
            stop_ids: Vec::new(),
            seed,
            draft_tokens: DRAFT_TOKENS,
            thinking: None,
            records_experts: false,
        }
    }
}

/// Default drafted tokens per row.
pub const DRAFT_TOKENS: usize = 8;

pub use crate::facts::StopReason;

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Completion {
    /// Including the stop token.
    pub token_ids: Vec<u32>,
    /// Log-probs under the sampling distribution (among allowed tokens, if constrained), nats.
    pub log_probs: Vec<f32>,
    pub stop: StopReason,
    /// Tokens that were forced to close a think block.
    #[serde(default, skip_serializing_if = "Range::is_empty")]
    pub forced: Range<usize>,
    /// Experts of prompt and completion ([`Sampling::records_experts`]).
    #[serde(skip)]
    pub experts: Option<ExpertRecord>,
}

impl Completion {
    /// A completion without forced tokens.
    pub fn new(token_ids: Vec<u32>, log_probs: Vec<f32>, stop: StopReason) -> Self {
        Self {
            token_ids,
            log_probs,
            stop,
            forced: 0..0,
            experts: None,
        }
    }

    /// Reports its tokens one by one, as during sampling; returns what was reported, until
    /// `on_token` returns false. Stored completions have no log-probs.
    pub(crate) fn replay(self, mut on_token: impl FnMut(&Self) -> bool) -> Self {
        let mut told = Self::new(Vec::new(), Vec::new(), self.stop);
        let log_probs = self
            .log_probs
            .into_iter()
            .chain(std::iter::repeat(f32::NAN));
        for (token, log_prob) in self.token_ids.into_iter().zip(log_probs) {
            told.token_ids.push(token);
            told.log_probs.push(log_prob);
            if !on_token(&told) {
                break;
            }
        }
        told
    }

    /// Log-probs without those of forced tokens.
    pub fn sampled_log_probs(&self) -> impl Iterator<Item = f32> {
        let all = self.log_probs.iter().copied().enumerate();
        all.filter(|(token, _)| !self.forced.contains(token))
            .map(|(_, log_prob)| log_prob)
    }

    /// Whether [`ThinkingLimit`] ended its think block.
    pub fn has_thought_to_the_limit(&self) -> bool {
        self.stop == StopReason::Thinking || !self.forced.is_empty()
    }
}

/// Completions of a rollout, with counts and warnings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutOutput {
    /// Completions by request.
    pub completions: Vec<Vec<Completion>>,
    pub counts: DecodeCounts,
    pub gpu_fallbacks: Vec<GpuFallback>,
}

/// Total tokens.
pub fn token_count(completions: &[Vec<Completion>]) -> usize {
    let completions = completions.iter().flatten();
    completions.map(|one| one.token_ids.len()).sum()
}

/// A slower path taken since the GPU refused the usual one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum GpuFallback {
    /// A pass could not be recorded as a CUDA graph: kernels are launched individually.
    Unrecorded { cause: String },
    /// Out of memory: caches and batches are one in `parts` from now on.
    Smaller { parts: usize },
    /// Host memory for a table of embeddings could not be locked.
    EmbeddingsOnGpu { cause: String },
}

/// Counts of decode steps, rows and drafts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DecodeCounts {
    /// Prompt tokens prefilled.
    pub prefilled: usize,
    /// Passes after prefills.
    pub steps: usize,
    /// Completions advanced, summed over steps; excludes restarted ones.
    pub rows: usize,
    /// Rows computed, including drafts and padding.
    pub computed: usize,
    pub drafted: usize,
    /// Drafted tokens accepted.
    pub accepted: usize,
}

impl std::ops::AddAssign for DecodeCounts {
    fn add_assign(&mut self, other: Self) {
        self.prefilled += other.prefilled;
        self.steps += other.steps;
        self.rows += other.rows;
        self.computed += other.computed;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
    }
}

/// State carried between a model's rollouts: draft history, buffers, batch size after OOM.
#[derive(Debug, Default)]
pub struct RolloutMemory {
    /// Completions to draft from.
    pub history: DraftHistory,
    /// Time spent on masks.
    pub mask_overhead: MaskOverhead,
    /// Number of times caches and batches were halved.
    halvings: AtomicU32,
    #[cfg(feature = "cuda")]
    buffers: decode_gpu::GpuBuffers,
}

impl RolloutMemory {
    /// Starts with completions of earlier rollouts.
    pub fn drafting_from(history: DraftHistory) -> Self {
        Self {
            history,
            ..Self::default()
        }
    }

    pub(crate) fn halvings(&self) -> u32 {
        self.halvings.load(Ordering::Relaxed)
    }

    /// Halves the size for this and later rollouts of `all` completions; false if it is already
    /// one.
    pub(crate) fn halve(&self, all: usize) -> bool {
        let is_smaller = all >> self.halvings() > 1;
        self.halvings
            .fetch_add(u32::from(is_smaller), Ordering::Relaxed);
        is_smaller
    }
}

/// Samples completions of each request. `memory` belongs to this model.
///
/// # Errors
/// A prompt with completion beyond the model's context, a failed tensor operation, or cancellation.
pub fn generate(
    model: &Decoder,
    adapters: Adapters,
    requests: &[Request],
    sampling: &Sampling,
    memory: &RolloutMemory,
    threads: &ThreadPool,
) -> Result<RolloutOutput> {
    let model = (model, adapters);
    let parts = decoded_together(model.0, requests);
    let fixed = parts.iter().map(|part| FixedRequests::new(part, sampling));
    let mut fixed: Vec<_> = fixed.collect();
    let sized = |(part, source): (&&[Request], _)| {
        SizedSource::new(source, part.iter().map(RequestSize::of).collect())
    };
    let sources: Vec<_> = parts.iter().zip(&mut fixed).map(sized).collect();
    let (counts, gpu_fallbacks) = generate_from(model, &sources, sampling, memory, threads)?;
    drop(sources);
    let completions = fixed.into_iter().flat_map(FixedRequests::completions);
    Ok(RolloutOutput {
        completions: completions.collect(),
        counts,
        gpu_fallbacks,
    })
}

/// Cache size of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSize {
    /// Maximum.
    pub prompt_tokens: usize,
    /// Growth as in [`QueuedRequest`].
    pub later_tokens: usize,
    /// Limit of its completions beside the run's; `usize::MAX`: none.
    pub new_tokens: usize,
    /// Whether a later prompt of its conversation may extend no earlier one.
    pub has_branches: bool,
    pub samples: usize,
}

impl RequestSize {
    pub fn of(request: &Request) -> Self {
        Self {
            prompt_tokens: request.prompt.len(),
            later_tokens: 0,
            new_tokens: request.longest().unwrap_or(usize::MAX),
            has_branches: false,
            samples: request.samples,
        }
    }
}

/// A source, and its maximum parallel requests.
#[allow(missing_debug_implementations)]
pub struct SizedSource<'s> {
    pub source: Mutex<&'s mut (dyn RequestSource + Send + 's)>,
    pub sizes: Vec<RequestSize>,
}

impl<'s> SizedSource<'s> {
    pub fn new(source: &'s mut (impl RequestSource + Send), sizes: Vec<RequestSize>) -> Self {
        Self {
            source: Mutex::new(source),
            sizes,
        }
    }
}

/// As [`generate`], with requests arriving during decoding: on the CPU each source has its own
/// thread, on a GPU there is one. `sampling`: of all requests.
pub fn generate_from(
    (model, adapters): (&Decoder, Adapters),
    sources: &[SizedSource<'_>],
    sampling: &Sampling,
    memory: &RolloutMemory,
    threads: &ThreadPool,
) -> Result<(DecodeCounts, Vec<GpuFallback>)> {
    let limits = limits(model);
    let mut totals = (DecodeCounts::default(), Vec::new());
    let decode = |sized: &SizedSource<'_>| {
        // A GPU tensor cannot be empty.
        if sized.sizes.iter().all(|size| size.samples == 0) {
            return Ok(Default::default());
        }
        let capacity = Capacity::for_list(&sized.sizes, sampling, limits, memory.halvings());
        let mut source = sized.source.lock();
        let capacity = (limits, capacity);
        decode::decode_from(model, adapters, &mut **source, memory, capacity, threads)
    };
    for (counts, fallbacks) in threads.map(sources, decode)? {
        totals.0 += counts;
        totals.1.extend(fallbacks);
    }
    let cause = model.host_memory_refusal().map(str::to_owned);
    (totals.1).extend(cause.map(|cause| GpuFallback::EmbeddingsOnGpu { cause }));
    Ok(totals)
}

/// Tokens that a rollout's caches on a GPU may hold; `None` on the CPU.
#[cfg(feature = "cuda")]
fn gpu_places(model: &Decoder) -> Option<CachePlaces> {
    let gpu = gpu_memory(model)?;
    let gpu = GpuMemory {
        usable_bytes: gpu.total_bytes,
        ..gpu
    };
    let (base, trained) = (model.base_precision(), model.parameters().count());
    Some(crate::plan::gpu_rollout_places(
        model.config(),
        base,
        trained,
        gpu,
    ))
}

fn gpu_memory(model: &Decoder) -> Option<GpuMemory> {
    let (usable_bytes, total_bytes) = memory(model.device())?;
    Some(GpuMemory {
        usable_bytes,
        total_bytes,
        number_bytes: model.dtype().size_in_bytes(),
    })
}

/// Limits of joint decoding from a [`RequestSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSize {
    /// Completions.
    pub rows: usize,
    /// Their prompts' and their maximum new tokens.
    pub tokens: usize,
    /// Tokens of a prompt.
    pub longest_prompt: usize,
}

impl QueueSize {
    /// On a GPU what its free memory allows; on the CPU per thread, sharing the model.
    /// `shares_gpu`: with a run.
    pub fn for_model(model: &Decoder, shares_gpu: bool) -> Self {
        let positions = model.config().max_position_embeddings;
        if let Some(gpu) = gpu_memory(model) {
            let base = model.base_precision();
            let places = gpu_server_places(model.config(), base, gpu, shares_gpu);
            return Self {
                rows: places.rows,
                tokens: places.all.min(places.rows * positions),
                longest_prompt: places.longest_prompt,
            };
        }
        let token = |width| match width {
            CacheWidth::Token(width) => width,
            _ => 0,
        };
        let token_width = model.cache_widths().map(token).sum::<usize>();
        let token_bytes = token_width * model.dtype().size_in_bytes();
        Self {
            rows: CPU_DECODE_ROWS,
            tokens: (CPU_QUEUE_BYTES / token_bytes.max(1)).min(CPU_DECODE_ROWS * positions),
            longest_prompt: positions,
        }
    }
}

/// Bytes of KV per thread. Only used pages take memory.
const CPU_QUEUE_BYTES: usize = 2 << 30;

/// Decodes a source until it closes, on this thread. `draft_tokens`: maximum of any request;
/// `adapter_slot`: rank per adapter if there are several, else 0. Every request fits `size` and the
/// model's context.
///
/// # Errors
/// As [`generate`]; the source may still have unfinished completions.
pub fn decode_queue(
    model: &Decoder,
    adapters: Adapters,
    source: &mut dyn RequestSource,
    (size, draft_tokens, adapter_slot): (QueueSize, usize, usize),
    memory: &RolloutMemory,
    threads: &ThreadPool,
) -> Result<(DecodeCounts, Vec<GpuFallback>)> {
    // No more states than rows.
    let limits = DecodeLimits {
        rows: size.rows,
        ..limits(model)
    };
    let capacity = Capacity::for_queue(size, draft_tokens, adapter_slot);
    let capacity = (limits, capacity);
    decode::decode_from(model, adapters, source, memory, capacity, threads)
}

fn limits(model: &Decoder) -> DecodeLimits {
    match model.device() {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(_) => decode_gpu::limits(model),
        _ => CPU_LIMITS,
    }
}

/// A shard is decoded at once. A thread takes 0.25 ms for one row of the embedded model, 0.95 ms
/// for eight and 3 ms for 32.
const CPU_LIMITS: DecodeLimits = DecodeLimits {
    rows: usize::MAX,
    places: CachePlaces::UNLIMITED,
    parked_bytes: 0,
    initial_slots: usize::MAX,
    prefill_rows: usize::MAX,
    drafted_rows: CPU_DRAFTED_ROWS,
    balanced_rows: 2,
    runs_ahead: false,
    padded: |rows| rows,
    padded_drafted: |rows| rows,
};

/// Groups of requests decoded together, in order: other groups do not affect their bits.
pub fn decoded_together<'r>(model: &Decoder, requests: &'r [Request]) -> Vec<&'r [Request]> {
    if model.device().is_cpu() {
        shards(requests, CPU_DECODE_ROWS)
    } else {
        vec![requests]
    }
}

/// Splits requests, in order, into shards of at most `most_rows` completions; a larger request is
/// alone.
fn shards(requests: &[Request], most_rows: usize) -> Vec<&[Request]> {
    let (mut shards, mut start, mut rows) = (Vec::new(), 0, 0);
    for (index, request) in requests.iter().enumerate() {
        if rows > 0 && rows + request.samples > most_rows {
            shards.push(&requests[start..index]);
            (start, rows) = (index, 0);
        }
        rows += request.samples;
    }
    shards.push(&requests[start..]);
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_bounded_by_completions() {
        let check = |samples: &[usize], most_rows, expected: &[usize]| {
            let request = |&samples: &usize| Request::new(vec![1; 10], 0, 0, samples);
            let requests: Vec<Request> = samples.iter().map(request).collect();
            let sizes: Vec<usize> = shards(&requests, most_rows)
                .iter()
                .map(|shard| shard.len())
                .collect();
            assert_eq!(sizes, expected);
        };
        check(&[8; 5], 16, &[2, 2, 1]);
        check(&[40, 1], 32, &[1, 1]);
        check(&[], 32, &[0]);
    }
}
