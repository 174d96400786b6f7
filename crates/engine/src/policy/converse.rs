//! Prompts are answered, turn by turn where a row has several: each conversation goes on as soon as its answer is there,
//! while others are decoded.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use candle_core::{Error, Result};

use super::prompts::Prompt;
use super::tool_loop::{MAX_TOOL_THREADS, TaskTools, ToolTalk};
use super::turn_source::{Mailbox, TurnSource};
use super::{Conversation, LaterPrompt, Policy, PolicyVersion, ToolTurn, Watcher};
use crate::dataset::PromptRow;
use crate::rollout::{Completion, DecodeCounts, GpuFallback, Request, Sampling, SizedSource, decoded_together};
use crate::score::{Scorer, Task};

/// How a policy converses.
#[derive(Clone, Copy, Debug)]
pub struct ConverseSettings<'a> {
    /// By [`Prompt::task`].
    pub tasks: &'a [ScoredTask<'a>],
    pub version: PolicyVersion,
    pub sampling: &'a Sampling,
    /// Later turns are not asked.
    pub max_turns: usize,
}

impl<'a> ConverseSettings<'a> {
    /// Of whole conversations.
    pub fn new(tasks: &'a [ScoredTask<'a>], version: PolicyVersion, sampling: &'a Sampling) -> Self {
        Self { tasks, version, sampling, max_turns: usize::MAX }
    }
}

/// A task whose rows are answered, with its scorer.
#[derive(Clone, Copy, Debug)]
pub struct ScoredTask<'a> {
    pub task: &'a Task,
    pub scorer: &'a Scorer,
    /// The limit of a later turn's prompt; a conversation that would pass it ends.
    pub max_prompt_tokens: usize,
}

/// A prompt, and how its first turn is sampled.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    pub prompt: &'a Prompt,
    pub request: Request,
}

/// Conversations, and what they took.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Conversed {
    /// By question, then by sample.
    pub conversations: Vec<Vec<Conversation>>,
    pub counts: DecodeCounts,
    pub gpu_fallbacks: Vec<GpuFallback>,
    /// In decoding.
    pub rollout_seconds: f64,
    /// In scoring and rendering afterwards.
    pub score_seconds: f64,
}

/// A completion that has ended.
#[derive(Clone)]
pub(super) struct Ended {
    pub(super) conversation: usize,
    pub(super) completion: Completion,
    pub(super) request: Arc<Request>,
    /// Index among the request's samples.
    pub(super) sample: u32,
    /// Whether it was not sampled now, or is stored.
    pub(super) is_known: bool,
    /// Whether its conversation has it as an answer.
    pub(super) is_recorded: bool,
}

/// A conversation under way.
pub(super) struct Talk<'a> {
    pub(super) question: usize,
    pub(super) sample: usize,
    /// Of its current turn, against which the answer is scored.
    pub(super) row: Cow<'a, PromptRow>,
    /// Of its current turn; `None` in the first.
    pub(super) prompt: Option<LaterPrompt>,
    /// Its completions so far.
    pub(super) sampled: u32,
    /// An answer without a score so far.
    pub(super) answer: Option<(Completion, String)>,
    /// `None` where its task has no tools.
    pub(super) tools: Option<Box<ToolTalk>>,
    /// Of the answer.
    pub(super) tool_turn: Option<ToolTurn>,
    pub(super) conversation: Conversation,
    pub(super) has_ended: bool,
}

/// Conversations that are sampled together, as all threads see them.
pub(super) struct Conversing<'a> {
    pub(super) policy: &'a Policy,
    pub(super) questions: &'a [Question<'a>],
    pub(super) settings: &'a ConverseSettings<'a>,
    /// By task; `None` where it has no tools.
    pub(super) tools: Vec<Option<TaskTools<'a>>>,
    /// Of each question.
    pub(super) first_conversation: Vec<usize>,
    /// Of each conversation.
    pub(super) question_of: Vec<usize>,
    pub(super) talks: Vec<Mutex<Talk<'a>>>,
    pub(super) mailboxes: Vec<Mailbox>,
    /// The mailbox of each question.
    pub(super) mailbox_of: Vec<usize>,
    pub(super) has_failed: AtomicBool,
    pub(super) failure: Mutex<Option<Error>>,
}

