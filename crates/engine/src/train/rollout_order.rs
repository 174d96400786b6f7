//! Which prompts the next steps take, in an order that has no end.

use std::ops::Range;

use super::trainer::Trainer;
use crate::policy::Question;
use crate::ranks::Ranks;
use crate::rollout::Request;

/// A step, and the positions of its prompts in the endless order.
#[derive(Clone, Debug)]
pub(super) struct StepPlan {
    pub(super) step: u64,
    pub(super) positions: Range<u64>,
}

impl StepPlan {
    /// This rank's share.
    pub(super) fn share(&self, ranks: &Ranks) -> Self {
        let Range { start, end } = ranks.share((self.positions.end - self.positions.start) as usize);
        let first = self.positions.start;
        Self { step: self.step, positions: first + start as u64..first + end as u64 }
    }
}

/// A prompt of a step, counted as random numbers do, in 32 bits. A position is unique within a step, so a prompt that
/// occurs twice in one is sampled with other random numbers. Steps would be repeated after 2^32 of them: 13 years at 0.1 s
/// each.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedPrompt {
    pub(super) step: u32,
    pub(super) position: u32,
    /// Index of the training prompt.
    pub(super) prompt: usize,
}

impl PlannedPrompt {
    /// Asks for the completions of a group.
    pub(super) fn question(self, trainer: &Trainer) -> Question<'_> {
        let (prompt, samples) = (&trainer.prompts.train[self.prompt], trainer.config.completions_per_prompt);
        let request = Request::new(prompt.token_ids.clone(), self.position, self.step, samples);
        Question { prompt, request: trainer.tasks[prompt.task].limited(request, &trainer.config) }
    }
}

/// The prompts of these plans.
pub(super) fn prompts_at(trainer: &Trainer, plans: &[StepPlan]) -> Vec<PlannedPrompt> {
    let places = || plans.iter().flat_map(|plan| plan.positions.clone().map(|position| (plan.step, position)));
    let prompts = trainer.prompts.at(places().map(|(_, position)| position));
    let planned = |((step, position), prompt): ((u64, u64), usize)| PlannedPrompt {
        step: step as u32,
        position: position as u32,
        prompt,
    };
    places().zip(prompts).map(planned).collect()
}
