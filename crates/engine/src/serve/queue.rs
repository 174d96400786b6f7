//! The queue between clients and the threads that decode. A client that is gone, or does not read, is found out at its
//! next token: its rows are freed. Where several bodies wait, each takes half at most of the rows that are free. One that
//! waits alone takes all that it needs; one that needs more than there are leaves some, so that the next client never
//! waits for the longest.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::metrics::Metrics;
use crate::rollout::{Arrivals, Completion, QueueSize, QueuedRequest, Request, RequestSource, Sampling, StopReason};

/// A body that waits alone and fills the rows again and again leaves one row in so many to the next client.
const LEFT_ONE_IN: usize = 8;

/// Tokens that wait for one client at most; a client that is further behind does not read.
pub(super) const CLIENT_TOKENS: usize = 4096;

/// State shared by the requests of one body.
#[derive(Debug, Default)]
pub(super) struct BodyState {
    /// Its completions that are decoded now, in all threads.
    running: AtomicUsize,
    /// Its client is gone, and was counted.
    is_lost: AtomicBool,
}

/// A prompt with its completions to sample.
#[derive(Clone, Debug)]
pub(super) struct DecodeRequest {
    pub(super) body: Arc<BodyState>,
    pub(super) request: Request,
    pub(super) sampling: Sampling,
    /// As [`QueuedRequest::adapter`].
    pub(super) adapter: Option<u32>,
    /// In place of sample 0 in the events: a body may have several prompts.
    pub(super) first_index: usize,
    /// Whether each token is told, or only the whole completion.
    pub(super) by_token: bool,
    /// By sample, from `first_stopped` on: its stop text has come.
    pub(super) stopped: Arc<[AtomicBool]>,
    pub(super) first_stopped: usize,
    pub(super) events: Sender<Event>,
    pub(super) arrived: Instant,
}

impl DecodeRequest {
    /// Takes its first samples off.
    fn split_off(&mut self, samples: usize) -> Self {
        let mut taken = self.clone();
        taken.request.samples = samples;
        self.request.samples -= samples;
        self.request.first_sample += samples as u32;
        self.first_index += samples;
        self.first_stopped += samples;
        taken
    }

    fn is_stopped(&self, sample: u32) -> bool {
        let flag = self.stopped.get(self.first_stopped + sample as usize);
        flag.is_some_and(|stopped| stopped.load(Ordering::Relaxed))
    }
}

/// A part of a client's answer; `index`: of the completion.
#[derive(Debug)]
pub(super) enum Event {
    Token {
        index: usize,
        token_id: u32,
        log_prob: f32,
        /// The likeliest in its place, where they were asked for.
        alternatives: Vec<(u32, f32)>,
    },
    /// With all tokens, where they were not told one by one.
    Ended { index: usize, completion: Completion },
    /// All its completions failed.
    Failed(String),
}

/// Why a body's prompts cannot be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueError {
    Full,
    /// The server is being stopped.
    Closed,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    /// Requests that wait at most.
    limit: usize,
    pub(super) metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<DecodeRequest>,
    /// Threads that wait for a request.
    idle: usize,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), limit, metrics: Metrics::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues all of a body's prompts, or none. One body may have more than the limit, where nothing else waits.
    pub(super) fn push(&self, jobs: Vec<DecodeRequest>) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(QueueError::Closed);
        }
        if !state.waiting.is_empty() && state.waiting.len() + jobs.len() > self.limit {
            // Those whose clients are gone make room.
            state.waiting.retain(|job| !job.events.is_closed());
            if !state.waiting.is_empty() && state.waiting.len() + jobs.len() > self.limit {
                return Err(QueueError::Full);
            }
        }
        state.waiting.extend(jobs);
        drop(state);
        self.arrived.notify_all();
        Ok(())
    }

    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Takes no more; what is queued is still decoded.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.arrived.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Ends what waits, with a message, and takes no more.
    pub(super) fn fail(&self, message: &str) {
        let waiting = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|job| _ = job.events.try_send(Event::Failed(message.to_owned())));
        self.arrived.notify_all();
    }
}

