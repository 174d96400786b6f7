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
use crate::rollout::{
    Arrivals, Completion, QueueSize, QueuedRequest, Request, RequestSource, Sampling, StopReason,
};
use crate::update::ReadToken;

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

/// A prompt whose tokens' log-probs are wanted.
#[derive(Debug)]
pub(super) struct ReadPrompt {
    /// Among those of its body.
    pub(super) index: usize,
    pub(super) token_ids: Vec<u32>,
    /// Likeliest tokens that are told in each token's place.
    pub(super) likeliest: usize,
    /// As [`QueuedRequest::adapter`].
    pub(super) adapter: Option<u32>,
    pub(super) events: Sender<Event>,
}

/// Reads a prompt's tokens after the first.
pub(super) type PromptReader<'r> = &'r dyn Fn(&ReadPrompt) -> Result<Vec<ReadToken>, String>;

/// A part of a client's answer; `index`: of the completion.
#[derive(Debug)]
pub(super) enum Event {
    /// A prompt's tokens after the first; `prompt`: its index.
    PromptRead {
        prompt: usize,
        tokens: Vec<ReadToken>,
    },
    Token {
        index: usize,
        token_id: u32,
        log_prob: f32,
        /// The likeliest in its place, where they were asked for.
        alternatives: Vec<(u32, f32)>,
    },
    /// With all tokens, where they were not told one by one.
    Ended {
        index: usize,
        completion: Completion,
    },
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
    pub(super) limit: usize,
    pub(super) metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<DecodeRequest>,
    /// Read between two passes, one at a time.
    prompts: VecDeque<ReadPrompt>,
    /// Threads that wait for a request.
    idle: usize,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            limit,
            metrics: Metrics::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues all of a body's prompts, or none. One body may have more than the limit, where nothing else waits.
    pub(super) fn push(
        &self,
        jobs: Vec<DecodeRequest>,
        prompts: Vec<ReadPrompt>,
    ) -> Result<(), QueueError> {
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
        state.prompts.extend(prompts);
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
            state.prompts.clear();
            std::mem::take(&mut state.waiting)
        };
        waiting
            .into_iter()
            .for_each(|job| _ = job.events.try_send(Event::Failed(message.to_owned())));
        self.arrived.notify_all();
    }
}

