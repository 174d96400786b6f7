//! Runs conversations: one thread drives them while others decode.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::Instant;

use candle_core::{Error, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::unbounded_channel;

use super::blocking::Blocking;
use super::hold::Context;
use super::questions::Questions;
use super::sampler::Sampler;
use super::scores::{Scores, score_all};
use super::settings::{ConverseSettings, Conversed, Question};
use super::{Conversation, Policy, ServedModel, Watcher};
use crate::rollout::{
    Order, Queue, QueuedConversation, QueuedQuestion, Request, RequestSize, SizedSource,
    ThreadPool, Worker,
};

impl Policy {
    /// Answers and scores each question. `watcher` is told when conversations end.
    ///
    /// # Errors
    /// Failed tensor operations, cancellation, and texts rejected by template or tokenizer.
    pub fn converse(
        &self,
        questions: &[Question<'_>],
        settings: &ConverseSettings<'_>,
        watcher: Option<&mut dyn Watcher>,
    ) -> Result<Conversed> {
        converse(Sampler::Policy(self), questions, settings, watcher)
    }
}

impl ServedModel<'_> {
    /// As [`Policy::converse`].
    ///
    /// # Errors
    /// The same, and those of [`ServedModel::ask`].
    pub fn converse(
        &self,
        questions: &[Question<'_>],
        settings: &ConverseSettings<'_>,
        watcher: Option<&mut dyn Watcher>,
    ) -> Result<Conversed> {
        converse(Sampler::Served(self), questions, settings, watcher)
    }
}

fn converse(
    sampler: Sampler<'_>,
    questions: &[Question<'_>],
    settings: &ConverseSettings<'_>,
    mut watcher: Option<&mut dyn Watcher>,
) -> Result<Conversed> {
    let start = Instant::now();
    let questions = Questions::new(sampler, questions, settings)?;
    let questions = &questions;
    let (queues, begun) = begin(questions);
    if let Some(watcher) = &mut watcher {
        watcher.begin(begun.len());
    }
    let is_attended = watcher.is_some() || questions.needs_scores();
    let threads = sampler.threads();
    let decode = || {
        let (_guard, before) = (FailsOnPanic(questions, &queues), Instant::now());
        let workers = queues.iter().map(|(queue, _)| Worker::new(queue, threads));
        let mut workers: Vec<_> = workers.collect();
        let sized = |(worker, (_, sizes)): (_, &Part)| SizedSource::new(worker, sizes.clone());
        let sized: Vec<_> = workers.iter_mut().zip(&queues).map(sized).collect();
        let decoded = sampler.decode(settings.version, &sized, settings.sampling);
        // Wake everyone waiting for a completion.
        match &decoded {
            Ok(_) => queues.iter().for_each(|(queue, _)| queue.close()),
            Err(_) => fail(questions, &queues),
        }
        decoded.map(|decoded| (decoded, before.elapsed().as_secs_f64()))
    };
    let queues = &queues;
    let (held, decoded) = std::thread::scope(|scope| {
        let hold = move || {
            let _guard = FailsOnPanic(questions, queues);
            let held = hold_all(questions, begun, scope, watcher);
            // Stop decoding for abandoned conversations.
            if held.is_err() {
                fail(questions, queues);
            }
            held
        };
        if !is_attended {
            let decoded = decode();
            return (hold(), decoded);
        }
        let holding = scope.spawn(hold);
        let decoded = decode();
        // Propagates a thread's panic.
        let held = holding.join().unwrap_or_else(|panic| resume_unwind(panic));
        (held, decoded)
    });
    let (conversations, ((counts, gpu_fallbacks), rollout_seconds)) = match (held, decoded) {
        (Ok(conversations), Ok(decoded)) => (conversations, decoded),
        // The first failure cancelled the other.
        (Err(error), Err(decoding)) if ThreadPool::is_cancellation(&error) => return Err(decoding),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let score_seconds = start.elapsed().as_secs_f64() - rollout_seconds;
    Ok(Conversed {
        conversations,
        counts,
        gpu_fallbacks,
        rollout_seconds,
        score_seconds,
    })
}

/// Requests decoded together, with their cache sizes.
type Part = (Arc<Queue>, Vec<RequestSize>);

type Begun = Vec<(usize, QueuedConversation)>;

/// Submits first requests; returns the conversations.
fn begin(questions: &Questions<'_>) -> (Vec<Part>, Begun) {
    let (sampler, settings) = (questions.sampler, questions.settings);
    let requests = questions.all.iter().map(|one| one.request.clone());
    let requests: Vec<Request> = requests.collect();
    let parts = sampler.parts(settings.version, &requests);
    let together = parts.len().min(sampler.threads().count()).max(1);
    let agents = questions.agents.as_ref();
    let order = Order::Conversations {
        is_paced: sampler.is_paced(),
        agents: agents.map_or(0, |agents| (agents.processes() / together).max(1)),
    };
    let (mut begun, mut first) = (Vec::new(), 0);
    let mut queues = Vec::with_capacity(parts.len());
    for part in parts {
        let queue = Arc::new(Queue::new(order));
        let all = first..first + part.len();
        first = all.end;
        let mut sizes = Vec::with_capacity(part.len());
        for (question, request) in all.zip(part) {
            sizes.extend(questions.sizes(question));
            let most = questions.max_prompt_tokens(question);
            let queued = Arc::new(QueuedQuestion {
                queue: Arc::clone(&queue),
                first: request.clone(),
                sampling: settings.sampling.clone(),
                conversation: begun.len(),
                max_prompt_tokens: questions.stays_in_cache(question).then_some(most),
            });
            let conversations = match questions.agent(question) {
                Some(_) => queued.begin_of_agents(),
                None => queued.begin(questions.is_followed(question)),
            };
            begun.extend(conversations.into_iter().map(|one| (question, one)));
        }
        queues.push((queue, sizes));
    }
    (queues, begun)
}

/// Runs all conversations; returned by question, then by sample.
fn hold_all<'s, 'e>(
    questions: &'e Questions<'e>,
    begun: Begun,
    scope: &'s Scope<'s, 'e>,
    mut watcher: Option<&mut dyn Watcher>,
) -> Result<Vec<Vec<Conversation>>> {
    let blocking = &Blocking::new(scope);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(Error::wrap)?;
    let all = questions.all.iter().map(|one| one.request.samples);
    let empty = |samples| vec![Conversation::default(); samples];
    let mut conversations: Vec<_> = all.map(empty).collect();
    let (sender, messages) = unbounded_channel();
    let scores = Scores(sender);
    let context = Context {
        questions,
        scores: &scores,
        blocking,
    };
    runtime.block_on(async {
        let mut scoring = std::pin::pin!(score_all(questions, messages, blocking));
        let begun = begun.into_iter();
        let held = begun.map(|(question, queued)| context.hold(question, queued));
        let mut held: FuturesUnordered<_> = held.collect();
        loop {
            tokio::select! {
                biased;
                ended = held.next() => match ended.transpose()? {
                    Some((question, sample, mut conversation)) => {
                        if let Some(watcher) = &mut watcher {
                            watcher.on_end(question, sample, &mut conversation);
                        }
                        conversations[question][sample] = conversation;
                    }
                    None => return Ok(conversations),
                },
                // It only ends early on failure.
                failed = &mut scoring => failed?,
            }
        }
    })
}

/// Cancels all requests.
fn fail(questions: &Questions<'_>, queues: &[Part]) {
    questions.has_failed.store(true, Ordering::Relaxed);
    queues.iter().for_each(|(queue, _)| queue.fail("cancelled"));
}

/// Wakes waiting threads after a panic.
struct FailsOnPanic<'a>(&'a Questions<'a>, &'a [Part]);

impl Drop for FailsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fail(self.0, self.1);
        }
    }
}
