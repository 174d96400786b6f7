//! Completions whose keys and values stay in the cache while their conversation is elsewhere: where it goes on, what is new
//! is computed beside the completions of others, and nothing is prefilled.

use std::sync::Arc;

use candle_core::Result;

use super::super::draft::Ngrams;
use super::{DecodeBatch, KeptRow, Row};
use crate::model::PassExperts;

impl KeptRow {
    /// Records the experts of its last token, which a pass that ran ahead computed at this row.
    pub(super) fn record_last(&mut self, experts: Option<&PassExperts>, row: usize) {
        if let (Some(experts), Some(record)) = (experts, &mut self.experts) {
            experts.append(row..row + 1, Arc::make_mut(&mut record.completion));
        }
    }
}

impl DecodeBatch<'_> {
    /// Gives back what a completion that has ended has in the cache, or keeps it for its conversation.
    pub(super) fn keep_or_free(&mut self, row: &Row) {
        if !self
            .source
            .may_go_on(row.request, row.sample, &row.completion)
        {
            self.free_slots.give_back(row.kv_slots.0, row.kv_slots.1);
            self.free_states.give_back(row.state, 1);
            return;
        }
        let prompt = &self.requests[&row.request].request.prompt;
        self.kept.push_back(KeptRow {
            id: row.id(),
            prompt: row.prompt,
            kv_slots: row.kv_slots,
            state: row.state,
            tokens: [prompt.as_slice(), &row.completion.token_ids].concat(),
            computed: self.prompts[&row.prompt].place.1 + row.computed,
            experts: row.completion.experts.clone(),
        });
    }

    /// Frees the oldest that is kept, whose conversation will be prefilled if it goes on; whether there was one.
    pub(super) fn free_kept(&mut self) -> bool {
        let kept = self.kept.pop_front();
        let is_some = kept.is_some();
        kept.into_iter().for_each(|kept| self.free(&kept));
        is_some
    }

    fn free(&mut self, kept: &KeptRow) {
        self.free_slots.give_back(kept.kv_slots.0, kept.kv_slots.1);
        self.free_states.give_back(kept.state, 1);
        self.forget_prompts();
    }

    /// As [`DecodeBatch::free_kept`], until so many states are free, or none is kept.
    pub(super) fn free_states_for(&mut self, count: usize) {
        while self.free_states.count() < count && self.free_kept() {}
    }

    fn take_kept(&mut self, id: (u64, u32)) -> Option<KeptRow> {
        let index = self.kept.iter().position(|kept| kept.id == id)?;
        self.kept.remove(index)
    }

    /// Frees those that nothing follows.
    pub(super) fn free_not_followed(&mut self) {
        for id in self.source.not_followed() {
            let kept = self.take_kept(id);
            kept.into_iter().for_each(|kept| self.free(&kept));
        }
    }

    /// Lets requests go on from the kept completions that they follow.
    pub(super) fn go_on(&mut self) -> Result<()> {
        if self
            .waiting
            .iter()
            .all(|(request, _)| self.kept_before(*request).is_none())
        {
            return Ok(());
        }
        // The tokens of a pass are read in the order of its rows.
        self.read(0)?;
        let mut index = 0;
        while let Some(&(request, _)) = self
            .waiting
            .get(index)
            .filter(|_| self.rows.len() < self.limits.rows)
        {
            let Some(kept) = self.kept_before(request).and_then(|id| self.take_kept(id)) else {
                index += 1;
                continue;
            };
            let prompt = &self.requests[&request].request.prompt;
            if prompt.len() <= kept.tokens.len() || !prompt.starts_with(&kept.tokens) {
                self.free(&kept);
                continue;
            }
            self.waiting.remove(index);
            self.follow(request, kept);
        }
        Ok(())
    }

    /// What is kept of the completion that a request follows.
    fn kept_before(&self, request: u64) -> Option<(u64, u32)> {
        let after = self.requests[&request].conversation?.after?;
        self.kept
            .iter()
            .any(|kept| kept.id == after)
            .then_some(after)
    }

    fn follow(&mut self, request: u64, kept: KeptRow) {
        let prompt_tokens = self.prompts[&kept.prompt].place.1;
        let experts = kept.experts.map(|record| record.followed());
        let mut row = self.new_row(
            (request, 0),
            (kept.prompt, kept.kv_slots, kept.state),
            experts,
        );
        let asked = &self.requests[&request];
        row.before = asked.request.prompt[prompt_tokens..].to_vec();
        row.computed = kept.computed - prompt_tokens;
        row.ngrams =
            (asked.sampling.draft_tokens > 0).then(|| Ngrams::from_text(&asked.request.prompt));
        let place = self
            .rows
            .partition_point(|other| (other.prompt, other.sample) < (row.prompt, row.sample));
        self.rows.insert(place, row);
    }

    /// Chooses how many tokens each row computes in the next pass: those that follow an earlier completion as many as
    /// there are rows for, the others their newest. How many rows they take beside one for each completion.
    pub(super) fn feed_before(&mut self) -> usize {
        let all = self.pass_rows.saturating_sub(self.rows.len());
        let mut left = all;
        for row in &mut self.rows {
            let others = row.before.len().saturating_sub(row.computed + 1).min(left);
            row.fed = 1 + others;
            left -= others;
        }
        all - left
    }
}
