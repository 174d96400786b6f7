//! Continuous batching. A row has tokens, some of them computed; each pass computes the next ones
//! of all rows and samples after them. New prompts are prefilled once for all their completions;
//! continued conversations, newest tokens and drafts are computed side by side. Ended rows free
//! their slots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::draft::{Draft, Drafter, Ngrams};
use super::kv_cache::{
    CacheSize, Capacity, DecodeLimits, FedToken, Feed, FreeSlots, KvCache, SampledPass, SavedRow,
};
use super::masks::{ConstrainedRow, Lanes, masks};
use super::source::{Arrivals, QueuedRequest, RequestSource};
use super::thinking::RowThinking;
use super::{Completion, DecodeCounts, GpuFallback, RolloutMemory, ThreadPool};
use crate::kernels::shaping::{SeenTokens, ShapedRow};
use crate::model::{Adapters, Decoder, ExpertLayers, ExpertRecord};
use pass::{StepBackend, sample_after};

mod admission; // admission of requests, and KV slots
mod drafting; // number of drafted tokens
mod kept; // completions whose conversation may continue
mod pass; // runs a pass
mod prefill; // prompts, and the first tokens of their completions
mod rows; // state of a completion

/// A completion being decoded.
struct Row {
    asked: Arc<QueuedRequest>,
    sample: u32,
    /// Key in `DecodeBatch::prompts`.
    prompt: usize,
    /// First slot in the KV cache, and number of slots.
    kv_slots: (usize, usize),
    /// Index of its recurrent state.
    state: usize,
    /// States after each drafted token.
    drafted_states: Vec<usize>,
    /// Conversation tokens between the cached prompt and the completion.
    before: Vec<u32>,
    /// How many of these and the completion's tokens are cached.
    computed: usize,
    /// Tokens computed by the next (once started: current) pass, excluding drafts.
    fed: usize,
    /// Maximum completion tokens.
    limit: usize,
    /// Passes it was in, among those read.
    passes: usize,
    completion: Completion,
    /// Cancelled by the source.
    is_dropped: bool,
    /// N-grams of the whole prompt, if longer than the cached one.
    ngrams: Option<Ngrams>,
    draft: Draft,
    /// Index of its newest token among the last pass's samples, if not yet read.
    pending: Option<usize>,
    /// Needs all previous tokens for its mask: excluded from passes that run ahead, and from
    /// drafting.
    constrained: Option<ConstrainedRow>,
    thinking: RowThinking,
    /// Set with penalties; without a pending token.
    seen: Option<Arc<SeenTokens>>,
}

/// A cached prompt with completions being decoded.
struct Prompt {
    /// First row and number of rows in the cache.
    place: (usize, usize),
    ngrams: Ngrams,
    /// Set if other requests begin with it.
    shared: Option<SharedPrompt>,
}

/// What the first token after a prompt is sampled from.
struct SharedPrompt {
    /// The request that was prefilled.
    asked: Arc<QueuedRequest>,
    /// [1, vocabulary].
    logits: Tensor,
    /// Index of the recurrent state after it, if the model has some.
    state: Option<usize>,
    experts: Option<ExpertRecord>,
}

/// A request with KV slots, with all or some of its samples.
struct AdmittedRequest {
    asked: Arc<QueuedRequest>,
    /// First row and number of rows in the cache.
    prompt: (usize, usize),
    /// Samples with their KV slots.
    samples: Vec<(u32, (usize, usize))>,
}

/// A completed row in the cache.
struct KeptRow {
    id: (u64, u32),
    /// Key in `DecodeBatch::prompts`.
    prompt: usize,
    kv_slots: (usize, usize),
    state: usize,
    /// Tokens of prompt and completion.
    tokens: Vec<u32>,
    /// Number of cached tokens: includes the last one if a pass that ran ahead computed it.
    computed: usize,
    experts: Option<ExpertRecord>,
}

