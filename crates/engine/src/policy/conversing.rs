//! Conversations that are sampled together, as the threads see them that decode, score and call tools.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Error, Result};

use super::agents::Agents;
use super::mailbox::{Mailbox, NextRequest, SAMPLES_OF_TURN};
use super::prompts::Prompt;
use super::sampler::Sampler;
use super::tool_talk::{TaskTools, ToolTalk};
use super::{Conversation, LaterPrompt, PolicyVersion, ToolTurn};
use crate::dataset::PromptRow;
use crate::rollout::{
    Completion, DecodeCounts, GpuFallback, InConversation, Request, RequestSize, Sampling,
};
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
    pub fn new(
        tasks: &'a [ScoredTask<'a>],
        version: PolicyVersion,
        sampling: &'a Sampling,
    ) -> Self {
        Self {
            tasks,
            version,
            sampling,
            max_turns: usize::MAX,
        }
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
    pub(super) sampler: &'a dyn Sampler,
    pub(super) questions: &'a [Question<'a>],
    pub(super) settings: &'a ConverseSettings<'a>,
    /// By task; `None` where it has no tools.
    pub(super) tools: Vec<Option<TaskTools<'a>>>,
    /// `None` where no task has one.
    pub(super) agents: Option<Agents<'a>>,
    /// Of each question.
    pub(super) first_conversation: Vec<usize>,
    /// Of each conversation.
    pub(super) question_of: Vec<usize>,
    pub(super) talks: Vec<Mutex<Talk<'a>>>,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    /// The mailbox of each question.
    pub(super) mailbox_of: Vec<usize>,
    pub(super) has_failed: AtomicBool,
    pub(super) failure: Mutex<Option<Error>>,
}

