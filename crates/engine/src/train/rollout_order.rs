//! Which prompts the next steps take, in an order that has no end.

use std::ops::Range;

use super::trainer::Trainer;
use crate::dataset::order::epoch_order;
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
        Question { prompt, request: Request::new(prompt.token_ids.clone(), self.position, self.step, samples) }
    }
}

/// The prompts of these plans.
pub(super) fn prompts_at(trainer: &Trainer, plans: &[StepPlan]) -> Vec<PlannedPrompt> {
    let rows = trainer.prompts.train.len() as u64;
    let (mut epoch, mut order) = (None, Vec::new());
    let mut found = Vec::new();
    for plan in plans {
        for position in plan.positions.clone() {
            if epoch != Some(position / rows) {
                epoch = Some(position / rows);
                order = epoch_order(rows as usize, position / rows, trainer.config.seed);
            }
            let prompt = order[(position % rows) as usize];
            found.push(PlannedPrompt { step: plan.step as u32, position: position as u32, prompt });
        }
    }
    found
}
