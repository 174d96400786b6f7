//! The queue: what is asked for waits here until a thread that decodes takes it; who asks learns of its tokens. What is
//! taken, and when, is decided here alone, by the queue's [`Order`].

mod conversations; // of conversations: each goes on after its answers
mod kept_answers; // answers on disk, for the next attempt at an interrupted eval
mod question; // what the conversations about a question ask for
mod shares; // of clients: each has its share of the rows

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::source::{Arrivals, QueuedRequest, RequestSource};
use super::{Completion, Request, Sampling, ThreadPool};
use conversations::{Message, Schedule};
pub use kept_answers::KeptAnswers;
pub(crate) use question::{QueuedConversation, QueuedQuestion};

/// Who asks: learns of the samples of its jobs, on the thread that decodes.
pub(crate) trait Client: Send + Sync {
    /// So many of its samples are decoded from now on.
    fn on_start(&self, _samples: usize) {}

    /// Learns of a completion's newest token; whether it wants more. `likeliest`: the likeliest tokens in its place with
    /// their log-probs, where the request asks for them.
    fn on_token(&self, sample: u32, completion: &Completion, likeliest: Vec<(u32, f32)>) -> bool;

    /// Takes a completion that has ended, or of which it wanted no more.
    fn on_end(&self, sample: u32, completion: Completion);

    /// So many of its samples that are decoded, and those that wait, do not end.
    fn on_failure(&self, _decoded: usize, _why: &str) {}

    /// Whether nobody reads what it learns.
    fn is_gone(&self) -> bool {
        false
    }
}

/// A request with who asks.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) sampling: Sampling,
    /// As [`QueuedRequest::adapter`].
    pub(crate) adapter: Option<u32>,
    pub(crate) client: Arc<dyn Client>,
    /// The number of its first sample among those that its client asked for.
    pub(crate) first_sample: u32,
    /// How many completions of all jobs that share the rows are decoded now, in all threads.
    pub(crate) decoded: Arc<AtomicUsize>,
    /// Where it is asked in a conversation.
    pub(crate) place: Option<Place>,
}

impl Job {
    /// All that a client asks for, of the base alone.
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
    /// That of the first sample; the conversations of the others follow.
    pub(crate) conversation: usize,
    /// Among the requests of the conversation, from 0.
    pub(crate) number: u32,
    /// The request of the conversation after whose completion its prompt goes on.
    pub(crate) follows: Option<u32>,
    /// The most tokens that its prompt may grow by; `None`: what follows is prefilled anew.
    pub(crate) later_tokens: Option<usize>,
}

/// What is taken next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Each client has its share of the rows, and of the tokens in the cache of each thread, so many; at most so many jobs
    /// wait.
    Shares {
        waiting: usize,
        completion_tokens: usize,
    },
    /// All that conversations ask for; `is_paced`: after a fixed number of passes, so that no clock has a part in results.
    /// At most so many agents hold conversations at the same time.
    Conversations { is_paced: bool, agents: usize },
}

/// Why jobs cannot be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueError {
    /// As many wait as may.
    Full(usize),
    /// Nothing more is decoded.
    Closed,
}

/// Jobs between those who ask and the threads that decode.
pub(crate) struct Queue {
    order: Order,
    state: Mutex<State>,
    has_changed: Condvar,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// In [`Order::Shares`].
    waiting: VecDeque<Job>,
    /// Threads that wait for a job.
    idle: usize,
    is_closed: bool,
    /// In [`Order::Conversations`]: what has come of each, in the order in which it came.
    messages: Vec<(usize, Message)>,
    /// Conversations that may ask for more.
    open: BTreeSet<usize>,
    /// Conversations that agents hold.
    of_agents: BTreeSet<usize>,
    /// Those whose agents wait for a start.
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_paced(&self) -> bool {
        matches!(self.order, Order::Conversations { is_paced: true, .. })
    }

    /// Whether [`Self::fail`] was called.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Ends what waits, with a sentence, and takes no more; what conversations have decoded now ends at its next token.
    pub(crate) fn fail(&self, why: &str) {
        self.has_failed.store(true, Ordering::Relaxed);
        let waiting = {
            let mut state = self.state();
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

/// What a thread that decodes does besides.
pub(crate) trait Decoding: Sync {
    /// Whether it is to stop.
    fn is_cancelled(&self) -> bool;

    /// Whether [`Self::run_errand`] has something to do.
    fn has_errand(&self) -> bool {
        false
    }

    /// Called between two passes.
    fn run_errand(&self) {}
}

impl Decoding for ThreadPool {
    fn is_cancelled(&self) -> bool {
        self.check().is_err()
    }
}

/// A thread that decodes from a queue. It outlives an attempt to decode that runs out of memory: the next one asks for what
/// has not ended.
pub(crate) struct Worker<'q> {
    queue: &'q Queue,
    decoding: &'q dyn Decoding,
    /// By id, which no other request of this thread has.
    running: BTreeMap<u64, Running>,
    next_id: u64,
    /// Asked for again.
    again: Vec<u64>,
    schedule: Schedule,
    /// Tokens that were sampled since the last failure.
    pub(crate) tokens: u64,
}

/// A job whose completions have not all ended.
struct Running {
    job: Arc<Job>,
    unfinished: BTreeSet<u32>,
    /// The completion that it follows, as the decoder knows it.
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

    /// Tells all clients of this thread that their completions cannot be had.
    pub(crate) fn fail(&mut self, why: &str) {
        for running in std::mem::take(&mut self.running).into_values() {
            let (job, unfinished) = (running.job, running.unfinished.len());
            job.decoded.fetch_sub(unfinished, Ordering::Relaxed);
            job.client.on_failure(unfinished, why);
        }
        self.tokens = 0;
    }

    /// Begins a job; returns its id.
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
            Order::Shares {
                completion_tokens, ..
            } => self.next_shares(rows, completion_tokens, is_idle),
            Order::Conversations { is_paced, agents } => {
                self.next_of_conversations(is_idle, is_paced, agents)
            }
        };
        asked.map_or(Arrivals::Closed, |asked| {
            Arrivals::Requests(asked.into_iter().map(|id| self.queued(id)).collect())
        })
    }

    /// A completion that has ended in an earlier attempt is asked for beside others of its request.
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
        // Rows are free by the time the client has its answer.
        job.decoded.fetch_sub(1, Ordering::Relaxed);
        job.client.on_end(job.first_sample + sample, completion);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
