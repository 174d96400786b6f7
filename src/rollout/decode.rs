//! Decoding: prompts wait in a queue, are prefilled when there is room, and their rows are decoded side by side, each
//! with the tokens that are drafted for it. Rows that end make room for the next prompts.

use std::collections::{BTreeMap, VecDeque};

use candle_core::{Result, Tensor, bail};

use super::draft::{Draft, Drafter, Ngrams};
use super::kv_cache::{FedToken, Feed, FreePlaces, KvCache, Room, joined};
use super::{Completion, DecodeCounts, Generated, Request, RolloutMemory, Sampling, StopReason, ThreadPool};
use crate::kernels::decode_attention::{DecodeRow, DecodeRows};
use crate::kernels::embedding::gather_rows;
use crate::kernels::philox::{SampleKey, uniform};
use crate::kernels::sampler::{LIKELIEST, SampledToken, sample_tokens};
use crate::model::{Adapters, Decoder, PackedBatch};

mod admission; // which requests have room, and places for their tokens

/// A completion that is being decoded.
struct Row {
    request: usize,
    sample: u32,
    /// In `DecodeBatch::prompts`.
    prompt: usize,
    /// Of its tokens in the cache: the first place, and how many.
    places: (usize, usize),
    /// Of its tokens.
    limit: usize,
    /// The passes that it was in, of those that were read.
    passes: usize,
    completion: Completion,
    draft: Draft,
    /// The index of its newest token among the draws of the last pass, where that was not read yet.
    pending: Option<usize>,
}

/// A prompt that is being completed.
struct Prompt {
    /// First row and number of rows in the cache.
    place: (usize, usize),
    ngrams: Ngrams,
}

/// How rows are computed: by a list on the CPU, by a recorded graph on a GPU.
enum Computing {
    /// Draws that were not read yet, and those of the last pass.
    Listed(VecDeque<Vec<SampledToken>>, Vec<SampledToken>),
    #[cfg(feature = "cuda")]
    Recorded(super::decode_gpu::Steps),
}

/// A request, or what fits of it.
struct Admitted {
    request: usize,
    /// First row and number of rows in the cache.
    prompt: (usize, usize),
    /// Samples with their places.
    samples: Vec<(u32, (usize, usize))>,
}

struct DecodeBatch<'a> {
    model: &'a Decoder,
    adapters: Adapters,
    requests: &'a [Request],
    sampling: &'a Sampling,
    memory: &'a RolloutMemory,
    room: Room,
    computing: Computing,
    caches: KvCache,
    /// Of completions.
    free_places: FreePlaces,
    /// Of prompts.
    free_rows: FreePlaces,
    /// A completion's places at first.
    first_places: usize,
    /// The requests that wait, and their samples.
    waiting: VecDeque<(usize, VecDeque<u32>)>,
    /// In the order in which they came.
    prompts: BTreeMap<usize, Prompt>,
    /// Prompts so far.
    prefilled: usize,
    /// In the order in which they came, so that rows of one prompt stand side by side.
    rows: Vec<Row>,
    ended: Vec<Row>,
    drafter: Drafter,
    /// The requests and samples of the rows of each pass whose draws were not read yet.
    passes: VecDeque<Vec<(usize, u32)>>,
    /// Passes since the last one with a draft.
    undrafted: usize,
    counts: DecodeCounts,
}

/// Returns the completions of each request, in order. `threads` may cancel the work between two tokens.
pub(super) fn decode(
    model: &Decoder,
    adapters: Adapters,
    requests: &[Request],
    sampling: &Sampling,
    memory: &RolloutMemory,
    room: Room,
    threads: &ThreadPool,
) -> Result<Generated> {
    check(model, requests, sampling)?;
    // A tensor on a GPU cannot be empty.
    if requests.iter().all(|request| request.samples == 0) {
        return Ok(Generated { completions: vec![Vec::new(); requests.len()], ..Generated::default() });
    }
    let waiting: VecDeque<(usize, VecDeque<u32>)> = requests
        .iter()
        .enumerate()
        .filter(|(_, request)| request.samples > 0)
        .map(|(index, request)| (index, (0..request.samples as u32).collect()))
        .collect();
    let (longest, limit) =
        (requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0), sampling.max_completion_tokens);
    let halved = |number: usize, least: usize| (number >> memory.halvings()).max(least);
    let all_rows = room.rows.min(waiting.iter().map(|(_, samples)| samples.len()).sum());
    let rows = halved(all_rows, 1);
    let places = halved((all_rows * limit).min(room.places), limit);
    let prompt_rows = requests.iter().map(|request| request.prompt.len()).sum::<usize>();
    let prompt_rows = halved(prompt_rows.min(room.prompt_rows), longest).min(rows * longest);
    let needed = (places, prompt_rows);
    let (caches, computing) = match model.device() {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(_) => {
            let drafted_rows = if sampling.draft_tokens > 0 { room.drafted_rows } else { 0 };
            let (caches, steps) = memory.buffers.take(model, needed, rows.max(drafted_rows), longest + limit)?;
            (caches, Computing::Recorded(steps))
        }
        _ => (KvCache::new(model, needed)?, Computing::Listed(VecDeque::new(), Vec::new())),
    };
    let mut batch = DecodeBatch {
        room: Room { rows, ..room },
        drafter: Drafter::new(sampling.draft_tokens),
        free_places: FreePlaces::all(places),
        free_rows: FreePlaces::all(prompt_rows),
        first_places: if places == rows * limit { limit } else { limit.min(room.first_places) },
        model,
        adapters,
        requests,
        sampling,
        memory,
        computing,
        caches,
        waiting,
        prompts: BTreeMap::new(),
        prefilled: 0,
        rows: Vec::new(),
        ended: Vec::new(),
        passes: VecDeque::new(),
        undrafted: 0,
        counts: DecodeCounts::default(),
    };
    loop {
        threads.check()?;
        batch.admit()?;
        if batch.rows.is_empty() && batch.passes.is_empty() && batch.waiting.is_empty() {
            return Ok(batch.generated());
        }
        batch.step()?;
    }
}

