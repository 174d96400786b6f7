//! Decoding: prompts wait in a queue, are prefilled when there is room, and their rows are decoded side by side, each
//! with the tokens that are drafted for it. Rows that end make room for the next prompts.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};

use super::draft::{Draft, Drafter, Ngrams};
use super::kv_cache::{Feed, FreeRows, KvCache, Room};
use super::{Completion, DecodeCounts, Generated, Request, RolloutMemory, Sampling, StopReason, ThreadPool};
use crate::kernels::decode_attention::{DecodeRow, DecodeRows};
use crate::kernels::philox::{SampleKey, uniform};
use crate::kernels::sampler::{LIKELIEST, SampledToken, sample_tokens};
use crate::model::{Adapters, Decoder, PackedBatch};

/// A completion that is being decoded.
struct Row {
    request: usize,
    sample: u32,
    slot: usize,
    /// Of its tokens.
    limit: usize,
    completion: Completion,
    draft: Draft,
}

/// A prompt that is being completed.
struct Prompt {
    /// First row and number of rows in the cache.
    place: (usize, usize),
    ngrams: Ngrams,
}

/// How rows are computed: by a list on the CPU, by a recorded graph on a GPU.
enum Computing {
    Listed,
    #[cfg(feature = "cuda")]
    Recorded(super::decode_gpu::Steps),
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
    free_slots: Vec<usize>,
    free_rows: FreeRows,
    /// The first request that waits.
    waiting: usize,
    /// By request.
    prompts: BTreeMap<usize, Prompt>,
    /// In the order in which they came, so that rows of one prompt stand side by side.
    rows: Vec<Row>,
    ended: Vec<Row>,
    drafter: Drafter,
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
    let samples = || requests.iter().map(|request| request.samples).filter(|samples| *samples > 0);
    let (most, least) = (samples().max().unwrap_or(1), samples().min().unwrap_or(1));
    let longest = requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0);
    let slots = room.slots.max(most).min(samples().sum());
    let prompt_rows = requests.iter().map(|request| request.prompt.len()).sum::<usize>();
    let prompt_rows = prompt_rows.min(room.prompt_rows.max(longest)).min(slots / least * longest);
    let needed = (slots, prompt_rows, sampling.max_completion_tokens);
    let (caches, computing) = match model.device() {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(_) => {
            let drafted_rows = if sampling.draft_tokens > 0 { room.drafted_rows } else { 0 };
            let (caches, steps) = memory.buffers.take(model, needed, slots.max(drafted_rows), longest + needed.2)?;
            (caches, Computing::Recorded(steps))
        }
        _ => (KvCache::new(model, needed)?, Computing::Listed),
    };
    let mut batch = DecodeBatch {
        room: Room { slots, ..room },
        drafter: Drafter::new(sampling.draft_tokens),
        free_slots: (0..slots).rev().collect(),
        free_rows: FreeRows::all(prompt_rows),
        model,
        adapters,
        requests,
        sampling,
        memory,
        computing,
        caches,
        waiting: 0,
        prompts: BTreeMap::new(),
        rows: Vec::new(),
        ended: Vec::new(),
        counts: DecodeCounts::default(),
    };
    loop {
        threads.check()?;
        batch.admit()?;
        if batch.rows.is_empty() && batch.waiting == requests.len() {
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
    /// Prefills the prompts for which there is room, and draws the first token of their completions.
    fn admit(&mut self) -> Result<()> {
        // A prefill reads all weights once more: it waits for several rows.
        if !self.rows.is_empty() && self.free_slots.len() < self.room.slots.div_ceil(8) {
            return Ok(());
        }
        loop {
            let taken = self.take();
            if taken.is_empty() {
                return Ok(());
            }
            self.prefill(&taken)?;
        }
    }

    /// The next requests that fit, each with the place of its prompt in the cache.
    fn take(&mut self) -> Vec<(usize, (usize, usize))> {
        let (mut taken, mut rows, mut slots) = (Vec::new(), 0, 0);
        while let Some(request) = self.requests.get(self.waiting) {
            let length = request.prompt.len();
            if request.samples > 0 {
                let fits = slots + request.samples <= self.free_slots.len()
                    && (taken.is_empty() || rows + length <= self.room.prefill_rows);
                let Some(start) = fits.then(|| self.free_rows.take(length)).flatten() else { break };
                taken.push((self.waiting, (start, length)));
                (rows, slots) = (rows + length, slots + request.samples);
            }
            self.waiting += 1;
        }
        taken
    }

    fn prefill(&mut self, taken: &[(usize, (usize, usize))]) -> Result<()> {
        let mut batch = PackedBatch::default();
        let mut last_rows = Vec::with_capacity(taken.len());
        for &(request, _) in taken {
            let prompt = batch.push_prompt(&self.requests[request].prompt);
            last_rows.push((prompt.start + prompt.length - 1) as u32);
        }
        let (prompts, normed) = self.model.prefill(&batch, self.adapters)?;
        let places: Vec<(usize, usize)> = taken.iter().map(|(_, place)| *place).collect();
        self.caches.store(prompts, &places)?;
        let device = self.model.device();
        let logits =
            self.model.logits(&normed.index_select(&Tensor::from_slice(&last_rows, taken.len(), device)?, 0)?)?;
        let first = self.rows.len();
        let mut prompt_of = Vec::new();
        for (index, &(request, place)) in taken.iter().enumerate() {
            let searched = self.sampling.draft_tokens > 0;
            let ngrams = if searched { Ngrams::of(&self.requests[request].prompt) } else { Ngrams::default() };
            self.prompts.insert(request, Prompt { place, ngrams });
            for sample in 0..self.requests[request].samples as u32 {
                let Some(slot) = self.free_slots.pop() else { bail!("a prompt was taken without free slots") };
                let completion = Completion { token_ids: Vec::new(), log_probs: Vec::new(), stop: StopReason::Length };
                let limit = self.requests[request].lengths.get(sample as usize).copied().unwrap_or(usize::MAX);
                let limit = limit.min(self.sampling.max_completion_tokens);
                self.rows.push(Row { request, sample, slot, limit, completion, draft: Draft::default() });
                prompt_of.push(index as u32);
            }
        }
        let logits = logits.index_select(&Tensor::from_slice(&prompt_of, prompt_of.len(), device)?, 0)?;
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
        let position = (row.completion.token_ids.len() + ahead) as u32;
        uniform(
            self.sampling.seed,
            SampleKey { step: request.step, prompt: request.prompt_number, sample: row.sample, position },
        )
    }

    /// Feeds each row's newest token and the drafted ones, and keeps the draws up to the first that is not as drafted:
    /// a draw depends on its place alone, so the completions are those without drafts.
    fn step(&mut self) -> Result<()> {
        self.draft();
        let feeds: Vec<Feed> = self.rows.iter().flat_map(|row| self.feeds(row)).collect();
        let drafted = feeds.len() > self.rows.len();
        let padded = if drafted { self.room.padded_drafted } else { self.room.padded }(feeds.len());
        let drawn = match &mut self.computing {
            Computing::Listed => draw(self.model, self.adapters, &self.caches, &feeds, self.sampling.temperature),
            #[cfg(feature = "cuda")]
            Computing::Recorded(steps) => {
                steps.draw(self.model, self.adapters, &self.caches, &feeds, padded, self.sampling.temperature)
            }
        }?;
        self.counts.steps += 1;
        self.counts.rows += self.rows.len();
        self.counts.computed += padded;
        let mut drawn = drawn.into_iter();
        for row in &mut self.rows {
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
            let sources = (&self.memory.history, &self.prompts[&row.request].ngrams);
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
        let prefix = self.prompts[&row.request].place;
        let tokens = row.completion.token_ids.last().into_iter().chain(&row.draft.tokens);
        tokens.enumerate().map(move |(ahead, &token)| Feed {
            row: DecodeRow { slot: row.slot, prefix, length: row.completion.token_ids.len() + ahead },
            token,
            uniform: self.uniform(row, ahead),
        })
    }

    /// Takes out the rows that have ended, and their prompts after the last of them.
    fn retire(&mut self) {
        let before = self.ended.len();
        for row in self.rows.extract_if(.., |row| row.has_ended(self.sampling)) {
            self.free_slots.push(row.slot);
            self.ended.push(row);
        }
        if self.ended.len() == before {
            return;
        }
        for (_, prompt) in self.prompts.extract_if(.., |request, _| self.rows.iter().all(|row| row.request != *request))
        {
            self.free_rows.give_back(prompt.place.0, prompt.place.1);
        }
    }

    fn generated(mut self) -> Generated {
        self.ended.sort_by_key(|row| (row.request, row.sample));
        let mut completions: Vec<Vec<Completion>> = self.requests.iter().map(|_| Vec::new()).collect();
        for row in self.ended {
            completions[row.request].push(row.completion);
        }
        #[cfg(feature = "cuda")]
        if let Computing::Recorded(steps) = self.computing {
            self.memory.buffers.keep(self.model, self.caches, steps);
        }
        Generated { completions, counts: self.counts }
    }
}

impl Row {
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

/// The draws after each fed token, on the CPU.
fn draw(
    model: &Decoder,
    adapters: Adapters,
    caches: &KvCache,
    feeds: &[Feed],
    temperature: f64,
) -> Result<Vec<SampledToken>> {
    let column = |of: fn(&Feed) -> u32| Tensor::from_iter(feeds.iter().map(of), model.device());
    let (tokens, positions) = (column(|feed| feed.token)?, column(|feed| feed.position() as u32)?);
    let rows = DecodeRows::Listed(feeds.iter().map(|feed| feed.row).collect());
    let logits = model.decode(&tokens, &positions, &rows, caches.layers(), adapters)?;
    let uniforms: Vec<f64> = feeds.iter().map(|feed| feed.uniform).collect();
    sample_tokens(&logits, temperature, &uniforms)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::hub::ModelConfig;
    use crate::model::{Trainable, Weights};

    const ROOM: Room = Room {
        slots: usize::MAX,
        prompt_rows: usize::MAX,
        prefill_rows: usize::MAX,
        drafted_rows: 1000,
        balanced_rows: 1_000_000,
        padded: |rows| rows,
        padded_drafted: |rows| rows,
    };

    /// Of 61 tokens, with weights so sharp that completions repeat themselves.
    fn model() -> Decoder {
        let json = r#"{"architectures":["Qwen3ForCausalLM"],"vocab_size":61,"hidden_size":32,"intermediate_size":48,
            "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-6,
            "rope_theta":10000.0,"tie_word_embeddings":false,"max_position_embeddings":128,"hidden_act":"silu"}"#;
        let config = ModelConfig::parse(json, "config.json").unwrap();
        let fresh = Decoder::new(&config, &Weights::fresh(&config, 5), Trainable::Full, 1, DType::F32, &Device::Cpu);
        let tensors = fresh.unwrap().parameters().named().unwrap().into_iter().map(|(name, tensor)| {
            let factor = if name.contains("lm_head") { 60.0 } else { 1.5 };
            (name, tensor.affine(factor, 0.0).unwrap())
        });
        let weights = Weights::from_tensors(tensors, "test");
        Decoder::new(&config, &weights, Trainable::Frozen, 1, DType::F32, &Device::Cpu).unwrap()
    }

    fn requests() -> Vec<Request> {
        let prompt = |n: u32| (0..3 + n * 4).map(|i| (i * 7 + n) % 61).collect();
        (0..9).map(|n| Request { greedy: n % 3 == 2, ..Request::new(prompt(n), n, 4, 4) }).collect()
    }

    fn sampled(room: Room, temperature: f64, draft_tokens: usize, memory: &RolloutMemory) -> Generated {
        let sampling =
            Sampling { temperature, max_completion_tokens: 40, stop_ids: vec![3, 20, 37, 50], seed: 11, draft_tokens };
        let threads = ThreadPool::new(1).unwrap();
        decode(&model(), Adapters::On, &requests(), &sampling, memory, room, &threads).unwrap()
    }

    fn tokens(generated: &Generated) -> Vec<(&[u32], StopReason)> {
        generated.completions.iter().flatten().map(|found| (found.token_ids.as_slice(), found.stop)).collect()
    }

    #[test]
    fn drafts_change_the_number_of_steps_alone() {
        for temperature in [0.0, 0.7, 1.0] {
            let plain = sampled(ROOM, temperature, 0, &RolloutMemory::default());
            assert_eq!((plain.counts.drafted, plain.counts.accepted), (0, 0));
            let mut memory = RolloutMemory::default();
            let own = sampled(ROOM, temperature, 8, &memory);
            memory.history.add(1, plain.completions.iter().flatten().map(|found| found.token_ids.as_slice()), 0);
            let known = sampled(ROOM, temperature, 8, &memory);
            for drafted in [&own, &known] {
                assert_eq!(tokens(drafted), tokens(&plain), "temperature {temperature}");
                let all = || drafted.completions.iter().flatten().zip(plain.completions.iter().flatten());
                let differs = |(a, b): (&Completion, &Completion)| {
                    a.log_probs.iter().zip(&b.log_probs).any(|(a, b)| (a - b).abs() > 1e-4)
                };
                assert!(all().all(|pair| !differs(pair)), "log-probs at temperature {temperature}");
                let counts = drafted.counts;
                assert!(counts.accepted <= counts.drafted && counts.steps <= plain.counts.steps, "{counts:?}");
                // Every token but the first of a completion is drawn by a step, with a row of its own or as drafted.
                let drawn: usize = drafted.completions.iter().flatten().map(|found| found.token_ids.len() - 1).sum();
                assert_eq!(counts.rows + counts.accepted, drawn);
            }
            assert!(known.counts.steps * 2 < plain.counts.steps, "{:?} of {:?}", known.counts, plain.counts);
        }
    }

    #[test]
    fn rows_that_end_make_room_for_the_next_prompts() {
        let all = sampled(ROOM, 1.0, 0, &RolloutMemory::default());
        let check = |room: Room, draft_tokens: usize| {
            let found = sampled(room, 1.0, draft_tokens, &RolloutMemory::default());
            assert_eq!(tokens(&found), tokens(&all), "{room:?}");
            found.counts
        };
        let counts = check(Room { slots: 8, ..ROOM }, 0);
        // Prompts do not wait for each other's longest completion.
        assert!(counts.steps < 5 * 39 && counts.rows == all.counts.rows, "{counts:?}");
        check(Room { slots: 8, ..ROOM }, 8);
        // One completion more than there are slots; prompts one at a time; room for the longest prompt alone.
        check(Room { slots: 3, ..ROOM }, 0);
        check(Room { prefill_rows: 1, ..ROOM }, 0);
        check(Room { slots: 16, prompt_rows: 35, ..ROOM }, 0);
        check(Room { slots: 12, prompt_rows: 60, prefill_rows: 20, ..ROOM }, 8);
    }
}
