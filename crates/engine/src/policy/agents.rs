//! Conversations that agents hold: a program for each, which asks a gateway; what it asks is decoded beside others.

use std::sync::{Arc, OnceLock};

use candle_core::{Error, Result};

use super::mailbox::request_number;
use super::sampler::Sampler;
use super::{ConverseSettings, ScoredTask};
use crate::environment::Agent;
use crate::rollout::{Completion, Request};
use crate::score::{Task, template_options};
use crate::serve::{Gateway, GatewayModel, Seat};

/// The agents of tasks, and the server that they ask.
pub(super) struct Agents<'a> {
    pub(super) gateway: Gateway,
    /// By task; `None` where it has none.
    of_tasks: Vec<Option<TaskAgent<'a>>>,
    /// By conversation, from the start of its program on.
    pub(super) seats: Vec<OnceLock<Arc<Seat>>>,
}

/// The agent of a task.
pub(super) struct TaskAgent<'a> {
    pub(super) task: &'a Task,
    pub(super) agent: &'a Agent,
    pub(super) model: GatewayModel,
}

impl<'a> Agents<'a> {
    /// `None` where no task has an agent.
    pub(super) fn of_tasks(
        sampler: &dyn Sampler,
        settings: &ConverseSettings<'a>,
        conversations: usize,
    ) -> Result<Option<Self>> {
        let of_task = |asked: &ScoredTask<'a>| {
            let agent = asked.task.agent()?;
            let most = agent
                .limits()
                .max_context_tokens
                .unwrap_or(usize::MAX)
                .min(asked.max_prompt_tokens);
            let limits = (most, settings.sampling.max_completion_tokens);
            let options = template_options(asked.task);
            let model = GatewayModel::new(
                sampler.config(),
                Arc::clone(sampler.tokenizer()),
                options,
                limits,
            );
            Some(TaskAgent {
                task: asked.task,
                agent,
                model,
            })
        };
        let of_tasks: Vec<_> = settings.tasks.iter().map(of_task).collect();
        if of_tasks.iter().all(Option::is_none) {
            return Ok(None);
        }
        of_tasks
            .iter()
            .flatten()
            .try_for_each(|own| own.agent.check())
            .map_err(Error::wrap)?;
        let seats = std::iter::repeat_with(OnceLock::new)
            .take(conversations)
            .collect();
        Ok(Some(Self {
            gateway: Gateway::start()?,
            of_tasks,
            seats,
        }))
    }

    pub(super) fn of_task(&self, task: usize) -> Option<&TaskAgent<'a>> {
        self.of_tasks[task].as_ref()
    }

    /// Programs that run at the same time.
    pub(super) fn processes(&self) -> usize {
        self.of_tasks
            .iter()
            .flatten()
            .map(|own| own.agent.limits().processes)
            .min()
            .unwrap_or(1)
    }

    /// Whether a completion goes on: its client may have left, its text of `stop` may have come.
    pub(super) fn on_token(
        &self,
        conversation: usize,
        request: &Request,
        completion: &Completion,
    ) -> bool {
        self.seats[conversation]
            .get()
            .is_none_or(|seat| seat.on_token(request_number(request), completion))
    }

    /// Whether the program of a conversation has ended.
    pub(super) fn is_over(&self, conversation: usize) -> bool {
        self.seats[conversation]
            .get()
            .is_some_and(|seat| seat.is_closed())
    }

    /// Answers what a conversation has asked.
    pub(super) fn answer(
        &self,
        conversation: usize,
        request: &Request,
        completion: &Completion,
    ) -> Result<()> {
        let seat = self.seats[conversation].get();
        seat.map_or(Ok(()), |seat| {
            seat.on_end(request_number(request), completion)
        })
        .map_err(Error::wrap)
    }
}
