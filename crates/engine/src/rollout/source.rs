//! Sources of requests: a fixed list, or clients that come and go.

use super::{Completion, Request, Sampling};
use crate::kernels::row_adapters::NO_ADAPTER;

/// A request with its sampling parameters.
#[derive(Clone, Debug)]
pub struct QueuedRequest {
    /// Unique among requests decoded together; assigned by the source.
    pub id: u64,
    pub request: Request,
    pub sampling: Sampling,
    /// Adapter index if there are several (`model::AdapterUse`), else ignored; `None`: the base.
    pub adapter: Option<u32>,
    /// Request and sample of the cached completion that its prompt extends.
    pub follows: Option<(u64, u32)>,
    /// Maximum growth of its prompt in the cache before its conversation ends.
    pub later_tokens: usize,
    /// Whether other requests, of one sample each as this one, begin with the same prompt.
    pub shares_prompt: bool,
}

impl QueuedRequest {
    /// Index in the kernels' encoding.
    pub(super) fn adapter(&self) -> u32 {
        self.adapter.unwrap_or(NO_ADAPTER)
    }

    /// Limit of its longest completion: the run's, or a lower one of its task.
    pub(super) fn max_new_tokens(&self) -> usize {
        let most = self.sampling.max_completion_tokens;
        self.request.longest().unwrap_or(most).min(most)
    }

    /// Whether a prefill of the other's prompt serves this request.
    pub(super) fn shares_with(&self, other: &Self) -> bool {
        self.shares_prompt
            && other.shares_prompt
            && self.adapter == other.adapter
            && self.request.prompt == other.request.prompt
    }
}

/// New requests of a source, or its end.
#[derive(Debug)]
pub enum Arrivals {
    /// Possibly empty.
    Requests(Vec<QueuedRequest>),
    /// No more will come: decoding returns after the last completion.
    Closed,
}

/// Supplies requests and receives completions.
pub trait RequestSource {
    /// Another attempt begins with new caches: resubmit what has not ended.
    fn begin_again(&mut self) {}

    /// Requests for about `rows` completions, polled between passes. If nothing is decoded
    /// (`is_idle`) it may block, returning regularly for cancellation.
    fn arrivals(&mut self, rows: usize, is_idle: bool) -> Arrivals;

    /// A completion's newest token, with alternatives if requested; returns whether to continue: a
    /// client may be gone, or a stop string has occurred.
    fn on_token(
        &mut self,
        id: u64,
        sample: u32,
        completion: &Completion,
        likeliest: Vec<(u32, f32)>,
    ) -> bool;

    /// Whether a request may follow an ended completion: its keys and values then stay cached.
    fn may_go_on(&self, _id: u64, _sample: u32, _completion: &Completion) -> bool {
        false
    }

    /// Completions that nothing will follow after all, since the last call.
    fn not_followed(&mut self) -> Vec<(u64, u32)> {
        Vec::new()
    }

    /// A completion that has ended, or whose [`RequestSource::on_token`] returned false.
    fn on_end(&mut self, id: u64, sample: u32, completion: Completion);
}

/// All requests from the start; collects completions.
pub(super) struct FixedRequests<'a> {
    requests: &'a [Request],
    sampling: &'a Sampling,
    is_taken: bool,
    /// Completions by request, in order of completion.
    completions: Vec<Vec<(u32, Completion)>>,
}

impl<'a> FixedRequests<'a> {
    pub(super) fn new(requests: &'a [Request], sampling: &'a Sampling) -> Self {
        let empty = |request: &Request| Vec::with_capacity(request.samples);
        Self {
            requests,
            sampling,
            is_taken: false,
            completions: requests.iter().map(empty).collect(),
        }
    }

    /// Completions by request, in order.
    pub(super) fn completions(self) -> Vec<Vec<Completion>> {
        let in_order = |mut ended: Vec<(u32, Completion)>| {
            ended.sort_by_key(|(sample, _)| *sample);
            let ended = ended.into_iter();
            ended.map(|(_, completion)| completion).collect()
        };
        self.completions.into_iter().map(in_order).collect()
    }
}

impl RequestSource for FixedRequests<'_> {
    fn arrivals(&mut self, _: usize, _: bool) -> Arrivals {
        if std::mem::replace(&mut self.is_taken, true) {
            return Arrivals::Closed;
        }
        let all = (0..).zip(self.requests);
        let all = all.filter(|(_, request)| request.samples > 0);
        let queued = |(id, request): (u64, &Request)| QueuedRequest {
            id,
            request: request.clone(),
            sampling: self.sampling.clone(),
            adapter: None,
            follows: None,
            later_tokens: 0,
            shares_prompt: false,
        };
        Arrivals::Requests(all.map(queued).collect())
    }

    fn on_token(&mut self, _: u64, _: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        true
    }

    fn on_end(&mut self, id: u64, sample: u32, completion: Completion) {
        self.completions[id as usize].push((sample, completion));
    }
}
