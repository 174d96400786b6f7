//! A completion being decoded: its tokens, end, and inputs of the next pass.

use std::ops::Range;
use std::sync::Arc;

use super::super::StopReason;
use super::super::kv_cache::FreeSlots;
use super::super::masks::RowMask;
use super::super::source::RequestSource;
use super::Row;
use crate::kernels::decode_attention::DecodeRow;
use crate::kernels::philox::{SampleKey, uniform};
use crate::kernels::sampler::{LIKELIEST, SampleParams, SampledToken};
use crate::kernels::shaping::ShapedRow;
use crate::model::{ExpertRecord, PassExperts};

impl Row {
    pub(super) fn id(&self) -> (u64, u32) {
        (self.asked.id, self.sample)
    }

    /// Sort key: rows of one prompt are adjacent.
    pub(super) fn place(&self) -> (usize, u32) {
        (self.prompt, self.sample)
    }

    /// Maximum tokens in the cache.
    pub(super) fn most_cached(&self) -> usize {
        let new = self.asked.max_new_tokens();
        self.before.len() + new + self.asked.later_tokens
    }

    /// Sampling parameters, `ahead` tokens after the next.
    pub(super) fn params(&self, ahead: usize) -> SampleParams {
        let (request, sampling) = (&self.asked.request, &self.asked.sampling);
        let key = SampleKey {
            step: request.step,
            prompt: request.prompt_number,
            sample: request.first_sample + self.sample,
            position: (self.length() + ahead) as u32,
        };
        SampleParams {
            uniform: match request.greedy {
                true => LIKELIEST,
                false => uniform(sampling.seed, key),
            },
            temperature: sampling.temperature,
        }
    }

    /// The options of the next token, if it has some; `index`: in the pass.
    pub(super) fn shaped(&self, index: usize) -> Option<ShapedRow> {
        let shaping = self.asked.request.shaping.as_ref()?;
        let suppressed = match self.length() < shaping.min_tokens {
            true => self.asked.sampling.stop_ids.clone(),
            false => Vec::new(),
        };
        Some(ShapedRow {
            row: index,
            shaping: Arc::clone(shaping),
            params: self.params(0),
            seen: self.seen.clone(),
            newest: self.pending,
            suppressed,
        })
    }

    /// Whether tokens before its completion are uncomputed.
    pub(super) fn has_uncomputed_before(&self) -> bool {
        self.computed < self.before.len()
    }

    /// Whether the last pass computed such tokens.
    pub(super) fn has_fed_before(&self) -> bool {
        self.computed - self.fed < self.before.len()
    }

    /// Known tokens that the next pass computes.
    pub(super) fn uncomputed(&self) -> impl Iterator<Item = &u32> {
        let all = self.before.iter().chain(&self.completion.token_ids);
        all.skip(self.computed).take(self.fed)
    }

    /// Tokens so far, including a pending one.
    pub(super) fn length(&self) -> usize {
        self.completion.token_ids.len() + usize::from(self.pending.is_some())
    }

    /// The fed token `ahead` tokens after the newest; `prefix`: place of its prompt.
    pub(super) fn fed_row(&self, prefix: (usize, usize), ahead: usize) -> DecodeRow {
        // Only drafts may be undone.
        let is_known = self.has_uncomputed_before();
        let state = |ahead: usize| match ahead {
            0 => self.state,
            _ if is_known => self.state,
            _ => self.drafted_states[ahead - 1],
        };
        let states = (state(ahead.saturating_sub(1)), state(ahead));
        DecodeRow {
            first: self.kv_slots.0,
            prefix,
            length: self.computed + 1 + ahead,
            states,
        }
    }

    /// Reserves a state per drafted token, to continue from on a mismatch; shortens the draft if
    /// there are too few.
    pub(super) fn reserve_states(&mut self, free: &mut FreeSlots) {
        if self.has_uncomputed_before() {
            return;
        }
        let states = (0..self.draft.tokens.len()).map_while(|_| free.allocate(1));
        self.drafted_states.extend(states);
        self.draft.truncate(self.drafted_states.len());
    }