/// A thread that decodes from the queue.
pub(super) struct Worker<'q> {
    queue: &'q Queue,
    reader: PromptReader<'q>,
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
    pub(super) fn new(queue: &'q Queue, size: QueueSize, reader: PromptReader<'q>) -> Self {
        Self {
            queue,
            reader,
            size,
            running: HashMap::new(),
            next: 0,
            tokens: 0,
        }
    }

    /// Tells all clients of this thread that their completions cannot be had.
    pub(super) fn fail(&mut self, message: &str) {
        for (_, running) in self.running.drain() {
            self.queue
                .metrics
                .rows
                .fetch_sub(running.unfinished as u64, Ordering::Relaxed);
            running
                .job
                .body
                .running
                .fetch_sub(running.unfinished, Ordering::Relaxed);
            _ = running
                .job
                .events
                .try_send(Event::Failed(message.to_owned()));
        }
        self.tokens = 0;
    }

    fn read_prompt(&self, prompt: &ReadPrompt) {
        let event = match (self.reader)(prompt) {
            Ok(tokens) => Event::PromptRead {
                prompt: prompt.index,
                tokens,
            },
            Err(why) => Event::Failed(why),
        };
        // Its client may be gone.
        _ = prompt.events.try_send(event);
    }

    /// The next job that `rows` free rows have room for, or a part of one: first that of the body of which the fewest
    /// completions are decoded.
    fn next_job(
        &self,
        waiting: &mut VecDeque<DecodeRequest>,
        rows: usize,
    ) -> Option<DecodeRequest> {
        let running = |job: &DecodeRequest| job.body.running.load(Ordering::Relaxed);
        let first = waiting.front()?;
        let is_alone = waiting
            .iter()
            .all(|job| Arc::ptr_eq(&job.body, &first.body));
        let alone = is_alone.then(|| waiting.iter().map(|job| job.request.samples).sum());
        let fits = |(at, job): (usize, &DecodeRequest)| {
            let samples = self.most_samples(job, rows, alone);
            (samples > 0).then(|| (running(job), at, samples))
        };
        let (_, at, samples) = waiting.iter().enumerate().filter_map(fits).min()?;
        let job = waiting.get_mut(at)?;
        if samples < job.request.samples {
            Some(job.split_off(samples))
        } else {
            waiting.remove(at)
        }
    }

    /// How many completions of a job are taken. `alone`: those that its body waits for, where no other waits; else the
    /// body has half at most of the rows, and of the tokens in the cache, that no other has.
    fn most_samples(&self, job: &DecodeRequest, rows: usize, alone: Option<usize>) -> usize {
        let (mut own, mut reserved) = (0, 0);
        for running in self.running.values() {
            reserved += running.unfinished * running.job.sampling.max_completion_tokens;
            own += if Arc::ptr_eq(&running.job.body, &job.body) {
                running.unfinished
            } else {
                0
            };
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
        metrics
            .prompt_tokens
            .fetch_add(job.request.prompt.len() as u64, Ordering::Relaxed);
        metrics
            .rows
            .fetch_add(job.request.samples as u64, Ordering::Relaxed);
        job.body
            .running
            .fetch_add(job.request.samples, Ordering::Relaxed);
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
            ActiveRequest {
                job,
                unfinished,
                has_begun: false,
                alternatives: HashMap::new(),
                is_lost: false,
            },
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
            if state.waiting.is_empty() && state.prompts.is_empty() && !state.is_closed {
                let waited = queue
                    .arrived
                    .wait_timeout(state, Duration::from_millis(200));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        } else if state.idle > 0 {
            // A thread that has nothing to do takes it.
            return Arrivals::Requests(Vec::new());
        }
        // Shared among those that have nothing to do.
        let share = if is_idle {
            state.waiting.len().div_ceil(state.idle)
        } else {
            usize::MAX
        };
        let (mut left, mut taken) = (rows, Vec::new());
        state.waiting.retain(|job| !job.events.is_closed());
        state.prompts.retain(|prompt| !prompt.events.is_closed());
        let prompt = state.prompts.pop_front();
        while taken.len() < share
            && let Some(job) = self.next_job(&mut state.waiting, left)
        {
            left -= job.request.samples;
            taken.push(self.start(job));
        }
        let is_over =
            state.is_closed && state.waiting.is_empty() && taken.is_empty() && prompt.is_none();
        state.idle -= usize::from(is_idle);
        drop(state);
        prompt.iter().for_each(|prompt| self.read_prompt(prompt));
        if is_over {
            Arrivals::Closed
        } else {
            Arrivals::Requests(taken)
        }
    }

    fn on_token(&mut self, id: u64, sample: u32, completion: &Completion) -> bool {
        let Some(running) = self.running.get_mut(&id) else {
            return false;
        };
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
        let (Some(&token_id), Some(&log_prob)) =
            (completion.token_ids.last(), completion.log_probs.last())
        else {
            return true;
        };
        let alternatives = running.alternatives.remove(&sample).unwrap_or_default();
        let event = Event::Token {
            index: job.first_index + sample as usize,
            token_id,
            log_prob,
            alternatives,
        };
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
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let (job, metrics) = (&running.job, &self.queue.metrics);
        if job.by_token {
            completion = Completion::new(Vec::new(), Vec::new(), completion.stop);
        }
        if job.is_stopped(sample) {
            completion.stop = StopReason::Stop;
        }
        let event = Event::Ended {
            index: job.first_index + sample as usize,
            completion,
        };
        // Rows are free by the time the client has its answer.
        metrics.rows.fetch_sub(1, Ordering::Relaxed);
        job.body.running.fetch_sub(1, Ordering::Relaxed);
        running.is_lost |= job.events.try_send(event).is_err();
        running.unfinished -= 1;
        if running.unfinished == 0 {
            metrics.request.observe(job.arrived.elapsed());
            let is_new = running.is_lost && !job.body.is_lost.swap(true, Ordering::Relaxed);
            metrics
                .lost_clients
                .fetch_add(u64::from(is_new), Ordering::Relaxed);
            self.running.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
