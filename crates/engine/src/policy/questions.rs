//! Questions that are answered together, with the tools and the agents of their tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Result;

use super::agents::{Agents, TaskAgent};
use super::sampler::Sampler;
use super::settings::{ConverseSettings, Question, ScoredTask};
use super::tools::TaskTools;
use crate::gateway::Gateway;
use crate::rollout::RequestSize;
use crate::score::Scorer;

/// Questions that are answered together.
pub(super) struct Questions<'a> {
    pub(super) sampler: Sampler<'a>,
    pub(super) all: &'a [Question<'a>],
    pub(super) settings: &'a ConverseSettings<'a>,
    /// By task; `None` where it has no tools.
    tools: Vec<Option<TaskTools<'a>>>,
    /// `None` where no task has one.
    pub(super) agents: Option<Agents<'a>>,
    pub(super) has_failed: AtomicBool,
}

impl<'a> Questions<'a> {
    pub(super) fn new(
        sampler: Sampler<'a>,
        all: &'a [Question<'a>],
        settings: &'a ConverseSettings<'a>,
    ) -> Result<Self> {
        let tools = settings.tasks.iter().map(|asked| {
            TaskTools::of_task(asked.task, sampler.tokenizer(), asked.max_prompt_tokens)
        });
        Ok(Self {
            sampler,
            all,
            settings,
            tools: tools.collect::<Result<_>>()?,
            agents: Agents::of_tasks(sampler, settings)?,
            has_failed: AtomicBool::new(false),
        })
    }

    pub(super) fn task(&self, question: usize) -> ScoredTask<'a> {
        self.settings.tasks[self.all[question].prompt.task]
    }

    /// `None` where its task has no tools.
    pub(super) fn tools(&self, question: usize) -> Option<&TaskTools<'a>> {
        self.tools[self.all[question].prompt.task].as_ref()
    }

    /// The agent that holds the conversations about a question, with its server.
    pub(super) fn agent(&self, question: usize) -> Option<(&TaskAgent<'a>, &Gateway)> {
        let task = self.all[question].prompt.task;
        self.agents.as_ref()?.of_task(task)
    }

    /// Turns of a conversation at most; an agent holds one.
    pub(super) fn max_turns(&self, question: usize) -> usize {
        let turns = match self.agent(question) {
            Some(_) => 1,
            None => self.all[question].prompt.row.turn_count(),
        };
        turns.min(self.settings.max_turns)
    }

    /// Whether conversations go on in the cache: with tools each of their prompts begins with all that was read before, and
    /// most prompts of an agent do.
    pub(super) fn stays_in_cache(&self, question: usize) -> bool {
        self.tools(question).is_some() || self.agent(question).is_some()
    }

    /// Whether more than one completion may be sampled in its conversations.
    pub(super) fn is_followed(&self, question: usize) -> bool {
        self.stays_in_cache(question) || self.max_turns(question) > 1
    }

    /// Tokens of a prompt in a conversation, at most.
    pub(super) fn max_prompt_tokens(&self, question: usize) -> usize {
        let most = self.task(question).max_prompt_tokens;
        most.min(self.all[question].prompt.most_tokens)
    }

    /// What a question takes of the caches.
    pub(super) fn sizes(&self, question: usize) -> Vec<RequestSize> {
        let request = &self.all[question].request;
        let max_prompt_tokens = self.max_prompt_tokens(question);
        let later_tokens = max_prompt_tokens.saturating_sub(request.prompt.len());
        let size = RequestSize::of(request);
        let each = RequestSize { samples: 1, ..size };
        if self.agent(question).is_some() {
            let each = RequestSize {
                later_tokens,
                has_branches: true,
                ..each
            };
            vec![each; request.samples]
        } else if self.tools(question).is_some() {
            vec![RequestSize {
                later_tokens,
                ..size
            }]
        } else if self.is_followed(question) {
            // Prompts that are prefilled anew.
            let each = RequestSize {
                prompt_tokens: size.prompt_tokens + later_tokens,
                ..each
            };
            vec![each; request.samples]
        } else {
            vec![size]
        }
    }

    /// Whether scores are needed while others are decoded: to know whether conversations go on, or since scorers that run
    /// programs have few to answer afterwards if they begin with what ends first.
    pub(super) fn needs_scores(&self) -> bool {
        let scorers = || self.settings.tasks.iter().map(|task| task.scorer);
        let runs_programs =
            scorers().any(Scorer::runs_programs) && !scorers().any(Scorer::compares_groups);
        runs_programs || (0..self.all.len()).any(|question| self.is_followed(question))
    }

    /// Whether the work was cancelled or has failed.
    pub(super) fn is_over(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed) || self.sampler.threads().check().is_err()
    }
}
