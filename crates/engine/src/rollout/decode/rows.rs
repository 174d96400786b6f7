//! A completion that is being decoded: its tokens, why it ends, and what its next pass needs.

use std::collections::BTreeMap;

use super::super::StopReason;
use super::super::masks::ConstrainedRow;
use super::super::queue::RequestSource;
use super::super::shaping::ShapedToken;
use super::{ActiveRequest, Row};
use crate::kernels::sampler::SampledToken;

impl Row {
    pub(super) fn id(&self) -> (u64, u32) {
        (self.request, self.sample)
    }

    /// Tokens so far, the pending one included.
    pub(super) fn length(&self) -> usize {
        self.completion.token_ids.len() + usize::from(self.pending.is_some())
    }

    /// For each token that the next pass feeds of it: what its mask comes from.
    pub(super) fn fed(&mut self) -> Vec<Option<&mut ConstrainedRow>> {
        if self.length() >= self.limit {
            return Vec::new();
        }
        let mut fed: Vec<_> = (0..=self.draft.tokens.len()).map(|_| None).collect();
        fed[0] = self.constrained.as_mut();
        fed
    }

    /// Whether its next pass waits for its newest token to be known here: for its mask, or because it is sampled here.
    pub(super) fn needs_newest(&self, requests: &BTreeMap<u64, ActiveRequest>) -> bool {
        self.constrained.is_some() || requests[&self.request].request.shaping.is_some()
    }

    pub(super) fn notify_alternatives(&self, shaped: Option<ShapedToken>, source: &mut dyn RequestSource) {
        if let Some(ShapedToken { alternatives, .. }) = shaped.filter(|shaped| !shaped.alternatives.is_empty()) {
            source.on_alternatives(self.request, self.sample, alternatives);
        }
    }

    pub(super) fn push(&mut self, token: SampledToken, source: &mut dyn RequestSource) {
        self.completion.token_ids.push(token.token_id);
        self.completion.log_probs.push(token.log_prob);
        if let Some(constrained) = &mut self.constrained {
            constrained.push(token.token_id);
        }
        self.is_dropped = !source.on_token(self.request, self.sample, &self.completion);
    }

    /// Whether the newest token ends the row; notes why.
    pub(super) fn has_ended(&mut self, requests: &BTreeMap<u64, ActiveRequest>) -> bool {
        let stop_ids = &requests[&self.request].sampling.stop_ids;
        let stopped = self.completion.token_ids.last().is_some_and(|id| stop_ids.contains(id));
        if stopped {
            self.completion.stop = StopReason::Stop;
        }
        let is_stuck = self.constrained.as_ref().is_some_and(|constrained| constrained.failure.is_some());
        if is_stuck && !stopped {
            self.completion.stop = StopReason::Constraint;
        }
        stopped || is_stuck || self.is_dropped || self.completion.token_ids.len() >= self.limit
    }
}
