//! A completion that is being decoded: its tokens, why it ends, and what its next pass needs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::super::StopReason;
use super::super::kv_cache::FreeSlots;
use super::super::masks::RowMask;
use super::super::shaping::ShapedToken;
use super::super::source::RequestSource;
use super::super::thinking::RowThinking;
use super::{ActiveRequest, Row};
use crate::kernels::decode_attention::DecodeRow;
use crate::kernels::sampler::SampledToken;
use crate::model::PassExperts;

impl Row {
    pub(super) fn id(&self) -> (u64, u32) {
        (self.request, self.sample)
    }

    /// The most tokens that it may have in the cache.
    pub(super) fn most_cached(&self, requests: &BTreeMap<u64, ActiveRequest>) -> usize {
        let ActiveRequest {
            sampling,
            conversation,
            ..
        } = &requests[&self.request];
        let later = conversation.map_or(0, |conversation| conversation.later_tokens);
        self.before.len() + sampling.max_completion_tokens + later
    }

    /// Whether some tokens before its completion are not computed.
    pub(super) fn has_uncomputed_before(&self) -> bool {
        self.computed < self.before.len()
    }

    /// Whether the last pass has computed such tokens.
    pub(super) fn has_fed_before(&self) -> bool {
        self.computed - self.fed < self.before.len()
    }

    /// Those that the next pass computes, as far as they are known here.
    pub(super) fn uncomputed(&self) -> impl Iterator<Item = &u32> {
        let all = self.before.iter().chain(&self.completion.token_ids);
        all.skip(self.computed).take(self.fed)
    }

    /// Tokens so far, the pending one included.
    pub(super) fn length(&self) -> usize {
        self.completion.token_ids.len() + usize::from(self.pending.is_some())
    }

    /// The fed token `ahead` tokens after the newest, which is 0; `prefix`: its prompt's place.
    pub(super) fn fed_row(&self, prefix: (usize, usize), ahead: usize) -> DecodeRow {
        // What is no draft does not go back.
        let is_known = self.has_uncomputed_before();
        let state = |ahead: usize| {
            if ahead == 0 || is_known {
                self.state
            } else {
                self.drafted_states[ahead - 1]
            }
        };
        let states = (state(ahead.saturating_sub(1)), state(ahead));
        DecodeRow {
            first: self.kv_slots.0,
            prefix,
            length: self.computed + 1 + ahead,
            states,
        }
    }

    /// A state for each drafted token: where one is not what is sampled, the completion goes on from the one before. A
    /// draft whose states find no room is shorter.
    pub(super) fn reserve_states(&mut self, free: &mut FreeSlots) {
        if self.has_uncomputed_before() {
            return;
        }
        self.drafted_states
            .extend((0..self.draft.tokens.len()).map_while(|_| free.allocate(1)));
        self.draft.truncate(self.drafted_states.len());
    }

    /// Keeps so many drafted tokens, which are what was sampled, and the state after them.
    pub(super) fn keep_drafted(&mut self, held: usize, free: &mut FreeSlots) {
        self.computed += held;
        if held > 0 {
            std::mem::swap(&mut self.state, &mut self.drafted_states[held - 1]);
        }
        self.drafted_states
            .drain(..)
            .for_each(|state| free.give_back(state, 1));
    }

    /// For each token that the next pass feeds of it: what its mask comes from.
    pub(super) fn masks(
        &mut self,
        requests: &BTreeMap<u64, ActiveRequest>,
    ) -> Vec<Option<RowMask<'_>>> {
        if self.length() >= self.limit {
            return Vec::new();
        }
        let count = self.fed + self.draft.tokens.len();
        let mut fed: Vec<_> = (0..count).map(|_| None).collect();
        let forced = self
            .thinking
            .forced(requests[&self.request].sampling.thinking.as_deref());
        // After a token before the completion nothing is sampled, but for the last.
        if self.computed + self.fed < self.before.len() {
            return fed;
        }
        let first = &mut fed[self.fed - 1];
        *first = forced
            .map(RowMask::Token)
            .or(self.constrained.as_mut().map(RowMask::Grammar));
        fed
    }

    /// Whether its next pass waits for its newest token to be known here: for its mask, or because it is sampled here.
    pub(super) fn needs_newest(&self, requests: &BTreeMap<u64, ActiveRequest>) -> bool {
        self.constrained.is_some()
            || requests[&self.request].request.shaping.is_some()
            || self.thinking.free_tokens(self.length()) == 0
    }

    pub(super) fn notify_alternatives(
        &self,
        shaped: Option<ShapedToken>,
        source: &mut dyn RequestSource,
    ) {
        if let Some(ShapedToken { alternatives, .. }) =
            shaped.filter(|shaped| !shaped.alternatives.is_empty())
        {
            source.on_alternatives(self.request, self.sample, alternatives);
        }
    }

    pub(super) fn push(
        &mut self,
        token: SampledToken,
        requests: &BTreeMap<u64, ActiveRequest>,
        source: &mut dyn RequestSource,
    ) {
        let ActiveRequest {
            request, sampling, ..
        } = &requests[&self.request];
        let (limit, completion) = (sampling.thinking.as_deref(), &mut self.completion);
        let (length, forced) = (completion.token_ids.len(), self.thinking.forced(limit));
        if forced.is_some() {
            completion.forced = if completion.forced.is_empty() {
                length
            } else {
                completion.forced.start
            }..length + 1;
        }
        completion.token_ids.push(token.token_id);
        completion.log_probs.push(token.log_prob);
        self.thinking
            .advance(limit, &request.prompt, &completion.token_ids);
        if let Some(constrained) = &mut self.constrained {
            constrained.push(token.token_id);
        }
        self.is_dropped = !source.on_token(self.request, self.sample, &self.completion);
    }

    /// Records the experts of tokens before its completion, which a pass has computed at these rows.
    pub(super) fn record_before(&mut self, experts: Option<&PassExperts>, rows: Range<usize>) {
        if let (Some(experts), Some(record)) = (experts, &mut self.completion.experts) {
            experts.append(rows, Arc::make_mut(&mut record.prompt));
        }
    }

    /// Records the experts of the fed token that the newest one was sampled after; `fed`: its index in the pass.
    pub(super) fn record(&mut self, experts: Option<&PassExperts>, fed: usize) {
        if let (Some(experts), Some(record)) = (experts, &mut self.completion.experts) {
            experts.append(fed..fed + 1, Arc::make_mut(&mut record.completion));
        }
    }

    /// Whether the newest token ends the row; notes why.
    pub(super) fn has_ended(&mut self, requests: &BTreeMap<u64, ActiveRequest>) -> bool {
        let stop_ids = &requests[&self.request].sampling.stop_ids;
        let stopped = self
            .completion
            .token_ids
            .last()
            .is_some_and(|id| stop_ids.contains(id));
        if stopped {
            self.completion.stop = StopReason::Stop;
        }
        let is_over = self.thinking == RowThinking::Ended;
        if is_over && !stopped {
            self.completion.stop = StopReason::Thinking;
        }
        let is_stuck = self
            .constrained
            .as_ref()
            .is_some_and(|constrained| constrained.failure.is_some());
        if is_stuck && !stopped {
            self.completion.stop = StopReason::Constraint;
        }
        stopped
            || is_over
            || is_stuck
            || self.is_dropped
            || self.completion.token_ids.len() >= self.limit
    }
}
