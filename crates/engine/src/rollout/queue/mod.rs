//! Request queue between clients and decoding threads. Only the queue's [`Order`] decides what is
//! taken, and when.

mod conversations; // order of conversations
mod question; // conversations about a question
mod shares; // fair order of clients

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::source::{Arrivals, QueuedRequest, RequestSource};
use super::{Completion, Request, Sampling, ThreadPool};
use conversations::{Message, Schedule};
pub(crate) use question::{QueuedConversation, QueuedQuestion};

/// Receives the samples of its jobs, on the decoding thread.
pub(crate) trait Client: Send + Sync {
    /// `samples` are decoded from now on.
    fn on_start(&self, _samples: usize) {}

    /// A completion's newest token, with alternatives if requested; returns whether to continue.
    fn on_token(&self, sample: u32, completion: &Completion, likeliest: Vec<(u32, f32)>) -> bool;

    /// A completion that has ended or was cancelled.
    fn on_end(&self, sample: u32, completion: Completion);

    /// `decoded` running samples and the waiting ones have failed.
    fn on_failure(&self, _decoded: usize, _why: &str) {}

    /// Whether the receiver is gone.
    fn is_gone(&self) -> bool {
        false
    }
}

/// A request with its client.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) sampling: Sampling,
    /// As [`QueuedRequest::adapter`].
    pub(crate) adapter: Option<u32>,
    pub(crate) client: Arc<dyn Client>,
    /// Index of its first sample among its client's.
    pub(crate) first_sample: u32,
    /// Completions being decoded for the client, over all threads; its jobs share the counter.
    pub(crate) decoded: Arc<AtomicUsize>,
    /// Place in a conversation.
    pub(crate) place: Option<Place>,
}

impl Job {
    /// A client's whole request, for the base model.
    pub(crate) fn new(request: Request, sampling: Sampling, client: Arc<dyn Client>) -> Self {
        Self {
            request,
            sampling,
            adapter: None,
            client,
            first_sample: 0,
            decoded: Arc::default(),
            place: None,
        }
    }
}

/// A request's place in a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Conversation of the first sample; the other samples' conversations follow.
    pub(crate) conversation: usize,
    /// Index in the conversation.
    pub(crate) number: u32,
    /// Request after whose completion its prompt continues.
    pub(crate) follows: Option<u32>,
    /// Maximum growth of its prompt in tokens; `None`: continuations are prefilled again.
    pub(crate) later_tokens: Option<usize>,
    /// As [`QueuedRequest::shares_prompt`].
    pub(crate) shares_prompt: bool,
}

/// Order of taking jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Fair shares of rows and cached tokens per client; limits waiting jobs.
    Shares { waiting: usize, tokens: usize },
    /// All requests of conversations; `is_paced`: after a fixed number of passes, for deterministic
    /// results. Limits parallel agents.
    Conversations { is_paced: bool, agents: usize },
}

/// Why jobs cannot be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueError {
    /// Too many are waiting.
    Full(usize),
    /// Decoding has ended.
    Closed,
}

/// Connects clients and decoding threads.
pub(crate) struct Queue {
    order: Order,
    state: Mutex<State>,
    has_changed: Condvar,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Used by [`Order::Shares`].
    waiting: VecDeque<Job>,
    /// Threads waiting for a job.
    idle: usize,
    is_closed: bool,
    /// Messages in order of arrival, used by [`Order::Conversations`].
    messages: Vec<(usize, Message)>,
    /// Conversations with possible further requests.
    open: BTreeSet<usize>,
    /// Conversations of agents.
    of_agents: BTreeSet<usize>,
    /// Agents waiting to start.
    unstarted: VecDeque<(usize, oneshot::Sender<()>)>,
}

impl Queue {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            state: Mutex::default(),
            has_changed: Condvar::new(),
            has_failed: AtomicBool::new(false),
        }
    }

    fn is_paced(&self) -> bool {
        matches!(self.order, Order::Conversations { is_paced: true, .. })
    }

    /// Whether [`Self::fail`] was called.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Fails waiting jobs with a message, and accepts no more; running completions end at their
    /// next token.
    pub(crate) fn fail(&self, why: &str) {
        self.has_failed.store(true, Ordering::Relaxed);
        let waiting = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.messages.clear();
            state.unstarted.clear();
            std::mem::take(&mut state.waiting)
        };
        waiting
            .into_iter()
            .for_each(|job| job.client.on_failure(0, why));
        self.has_changed.notify_all();
    }
}

/// Additional work of a decoding thread.
pub(crate) trait Decoding: Sync {
    /// Whether to stop.
    fn is_cancelled(&self) -> bool;

    /// Whether [`Self::run_errand`] has work.
    fn has_errand(&self) -> bool {
        false
    }

    /// Called between passes. Returns whether there was work: other threads may have taken it since
    /// [`Self::has_errand`].
    fn run_errand(&self) -> bool {
        false
    }
}

