//! Which prompts the next steps take, in an order that has no end.

use std::ops::Range;

use super::job::Job;
use crate::dataset::order::epoch_order;
use crate::rollout::Request;

/// Steps, and the places of their prompts in the endless order.
pub(super) type Plan = Vec<(u64, Range<u64>)>;

pub(super) fn next_plan(job: &Job) -> Plan {
    let groups = job.config.prompt_groups_per_step as u64;
    let first = job.state.prompts_taken;
    (0..job.next_steps())
        .map(|index| (job.state.step + 1 + index, first + index * groups..first + (index + 1) * groups))
        .collect()
}

/// The next `count` places in the endless order of prompts.
pub(super) fn take(job: &mut Job, count: usize) -> Range<u64> {
    let start = job.state.prompts_taken;
    job.state.prompts_taken += count as u64;
    start..job.state.prompts_taken
}

/// The prompts of a plan, by their index, and what to sample of each.
pub(super) fn requests(job: &Job, plan: &Plan) -> (Vec<usize>, Vec<Request>) {
    let mut order = Order::new(job);
    let (mut prompts, mut requests) = (Vec::new(), Vec::new());
    for (step, place) in plan.iter().flat_map(|(step, places)| places.clone().map(move |place| (*step, place))) {
        let prompt = order.prompt(place);
        prompts.push(prompt);
        let tokens = job.prompts.train[prompt].token_ids.clone();
        // The position is unique within an epoch, so a prompt that occurs twice in a step is sampled with other random
        // numbers.
        requests.push(Request::new(tokens, place as u32, step as u32, job.config.completions_per_prompt));
    }
    (prompts, requests)
}

/// The order of the prompts, one epoch at a time.
struct Order {
    rows: usize,
    seed: u64,
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    fn new(job: &Job) -> Self {
        Self { rows: job.prompts.train.len(), seed: job.config.seed, epoch: None }
    }

    fn prompt(&mut self, place: u64) -> usize {
        let epoch = place / self.rows as u64;
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.epoch = Some((epoch, epoch_order(self.rows, epoch, self.seed)));
        }
        self.epoch.as_ref().map_or(0, |(_, order)| order[(place % self.rows as u64) as usize])
    }
}
