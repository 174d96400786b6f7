//! Conversations about a question in the queue, with unique random numbers.

use std::sync::Arc;

use candle_core::Result;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::super::{Completion, Request, Sampling, ThreadPool};
use super::{Client, Job, Place, Queue};

/// Range of sample numbers per completion of a conversation.
const SAMPLES_OF_REQUEST: u32 = 1 << 16;

/// A question with one conversation per sample.
pub(crate) struct QueuedQuestion {
    pub(crate) queue: Arc<Queue>,
    /// First request, common to all conversations.
    pub(crate) first: Request,
    pub(crate) sampling: Sampling,
    /// Index of the first conversation in the queue; the others follow.
    pub(crate) conversation: usize,
    /// Prompt limit if conversations continue in the cache.
    pub(crate) max_prompt_tokens: Option<usize>,
}

impl QueuedQuestion {
    /// Another request of a conversation; `number`: its index there.
    pub(crate) fn later_request(&self, sample: usize, number: u32, prompt: &[u32]) -> Request {
        let first = &self.first;
        Request {
            first_sample: first.first_sample + number * SAMPLES_OF_REQUEST + sample as u32,
            greedy: first.greedy,
            lengths: first.lengths.get(sample).copied().into_iter().collect(),
            constraint: first
                .constraint
                .clone()
                .filter(|_| number < first.constrained),
            shaping: first.shaping.clone(),
            ..Request::new(prompt.to_vec(), first.prompt_number, first.step, 1)
        }
    }

    /// Submits a request for the conversation of `sample` and the following ones, one per sample.
    /// `follows`: request after whose completion its prompt continues.
    pub(crate) fn ask(
        &self,
        request: Request,
        sample: usize,
        number: u32,
        follows: Option<u32>,
        client: Arc<dyn Client>,
    ) {
        let most = self.max_prompt_tokens;
        let place = Place {
            conversation: self.conversation + sample,
            number,
            follows,
            later_tokens: most.map(|most| most.saturating_sub(request.prompt.len())),
            // Of an agent: others ask for all samples at once.
            shares_prompt: number == 0 && request.samples < self.first.samples,
        };
        self.queue.ask(Job {
            place: Some(place),
            ..Job::new(request, self.sampling.clone(), client)
        });
    }

    /// As [`Self::ask`], returning futures.
    fn completions(
        &self,
        request: Request,
        sample: usize,
        number: u32,
    ) -> Vec<oneshot::Receiver<Completion>> {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..request.samples).map(|_| oneshot::channel()).unzip();
        let senders = senders.into_iter().map(Some).collect();
        let client = Arc::new(Awaited(Mutex::new(senders)));
        self.ask(request, sample, number, number.checked_sub(1), client);
        receivers
    }

    /// Submits first requests; `may_ask_again`: there may be more.
    pub(crate) fn begin(self: &Arc<Self>, may_ask_again: bool) -> Vec<QueuedConversation> {
        let samples = self.first.samples;
        if may_ask_again {
            (0..samples).for_each(|sample| self.queue.enter(self.conversation + sample));
        }
        let first = match samples {
            0 => Vec::new(),
            _ => self.completions(self.first.clone(), 0, 0),
        };
        let begun = |(sample, first)| QueuedConversation {
            question: Arc::clone(self),
            sample,
            asked: 0,
            first: Some(first),
            start: None,
        };
        first.into_iter().enumerate().map(begun).collect()
    }

    /// Conversations of agents.
    pub(crate) fn begin_of_agents(self: &Arc<Self>) -> Vec<QueuedConversation> {
        let begun = |sample| {
            let (start, started) = oneshot::channel();
            self.queue.enter_agent(self.conversation + sample, start);
            QueuedConversation {
                question: Arc::clone(self),
                sample,
                asked: 0,
                first: None,
                start: Some(started),
            }
        };
        (0..self.first.samples).map(begun).collect()
    }
}

/// A conversation in the queue; leaves when dropped.
pub(crate) struct QueuedConversation {
    pub(crate) question: Arc<QueuedQuestion>,
    pub(crate) sample: usize,
    /// Number of requests.
    pub(crate) asked: u32,
    first: Option<oneshot::Receiver<Completion>>,
    /// Signalled when its agent may start.
    start: Option<oneshot::Receiver<()>>,
}

impl QueuedConversation {
    /// Waits until its agent may start.
    pub(crate) async fn start(&mut self) -> Result<()> {
        match self.start.take() {
            Some(start) => start.await.map_err(|_| ThreadPool::cancelled()),
            None => Ok(()),
        }
    }

    /// Samples the next completion. `prompt`: everything read and sampled, and what is new.
    pub(crate) async fn sample(&mut self, prompt: &[u32]) -> Result<Completion> {
        let (question, sample, number) = (&self.question, self.sample, self.asked);
        self.asked += 1;
        let pending = self.first.take().or_else(|| {
            let request = question.later_request(sample, number, prompt);
            question.completions(request, sample, number).pop()
        });
        let pending = pending.ok_or_else(ThreadPool::cancelled)?;
        pending.await.map_err(|_| ThreadPool::cancelled())
    }

    /// Continues once all conversations about its question are scored or have left.
    pub(crate) fn wait_for_others(&self) {
        let (question, first) = (&self.question, self.question.conversation);
        let queue = &question.queue;
        queue.wait(first + self.sample, first, question.first.samples);
    }

    /// Submits nothing more.
    pub(crate) fn leave(&self) {
        let question = &self.question;
        question.queue.leave(question.conversation + self.sample);
    }
}

impl Drop for QueuedConversation {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Receivers of a request's completions.
struct Awaited(Mutex<Vec<Option<oneshot::Sender<Completion>>>>);

impl Client for Awaited {
    fn on_token(&self, _: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        true
    }

    fn on_end(&self, sample: u32, completion: Completion) {
        let mut all = self.0.lock();
        if let Some(waits) = all.get_mut(sample as usize).and_then(Option::take) {
            // The receiver is gone after a failure.
            _ = waits.send(completion);
        }
    }
}