/// State of decoding: waiting requests, active rows, shared KV cache.
struct DecodeBatch<'a> {
    model: &'a Decoder,
    adapters: Adapters,
    source: &'a mut dyn RequestSource,
    is_closed: bool,
    memory: &'a RolloutMemory,
    limits: DecodeLimits,
    computing: StepBackend,
    caches: KvCache,
    capacity: Capacity,
    /// Maximum rows of a pass if rows have several tokens to read.
    pass_rows: usize,
    /// Layers whose experts are recorded.
    recorded_experts: Option<ExpertLayers>,
    /// KV slots of completions.
    free_slots: FreeSlots,
    /// KV rows of prompts; `None`: they take slots.
    free_rows: Option<FreeSlots>,
    /// States of completions, and after their drafts.
    free_states: FreeSlots,
    /// Waiting requests with their samples.
    waiting: VecDeque<(Arc<QueuedRequest>, VecDeque<u32>)>,
    /// Prompts in order of arrival.
    prompts: BTreeMap<usize, Prompt>,
    /// Number of prompts so far.
    prefilled: usize,
    /// Rows in order of arrival, with those of one prompt adjacent.
    rows: Vec<Row>,
    /// Rows moved to host memory for lack of slots, youngest first.
    parked: Vec<(Row, SavedRow)>,
    /// Completions whose conversation may continue, oldest first.
    kept: VecDeque<KeptRow>,
    drafter: Drafter,
    lanes: Lanes,
    /// Requests and samples of each unread pass.
    passes: VecDeque<Vec<(u64, u32)>>,
    /// Passes since the last draft.
    undrafted: usize,
    counts: DecodeCounts,
}

/// Decodes a source until it closes. `threads` may cancel between tokens.
pub(super) fn decode_from(
    model: &Decoder,
    adapters: Adapters,
    source: &mut dyn RequestSource,
    memory: &RolloutMemory,
    (limits, capacity): (DecodeLimits, Capacity),
    threads: &ThreadPool,
) -> Result<(DecodeCounts, Vec<GpuFallback>)> {
    let states = capacity.states(limits);
    let needed = CacheSize {
        kv_slots: capacity.kv_slots,
        prompt_rows: capacity.prompt_rows,
        states,
    };
    let has_longer_rows = capacity.draft_tokens > 0 || capacity.is_conversing;
    let longer_rows = if has_longer_rows {
        limits.drafted_rows
    } else {
        0
    };
    let pass_rows = capacity.rows.max(longer_rows);
    let (caches, computing) = match model.device() {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(_) => {
            let (caches, steps) = memory.buffers.reuse(model, needed, pass_rows, capacity)?;
            (caches, StepBackend::Recorded(Box::new(steps)))
        }
        _ => (
            KvCache::new(model, needed)?,
            StepBackend::Listed(VecDeque::new(), Vec::new()),
        ),
    };
    let mut batch = DecodeBatch {
        limits: DecodeLimits {
            rows: capacity.rows,
            ..limits
        },
        drafter: Drafter::new(capacity.draft_tokens),
        lanes: Lanes::new(match model.device().is_cpu() {
            true => 1,
            false => ThreadPool::count_of(0),
        }),
        free_slots: FreeSlots::all(capacity.kv_slots),
        free_rows: capacity.prompt_rows.map(FreeSlots::all),
        free_states: FreeSlots::all(states),
        model,
        adapters,
        source,
        is_closed: false,
        memory,
        computing,
        caches,
        capacity,
        pass_rows,
        recorded_experts: model.expert_layers().filter(|_| capacity.records_experts),
        waiting: VecDeque::new(),
        prompts: BTreeMap::new(),
        prefilled: 0,
        rows: Vec::new(),
        parked: Vec::new(),
        kept: VecDeque::new(),
        passes: VecDeque::new(),
        undrafted: 0,
        counts: DecodeCounts::default(),
    };
    loop {
        threads.check()?;
        batch.receive()?;
        batch.admit()?;
        if !batch.is_idle() {
            batch.step()?;
        } else if batch.is_closed {
            return Ok(batch.finish());
        }
    }
}

