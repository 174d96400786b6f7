//! Questions answered together, with tools and agents of their tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Result;

use super::agents::{Agents, TaskAgent};
use super::sampler::Sampler;
use super::settings::{ConverseSettings, Question, ScoredTask};
use super::tools::TaskTools;
use crate::gateway::Gateway;
use crate::rollout::RequestSize;
use crate::score::Scorer;

pub(super) struct Questions<'a> {
    pub(super) sampler: Sampler<'a>,
    pub(super) all: &'a [Question<'a>],
    pub(super) settings: &'a ConverseSettings<'a>,
    /// One per task; `None` without tools.
    tools: Vec<Option<TaskTools<'a>>>,
    /// `None` if no task has an agent.
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

    /// `None` if its task has no tools.
    pub(super) fn tools(&self, question: usize) -> Option<&TaskTools<'a>> {
        self.tools[self.all[question].prompt.task].as_ref()
    }

    /// The question's agent, with its server.
    pub(super) fn agent(&self, question: usize) -> Option<(&TaskAgent<'a>, &'static Gateway)> {
        let task = self.all[question].prompt.task;
        self.agents.as_ref()?.of_task(task)
    }

    /// Maximum turns of a conversation; an agent has one.
    pub(super) fn max_turns(&self, question: usize) -> usize {
        let turns = match self.agent(question) {
            Some(_) => 1,
            None => self.all[question].prompt.row.turn_count(),
        };
        turns.min(self.settings.max_turns)
    }

    /// Whether conversations continue in the cache: with tools each prompt extends everything read
    /// before, as do most prompts of agents.
    pub(super) fn stays_in_cache(&self, question: usize) -> bool {
        self.tools(question).is_some() || self.agent(question).is_some()
    }

    /// Whether its conversations may have several completions.
    pub(super) fn is_followed(&self, question: usize) -> bool {
        self.stays_in_cache(question) || self.max_turns(question) > 1
    }

    /// Maximum prompt length in a conversation.
    pub(super) fn max_prompt_tokens(&self, question: usize) -> usize {
        let most = self.task(question).max_prompt_tokens;
        most.min(self.all[question].prompt.most_tokens)
    }

    /// Cache sizes of a question.
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
            // Prompts prefilled again.
            let each = RequestSize {
                prompt_tokens: size.prompt_tokens + later_tokens,
                ..each
            };
            vec![each; request.samples]
        } else {
            vec![size]
        }
    }

    /// Whether to score while decoding: when later turns depend on it, or for scoring programs,
    /// which then have less left to do afterwards.
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
