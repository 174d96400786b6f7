//! The queue's client of a request. If it is gone or does not read, the next token frees its rows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::metrics::Metrics;
use crate::constraint::{Constraint, Vocabulary};
use crate::generation::{Event, PromptToSample, ReadAnswer, Reading};
use crate::rollout::{Client, Completion, Job, StopReason};

pub(super) struct BodyClient {
    prompt_tokens: u64,
    first_index: usize,
    by_token: bool,
    stopped: Arc<[AtomicBool]>,
    events: tokio::sync::mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    arrived: Instant,
    unfinished: AtomicUsize,
    has_begun: AtomicBool,
    is_lost: AtomicBool,
    /// Whether its loss was counted.
    is_counted: Arc<AtomicBool>,
    /// `None`: no confidence is asked for.
    reading: Option<AnswerReading>,
}

/// What a completion's confidence is computed with, once it has ended.
struct AnswerReading {
    prompt: Arc<[u32]>,
    constraint: Option<Arc<Constraint>>,
    vocabulary: Arc<Vocabulary>,
    adapter: Option<u32>,
    readings: Arc<Readings>,
}

/// Prompts and answers to read between passes, one at a time, with the adapter as in
/// [`crate::rollout::QueuedRequest`].
pub(super) type Readings = Mutex<VecDeque<(Reading, Option<u32>)>>;

impl BodyClient {
    pub(super) fn jobs(
        prompts: Vec<PromptToSample>,
        adapter: Option<u32>,
        metrics: &Arc<Metrics>,
        arrived: Instant,
        read: Option<(&Arc<Readings>, &Arc<Vocabulary>)>,
    ) -> Vec<Job> {
        let (decoded, is_counted) = (Arc::default(), Arc::default());
        let job = |prompt: PromptToSample| {
            let reading = read.map(|(readings, vocabulary)| AnswerReading {
                prompt: prompt.request.prompt.as_slice().into(),
                constraint: prompt.confidence.clone(),
                vocabulary: Arc::clone(vocabulary),
                adapter,
                readings: Arc::clone(readings),
            });
            let client = Self {
                reading,
                prompt_tokens: prompt.request.prompt.len() as u64,
                first_index: prompt.first_index,
                by_token: prompt.by_token,
                stopped: prompt.stopped,
                events: prompt.events,
                metrics: Arc::clone(metrics),
                arrived,
                unfinished: AtomicUsize::new(prompt.request.samples),
                has_begun: AtomicBool::new(false),
                is_lost: AtomicBool::new(false),
                is_counted: Arc::clone(&is_counted),
            };
            Job {
                adapter,
                decoded: Arc::clone(&decoded),
                ..Job::new(prompt.request, prompt.sampling, Arc::new(client))
            }
        };
        prompts.into_iter().map(job).collect()
    }

    fn is_stopped(&self, sample: u32) -> bool {
        let flag = self.stopped.get(sample as usize);
        flag.is_some_and(|stopped| stopped.load(Ordering::Relaxed))
    }

    /// Records that the client is gone or does not read.
    fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
        if !self.is_counted.swap(true, Ordering::Relaxed) {
            self.metrics.lost_clients.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Client for BodyClient {
    fn on_start(&self, samples: usize) {
        let (prompt, rows) = (&self.metrics.prompt_tokens, &self.metrics.rows);
        prompt.fetch_add(self.prompt_tokens, Ordering::Relaxed);
        rows.fetch_add(samples as u64, Ordering::Relaxed);
    }

    fn on_token(&self, sample: u32, completion: &Completion, likeliest: Vec<(u32, f32)>) -> bool {
        let metrics = &self.metrics;
        metrics.completion_tokens.fetch_add(1, Ordering::Relaxed);
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            metrics.first_token.observe(self.arrived.elapsed());
        }
        if self.is_stopped(sample) {
            return false;
        }
        let is_lost = match self.by_token {
            true => {
                let index = self.first_index + sample as usize;
                let event = Event::of_newest(index, completion, likeliest);
                let sent = event.map_or(Ok(()), |event| self.events.try_send(event));
                sent.is_err()
            }
            false => self.events.is_closed(),
        };
        if is_lost {
            self.lose();
        }
        !self.is_lost.load(Ordering::Relaxed)
    }

    fn on_end(&self, sample: u32, mut completion: Completion) {
        let metrics = &self.metrics;
        if self.is_stopped(sample) {
            completion.stop = StopReason::Stop;
        }
        metrics.rows.fetch_sub(1, Ordering::Relaxed);
        let index = self.first_index + sample as usize;
        let answer = self.reading.as_ref().map(|reading| ReadAnswer {
            index,
            prompt: Arc::clone(&reading.prompt),
            completion: completion.token_ids.clone(),
            vocabulary: Arc::clone(&reading.vocabulary),
            constraint: reading.constraint.clone(),
            events: self.events.clone(),
        });
        let event = Event::of_end(index, completion, self.by_token);
        if self.events.try_send(event).is_err() {
            self.lose();
        }
        if let Some((reading, answer)) = self.reading.as_ref().zip(answer) {
            let answer = (Reading::Answer(answer), reading.adapter);
            reading.readings.lock().push_back(answer);
        }
        if self.unfinished.fetch_sub(1, Ordering::Relaxed) == 1 {
            metrics.request.observe(self.arrived.elapsed());
        }
    }

    fn on_failure(&self, decoded: usize, why: &str) {
        let rows = &self.metrics.rows;
        rows.fetch_sub(decoded as u64, Ordering::Relaxed);
        _ = self.events.try_send(Event::Failed(why.to_owned()));
    }

    fn is_gone(&self) -> bool {
        self.events.is_closed()
    }
}