/// A thread that decodes from the queue.
#[derive(Debug)]
pub(super) struct Worker<'q> {
    queue: &'q Queue,
    size: QueueSize,
    running: HashMap<u64, ActiveRequest>,
    next: u64,
    /// Tokens that were sampled since the last failure.
    pub(super) tokens: u64,
}

#[derive(Debug)]
struct ActiveRequest {
    job: DecodeRequest,
    unfinished: usize,
    has_begun: bool,
    /// Alternatives to the next token, by sample.
    alternatives: HashMap<u32, Vec<(u32, f32)>>,
    /// Its client is gone.
    is_lost: bool,
}

impl<'q> Worker<'q> {
    pub(super) fn new(queue: &'q Queue, size: QueueSize) -> Self {
        Self { queue, size, running: HashMap::new(), next: 0, tokens: 0 }
    }

    /// Tells all clients of this thread that their completions cannot be had.
    pub(super) fn fail(&mut self, message: &str) {
        for (_, running) in self.running.drain() {
            self.queue.metrics.rows.fetch_sub(running.unfinished as u64, Ordering::Relaxed);
            running.job.body.running.fetch_sub(running.unfinished, Ordering::Relaxed);
            _ = running.job.events.try_send(Event::Failed(message.to_owned()));
        }
        self.tokens = 0;
    }

    /// The next job that `rows` free rows have room for, or a part of one: first that of the body of which the fewest
    /// completions are decoded.
    fn next_job(&self, waiting: &mut VecDeque<DecodeRequest>, rows: usize) -> Option<DecodeRequest> {
        let running = |job: &DecodeRequest| job.body.running.load(Ordering::Relaxed);
        let first = waiting.front()?;
        let is_alone = waiting.iter().all(|job| Arc::ptr_eq(&job.body, &first.body));
        let alone = is_alone.then(|| waiting.iter().map(|job| job.request.samples).sum());
        let fits = |(at, job): (usize, &DecodeRequest)| {
            let samples = self.most_samples(job, rows, alone);
            (samples > 0).then(|| (running(job), at, samples))
        };
        let (_, at, samples) = waiting.iter().enumerate().filter_map(fits).min()?;
        let job = waiting.get_mut(at)?;
        if samples < job.request.samples { Some(job.split_off(samples)) } else { waiting.remove(at) }
    }

    /// How many completions of a job are taken. `alone`: those that its body waits for, where no other waits; else the
    /// body has half at most of the rows, and of the tokens in the cache, that no other has.
    fn most_samples(&self, job: &DecodeRequest, rows: usize, alone: Option<usize>) -> usize {
        let (mut own, mut reserved) = (0, 0);
        for running in self.running.values() {
            reserved += running.unfinished * running.job.sampling.max_completion_tokens;
            own += if Arc::ptr_eq(&running.job.body, &job.body) { running.unfinished } else { 0 };
        }
        let limit = job.sampling.max_completion_tokens.max(1);
        let places = self.size.completion_tokens.saturating_sub(reserved) / limit;
        let share = |free: usize| {
            let all = free + own;
            let most = match alone {
                Some(wanted) if wanted <= free => all,
                Some(_) => all - (all / LEFT_ONE_IN).max(1).min(all),
                None => all / 2,
            };
            most.max(1).saturating_sub(own).min(free)
        };
        share(rows).min(share(places)).min(job.request.samples)
    }

