//! The queue between clients and the threads that decode. A client that is gone, or does not read, is found out at its
//! next token: its rows are freed.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::metrics::Metrics;
use crate::rollout::{Arrivals, Completion, QueuedRequest, Request, RequestSource, Sampling, StopReason};

/// Tokens that wait for one client at most; a client that is further behind does not read.
pub(super) const CLIENT_TOKENS: usize = 4096;

/// A prompt with its completions to sample.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) sampling: Sampling,
    /// As [`QueuedRequest::adapter`].
    pub(super) adapter: Option<u32>,
    /// In place of sample 0 in the events: a body may have several prompts.
    pub(super) first_index: usize,
    /// Whether each token is told, or only the whole completion.
    pub(super) by_token: bool,
    /// By sample: its stop text has come.
    pub(super) stopped: Arc<[AtomicBool]>,
    pub(super) events: Sender<Event>,
    pub(super) arrived: Instant,
}

/// What a client's answer is made of; `index`: of the completion.
#[derive(Debug)]
pub(super) enum Event {
    Token {
        index: usize,
        token_id: u32,
        log_prob: f32,
    },
    /// With all tokens, where they were not told one by one.
    Ended {
        index: usize,
        completion: Completion,
    },
    /// Of all its completions.
    Failed(String),
}