impl Policy {
    /// Answers each question, and scores what it answers. `watcher` learns of conversations as they end.
    ///
    /// # Errors
    /// A failed tensor operation, cancelled work, and texts that the template or the tokenizer does not take.
    pub fn converse(
        &self,
        questions: &[Question<'_>],
        settings: &ConverseSettings<'_>,
        mut watcher: Option<&mut dyn Watcher>,
    ) -> Result<Conversed> {
        let start = Instant::now();
        let requests: Vec<Request> = questions.iter().map(|question| question.request.clone()).collect();
        let parts = decoded_together(self.model_of(settings.version).0, &requests);
        let shared = &Conversing::new(self, questions, settings, parts.iter().map(|part| part.len()))?;
        let ((sender, ended), (caller, calling)) = (channel(), channel());
        let kept = watcher.as_ref().and_then(|watcher| watcher.kept());
        let (mut sources, mut first, mut known) = (Vec::with_capacity(parts.len()), 0, 0);
        for (part, mailbox) in parts.into_iter().zip(&shared.mailboxes) {
            let own = first..first + part.len();
            first = own.end;
            let are_followed = own.clone().any(|question| shared.is_followed(question));
            let kept = kept.clone().filter(|kept| kept.serves(part.iter(), are_followed));
            let of_request = |request: &Request| kept.as_ref()?.completions(request).map(|found| found.len());
            known += part.iter().filter_map(of_request).sum::<usize>();
            let sizes = own.clone().flat_map(|question| shared.sizes(question)).collect();
            let is_paced = self.engine.device.is_cpu();
            let source = TurnSource::new(shared, (own, mailbox), kept, [&sender, &caller], is_paced);
            sources.push(SizedSource { source: Mutex::new(source), sizes });
        }
        drop(caller);
        let tool_threads = shared.conversations_with_tools().min(MAX_TOOL_THREADS);
        let senders = vec![sender; tool_threads];
        if let Some(watcher) = &mut watcher {
            watcher.begin(requests.iter().map(|request| request.samples).sum(), known);
        }
        let is_attended = watcher.is_some() || shared.needs_scores();
        let decode = || {
            let before = Instant::now();
            let decoded = self.rollout_from(settings.version, &sources, settings.sampling);
            shared.has_failed.fetch_or(decoded.is_err(), Ordering::Relaxed);
            // No more answers come.
            drop(sources);
            decoded.map(|decoded| (decoded, before.elapsed().as_secs_f64()))
        };
        let calling = Mutex::new(calling);
        let decoded = match is_attended {
            true => std::thread::scope(|scope| {
                let calling = &calling;
                for sender in senders {
                    let kept = kept.as_deref();
                    scope.spawn(move || shared.call_tools(calling, &sender, kept));
                }
                let attended = scope.spawn(|| shared.attend(ended, kept.as_deref(), watcher));
                let decoded = decode();
                // A panic of a thread continues in this one.
                attended.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                decoded
            }),
            false => {
                let decoded = decode();
                ended.try_iter().try_for_each(|ended| shared.record(ended))?;
                decoded
            }
        };
        if let Some(error) = shared.failure() {
            return Err(error);
        }
        let ((counts, gpu_fallbacks), rollout_seconds) = decoded?;
        let conversations = shared.conversations()?;
        let score_seconds = start.elapsed().as_secs_f64() - rollout_seconds;
        Ok(Conversed { conversations, counts, gpu_fallbacks, rollout_seconds, score_seconds })
    }
}
