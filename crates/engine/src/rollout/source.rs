//! Where the requests of a decode come from and who learns of their tokens: a list that is there, or clients that come
//! and go meanwhile.

use super::{Completion, Request, Sampling};
use crate::kernels::row_adapters::NO_ADAPTER;

/// A request with its sampling parameters.
#[derive(Clone, Debug)]
pub struct QueuedRequest {
    /// Given by the source; no two requests that are decoded together share one.
    pub id: u64,
    pub request: Request,
    pub sampling: Sampling,
    /// Index of the adapter where several stand side by side (`model::AdapterUse`), else ignored; `None`: the base
    /// alone.
    pub adapter: Option<u32>,
    /// Request and sample of the completion that it goes on from in the cache: its prompt begins with that one's and it.
    pub follows: Option<(u64, u32)>,
    /// The most tokens that its prompt may grow by in the cache before its conversation ends.
    pub later_tokens: usize,
}

impl QueuedRequest {
    /// As the kernels take it.
    pub(super) fn adapter(&self) -> u32 {
        self.adapter.unwrap_or(NO_ADAPTER)
    }
}

/// New requests of a source, or its end.
#[derive(Debug)]
pub enum Arrivals {
    /// Those that have come, maybe none.
    Requests(Vec<QueuedRequest>),
    /// No more will come: decoding returns after the last completion.
    Closed,
}

/// Where a decode gets its requests, and who learns of their completions.
pub trait RequestSource {
    /// Begins another attempt to decode what has not ended: the caches are new.
    fn begin_again(&mut self) {}

    /// Asked between two passes for requests of about `rows` completions. Where nothing is decoded (`is_idle`) it may
    /// wait, but returns now and then so that the work can be cancelled.
    fn arrivals(&mut self, rows: usize, is_idle: bool) -> Arrivals;

    /// Learns of a completion's newest token; whether it goes on: a client may have gone, or its stop string has come.
    /// `likeliest`: the likeliest tokens in its place with their log-probs, where the request asks for them.
    fn on_token(
        &mut self,
        id: u64,
        sample: u32,
        completion: &Completion,
        likeliest: Vec<(u32, f32)>,
    ) -> bool;

    /// Whether a request may follow a completion that ends: its keys and values stay in the cache.
    fn may_go_on(&self, _id: u64, _sample: u32, _completion: &Completion) -> bool {
        false
    }

    /// The completions that nothing follows after all, since the last call.
    fn not_followed(&mut self) -> Vec<(u64, u32)> {
        Vec::new()
    }

    /// Takes a completion that has ended, or whose [`RequestSource::on_token`] said no.
    fn on_end(&mut self, id: u64, sample: u32, completion: Completion);
}

/// A source with all requests from the start; collects their completions.
#[derive(Debug)]
pub(super) struct FixedRequests<'a> {
    requests: &'a [Request],
    sampling: &'a Sampling,
    is_taken: bool,
    /// By request; in the order in which they ended.
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

    /// By request, in order.
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
