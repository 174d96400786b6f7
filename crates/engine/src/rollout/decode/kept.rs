//! Keeps completed rows in the cache while their conversation waits elsewhere: on continuation only
//! new tokens are computed, without prefill.

use std::sync::Arc;

use candle_core::Result;

use super::super::draft::Ngrams;
use super::prefill::Sharing;
use super::{DecodeBatch, KeptRow, QueuedRequest, Row};
use crate::model::PassExperts;

impl KeptRow {
    /// Records the last token's experts, computed at this row by a pass that ran ahead.
    pub(super) fn record_last(&mut self, experts: Option<&PassExperts>, row: usize) {
        if let (Some(experts), Some(record)) = (experts, &mut self.experts) {
            experts.append(row..row + 1, Arc::make_mut(&mut record.completion));
        }
    }
}

impl DecodeBatch<'_> {
    /// Frees an ended completion's cache, or keeps it for its conversation.
    pub(super) fn keep_or_free(&mut self, row: &Row) {
        let (id, sample) = row.id();
        if !self.source.may_go_on(id, sample, &row.completion) {
            self.free_slots.give_back(row.kv_slots.0, row.kv_slots.1);
            self.free_states.give_back(row.state, 1);
            return;
        }
        let prompt = &row.asked.request.prompt;
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

    /// Frees the oldest kept row, whose conversation will need a prefill; returns whether there was
    /// one.
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

    /// Frees states that are kept for later, until `count` are free or none is left.
    pub(super) fn free_states_for(&mut self, count: usize) {
        while self.free_states.count() < count
            && (self.stop_sharing(Sharing::Unused)
                || self.free_kept()
                || self.stop_sharing(Sharing::Any))
        {}
    }

    fn take_kept(&mut self, id: (u64, u32)) -> Option<KeptRow> {
        let index = self.kept.iter().position(|kept| kept.id == id)?;
        self.kept.remove(index)
    }

    /// Frees rows that nothing will follow.
    pub(super) fn free_not_followed(&mut self) {
        for id in self.source.not_followed() {
            let kept = self.take_kept(id);
            kept.into_iter().for_each(|kept| self.free(&kept));
        }
    }

    /// Continues requests from the kept completions they follow.
    pub(super) fn go_on(&mut self) -> Result<()> {
        let mut waiting = self.waiting.iter();
        if waiting.all(|(asked, _)| self.kept_before(asked).is_none()) {
            return Ok(());
        }
        // A pass's tokens are read in row order.
        self.read(0)?;
        let mut index = 0;
        while self.rows.len() < self.limits.rows
            && let Some((asked, _)) = self.waiting.get(index)
        {
            let asked = Arc::clone(asked);
            let Some(kept) = self.kept_before(&asked).and_then(|id| self.take_kept(id)) else {
                index += 1;
                continue;
            };
            let prompt = &asked.request.prompt;
            if prompt.len() <= kept.tokens.len() || !prompt.starts_with(&kept.tokens) {
                self.free(&kept);
                continue;
            }
            self.waiting.remove(index);
            self.follow(asked, kept);
        }
        Ok(())
    }

    /// The kept completion that a request follows.
    fn kept_before(&self, asked: &QueuedRequest) -> Option<(u64, u32)> {
        let after = asked.follows?;
        let is_kept = self.kept.iter().any(|kept| kept.id == after);
        is_kept.then_some(after)
    }

    fn follow(&mut self, asked: Arc<QueuedRequest>, kept: KeptRow) {
        let prompt_tokens = self.prompts[&kept.prompt].place.1;
        let prompt = &asked.request.prompt;
        let before = prompt[prompt_tokens..].to_vec();
        let is_drafted = asked.sampling.draft_tokens > 0;
        let ngrams = is_drafted.then(|| Ngrams::from_text(prompt));
        let experts = kept.experts.map(|record| record.followed());
        let place = (kept.prompt, kept.kv_slots, kept.state);
        let row = Row {
            before,
            computed: kept.computed - prompt_tokens,
            ngrams,
            ..self.new_row(asked, 0, place, experts)
        };
        self.insert(row);
    }

    /// Inserts a row next to others of its prompt.
    pub(super) fn insert(&mut self, row: Row) {
        let is_before = |other: &Row| other.place() < row.place();
        self.rows.insert(self.rows.partition_point(is_before), row);
    }

    /// Sets the tokens that each row computes in the next pass: rows that follow a completion as
    /// many as fit, others their newest. Returns the rows besides one per completion.
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