fn check(model: &Decoder, requests: &[Request], sampling: &Sampling) -> Result<()> {
    let limit = model.config().max_position_embeddings;
    for request in requests {
        let longest = request.prompt.len() + sampling.max_completion_tokens;
        if request.prompt.is_empty() || longest > limit {
            bail!(
                "a prompt of {} tokens and {} new ones do not fit the model's {limit} positions",
                request.prompt.len(),
                sampling.max_completion_tokens
            )
        }
    }
    Ok(())
}

impl DecodeBatch<'_> {
    fn prefill(&mut self, taken: Vec<Admitted>) -> Result<()> {
        let mut batch = PackedBatch::default();
        let mut last_rows = Vec::with_capacity(taken.len());
        for admitted in &taken {
            let prompt = batch.push_prompt(&self.requests[admitted.request].prompt);
            last_rows.push((prompt.start + prompt.length - 1) as u32);
        }
        let ranges = joined(taken.iter().map(|admitted| admitted.prompt));
        let store = |layer, prefilled| self.caches.store(layer, prefilled, &ranges);
        let normed = self.model.prefill(&batch, self.adapters, store)?;
        let device = self.model.device();
        let rows_of = |table: &Tensor, rows: &[u32]| {
            gather_rows(table, &Tensor::from_slice(rows, rows.len(), device)?, table.dtype())
        };
        let logits = self.model.logits(&rows_of(&normed, &last_rows)?)?;
        let first = self.rows.len();
        let mut prompt_of = Vec::new();
        for (index, Admitted { request, prompt: place, samples }) in taken.into_iter().enumerate() {
            let searched = self.sampling.draft_tokens > 0;
            let ngrams = if searched { Ngrams::of(&self.requests[request].prompt) } else { Ngrams::default() };
            let prompt = self.prefilled;
            self.prefilled += 1;
            self.prompts.insert(prompt, Prompt { place, ngrams });
            for (sample, places) in samples {
                let completion = Completion { token_ids: Vec::new(), log_probs: Vec::new(), stop: StopReason::Length };
                let limit = self.requests[request].lengths.get(sample as usize).copied().unwrap_or(usize::MAX);
                let limit = limit.min(self.sampling.max_completion_tokens);
                let draft = Draft::default();
                self.rows.push(Row {
                    request,
                    sample,
                    prompt,
                    places,
                    limit,
                    passes: 0,
                    completion,
                    draft,
                    pending: None,
                });
                prompt_of.push(index as u32);
            }
        }
        let logits = rows_of(&logits, &prompt_of)?;
        let uniforms: Vec<f64> = self.rows[first..].iter().map(|row| self.uniform(row, 0)).collect();
        let drawn = sample_tokens(&logits, self.sampling.temperature, &uniforms)?;
        for (row, token) in self.rows[first..].iter_mut().zip(drawn) {
            row.push(token);
        }
        self.retire();
        Ok(())
    }

    /// The random number of a row's draw, `ahead` draws after the next.
    fn uniform(&self, row: &Row, ahead: usize) -> f64 {
        let request = &self.requests[row.request];
        if request.greedy {
            return LIKELIEST;
        }
        let position = (row.length() + ahead) as u32;
        let sample = request.first_sample + row.sample;
        uniform(self.sampling.seed, SampleKey { step: request.step, prompt: request.prompt_number, sample, position })
    }

    /// Feeds each row's newest token and the drafted ones. Where nothing is drafted, the next pass is started before the
    /// draws of the last are read: a row that they end is computed once more for nothing.
    fn step(&mut self) -> Result<()> {
        let is_ahead = self.runs_ahead();
        if !is_ahead {
            self.read(0)?;
            self.draft();
        }
        let is_drafted = self.rows.iter().any(|row| !row.draft.tokens.is_empty());
        self.undrafted = if is_drafted { 0 } else { self.undrafted + 1 };
        let is_started = self.start()?;
        self.read(usize::from(is_ahead && is_started))
    }

    /// Drafts need the newest tokens; where there were none for some passes, they are looked for in every eighth alone.
    fn runs_ahead(&self) -> bool {
        let may_draft = self.sampling.draft_tokens > 0 && self.rows.len() < self.room.drafted_rows;
        self.room.runs_ahead && !(may_draft && (self.undrafted < 4 || self.undrafted.is_multiple_of(8)))
    }

    /// Starts a pass of the rows that have not reached their limit; whether there are any.
    fn start(&mut self) -> Result<bool> {
        self.grow()?;
        let rows: Vec<usize> =
            (0..self.rows.len()).filter(|&row| self.rows[row].length() < self.rows[row].limit).collect();
        let feeds: Vec<Feed> = rows.iter().flat_map(|&row| self.feeds(&self.rows[row])).collect();
        if feeds.is_empty() {
            return Ok(false);
        }
        let drafted = feeds.len() > rows.len();
        let padded = if drafted { self.room.padded_drafted } else { self.room.padded }(feeds.len());
        match &mut self.computing {
            Computing::Listed(unread, last) => {
                *last = draw(self.model, self.adapters, &self.caches, &feeds, last, self.sampling.temperature)?;
                unread.push_back(last.clone());
            }
            #[cfg(feature = "cuda")]
            Computing::Recorded(steps) => {
                steps.start(self.model, self.adapters, &self.caches, &feeds, padded, self.sampling.temperature)?;
            }
        }
        self.counts.steps += 1;
        self.counts.computed += padded;
        let mut index = 0;
        for &row in &rows {
            let row = &mut self.rows[row];
            row.pending = Some(index);
            index += 1 + row.draft.tokens.len();
        }
        self.passes.push_back(rows.iter().map(|&row| self.rows[row].id()).collect());
        Ok(true)
    }

    /// Reads the draws of all passes but the last `left`, of each row up to the first that is not as drafted: a draw
    /// depends on its place alone, so the completions are those without drafts.
    fn read(&mut self, left: usize) -> Result<()> {
        while self.passes.len() > left {
            let fed = self.passes.pop_front().unwrap_or_default();
            let drawn = match &mut self.computing {
                Computing::Listed(unread, _) => unread.pop_front(),
                #[cfg(feature = "cuda")]
                Computing::Recorded(steps) => steps.finish()?,
            };
            let mut drawn = drawn.unwrap_or_default().into_iter();
            // Rows may have ended since, and new ones stand behind the others.
            let mut rows = self.rows.iter_mut().peekable();
            for id in fed {
                let Some(row) = rows.next_if(|row| row.id() == id) else {
                    drawn.next();
                    continue;
                };
                if self.passes.is_empty() {
                    row.pending = None;
                }
                row.passes += 1;
                self.counts.rows += 1;
                let draft = std::mem::take(&mut row.draft);
                let (mut held, before) = (0, row.completion.token_ids.len());
                for (index, token) in drawn.by_ref().take(draft.tokens.len() + 1).enumerate() {
                    if index == held && !row.has_ended(self.sampling) {
                        row.push(token);
                        held += usize::from(draft.tokens.get(index) == Some(&token.token_id));
                    }
                }
                self.counts.drafted += draft.tokens.len();
                self.counts.accepted += row.completion.token_ids.len() - before - 1;
                self.drafter.observe(&draft, held);
            }
            self.retire();
        }
        Ok(())
    }

    /// Drafts as many tokens as make the pass fastest: it takes as long as the weights are read and its rows are computed,
    /// and gives each row a token and each draft one with its probability.
    fn draft(&mut self) {
        let (rows, balanced) = (self.rows.len(), self.room.balanced_rows);
        if self.sampling.draft_tokens == 0 || rows >= self.room.drafted_rows {
            return;
        }
        // The least that a row of its own would have to give.
        let least = rows as f64 / (balanced + rows) as f64;
        for row in &mut self.rows {
            // The last token of a completion is drawn and not fed.
            let most = row.limit - row.completion.token_ids.len() - 1;
            let sources = (&self.memory.history, &self.prompts[&row.prompt].ngrams);
            row.draft = self.drafter.draft(sources, &row.completion.token_ids, most, least);
        }
        let mut gains: Vec<f64> = self.rows.iter().flat_map(|row| &row.draft.probabilities).copied().collect();
        gains.sort_by(|a, b| b.total_cmp(a));
        gains.truncate(self.room.drafted_rows.saturating_sub(rows));
        let rate = |tokens: f64, count: usize| {
            let padded = if count == 0 { self.room.padded } else { self.room.padded_drafted };
            tokens / (balanced + padded(rows + count)) as f64
        };
        let (mut tokens, mut best) = (rows as f64, (rate(rows as f64, 0), 0));
        for (index, gain) in gains.iter().enumerate() {
            tokens += gain;
            let with_it = rate(tokens, index + 1);
            if with_it > best.0 {
                best = (with_it, index + 1);
            }
        }
        let mut left = best.1;
        let least = left.checked_sub(1).map_or(f64::INFINITY, |last| gains[last]);
        for row in &mut self.rows {
            let kept =
                row.draft.probabilities.iter().take_while(|probability| **probability >= least).count().min(left);
            row.draft.truncate(kept);
            left -= kept;
        }
    }

    fn feeds<'r>(&'r self, row: &'r Row) -> impl Iterator<Item = Feed> + 'r {
        let prefix = self.prompts[&row.prompt].place;
        let newest = match row.pending {
            Some(index) => Some(FedToken::Drawn(index)),
            None => row.completion.token_ids.last().copied().map(FedToken::Known),
        };
        let drafted = row.draft.tokens.iter().copied().map(FedToken::Known);
        newest.into_iter().chain(drafted).enumerate().map(move |(ahead, token)| Feed {
            row: DecodeRow { first: row.places.0, prefix, length: row.length() + ahead },
            token,
            uniform: self.uniform(row, ahead),
        })
    }

    /// Takes out the rows that have ended, and their prompts after the last of them.
    fn retire(&mut self) {
        let before = self.ended.len();
        for row in self.rows.extract_if(.., |row| row.has_ended(self.sampling)) {
            self.free_places.give_back(row.places.0, row.places.1);
            self.memory.tell(&self.requests[row.request], &row.completion);
            self.ended.push(row);
        }
        if self.ended.len() == before {
            return;
        }
        self.forget_prompts();
    }

    fn generated(mut self) -> Generated {
        self.ended.sort_by_key(|row| (row.request, row.sample));
        let mut completions: Vec<Vec<Completion>> = self.requests.iter().map(|_| Vec::new()).collect();
        for row in self.ended {
            completions[row.request].push(row.completion);
        }
        let hindrances = match self.computing {
            Computing::Listed(..) => Vec::new(),
            #[cfg(feature = "cuda")]
            Computing::Recorded(steps) => {
                let found = steps.unrecorded().map(|cause| super::Hindrance::Unrecorded { cause });
                self.memory.buffers.keep(self.model, self.caches, steps);
                found.into_iter().collect()
            }
        };
        Generated { completions, counts: self.counts, hindrances }
    }
}

