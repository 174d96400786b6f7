//! Admission: decodes as many requests as there are slots; completions' slots grow, and without
//! free ones the youngest is parked in host memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use candle_core::{Result, bail};

use super::super::kv_cache::Capacity;
use super::super::thinking::RowThinking;
use super::super::{Completion, StopReason};
use super::{AdmittedRequest, Arrivals, DecodeBatch, Draft, ExpertRecord, QueuedRequest, Row};
use crate::kernels::shaping::SeenTokens;

impl DecodeBatch<'_> {
    /// Receives new requests.
    pub(super) fn receive(&mut self) -> Result<()> {
        if self.is_closed {
            return Ok(());
        }
        self.free_not_followed();
        let waiting = self.waiting.iter().map(|(_, samples)| samples.len());
        let taken = self.rows.len() + self.parked.len() + waiting.sum::<usize>();
        let free = self.limits.rows.saturating_sub(taken);
        match self.source.arrivals(free, self.is_idle()) {
            Arrivals::Closed => self.is_closed = true,
            Arrivals::Requests(all) => all.into_iter().try_for_each(|one| self.accept(one))?,
        }
        Ok(())
    }

    fn accept(&mut self, asked: QueuedRequest) -> Result<()> {
        let limit = self.model.config().max_position_embeddings;
        let prompt = asked.request.prompt.len();
        let new = asked.max_new_tokens();
        if prompt == 0 || prompt + new > limit {
            bail!(
                "a prompt of {prompt} tokens and {new} new ones do not fit the model's {limit} positions"
            )
        }
        let is_too_large = match self.capacity.prompt_rows {
            None => prompt + new > self.capacity.kv_slots,
            Some(rows) => prompt > rows || new > self.capacity.kv_slots,
        };
        if is_too_large {
            bail!(
                "a prompt of {prompt} tokens and {new} new ones do not fit the KV cache: {:?}",
                self.capacity
            )
        }
        let samples = (0..asked.request.samples as u32).collect();
        self.waiting.push_back((Arc::new(asked), samples));
        Ok(())
    }

    /// Prefills prompts that fit, and samples their completions' first tokens.
    pub(super) fn admit(&mut self) -> Result<()> {
        self.unpark()?;
        // Oldest first.
        if !self.parked.is_empty() {
            return Ok(());
        }
        self.go_on()?;
        self.share_prompts()?;
        // A prefill reads all weights: wait for several rows.
        let (rows, most) = (self.rows.len(), self.limits.rows);
        if rows > 0 && most - rows < most.div_ceil(8) {
            return Ok(());
        }
        loop {
            let taken = self.next_requests();
            if !taken.is_empty() {
                self.prefill(taken)?;
            } else if self.waiting.is_empty()
                || self.rows.len() >= self.limits.rows
                || !self.free_kept()
            {
                return Ok(());
            }
            self.share_prompts()?;
        }
    }

    /// The next requests that fit with all samples; if nothing is decoded, what fits of the first.
    /// Those that one of them serves wait for its prefill.
    fn next_requests(&mut self) -> Vec<AdmittedRequest> {
        let mut taken: Vec<AdmittedRequest> = Vec::new();
        let (mut index, mut prompt_rows, mut count) = (0, 0, self.rows.len());
        while let Some((asked, samples)) = self.waiting.get_mut(index) {
            if taken.iter().any(|other| asked.shares_with(&other.asked)) {
                index += 1;
                continue;
            }
            let length = asked.request.prompt.len();
            let (initial_slots, kept) = slots_at_start(&self.capacity, asked, count);
            let is_first = count == 0;
            let is_shared = self.free_rows.is_none();
            let of_prompt = if is_shared { length } else { 0 };
            let slots = initial_slots * samples.len() + kept + of_prompt;
            let fits = (taken.is_empty() || prompt_rows + length <= self.limits.prefill_rows)
                && (is_first || self.free_slots.count() >= slots)
                && (is_first || count + samples.len() <= self.limits.rows);
            // Adjacent prompts are written at once.
            let rows = self.free_rows.as_mut().unwrap_or(&mut self.free_slots);
            let Some(start) = fits.then(|| rows.allocate(length)).flatten() else {
                break;
            };
            let slots = &mut self.free_slots;
            let mut allocate = || match is_shared {
                true => slots.allocate_last(initial_slots),
                false => slots.allocate(initial_slots),
            };
            let mut kv_slots = Vec::new();
            while count + kv_slots.len() < self.limits.rows
                && kv_slots.len() < samples.len()
                && let Some(first) = allocate()
            {
                kv_slots.push((first, initial_slots));
            }
            if kv_slots.len() < samples.len() && !is_first {
                for (first, count) in kv_slots {
                    self.free_slots.give_back(first, count);
                }
                let rows = self.free_rows.as_mut().unwrap_or(&mut self.free_slots);
                rows.give_back(start, length);
                break;
            }
            (prompt_rows, count) = (prompt_rows + length, count + kv_slots.len());
            taken.push(AdmittedRequest {
                asked: Arc::clone(asked),
                prompt: (start, length),
                samples: samples.drain(..kv_slots.len()).zip(kv_slots).collect(),
            });
            if samples.is_empty() {
                self.waiting.remove(index);
            }
        }
        taken
    }

    /// A completion at its start, with given prompt, KV slots and state.
    pub(super) fn new_row(
        &mut self,
        asked: Arc<QueuedRequest>,
        sample: u32,
        (prompt, kv_slots, state): (usize, (usize, usize), usize),
        experts: Option<ExpertRecord>,
    ) -> Row {
        let (request, sampling) = (&asked.request, &asked.sampling);
        let limit = request.lengths.get(sample as usize).copied();
        let most = sampling.max_completion_tokens;
        let constraint = request.constraint.as_ref();
        Row {
            limit: limit.unwrap_or(usize::MAX).min(most),
            constrained: constraint.map(|constraint| self.lanes.row(constraint)),
            thinking: RowThinking::new(sampling.thinking.as_ref()),
            seen: request
                .shaping
                .as_ref()
                .and_then(|shaping| SeenTokens::new(shaping, &request.prompt).map(Arc::new)),
            asked,
            sample,
            prompt,
            kv_slots,
            state,
            drafted_states: Vec::new(),
            before: Vec::new(),
            computed: 0,
            fed: 1,
            passes: 0,
            completion: Completion {
                experts,
                ..Completion::new(Vec::new(), Vec::new(), StopReason::Length)
            },
            is_dropped: false,
            ngrams: None,
            draft: Draft::default(),
            pending: None,
        }
    }

    /// Grows rows whose slots the next pass would exceed. Without free slots the youngest row is
    /// parked.
    pub(super) fn grow(&mut self) -> Result<()> {
        let needs = |row: &Row| row.computed + row.fed + row.draft.tokens.len();
        let is_short = |row: &Row| row.length() < row.limit && needs(row) > row.kv_slots.1;
        while let Some(index) = self.rows.iter().position(is_short) {
            let row = &mut self.rows[index];
            let most = row.most_cached();
            let (old, count) = (row.kv_slots, needs(row).max(2 * row.kv_slots.1).min(most));
            if let Some(first) = self.free_slots.exchange(old, count) {
                row.kv_slots = (first, count);
                if first != old.0 {
                    self.caches.move_row(old.0, first, old.1)?;
                }
            } else if self.free_kept() {
                // May free slots.
            } else if !self.passes.is_empty() {
                // Rows may have ended, and a parked row must not be in a running pass.
                self.read(0)?;
            } else if let Some(row) = self.rows.pop() {
                self.park(row)?;
            }
        }
        Ok(())
    }

    /// Copies a row to the host. Without memory there it restarts later, with the same random
    /// numbers.
    fn park(&mut self, mut row: Row) -> Result<()> {
        // The newest token is not cached yet.
        let slots = (row.kv_slots.0, row.computed);
        let parked = self.parked.iter().map(|(_, saved)| saved.bytes());
        let bytes = parked.sum::<usize>() + self.caches.row_bytes(slots);
        let fits = bytes <= self.limits.parked_bytes;
        let saved = fits
            .then(|| self.caches.save_row(slots, row.state))
            .transpose()?;
        self.free_slots.give_back(row.kv_slots.0, row.kv_slots.1);
        self.free_states.give_back(row.state, 1);
        if let Some(saved) = saved {
            row.draft = Draft::default();
            self.parked.push((row, saved));
            return Ok(());
        }
        // Only count passes that contribute to completions.
        self.counts.rows -= row.passes;
        self.counts.accepted -= row.completion.token_ids.len().saturating_sub(1) - row.passes;
        match self.waiting.front_mut() {
            Some((asked, samples)) if asked.id == row.asked.id => samples.push_front(row.sample),
            _ => {
                let samples = VecDeque::from([row.sample]);
                self.waiting.push_front((row.asked, samples));
            }
        }
        self.forget_prompts();
        Ok(())
    }

    /// Resumes parked rows, oldest first, as far as slots allow.
    fn unpark(&mut self) -> Result<()> {
        while self.rows.len() < self.limits.rows
            && let Some((row, _)) = self.parked.last()
        {
            let (held, needed) = (row.kv_slots.1, row.computed + 1);
            let count = match needed > held {
                true => needed.max(2 * held).min(row.most_cached()),
                false => held,
            };
            let Some(first) = self.free_slots.allocate(count) else {
                match self.free_kept() {
                    true => continue,
                    false => break,
                }
            };
            self.free_states_for(1);
            let (Some((mut row, saved)), Some(state)) =
                (self.parked.pop(), self.free_states.allocate(1))
            else {
                bail!("more completions than states")
            };
            // A pass's tokens are read in row order.
            self.read(0)?;
            let slots = (first, row.computed);
            self.caches.restore_row(&saved, slots, state)?;
            (row.kv_slots, row.state) = ((first, count), state);
            self.insert(row);
        }
        Ok(())
    }

    /// Drops prompts without rows.
    pub(super) fn forget_prompts(&mut self) {
        let parked = self.parked.iter().map(|(row, _)| row);
        let rows = self.rows.iter().chain(parked).map(|row| row.prompt);
        let kept = self.kept.iter().map(|kept| kept.prompt);
        let used: BTreeSet<usize> = rows.chain(kept).collect();
        let unused = |prompt: &usize, _: &mut _| !used.contains(prompt);
        for (_, prompt) in self.prompts.extract_if(.., unused) {
            let rows = self.free_rows.as_mut().unwrap_or(&mut self.free_slots);
            rows.give_back(prompt.place.0, prompt.place.1);
            let state = prompt.shared.and_then(|shared| shared.state);
            state
                .into_iter()
                .for_each(|state| self.free_states.give_back(state, 1));
        }
    }
}

/// Slots of a completion at its start, and those that must then stay free beside `rows` completions.
pub(super) fn slots_at_start(
    capacity: &Capacity,
    asked: &QueuedRequest,
    rows: usize,
) -> (usize, usize) {
    let most = asked.max_new_tokens() + asked.later_tokens;
    let slots = capacity.initial_slots.min(most);
    // Each must be able to double its slots once.
    let kept = match slots < most {
        true => slots * rows,
        false => 0,
    };
    (slots, kept)
}