/// Why a body's prompts are not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
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
    waiting: VecDeque<Job>,
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
    pub(super) fn push(&self, jobs: Vec<Job>) -> Result<(), Refused> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Refused::Closed);
        }
        if !state.waiting.is_empty() && state.waiting.len() + jobs.len() > self.limit {
            // Those whose clients are gone make room.
            state.waiting.retain(|job| !job.events.is_closed());
            if !state.waiting.is_empty() && state.waiting.len() + jobs.len() > self.limit {
                return Err(Refused::Full);
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
    running: HashMap<u64, Running>,
    next: u64,
    /// Tokens that were sampled since the last failure.
    pub(super) tokens: u64,
}

#[derive(Debug)]
struct Running {
    job: Job,
    unfinished: usize,
    has_begun: bool,
    /// Its client is gone.
    is_lost: bool,
}

impl<'q> Worker<'q> {
    pub(super) fn new(queue: &'q Queue) -> Self {
        Self { queue, running: HashMap::new(), next: 0, tokens: 0 }
    }

    /// Tells all clients of this thread that their completions cannot be had.
    pub(super) fn fail(&mut self, message: &str) {
        for (_, running) in self.running.drain() {
            self.queue.metrics.rows.fetch_sub(running.unfinished as u64, Ordering::Relaxed);
            _ = running.job.events.try_send(Event::Failed(message.to_owned()));
        }
        self.tokens = 0;
    }

    fn start(&mut self, job: Job) -> QueuedRequest {
        let id = self.next;
        self.next += 1;
        let metrics = &self.queue.metrics;
        metrics.prompt_tokens.fetch_add(job.request.prompt.len() as u64, Ordering::Relaxed);
        metrics.rows.fetch_add(job.request.samples as u64, Ordering::Relaxed);
        let queued =
            QueuedRequest { id, request: job.request.clone(), sampling: job.sampling.clone(), adapter: job.adapter };
        let unfinished = job.request.samples;
        self.running.insert(id, Running { job, unfinished, has_begun: false, is_lost: false });
        queued
    }
}

impl RequestSource for Worker<'_> {
    fn arrivals(&mut self, rows: usize, is_idle: bool) -> Arrivals {
        let mut state = self.queue.state();
        if is_idle {
            state.idle += 1;
            if state.waiting.is_empty() && !state.is_closed {
                let waited = self.queue.arrived.wait_timeout(state, Duration::from_millis(200));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        } else if state.idle > 0 {
            // A thread that has nothing to do takes it.
            return Arrivals::Requests(Vec::new());
        }
        // Shared among those that have nothing to do.
        let share = if is_idle { state.waiting.len().div_ceil(state.idle) } else { usize::MAX };
        let (mut left, mut taken) = (rows, Vec::new());
        while taken.len() < share
            && let Some(job) = state.waiting.front()
            && (job.request.samples <= left || (is_idle && taken.is_empty()))
            && let Some(job) = state.waiting.pop_front()
        {
            if !job.events.is_closed() {
                left = left.saturating_sub(job.request.samples);
                taken.push(job);
            }
        }
        let is_over = state.is_closed && state.waiting.is_empty() && taken.is_empty();
        state.idle -= usize::from(is_idle);
        drop(state);
        if is_over {
            return Arrivals::Closed;
        }
        Arrivals::Requests(taken.into_iter().map(|job| self.start(job)).collect())
    }

    fn on_token(&mut self, id: u64, sample: u32, completion: &Completion) -> bool {
        let Some(running) = self.running.get_mut(&id) else { return false };
        let (job, metrics) = (&running.job, &self.queue.metrics);
        self.tokens += 1;
        metrics.completion_tokens.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut running.has_begun, true) {
            metrics.first_token.observe(job.arrived.elapsed());
        }
        if job.stopped.get(sample as usize).is_some_and(|stopped| stopped.load(Ordering::Relaxed)) {
            return false;
        }
        if !job.by_token {
            running.is_lost |= job.events.is_closed();
            return !running.is_lost;
        }
        let (Some(&token_id), Some(&log_prob)) = (completion.token_ids.last(), completion.log_probs.last()) else {
            return true;
        };
        let event = Event::Token { index: job.first_index + sample as usize, token_id, log_prob };
        let sent = job.events.try_send(event);
        running.is_lost |= matches!(sent, Err(TrySendError::Full(_) | TrySendError::Closed(_)));
        !running.is_lost
    }

    fn on_end(&mut self, id: u64, sample: u32, mut completion: Completion) {
        let Some(running) = self.running.get_mut(&id) else { return };
        let (job, metrics) = (&running.job, &self.queue.metrics);
        if job.by_token {
            completion = Completion { token_ids: Vec::new(), log_probs: Vec::new(), stop: completion.stop };
        }
        if job.stopped.get(sample as usize).is_some_and(|stopped| stopped.load(Ordering::Relaxed)) {
            completion.stop = StopReason::Stop;
        }
        let event = Event::Ended { index: job.first_index + sample as usize, completion };
        // Who has the answer finds its rows freed.
        metrics.rows.fetch_sub(1, Ordering::Relaxed);
        running.is_lost |= job.events.try_send(event).is_err();
        running.unfinished -= 1;
        if running.unfinished == 0 {
            metrics.request.observe(job.arrived.elapsed());
            metrics.lost_clients.fetch_add(u64::from(running.is_lost), Ordering::Relaxed);
            self.running.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;

    fn job(samples: usize, by_token: bool, room: usize) -> (Job, Receiver<Event>) {
        let (events, receiver) = channel(room);
        let sampling =
            Sampling { temperature: 1.0, max_completion_tokens: 9, stop_ids: Vec::new(), seed: 1, draft_tokens: 0 };
        let job = Job {
            request: Request::new(vec![1, 2], 0, 0, samples),
            sampling,
            adapter: None,
            first_index: 5,
            by_token,
            stopped: (0..samples).map(|_| AtomicBool::new(false)).collect(),
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
        Completion { token_ids: vec![7; tokens], log_probs: vec![-0.5; tokens], stop: StopReason::Length }
    }

    #[test]
    fn a_client_that_does_not_read_or_is_gone_loses_its_rows() {
        let queue = Queue::new(9);
        let mut worker = Worker::new(&queue);
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
    fn the_queue_is_bounded_and_ends_when_it_is_closed() {
        let queue = Queue::new(2);
        let mut worker = Worker::new(&queue);
        let (large, mut told) = job(40, false, 64);
        let (second, other) = job(1, false, 2);
        assert_eq!(queue.push(vec![large, second]), Ok(()));
        let (third, _kept) = job(1, false, 2);
        assert_eq!(queue.push(vec![third]), Err(Refused::Full));
        drop(other);
        let (third, _kept) = job(1, false, 2);
        assert_eq!(queue.push(vec![third]), Ok(()), "a client that is gone made room");
        // More completions than there are rows: alone, and only where nothing else is decoded.
        assert!(taken(&mut worker, 32, false).is_empty());
        assert_eq!(taken(&mut worker, 32, true), [0]);
        assert!(taken(&mut worker, 0, false).is_empty());
        queue.close();
        let (late, _kept) = job(1, false, 2);
        assert_eq!(queue.push(vec![late]), Err(Refused::Closed));
        assert_eq!(taken(&mut worker, 8, false), [1], "what was queued is still decoded");
        assert_eq!(taken(&mut worker, 8, false), [u64::MAX]);
        worker.fail("why");
        assert!(matches!(told.try_recv(), Ok(Event::Failed(why)) if why == "why"));
    }
}