    /// Accepts `held` drafted tokens and the state after them.
    pub(super) fn keep_drafted(&mut self, held: usize, free: &mut FreeSlots) {
        self.computed += held;
        if held > 0 {
            std::mem::swap(&mut self.state, &mut self.drafted_states[held - 1]);
        }
        let states = self.drafted_states.drain(..);
        states.for_each(|state| free.give_back(state, 1));
    }

    /// Mask source per token fed in the next pass.
    pub(super) fn masks(&mut self) -> Vec<Option<RowMask<'_>>> {
        if self.length() >= self.limit {
            return Vec::new();
        }
        let count = self.fed + self.draft.tokens.len();
        let mut fed: Vec<_> = (0..count).map(|_| None).collect();
        // Before the completion, only the last token is sampled after.
        if self.computed + self.fed >= self.before.len() {
            let forced = self.thinking.forced().map(RowMask::Token);
            let grammar = self.constrained.as_mut().map(RowMask::Grammar);
            fed[self.fed - 1] = forced.or(grammar);
        }
        fed
    }

    /// Whether its next pass must wait for the newest token, for its mask.
    pub(super) fn needs_newest(&self) -> bool {
        self.constrained.is_some() || self.thinking.free_tokens(self.length()) == 0
    }

    /// Appends a token, and reports it with alternatives.
    pub(super) fn push(
        &mut self,
        token: SampledToken,
        likeliest: Vec<(u32, f32)>,
        source: &mut dyn RequestSource,
    ) {
        let (forced, completion) = (self.thinking.forced(), &mut self.completion);
        let length = completion.token_ids.len();
        if forced.is_some() {
            let first = Some(completion.forced.start).filter(|_| !completion.forced.is_empty());
            completion.forced = first.unwrap_or(length)..length + 1;
        }
        completion.token_ids.push(token.token_id);
        completion.log_probs.push(token.log_prob);
        if let Some(seen) = &mut self.seen {
            Arc::make_mut(seen).push(token.token_id);
        }
        let prompt = &self.asked.request.prompt;
        self.thinking.advance(prompt, &completion.token_ids);
        if let Some(constrained) = &mut self.constrained {
            constrained.push(token.token_id);
        }
        let completion = &self.completion;
        self.is_dropped = !source.on_token(self.asked.id, self.sample, completion, likeliest);
    }

    /// Records experts of tokens before its completion, computed at these rows.
    pub(super) fn record_before(&mut self, experts: Option<&PassExperts>, rows: Range<usize>) {
        let record = self.completion.experts.as_mut();
        let prompt = record.and_then(ExpertRecord::prompt_mut);
        if let (Some(experts), Some(prompt)) = (experts, prompt) {
            experts.append(rows, prompt);
        }
    }

    /// Records experts of the token after which the newest was sampled; `fed`: its index in the
    /// pass.
    pub(super) fn record(&mut self, experts: Option<&PassExperts>, fed: usize) {
        if let (Some(experts), Some(record)) = (experts, &mut self.completion.experts) {
            experts.append(fed..fed + 1, Arc::make_mut(&mut record.completion));
        }
    }

    /// Whether the newest token ends the row; records why.
    pub(super) fn has_ended(&mut self) -> bool {
        let (stop_ids, completion) = (&self.asked.sampling.stop_ids, &mut self.completion);
        let constrained = self.constrained.as_ref();
        let newest = completion.token_ids.last();
        let why = if newest.is_some_and(|id| stop_ids.contains(id)) {
            Some(StopReason::Stop)
        } else if constrained.is_some_and(|row| row.failure.is_some()) {
            Some(StopReason::Constraint)
        } else {
            let is_over = self.thinking.has_ended();
            is_over.then_some(StopReason::Thinking)
        };
        completion.stop = why.unwrap_or(completion.stop);
        why.is_some() || self.is_dropped || completion.token_ids.len() >= self.limit
    }
}
