//! The places of conversations in the queue.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Result;
use tokio::sync::oneshot;

use super::KeptAnswers;
use crate::rollout::{Client, Completion, Job, Place, Queue, Request, Sampling, ThreadPool};

/// Numbers of samples in the random numbers of each completion of a conversation.
const SAMPLES_OF_REQUEST: u32 = 1 << 16;

/// What the conversations about a question ask.
pub(super) struct Line {
    pub(super) queue: Arc<Queue>,
    /// Where answers are stored.
    pub(super) kept: Option<Arc<KeptAnswers>>,
    /// Whether stored ones need not be sampled.
    pub(super) uses_kept: bool,
    /// The first, of all conversations together.
    pub(super) first: Request,
    pub(super) sampling: Sampling,
    /// Of the first conversation in the queue; those of the others follow.
    pub(super) conversation: usize,
    /// Tokens of a prompt at most, where conversations go on in the cache.
    pub(super) most_prompt_tokens: Option<usize>,
}

/// A completion that was asked for.
pub(super) enum Answer {
    Known(Completion),
    Awaited(oneshot::Receiver<Completion>),
}

impl Line {
    /// Asks for a completion more of a conversation, with random numbers that no other has. `number`: of the request.
    pub(super) fn later_request(&self, sample: usize, number: u32, prompt: &[u32]) -> Request {
        Request {
            prompt: prompt.to_vec(),
            samples: 1,
            first_sample: number * SAMPLES_OF_REQUEST + sample as u32,
            ..self.first.clone()
        }
    }

    /// The completions of a request that need not be sampled.
    pub(super) fn known(&self, request: &Request) -> Option<Vec<Completion>> {
        let kept = self.kept.as_ref().filter(|_| self.uses_kept);
        kept?.completions(request)
    }

    /// A completion that is not stored is sampled again, should this be interrupted.
    pub(super) fn store(&self, request: &Request, sample: usize, completion: &Completion) {
        // Where the work has failed it may be cut off.
        if let Some(kept) = self.kept.as_ref().filter(|_| !self.queue.has_failed()) {
            _ = kept.append(request, sample as u32, completion);
        }
    }

    /// Has a request of conversations sampled, from that of its first `sample` on; `follows`: the request after whose
    /// completion its prompt goes on.
    pub(super) fn ask(
        &self,
        request: Request,
        (sample, number, follows): (usize, u32, Option<u32>),
        client: Arc<dyn Client>,
    ) {
        let most = self.most_prompt_tokens;
        let place = Place {
            conversation: self.conversation + sample,
            number,
            follows,
            later_tokens: most.map(|most| most.saturating_sub(request.prompt.len())),
        };
        self.queue.ask(Job {
            request,
            sampling: self.sampling.clone(),
            adapter: None,
            client,
            first_sample: 0,
            decoded: Arc::default(),
            place: Some(place),
        });
    }

    /// The same, with each completion to be awaited.
    fn answers(&self, request: Request, place: (usize, u32, Option<u32>)) -> Vec<Answer> {
        if let Some(known) = self.known(&request) {
            return known.into_iter().map(Answer::Known).collect();
        }
        let channels = (0..request.samples).map(|_| oneshot::channel());
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.unzip();
        let senders = senders.into_iter().map(Some).collect();
        self.ask(request, place, Arc::new(Answers(Mutex::new(senders))));
        receivers.into_iter().map(Answer::Awaited).collect()
    }

    /// Asks for the first completions; a ticket for each conversation.
    pub(super) fn tickets(self: &Arc<Self>) -> Vec<Ticket> {
        if self.first.samples == 0 {
            return Vec::new();
        }
        let answers = self.answers(self.first.clone(), (0, 0, None));
        let ticket = |(sample, first)| Ticket {
            line: Arc::clone(self),
            sample,
            asked: 0,
            first: Some(first),
            start: None,
        };
        answers.into_iter().enumerate().map(ticket).collect()
    }
}

/// The place of one conversation; dropped, it asks for nothing more.
pub(super) struct Ticket {
    pub(super) line: Arc<Line>,
    pub(super) sample: usize,
    /// Completions that it has asked for.
    pub(super) asked: u32,
    first: Option<Answer>,
    /// Told when its agent may start.
    start: Option<oneshot::Receiver<()>>,
}

impl Ticket {
    /// Of a conversation that an agent holds.
    pub(super) fn of_agent(line: &Arc<Line>, sample: usize) -> Self {
        let (start, started) = oneshot::channel();
        line.queue.enter_agent(line.conversation + sample, start);
        Self {
            line: Arc::clone(line),
            sample,
            asked: 0,
            first: None,
            start: Some(started),
        }
    }

    /// Waits until its agent may start.
    pub(super) async fn start(&mut self) -> Result<()> {
        match self.start.take() {
            Some(start) => start.await.map_err(|_| ThreadPool::cancelled()),
            None => Ok(()),
        }
    }

    /// Has the next completion sampled. `prompt`: all that was read and sampled before, and what is new.
    pub(super) async fn sample(&mut self, prompt: &[u32]) -> Result<Completion> {
        let (number, line) = (self.asked, &self.line);
        self.asked += 1;
        let later;
        let (request, sample, answer) = match self.first.take() {
            Some(first) => (&line.first, self.sample, Some(first)),
            None => {
                later = line.later_request(self.sample, number, prompt);
                let place = (self.sample, number, number.checked_sub(1));
                (&later, 0, line.answers(later.clone(), place).pop())
            }
        };
        match answer {
            Some(Answer::Known(completion)) => Ok(completion),
            Some(Answer::Awaited(completion)) => {
                let completion = completion.await.map_err(|_| ThreadPool::cancelled())?;
                line.store(request, sample, &completion);
                Ok(completion)
            }
            None => Err(ThreadPool::cancelled()),
        }
    }

    /// It goes on once all conversations about its question have their scores, or have left.
    pub(super) fn wait_for_others(&self) {
        let (line, first) = (&self.line, self.line.conversation);
        line.queue
            .wait(first + self.sample, first, line.first.samples);
    }

    /// Nothing more is asked for.
    pub(super) fn leave(&self) {
        self.line.queue.leave(self.line.conversation + self.sample);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Those who wait for the completions of a request.
struct Answers(Mutex<Vec<Option<oneshot::Sender<Completion>>>>);

impl Client for Answers {
    fn on_token(&self, _: u32, _: &Completion, _: Vec<(u32, f32)>) -> bool {
        true
    }

    fn on_end(&self, sample: u32, completion: Completion) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waits) = all.get_mut(sample as usize).and_then(Option::take) {
            // Nobody waits any more where the work has failed.
            _ = waits.send(completion);
        }
    }
}