impl Row {
    fn id(&self) -> (usize, u32) {
        (self.request, self.sample)
    }

    /// Of its tokens, the pending one included.
    fn length(&self) -> usize {
        self.completion.token_ids.len() + usize::from(self.pending.is_some())
    }

    fn push(&mut self, token: SampledToken) {
        self.completion.token_ids.push(token.token_id);
        self.completion.log_probs.push(token.log_prob);
    }

    /// Whether the newest token ends the row; notes why.
    fn has_ended(&mut self, sampling: &Sampling) -> bool {
        let stopped = self.completion.token_ids.last().is_some_and(|id| sampling.stop_ids.contains(id));
        if stopped {
            self.completion.stop = StopReason::Stop;
        }
        stopped || self.completion.token_ids.len() >= self.limit
    }
}

/// The draws after each fed token, on the CPU; `last`: those of the pass before.
fn draw(
    model: &Decoder,
    adapters: Adapters,
    caches: &KvCache,
    feeds: &[Feed],
    last: &[SampledToken],
    temperature: f64,
) -> Result<Vec<SampledToken>> {
    let token = |feed: &Feed| match feed.token {
        FedToken::Known(token) => token,
        FedToken::Drawn(index) => last[index].token_id,
    };
    let column = |of: &dyn Fn(&Feed) -> u32| Tensor::from_iter(feeds.iter().map(of), model.device());
    let (tokens, positions) = (column(&token)?, column(&|feed| feed.position() as u32)?);
    let rows = DecodeRows::Listed(feeds.iter().map(|feed| feed.row).collect());
    let logits = model.decode(&tokens, &positions, &rows, caches.layers(), adapters)?;
    let uniforms: Vec<f64> = feeds.iter().map(|feed| feed.uniform).collect();
    sample_tokens(&logits, temperature, &uniforms)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
