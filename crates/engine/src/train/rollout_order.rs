//! Prompts of the next steps, in an endless order.

use super::error::TrainError;
use super::groups::{Group, PromptOutcome, StepRollout};
use super::trainer::Trainer;
use crate::dataset::adaptive_order::TakenRows;
use crate::policy::Question;
use crate::ranks::Ranks;
use crate::rollout::Request;

/// A step with its prompts.
#[derive(Clone, Debug)]
pub(super) struct StepPlan {
    pub(super) step: u64,
    /// Position of the first prompt in the endless order.
    position: u64,
    /// Indices of training prompts.
    pub(super) prompts: Vec<usize>,
    /// Prompts skipped to find them.
    pub(super) skipped: u64,
}

impl StepPlan {
    /// This rank's share.
    pub(super) fn share(&self, ranks: &Ranks) -> Self {
        let share = ranks.share(self.prompts.len());
        let position = self.position + share.start as u64;
        Self {
            position,
            prompts: self.prompts[share].to_vec(),
            ..*self
        }
    }

    pub(super) fn planned(&self) -> impl Iterator<Item = PlannedPrompt> {
        let planned = |(position, prompt): (u64, &usize)| PlannedPrompt {
            step: self.step as u32,
            position: position as u32,
            prompt: *prompt,
        };
        (self.position..).zip(&self.prompts).map(planned)
    }
}

impl Trainer {
    /// Takes the next `count` prompts of the endless order. Adaptive sampling knows the groups of
    /// earlier steps, except steps sampled together and earlier refills.
    pub(super) fn plan(&mut self, step: u64, count: u64) -> StepPlan {
        let (order, position) = (&self.prompts.order, self.state.prompts_taken);
        self.state.prompts_taken += count;
        let positions = position..self.state.prompts_taken;
        let TakenRows { rows, skipped } = match &mut self.state.adaptive {
            Some(adaptive) => adaptive.take(order, positions),
            None => TakenRows {
                rows: order.rows_at(positions),
                skipped: 0,
            },
        };
        StepPlan {
            step,
            position,
            prompts: self.prompts.indices(rows).collect(),
            skipped,
        }
    }

    /// Updates adaptive sampling with all ranks' groups, including replaced ones.
    ///
    /// # Errors
    /// Those of lost ranks.
    pub(super) fn observe(&mut self, sampled: &[StepRollout]) -> Result<(), TrainError> {
        let Some(adaptive) = &mut self.state.adaptive else {
            return Ok(());
        };
        let groups = sampled.iter().flat_map(StepRollout::sampled_groups);
        let own: Vec<PromptOutcome> = groups.filter_map(Group::outcome).collect();
        let mut outcomes = self.ranks.exchange(own)?.concat();
        outcomes.sort_by_key(|outcome| outcome.position);
        outcomes
            .into_iter()
            .for_each(|it| adaptive.observe(self.prompts.row_at(it.prompt), it.outcome));
        Ok(())
    }
}

/// A prompt of a step, numbered for random numbers in 32 bits. A position is unique within a step,
/// so repeated prompts get other random numbers. Steps would repeat after 2^32: 13 years at 0.1 s
/// each.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedPrompt {
    pub(super) step: u32,
    pub(super) position: u32,
    /// Index of the training prompt.
    pub(super) prompt: usize,
}

impl PlannedPrompt {
    /// The question for a group's completions.
    pub(super) fn question(self, trainer: &Trainer) -> Question<'_> {
        let prompt = &trainer.prompts.train[self.prompt];
        let samples = trainer.config.completions_per_prompt;
        let request = Request::new(prompt.token_ids.clone(), self.position, self.step, samples);
        Question {
            prompt,
            request: trainer.tasks[prompt.task].limited(request, &trainer.config),
        }
    }
}
