//! Which prompts the next steps take, in an order that has no end.

use std::ops::Range;

use super::trainer::Trainer;
use crate::dataset::order::epoch_order;
use crate::ranks::Ranks;

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

/// The step, position and index of each prompt of these plans; step and position as random numbers count them, in 32
/// bits. A position is unique within a step, so a prompt that occurs twice in one is sampled with other random numbers.
/// Steps would be repeated after 2^32 of them: 13 years at 0.1 s each.
pub(super) fn prompts_at(trainer: &Trainer, plans: &[StepPlan]) -> Vec<(u32, u32, usize)> {
    let rows = trainer.prompts.train.len() as u64;
    let mut epoch: Option<(u64, Vec<usize>)> = None;
    let mut found = Vec::new();
    for plan in plans {
        for position in plan.positions.clone() {
            let number = position / rows;
            if epoch.as_ref().is_none_or(|(known, _)| *known != number) {
                epoch = Some((number, epoch_order(rows as usize, number, trainer.config.seed)));
            }
            let prompt = epoch.as_ref().map_or(0, |(_, order)| order[(position % rows) as usize]);
            found.push((plan.step as u32, position as u32, prompt));
        }
    }
    found
}