    fn start(&mut self, job: DecodeRequest) -> QueuedRequest {
        let id = self.next;
        self.next += 1;
        let metrics = &self.queue.metrics;
        metrics.prompt_tokens.fetch_add(job.request.prompt.len() as u64, Ordering::Relaxed);
        metrics.rows.fetch_add(job.request.samples as u64, Ordering::Relaxed);
        job.body.running.fetch_add(job.request.samples, Ordering::Relaxed);
        let queued = QueuedRequest {
            id,
            request: job.request.clone(),
            sampling: job.sampling.clone(),
            adapter: job.adapter,
            conversation: None,
        };
        let unfinished = job.request.samples;
        self.running.insert(
            id,
            ActiveRequest { job, unfinished, has_begun: false, alternatives: HashMap::new(), is_lost: false },
        );
        queued
    }
}

impl RequestSource for Worker<'_> {
    fn arrivals(&mut self, rows: usize, is_idle: bool) -> Arrivals {
        let queue = self.queue;
        let mut state = queue.state();
        if is_idle {
            state.idle += 1;
            if state.waiting.is_empty() && !state.is_closed {
                let waited = queue.arrived.wait_timeout(state, Duration::from_millis(200));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        } else if state.idle > 0 {
            // A thread that has nothing to do takes it.
            return Arrivals::Requests(Vec::new());
        }
        // Shared among those that have nothing to do.
        let share = if is_idle { state.waiting.len().div_ceil(state.idle) } else { usize::MAX };
        let (mut left, mut taken) = (rows, Vec::new());
        state.waiting.retain(|job| !job.events.is_closed());
        while taken.len() < share
            && let Some(job) = self.next_job(&mut state.waiting, left)
        {
            left -= job.request.samples;
            taken.push(self.start(job));
        }
        let is_over = state.is_closed && state.waiting.is_empty() && taken.is_empty();
        state.idle -= usize::from(is_idle);
        drop(state);
        if is_over { Arrivals::Closed } else { Arrivals::Requests(taken) }
    }

    fn on_token(&mut self, id: u64, sample: u32, completion: &Completion) -> bool {
        let Some(running) = self.running.get_mut(&id) else { return false };
        let (job, metrics) = (&running.job, &self.queue.metrics);
        self.tokens += 1;
        metrics.completion_tokens.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut running.has_begun, true) {
            metrics.first_token.observe(job.arrived.elapsed());
        }
        if job.is_stopped(sample) {
            return false;
        }
        if !job.by_token {
            running.is_lost |= job.events.is_closed();
            return !running.is_lost;
        }
        let (Some(&token_id), Some(&log_prob)) = (completion.token_ids.last(), completion.log_probs.last()) else {
            return true;
        };
        let alternatives = running.alternatives.remove(&sample).unwrap_or_default();
        let event = Event::Token { index: job.first_index + sample as usize, token_id, log_prob, alternatives };
        let sent = job.events.try_send(event);
        running.is_lost |= matches!(sent, Err(TrySendError::Full(_) | TrySendError::Closed(_)));
        !running.is_lost
    }

    fn on_alternatives(&mut self, id: u64, sample: u32, alternatives: Vec<(u32, f32)>) {
        if let Some(running) = self.running.get_mut(&id) {
            running.alternatives.insert(sample, alternatives);
        }
    }

    fn on_end(&mut self, id: u64, sample: u32, mut completion: Completion) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let (job, metrics) = (&running.job, &self.queue.metrics);
        if job.by_token {
            completion = Completion::new(Vec::new(), Vec::new(), completion.stop);
        }
        if job.is_stopped(sample) {
            completion.stop = StopReason::Stop;
        }
        let event = Event::Ended { index: job.first_index + sample as usize, completion };
        // Rows are free by the time the client has its answer.
        metrics.rows.fetch_sub(1, Ordering::Relaxed);
        job.body.running.fetch_sub(1, Ordering::Relaxed);
        running.is_lost |= job.events.try_send(event).is_err();
        running.unfinished -= 1;
        if running.unfinished == 0 {
            metrics.request.observe(job.arrived.elapsed());
            let is_new = running.is_lost && !job.body.is_lost.swap(true, Ordering::Relaxed);
            metrics.lost_clients.fetch_add(u64::from(is_new), Ordering::Relaxed);
            self.running.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;

    const SIZE: QueueSize = QueueSize { rows: 32, completion_tokens: 9 * 32, prompt_tokens: 100 };

    fn job(samples: usize, by_token: bool, room: usize) -> (DecodeRequest, Receiver<Event>) {
        let (events, receiver) = channel(room);
        let sampling = Sampling { draft_tokens: 0, ..Sampling::plain(1.0, 9, 1) };
        let job = DecodeRequest {
            body: Arc::default(),
            request: Request::new(vec![1, 2], 0, 0, samples),
            sampling,
            adapter: None,
            first_index: 5,
            by_token,
            stopped: (0..samples).map(|_| AtomicBool::new(false)).collect(),
            first_stopped: 0,
            events,
            arrived: Instant::now(),
        };
        (job, receiver)
    }

    fn taken(worker: &mut Worker<'_>, rows: usize, is_idle: bool) -> Vec<u64> {
        match worker.arrivals(rows, is_idle) {
            Arrivals::Requests(queued) => queued.iter().map(|queued| queued.id).collect(),
            Arrivals::Closed => vec![u64::MAX],
        }
    }

    fn completion(tokens: usize) -> Completion {
        Completion::new(vec![7; tokens], vec![-0.5; tokens], StopReason::Length)
    }

    #[test]
    fn a_client_that_does_not_read_or_is_gone_loses_its_rows() {
        let queue = Queue::new(9);
        let mut worker = Worker::new(&queue, SIZE);
        let (slow, mut unread) = job(1, true, 2);
        let (gone, receiver) = job(1, false, 2);
        let (stopped, _kept) = job(1, true, 2);
        let flag = Arc::clone(&stopped.stopped);
        assert_eq!(queue.push(vec![slow, gone, stopped]), Ok(()));
        assert_eq!(taken(&mut worker, 32, true), [0, 1, 2]);
        assert!(worker.on_token(0, 0, &completion(1)) && worker.on_token(0, 0, &completion(2)));
        assert!(!worker.on_token(0, 0, &completion(3)), "two tokens wait already");
        assert!(worker.on_token(1, 0, &completion(1)));
        drop(receiver);
        assert!(!worker.on_token(1, 0, &completion(2)), "nobody waits for it");
        assert!(worker.on_token(2, 0, &completion(1)));
        flag[0].store(true, Ordering::Relaxed);
        assert!(!worker.on_token(2, 0, &completion(2)), "its stop text has come");
        (0..3).for_each(|id| worker.on_end(id, 0, completion(3)));
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((count(&queue.metrics.lost_clients), count(&queue.metrics.rows)), (2, 0));
        assert!(matches!(unread.try_recv(), Ok(Event::Token { index: 5, token_id: 7, .. })));
    }

    #[test]
    fn a_body_that_waits_alone_takes_what_it_needs_and_leaves_some_where_that_is_too_much() {
        let check = |samples: usize, limit: usize, expected: (usize, usize)| {
            let queue = Queue::new(99);
            let mut worker = Worker::new(&queue, SIZE);
            let (mut alone, _alone) = job(samples, false, 99);
            alone.sampling.max_completion_tokens = limit;
            assert_eq!(queue.push(vec![alone]), Ok(()));
            assert_eq!(taken(&mut worker, 32, true), [0], "{samples}");
            let rows = worker.running[&0].unfinished;
            let (next, _next) = job(1, false, 99);
            assert_eq!(queue.push(vec![next]), Ok(()));
            let next = taken(&mut worker, 32 - rows, false);
            assert_eq!((rows, next.len()), expected, "{samples} of {limit} tokens");
        };
        check(8, 9, (8, 1));
        check(32, 9, (32, 0));
        check(128, 9, (28, 1));
        // The KV cache has room for 16, then for 3.
        check(16, 18, (16, 0));
        check(32, 18, (14, 1));
        check(9, 90, (2, 1));
    }

    #[test]
    fn a_body_of_many_completions_leaves_rows_to_others() {
        let queue = Queue::new(99);
        let mut worker = Worker::new(&queue, SIZE);
        let (first, _first) = job(16, false, 99);
        let (mut more, _more) = job(16, false, 99);
        more.body = Arc::clone(&first.body);
        (more.request.first_sample, more.first_index) = (16, 21);
        let (second, mut told) = job(12, false, 99);
        assert_eq!(queue.push(vec![first, more, second]), Ok(()));
        // The later client is served first, because none of its rows is decoded, and there is room.
        assert_eq!(taken(&mut worker, 32, true), [0, 1]);
        let (third, _third) = job(1, false, 99);
        assert_eq!(queue.push(vec![third]), Ok(()));
        assert_eq!(taken(&mut worker, 8, false), [2]);
        let rows = |id: u64, worker: &Worker<'_>| worker.running[&id].unfinished;
        assert_eq!((rows(0, &worker), rows(1, &worker), rows(2, &worker)), (16, 8, 1));
        // The rest of a body has the numbers after those that were taken.
        (0..8).for_each(|sample| worker.on_end(1, sample, completion(1)));
        assert_eq!(taken(&mut worker, 15, false), [3, 4]);
        let rest = &worker.running[&3].job;
        assert_eq!((rest.request.first_sample, rest.request.samples, rest.first_index), (8, 4, 13));
        worker.on_end(3, 3, completion(1));
        let index = |event| if let Event::Ended { index, .. } = event { index } else { 0 };
        let told: Vec<usize> = std::iter::from_fn(|| told.try_recv().ok()).map(index).collect();
        assert_eq!(told, [5, 6, 7, 8, 9, 10, 11, 12, 16]);
        // Long completions leave tokens of the cache.
        let (mut long, _long) = job(16, false, 99);
        long.sampling.max_completion_tokens = 90;
        assert_eq!(queue.push(vec![long]), Ok(()));
        let mut idle = Worker::new(&queue, SIZE);
        assert_eq!(taken(&mut idle, 32, true), [0, 1]);
        assert_eq!((rows(0, &idle), rows(1, &idle)), (1, 8));
    }

    #[test]
    fn the_queue_is_bounded_and_ends_when_it_is_closed() {
        let queue = Queue::new(2);
        let mut worker = Worker::new(&queue, SIZE);
        let (large, mut told) = job(40, false, 64);
        let (second, other) = job(1, false, 2);
        assert_eq!(queue.push(vec![large, second]), Ok(()));
        let (third, _kept) = job(1, false, 2);
        assert_eq!(queue.push(vec![third]), Err(QueueError::Full));
        drop(other);
        let (third, _kept) = job(1, false, 2);
        assert_eq!(queue.push(vec![third]), Ok(()), "a client that is gone made room");
        assert!(taken(&mut worker, 0, false).is_empty());
        queue.close();
        let (late, _kept) = job(1, false, 2);
        assert_eq!(queue.push(vec![late]), Err(QueueError::Closed));
        assert_eq!(
            taken(&mut worker, 32, false),
            [0, 1, 2],
            "what was queued is still decoded, and no body takes all rows"
        );
        assert_eq!(queue.metrics.rows.load(Ordering::Relaxed), 16 + 1 + 12);
        (0..16).for_each(|_| worker.on_end(0, 0, completion(1)));
        assert_eq!(taken(&mut worker, 19, false), [3]);
        assert_eq!(taken(&mut worker, 7, false), [u64::MAX]);
        worker.fail("why");
        let last = std::iter::from_fn(|| told.try_recv().ok()).last();
        assert!(matches!(last, Some(Event::Failed(why)) if why == "why"));
    }
}
