//! A build without `serve` has no server for agents to ask.

use candle_core::{Error, Result};

use super::ConverseSettings;
use super::sampler::Sampler;
use crate::rollout::{Completion, Request};

/// None of them.
pub(super) struct Agents<'a>(std::convert::Infallible, std::marker::PhantomData<&'a ()>);

impl Agents<'_> {
    pub(super) fn of_tasks(
        _: &dyn Sampler,
        settings: &ConverseSettings<'_>,
        _: usize,
    ) -> Result<Option<Self>> {
        match settings
            .tasks
            .iter()
            .find(|asked| asked.task.agent().is_some())
        {
            Some(asked) => Err(Error::msg(format!(
                "{} has an [agent], which needs the feature `serve`: this program was built without it",
                asked.task.name
            ))),
            None => Ok(None),
        }
    }

    pub(super) fn of_task(&self, _: usize) -> Option<&()> {
        match self.0 {}
    }

    pub(super) fn processes(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn on_token(&self, _: usize, _: &Request, _: &Completion) -> bool {
        match self.0 {}
    }

    pub(super) fn is_over(&self, _: usize) -> bool {
        match self.0 {}
    }

    pub(super) fn answer(&self, _: usize, _: &Request, _: &Completion) -> Result<()> {
        match self.0 {}
    }
}
