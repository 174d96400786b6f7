//! Prefills prompts and samples the first tokens of their completions. A prompt with which several
//! requests begin is computed once while one of its completions is in the cache.

use std::sync::Arc;

use candle_core::{Error, Result, Tensor, bail};

use super::super::draft::Ngrams;
use super::super::kv_cache::joined;
use super::super::masks::{RowMask, masks};
use super::admission::slots_at_start;
use super::pass::sample_all;
use super::{AdmittedRequest, DecodeBatch, Prompt, QueuedRequest, Row, SharedPrompt};
use crate::kernels::embedding::gather_rows;
use crate::kernels::sampler::SampleParams;
use crate::kernels::shaping::ShapedRow;
use crate::model::{AdapterUse, ExpertRecord, PackedBatch, PassExperts};

/// Shared prompts: all, or those that no waiting request begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    Unused,
    Any,
}

impl DecodeBatch<'_> {
    /// Computes prompts, and samples their completions' first tokens.
    pub(super) fn prefill(&mut self, taken: Vec<AdmittedRequest>) -> Result<()> {
        let mut batch = PackedBatch::default();
        let (mut last_rows, mut row_adapters) = (Vec::with_capacity(taken.len()), Vec::new());
        for AdmittedRequest { asked, .. } in &taken {
            let prompt = batch.push_prompt(&asked.request.prompt);
            let end = prompt.start + prompt.length;
            row_adapters.resize(end, asked.adapter());
            last_rows.push((end - 1) as u32);
        }
        self.counts.prefilled += batch.rows();
        let ranges = joined(taken.iter().map(|admitted| admitted.prompt));
        let mut states = self.states_of(&taken)?;
        let shared_states: Vec<Option<usize>> = taken
            .iter()
            .map(|admitted| self.state_to_share(&admitted.asked))
            .collect();
        for (states, shared) in states.iter_mut().zip(&shared_states) {
            states.extend(shared);
        }
        let store = |layer, prefilled| self.caches.store(layer, prefilled, &ranges, &states);
        let device = self.model.device();
        let slot = self.capacity.adapter_slot;
        let row_adapters = (slot > 0)
            .then(|| Tensor::from_slice(&row_adapters, row_adapters.len(), device))
            .transpose()?;
        let record = self
            .recorded_experts
            .map(|experts| experts.room(batch.rows(), device))
            .transpose()?;
        let adapters = AdapterUse::for_rows(self.adapters, row_adapters.as_ref(), slot);
        let record_to = record.as_ref();
        let normed = self.model.prefill(&batch, record_to, adapters, store)?;
        let logits = self.model.logits(&rows_of(&normed, &last_rows)?)?;
        let experts = record.zip(self.recorded_experts);
        let experts = experts
            .map(|(record, experts)| PassExperts::read(&record, experts))
            .transpose()?;
        let (mut rows, mut prompt_of) = (Vec::new(), Vec::new());
        for (index, (admitted, states)) in taken.into_iter().zip(states).enumerate() {
            let AdmittedRequest {
                asked,
                prompt: place,
                samples,
            } = admitted;
            let ngrams = match asked.sampling.draft_tokens {
                0 => Ngrams::default(),
                _ => Ngrams::from_text(&asked.request.prompt),
            };
            let experts = experts.as_ref().map(|experts| {
                let (end, mut prompt) = (last_rows[index] as usize + 1, Vec::new());
                experts.append(end - place.1..end, &mut prompt);
                ExpertRecord::of_prompt(prompt)
            });
            let has_its_state = !self.has_states() || shared_states[index].is_some();
            let is_shared = asked.shares_prompt && has_its_state;
            let shared = is_shared.then(|| {
                Ok::<_, Error>(SharedPrompt {
                    asked: Arc::clone(&asked),
                    logits: rows_of(&logits, &[index as u32])?,
                    state: shared_states[index],
                    experts: experts.clone(),
                })
            });
            let prompt = Prompt {
                place,
                ngrams,
                shared: shared.transpose()?,
            };
            let key = self.prefilled;
            self.prefilled += 1;
            self.prompts.insert(key, prompt);
            for ((sample, kv_slots), state) in samples.into_iter().zip(states) {
                let (asked, place) = (Arc::clone(&asked), (key, kv_slots, state));
                rows.push(self.new_row(asked, sample, place, experts.clone()));
                prompt_of.push(index as u32);
            }
        }
        let logits = rows_of(&logits, &prompt_of)?;
        self.sample_first(rows, &logits)
    }

    /// Samples the first tokens of completions; `logits`: one row each.
    fn sample_first(&mut self, mut rows: Vec<Row>, logits: &Tensor) -> Result<()> {
        let params: Vec<SampleParams> = rows.iter().map(|row| row.params(0)).collect();
        let shaped = rows.iter().enumerate();
        let shaped = shaped.filter_map(|(index, row)| row.shaped(index));
        let shaped: Vec<ShapedRow> = shaped.collect();
        let fed = rows.iter_mut();
        let fed = fed.map(|row| row.constrained.as_mut().map(RowMask::Grammar));
        let fed: Vec<_> = fed.collect();
        let (vocabulary, overhead) = (logits.dims()[1], &self.memory.mask_overhead);
        let is_masked = fed.iter().any(Option::is_some);
        let masks = is_masked.then(|| masks(fed, vocabulary, overhead));
        let shaping = (&shaped[..], &[][..]);
        let (sampled, mut likeliest) = sample_all(logits, &params, shaping, masks.as_deref())?;
        for (index, (mut row, token)) in rows.into_iter().zip(sampled).enumerate() {
            if !row.has_ended() {
                let likeliest = likeliest.remove(&index).unwrap_or_default();
                row.push(token, likeliest, self.source);
            }
            self.insert(row);
        }
        self.retire();
        Ok(())
    }

    /// Starts requests whose prompt another's prefill has computed.
    pub(super) fn share_prompts(&mut self) -> Result<()> {
        let mut waiting = self.waiting.iter();
        let first = waiting.find(|(asked, _)| self.shared_prompt(asked).is_some());
        let Some((asked, _)) = first else {
            return Ok(());
        };
        let (slots, kept) = slots_at_start(&self.capacity, asked, self.rows.len());
        if self.rows.len() >= self.limits.rows || self.free_slots.count() < slots + kept {
            return Ok(());
        }
        // A pass's tokens are read in row order.
        self.read(0)?;
        let (mut rows, mut logits, mut index) = (Vec::new(), Vec::new(), 0);
        while self.rows.len() + rows.len() < self.limits.rows
            && let Some((asked, _)) = self.waiting.get(index)
        {
            let asked = Arc::clone(asked);
            let Some(key) = self.shared_prompt(&asked) else {
                index += 1;
                continue;
            };
            // Freeing a kept completion may free the prompt.
            if self.free_states.count() == 0
                && rows.is_empty()
                && (self.stop_sharing(Sharing::Unused) || self.free_kept())
            {
                continue;
            }
            let others = self.rows.len() + rows.len();
            let (slots, kept) = slots_at_start(&self.capacity, &asked, others);
            let fits = self.free_slots.count() >= slots + kept;
            let Some(first) = fits.then(|| self.free_slots.allocate(slots)).flatten() else {
                break;
            };
            let Some(shared) = self.prompts.get(&key).and_then(|one| one.shared.as_ref()) else {
                bail!("a shared prompt without its logits")
            };
            logits.push(shared.logits.clone());
            let experts = shared.experts.clone();
            let state = match (self.free_states.allocate(1), shared.state) {
                (Some(state), Some(from)) => {
                    self.caches.copy_state(from, state)?;
                    state
                }
                (Some(state), None) => state,
                // The prompt's own is the last: others will prefill the prompt again.
                (None, Some(own)) => {
                    if let Some(prompt) = self.prompts.get_mut(&key) {
                        prompt.shared = None;
                    }
                    own
                }
                (None, None) => bail!("more completions than states"),
            };
            rows.push(self.new_row(asked, 0, (key, (first, slots), state), experts));
            self.waiting.remove(index);
        }
        match rows.is_empty() {
            true => Ok(()),
            false => self.sample_first(rows, &Tensor::cat(&logits, 0)?),
        }
    }

    /// The prompt that serves a waiting request.
    fn shared_prompt(&self, asked: &QueuedRequest) -> Option<usize> {
        let serves = |prompt: &Prompt| {
            let shared = prompt.shared.as_ref();
            shared.is_some_and(|shared| asked.shares_with(&shared.asked))
        };
        let mut prompts = self.prompts.iter();
        asked.shares_prompt.then_some(())?;
        prompts.find_map(|(key, prompt)| serves(prompt).then_some(*key))
    }

    fn has_states(&self) -> bool {
        self.model.config().options.gated_delta.is_some()
    }

    /// A state for a shared prompt's end, if the model has states and one is free.
    fn state_to_share(&mut self, asked: &QueuedRequest) -> Option<usize> {
        (asked.shares_prompt && self.has_states())
            .then(|| self.free_states.allocate(1))
            .flatten()
    }

    /// Frees the state of a shared prompt; returns whether there was one.
    pub(super) fn stop_sharing(&mut self, which: Sharing) -> bool {
        let waiting = &self.waiting;
        let is_used = |shared: &SharedPrompt| {
            let mut waiting = waiting.iter();
            waiting.any(|(asked, _)| asked.shares_with(&shared.asked))
        };
        let may_go = |prompt: &&mut Prompt| {
            let shared = prompt.shared.as_ref();
            shared.is_some_and(|shared| {
                shared.state.is_some() && (which == Sharing::Any || !is_used(shared))
            })
        };
        let shared = self.prompts.values_mut().find(may_go);
        let state = shared.and_then(|prompt| prompt.shared.take()?.state);
        let is_some = state.is_some();
        state
            .into_iter()
            .for_each(|state| self.free_states.give_back(state, 1));
        is_some
    }

    /// A state per sample of each request.
    pub(super) fn states_of(&mut self, taken: &[AdmittedRequest]) -> Result<Vec<Vec<usize>>> {
        self.free_states_for(taken.iter().map(|admitted| admitted.samples.len()).sum());
        let mut free_state = |_: &_| self.free_states.allocate(1);
        let states = taken
            .iter()
            .map(|admitted| admitted.samples.iter().map(&mut free_state).collect());
        match states.collect() {
            Some(states) => Ok(states),
            None => bail!("more completions than states"),
        }
    }
}

fn rows_of(table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let rows = Tensor::from_slice(rows, rows.len(), table.device())?;
    gather_rows(table, &rows, table.dtype())
}