impl Decoding for ThreadPool {
    fn is_cancelled(&self) -> bool {
        self.check().is_err()
    }
}

/// A decoding thread. Survives out-of-memory attempts: the next attempt restarts what has not
/// ended.
pub(crate) struct Worker<'q> {
    queue: &'q Queue,
    decoding: &'q dyn Decoding,
    /// Jobs by id, unique in this thread.
    running: BTreeMap<u64, Running>,
    next_id: u64,
    /// Jobs to restart.
    again: Vec<u64>,
    schedule: Schedule,
    /// Tokens sampled since the last failure.
    pub(crate) tokens: u64,
}

/// A job with unfinished completions.
struct Running {
    job: Arc<Job>,
    unfinished: BTreeSet<u32>,
    /// The completion that it follows, in the decoder's ids.
    after: Option<(u64, u32)>,
}

impl<'q> Worker<'q> {
    pub(crate) fn new(queue: &'q Queue, decoding: &'q dyn Decoding) -> Self {
        Self {
            queue,
            decoding,
            running: BTreeMap::new(),
            next_id: 0,
            again: Vec::new(),
            schedule: Schedule::default(),
            tokens: 0,
        }
    }

    /// Fails all jobs of this thread.
    pub(crate) fn fail(&mut self, why: &str) {
        for running in std::mem::take(&mut self.running).into_values() {
            let (job, unfinished) = (running.job, running.unfinished.len());
            job.decoded.fetch_sub(unfinished, Ordering::Relaxed);
            job.client.on_failure(unfinished, why);
        }
        self.tokens = 0;
    }

    /// Starts a job; returns its id.
    fn start(&mut self, job: Job) -> u64 {
        let (id, samples) = (self.next_id, job.request.samples);
        self.next_id += 1;
        job.client.on_start(samples);
        job.decoded.fetch_add(samples, Ordering::Relaxed);
        let after = job
            .place
            .and_then(|place| self.schedule.take_followed(&place));
        let running = Running {
            job: Arc::new(job),
            unfinished: (0..samples as u32).collect(),
            after,
        };
        self.running.insert(id, running);
        id
    }

    fn queued(&self, id: u64) -> QueuedRequest {
        let Running { job, after, .. } = &self.running[&id];
        let later_tokens = job.place.and_then(|place| place.later_tokens);
        QueuedRequest {
            id,
            request: job.request.clone(),
            sampling: job.sampling.clone(),
            adapter: job.adapter,
            follows: after.filter(|_| later_tokens.is_some()),
            later_tokens: later_tokens.unwrap_or(0),
            shares_prompt: job.place.is_some_and(|place| place.shares_prompt),
        }
    }
}

impl RequestSource for Worker<'_> {
    fn begin_again(&mut self) {
        self.again = self.running.keys().copied().collect();
        self.schedule.forget_cache();
    }

    fn arrivals(&mut self, rows: usize, is_idle: bool) -> Arrivals {
        let asked = match self.queue.order {
            Order::Shares { tokens, .. } => self.next_shares(rows, tokens, is_idle),
            Order::Conversations { is_paced, agents } => {
                self.next_of_conversations(is_idle, is_paced, agents)
            }
        };
        asked.map_or(Arrivals::Closed, |asked| {
            Arrivals::Requests(asked.into_iter().map(|id| self.queued(id)).collect())
        })
    }

    /// A completion that ended in an earlier attempt is resampled with others of its request.
    fn on_token(
        &mut self,
        id: u64,
        sample: u32,
        completion: &Completion,
        likeliest: Vec<(u32, f32)>,
    ) -> bool {
        let Some(Running {
            job, unfinished, ..
        }) = self.running.get(&id)
        else {
            return false;
        };
        self.tokens += 1;
        let sample_of_client = job.first_sample + sample;
        unfinished.contains(&sample)
            && (job.place.is_none() || !self.queue.has_failed())
            && job.client.on_token(sample_of_client, completion, likeliest)
    }

    fn may_go_on(&self, id: u64, sample: u32, completion: &Completion) -> bool {
        let place = self.running.get(&id).and_then(|running| running.job.place);
        place.is_some_and(|place| self.may_follow(&place, sample, completion.stop))
    }

    fn not_followed(&mut self) -> Vec<(u64, u32)> {
        self.schedule.take_not_followed()
    }

    fn on_end(&mut self, id: u64, sample: u32, completion: Completion) {
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        if !running.unfinished.remove(&sample) {
            return;
        }
        let job = Arc::clone(&running.job);
        if running.unfinished.is_empty() {
            self.running.remove(&id);
        }
        if let Some(place) = &job.place {
            self.think(place, (id, sample));
        }
        // Frees rows before the client gets its answer.
        job.decoded.fetch_sub(1, Ordering::Relaxed);
        job.client.on_end(job.first_sample + sample, completion);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