impl DecodeBatch<'_> {
    /// Feeds each row's newest token and drafts. Without drafts, the next pass starts before the
    /// last one is read: a row that ends is computed once in vain.
    fn step(&mut self) -> Result<()> {
        let is_ahead = self.runs_ahead();
        if !is_ahead {
            self.read(0)?;
            let others = self.feed_before();
            self.draft(others);
        }
        let is_drafted = self.rows.iter().any(|row| !row.draft.tokens.is_empty());
        self.undrafted = if is_drafted { 0 } else { self.undrafted + 1 };
        let is_started = self.start()?;
        self.read(usize::from(is_ahead && is_started))
    }

    /// Whether to run ahead: not with masks or drafts, which need the newest token, or rows with
    /// uncomputed tokens. After four passes without a draft, drafting is only tried in every
    /// eighth.
    fn runs_ahead(&self) -> bool {
        let may_draft =
            self.capacity.draft_tokens > 0 && self.rows.len() < self.limits.drafted_rows;
        let needs_newest = |row: &Row| row.needs_newest() || row.has_uncomputed_before();
        self.limits.runs_ahead
            && !self.rows.iter().any(needs_newest)
            && !(may_draft && (self.undrafted < 4 || self.undrafted.is_multiple_of(8)))
    }

    /// Starts a pass of rows below their limit; returns whether there are any.
    fn start(&mut self) -> Result<bool> {
        self.grow()?;
        for row in &mut self.rows {
            row.reserve_states(&mut self.free_states);
        }
        let goes_on = |row: &usize| self.rows[*row].length() < self.rows[*row].limit;
        let rows: Vec<usize> = (0..self.rows.len()).filter(goes_on).collect();
        let feeds = rows.iter().flat_map(|&row| self.feeds(&self.rows[row]));
        let feeds: Vec<Feed> = feeds.collect();
        if feeds.is_empty() {
            return Ok(false);
        }
        let padded = match feeds.len() > rows.len() {
            true => self.limits.padded_drafted,
            false => self.limits.padded,
        }(feeds.len());
        let is_masked = rows.iter().any(|&row| self.rows[row].needs_newest());
        let shaped = self.shaped_rows(&rows);
        let (vocabulary, overhead) = (self.model.config().vocab_size, &self.memory.mask_overhead);
        let fed = self.rows.iter_mut().flat_map(Row::masks);
        let masks = is_masked.then_some(|| masks(fed.collect(), vocabulary, overhead));
        let adapters = (self.adapters, self.capacity.adapter_slot);
        match &mut self.computing {
            StepBackend::Listed(unread, last) => {
                let caches = (&self.caches, self.recorded_experts);
                let model = (self.model, adapters);
                let pass = sample_after(&feeds, last, model, caches, (masks, &shaped))?;
                last.clone_from(&pass.tokens);
                unread.push_back(pass);
            }
            #[cfg(feature = "cuda")]
            StepBackend::Recorded(steps) => {
                let is_hidden = steps.start(
                    self.model,
                    adapters,
                    &self.caches,
                    (&feeds, padded),
                    (masks, &shaped),
                )?;
                if is_hidden {
                    overhead.hide_last();
                }
            }
        }
        self.counts.steps += 1;
        self.counts.computed += padded;
        let mut index = 0;
        for &row in &rows {
            let row = &mut self.rows[row];
            row.pending = Some(index);
            row.computed += row.fed;
            index += row.fed + row.draft.tokens.len();
        }
        self.passes
            .push_back(rows.iter().map(|&row| self.rows[row].id()).collect());
        Ok(true)
    }

    /// Options of those of these rows that have some.
    fn shaped_rows(&self, rows: &[usize]) -> Vec<ShapedRow> {
        let mut index = 0;
        let params = |&row: &usize| {
            let row = &self.rows[row];
            let last = index + row.fed - 1;
            index += row.fed + row.draft.tokens.len();
            row.shaped(last)
        };
        rows.iter().filter_map(params).collect()
    }

    /// Reads all passes but the last `left`, each row up to the first mismatch with its draft: a
    /// token's randomness depends only on its position, so completions are independent of drafts.
    fn read(&mut self, left: usize) -> Result<()> {
        while self.passes.len() > left {
            let fed = self.passes.pop_front().unwrap_or_default();
            let sampled = match &mut self.computing {
                StepBackend::Listed(unread, _) => unread.pop_front(),
                #[cfg(feature = "cuda")]
                StepBackend::Recorded(steps) => steps.finish()?,
            };
            let SampledPass {
                tokens: sampled,
                experts,
                alternatives: mut likeliest,
            } = sampled.unwrap_or_default();
            let mut likeliest = |index: usize| likeliest.remove(&index).unwrap_or_default();
            let count = sampled.len();
            let mut sampled = sampled.into_iter();
            let mut rows = self.rows.iter_mut().peekable(); // some have ended since, and new ones are behind
            for id in fed {
                let first = count - sampled.len();
                let Some(row) = rows.next_if(|row| row.id() == id) else {
                    let kept = self.kept.iter_mut().find(|kept| kept.id == id);
                    kept.into_iter()
                        .for_each(|kept| kept.record_last(experts.as_ref(), first));
                    sampled.next();
                    continue;
                };
                if self.passes.is_empty() {
                    row.pending = None;
                }
                let draft = std::mem::take(&mut row.draft);
                let (mut held, before) = (0, row.completion.token_ids.len());
                if row.has_fed_before() {
                    let fed = first..first + row.fed;
                    let likeliest = likeliest(fed.end - 1);
                    let last = sampled.by_ref().take(row.fed).last();
                    row.record_before(experts.as_ref(), fed);
                    row.fed = 1;
                    if let Some(token) = last.filter(|_| !row.has_uncomputed_before()) {
                        row.push(token, likeliest, self.source);
                    }
                    continue;
                }
                row.passes += 1;
                self.counts.rows += 1;
                for (index, token) in sampled.by_ref().take(draft.tokens.len() + 1).enumerate() {
                    if index == held && !row.has_ended() {
                        row.push(token, likeliest(first + index), self.source);
                        row.record(experts.as_ref(), first + index);
                        held += usize::from(draft.tokens.get(index) == Some(&token.token_id));
                    }
                }
                // The newest is unread, though it may match the draft. `None` if its constraint
                // failed.
                let accepted = (row.completion.token_ids.len() - before).saturating_sub(1);
                row.keep_drafted(accepted, &mut self.free_states);
                self.counts.drafted += draft.tokens.len();
                self.counts.accepted += accepted;
                self.drafter.observe(&draft, held);
            }
            self.retire();
        }
        Ok(())
    }

    fn feeds<'r>(&'r self, row: &'r Row) -> impl Iterator<Item = Feed> + 'r {
        let prefix = self.prompts[&row.prompt].place;
        let newest = row.pending.map(FedToken::Sampled);
        let known = row.uncomputed().chain(&row.draft.tokens).copied();
        newest
            .into_iter()
            .chain(known.map(FedToken::Known))
            .enumerate()
            .map(move |(ahead, token)| Feed {
                row: row.fed_row(prefix, ahead),
                token,
                // If it follows, the completion begins after the last.
                params: row.params(match row.has_uncomputed_before() {
                    true => 0,
                    false => ahead,
                }),
                adapter: row.asked.adapter(),
            })
    }

    /// Returns ended rows to the source, and drops prompts without rows.
    fn retire(&mut self) {
        let ended: Vec<Row> = self.rows.extract_if(.., Row::has_ended).collect();
        if ended.is_empty() {
            return;
        }
        for row in ended {
            self.keep_or_free(&row);
            let (id, sample) = row.id();
            self.source.on_end(id, sample, row.completion);
        }
        self.forget_prompts();
    }

    fn is_idle(&self) -> bool {
        self.rows.is_empty()
            && self.parked.is_empty()
            && self.passes.is_empty()
            && self.waiting.is_empty()
    }

    fn finish(self) -> (DecodeCounts, Vec<GpuFallback>) {
        let gpu_fallbacks = match self.computing {
            StepBackend::Listed(..) => Vec::new(),
            #[cfg(feature = "cuda")]
            StepBackend::Recorded(steps) => {
                let cause = steps.unrecorded();
                let unrecorded = cause.map(|cause| GpuFallback::Unrecorded { cause });
                self.memory.buffers.keep(self.model, self.caches, *steps);
                unrecorded.into_iter().collect()
            }
        };
        (self.counts, gpu_fallbacks)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
