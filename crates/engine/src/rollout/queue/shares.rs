//! Fair shares. Of several waiting clients, each takes at most half of the free rows. One that
//! waits alone takes all it needs; if it needs more than there are it leaves some, so that the next
//! client never waits for the longest completion.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Job, Order, Queue, QueueError, Running, Worker};

/// A lone client with a large demand leaves one in this many rows.
const LEFT_ONE_IN: usize = 8;

/// Interval of checks for cancellation of an idle thread.
const LOOK: Duration = Duration::from_millis(200);

impl Job {
    /// Splits off its first samples.
    fn split_off(&mut self, samples: usize) -> Self {
        let mut taken = self.clone();
        taken.request.samples = samples;
        self.request.samples -= samples;
        self.request.first_sample += samples as u32;
        self.first_sample += samples as u32;
        taken
    }
}

impl Queue {
    /// Queues all jobs, or none. If nothing else waits, a client may exceed the limit.
    ///
    /// # Errors
    /// [`QueueError`].
    pub(crate) fn push(&self, jobs: Vec<Job>) -> Result<(), QueueError> {
        let Order::Shares { waiting: most, .. } = self.order else {
            return Err(QueueError::Closed);
        };
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(QueueError::Closed);
        }
        if !state.waiting.is_empty() && state.waiting.len() + jobs.len() > most {
            // Remove jobs of clients that are gone.
            state.waiting.retain(|job| !job.client.is_gone());
            if !state.waiting.is_empty() && state.waiting.len() + jobs.len() > most {
                return Err(QueueError::Full(most));
            }
        }
        state.waiting.extend(jobs);
        self.has_changed.notify_all();
        Ok(())
    }

    /// Number of waiting jobs.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Accepts no more; queued jobs are still decoded. Clients of jobs never taken are told.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.messages.clear();
        state.unstarted.clear();
        drop(state);
        self.has_changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }
}

impl Worker<'_> {
    /// Ids of jobs taken for `rows` free rows of a thread with this cache size; `None`: no more
    /// will come.
    pub(super) fn next_shares(
        &mut self,
        rows: usize,
        cached_tokens: usize,
        is_idle: bool,
    ) -> Option<Vec<u64>> {
        let queue = self.queue;
        let mut state = queue.state.lock();
        if is_idle {
            state.idle += 1;
            if state.waiting.is_empty() && !self.decoding.has_errand() && !state.is_closed {
                queue.has_changed.wait_for(&mut state, LOOK);
            }
        } else if state.idle > 0 {
            // An idle thread takes it.
            return Some(Vec::new());
        }
        // Shared among idle threads.
        let share = match is_idle {
            true => state.waiting.len().div_ceil(state.idle),
            false => usize::MAX,
        };
        let (mut left, mut taken) = (rows, Vec::new());
        state.waiting.retain(|job| !job.client.is_gone());
        // While all rows are taken, nothing is counted: this is called before every pass.
        if left > 0 && !state.waiting.is_empty() {
            let mut load = Load::of(self.running.values(), cached_tokens);
            while taken.len() < share
                && let Some(job) = load.next_job(&mut state.waiting, left)
            {
                left -= job.request.samples;
                taken.push(self.start(job));
            }
        }
        let is_over = state.is_closed && state.waiting.is_empty() && taken.is_empty();
        state.idle -= usize::from(is_idle);
        drop(state);
        let has_worked = self.decoding.run_errand();
        (!is_over || has_worked).then_some(taken)
    }
}

/// What a thread decodes, counted once for all waiting jobs.
struct Load {
    /// Completions by client, which is known by the address of its counter.
    of_clients: HashMap<*const AtomicUsize, usize>,
    /// Cached tokens that nothing running may need.
    free_tokens: usize,
}

impl Load {
    fn of<'r>(running: impl Iterator<Item = &'r Running>, cached_tokens: usize) -> Self {
        let mut load = Self {
            of_clients: HashMap::new(),
            free_tokens: cached_tokens,
        };
        running.for_each(|one| load.add(&one.job, one.unfinished.len()));
        load
    }

    fn add(&mut self, job: &Job, samples: usize) {
        *self
            .of_clients
            .entry(Arc::as_ptr(&job.decoded))
            .or_default() += samples;
        let tokens = job.request.prompt.len() + samples * job.sampling.max_completion_tokens;
        self.free_tokens = self.free_tokens.saturating_sub(tokens);
    }

    /// The next job, or part of one, for `rows` free rows: of the client with the fewest
    /// completions in decoding. None where the oldest lacks cached tokens, so that smaller ones do
    /// not keep them from it.
    fn next_job(&mut self, waiting: &mut VecDeque<Job>, rows: usize) -> Option<Job> {
        let decoded = |job: &Job| job.decoded.load(Ordering::Relaxed);
        let first = waiting.front().filter(|first| self.places(first) > 0)?;
        let is_its = |job: &Job| Arc::ptr_eq(&job.decoded, &first.decoded);
        let is_alone = waiting.iter().all(is_its);
        let alone = is_alone.then(|| waiting.iter().map(|job| job.request.samples).sum());
        let fits = |(at, job): (usize, &Job)| {
            let samples = self.most_samples(job, rows, alone);
            (samples > 0).then(|| (decoded(job), at, samples))
        };
        let (_, at, samples) = waiting.iter().enumerate().filter_map(fits).min()?;
        let job = waiting.get_mut(at)?;
        let job = match samples < job.request.samples {
            true => job.split_off(samples),
            false => waiting.remove(at)?,
        };
        self.add(&job, samples);
        Some(job)
    }

    /// Completions of such jobs that the free tokens allow.
    fn places(&self, job: &Job) -> usize {
        let (samples, new) = (job.request.samples, job.sampling.max_completion_tokens);
        self.free_tokens * samples / (job.request.prompt.len() + samples * new).max(1)
    }

    /// Completions to take of a job. `alone`: the client's waiting completions, if no other waits;
    /// otherwise at most half of the free rows and cached tokens.
    fn most_samples(&self, job: &Job, rows: usize, alone: Option<usize>) -> usize {
        let of_client = self.of_clients.get(&Arc::as_ptr(&job.decoded));
        let of_client = of_client.copied().unwrap_or(0);
        let share = |free: usize| {
            let all = free + of_client;
            let most = match alone {
                Some(wanted) if wanted <= free => all,
                Some(_) => all - (all / LEFT_ONE_IN).max(1).min(all),
                None => all / 2,
            };
            most.max(1).saturating_sub(of_client).min(free)
        };
        share(rows)
            .min(share(self.places(job)))
            .min(job.request.samples)
    }
}