impl<'a> Conversing<'a> {
    /// `parts`: the numbers of questions that are decoded together.
    pub(super) fn new(
        sampler: &'a dyn Sampler,
        questions: &'a [Question<'a>],
        settings: &'a ConverseSettings<'a>,
        parts: impl Iterator<Item = usize>,
    ) -> Result<Self> {
        let tools = settings
            .tasks
            .iter()
            .map(|asked| TaskTools::of_task(asked.task, sampler.tokenizer()));
        let tools = tools.collect::<Result<Vec<_>>>()?;
        let (mut talks, mut question_of, mut first_conversation) =
            (Vec::new(), Vec::new(), Vec::new());
        for (question, Question { prompt, request }) in questions.iter().enumerate() {
            first_conversation.push(talks.len());
            question_of.extend(std::iter::repeat_n(question, request.samples));
            talks.extend((0..request.samples).map(|sample| {
                Mutex::new(Talk {
                    question,
                    sample,
                    row: Cow::Borrowed(&prompt.row),
                    prompt: None,
                    sampled: 0,
                    answer: None,
                    tools: tools[prompt.task].as_ref().map(|_| Box::default()),
                    tool_turn: None,
                    conversation: Conversation::default(),
                    has_ended: false,
                })
            }));
        }
        let agents = Agents::of_tasks(sampler, settings, talks.len())?;
        let (mut mailboxes, mut mailbox_of) = (Vec::new(), Vec::with_capacity(questions.len()));
        for questions in parts {
            mailbox_of.extend(std::iter::repeat_n(mailboxes.len(), questions));
            mailboxes.push(Default::default());
        }
        let (has_failed, failure) = (AtomicBool::new(false), Mutex::new(None));
        Ok(Self {
            sampler,
            questions,
            settings,
            tools,
            agents,
            first_conversation,
            question_of,
            talks,
            mailboxes,
            mailbox_of,
            has_failed,
            failure,
        })
    }

    pub(super) fn task(&self, question: usize) -> ScoredTask<'a> {
        self.settings.tasks[self.questions[question].prompt.task]
    }

    pub(super) fn scorer(&self, question: usize) -> &'a Scorer {
        self.task(question).scorer
    }

    pub(super) fn talk(&self, conversation: usize) -> MutexGuard<'_, Talk<'a>> {
        self.talks[conversation]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tools(&self, question: usize) -> Option<&TaskTools<'a>> {
        self.tools[self.questions[question].prompt.task].as_ref()
    }

    /// The agents, where one holds the conversations about a question.
    pub(super) fn agents_of_question(&self, question: usize) -> Option<&Agents<'a>> {
        self.agents.as_ref().filter(|agents| {
            agents
                .of_task(self.questions[question].prompt.task)
                .is_some()
        })
    }

    pub(super) fn agents_of(&self, conversation: usize) -> Option<&Agents<'a>> {
        self.agents_of_question(self.question_of[conversation])
    }

    /// Agents that run at the same time, for questions that are decoded together.
    pub(super) fn agents_at_once(&self) -> usize {
        let together = self
            .mailboxes
            .len()
            .min(self.sampler.threads().count())
            .max(1);
        self.agents
            .as_ref()
            .map_or(0, |agents| (agents.processes() / together).max(1))
    }

    /// Threads that run them.
    pub(super) fn agent_threads(&self) -> usize {
        let conversations =
            (0..self.talks.len()).filter(|conversation| self.agents_of(*conversation).is_some());
        conversations
            .count()
            .min(self.agents_at_once() * self.mailboxes.len())
    }

    /// Whether answers of a conversation go to tools or to an agent.
    pub(super) fn has_tools(&self, conversation: usize) -> bool {
        self.tools(self.question_of[conversation]).is_some()
            || self.agents_of(conversation).is_some()
    }

    pub(super) fn conversations_with_tools(&self) -> usize {
        (0..self.talks.len())
            .filter(|conversation| self.has_tools(*conversation))
            .count()
    }

    /// Whether more than one completion may be sampled in its conversations.
    pub(super) fn is_followed(&self, question: usize) -> bool {
        self.tools(question).is_some()
            || self.agents_of_question(question).is_some()
            || self.questions[question]
                .prompt
                .row
                .turn_count()
                .min(self.settings.max_turns)
                > 1
    }

    /// The same, of a conversation.
    pub(super) fn may_be_followed(&self, conversation: usize) -> bool {
        self.is_followed(self.question_of[conversation])
    }

    /// What a question takes of the caches.
    pub(super) fn sizes(&self, question: usize) -> Vec<RequestSize> {
        let request = &self.questions[question].request;
        let size = RequestSize::of(request);
        let later = self.later_tokens(question, request);
        if !self.is_followed(question) {
            return vec![size];
        }
        if self.agents_of_question(question).is_some() {
            let each = RequestSize {
                later_tokens: later,
                has_branches: true,
                samples: 1,
                ..size
            };
            return vec![each; request.samples];
        }
        if self.stays_in_cache(question) {
            return vec![RequestSize {
                later_tokens: later,
                ..size
            }];
        }
        // Prompts that are prefilled anew.
        let prompt_tokens = size.prompt_tokens + later;
        vec![
            RequestSize {
                prompt_tokens,
                samples: 1,
                ..size
            };
            request.samples
        ]
    }

    /// The most tokens by which a prompt of a conversation may grow.
    fn later_tokens(&self, question: usize, request: &Request) -> usize {
        let most = self
            .task(question)
            .max_prompt_tokens
            .min(self.questions[question].prompt.most_tokens);
        most.saturating_sub(request.prompt.len())
    }

    /// Whether conversations go on in the cache: with tools each of their prompts begins with all that was read before, and
    /// most prompts of an agent do.
    pub(super) fn stays_in_cache(&self, question: usize) -> bool {
        self.tools(question).is_some() || self.agents_of_question(question).is_some()
    }

    /// A request's place in a conversation that does. `after`: the completion that it follows.
    pub(super) fn place(
        &self,
        conversation: usize,
        request: &Request,
        after: Option<(u64, u32)>,
    ) -> Option<InConversation> {
        let later_tokens = || self.later_tokens(self.question_of[conversation], request);
        self.stays_in_cache(self.question_of[conversation])
            .then(|| InConversation {
                after,
                later_tokens: later_tokens(),
            })
    }

    /// Whether scores are needed while others are decoded: to know whether conversations go on, or since scorers that run
    /// programs have few to answer afterwards if they begin with what ends first.
    pub(super) fn needs_scores(&self) -> bool {
        let scorers = || self.settings.tasks.iter().map(|task| task.scorer);
        let runs_programs =
            scorers().any(Scorer::runs_programs) && !scorers().any(Scorer::compares_groups);
        runs_programs || (0..self.questions.len()).any(|question| self.is_followed(question))
    }

    /// Whether the work was cancelled or has failed.
    pub(super) fn is_over(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed) || self.sampler.threads().check().is_err()
    }

    pub(super) fn fail(&self, error: Error) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Asks for one more completion of a conversation, with random numbers that no other has.
    pub(super) fn later_request(&self, talk: &Talk<'_>, prompt: Vec<u32>) -> NextRequest {
        let first = &self.questions[talk.question].request;
        let first_sample = talk.sampled * SAMPLES_OF_TURN + talk.sample as u32;
        let request = Request {
            prompt,
            samples: 1,
            first_sample,
            ..first.clone()
        };
        NextRequest {
            request,
            follows: talk.sampled.checked_sub(1),
        }
    }

    pub(super) fn deliver(&self, conversation: usize, next: Option<NextRequest>) {
        self.mailboxes[self.mailbox_of[self.question_of[conversation]]].deliver(conversation, next);
    }
}

/// Ends the wait for answers where their thread has panicked.
pub(super) struct PanicGuard<'a>(pub(super) &'a AtomicBool);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}
