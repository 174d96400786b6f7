//! The texts of a step's groups, read in the background and cached for recent steps.

use super::{Completion, Live, SampledGroup};
use crate::message::{Command, Sender, Work};
use crate::run::{RolloutGroup, read_step};
use crate::shared::Shared;
use crate::task::task_prompt;

/// Reads a step, unless it was read or is being read. One that could not be read is retried: the cause may have been
/// fixed.
pub(super) fn load(live: &mut Live, shared: &mut Shared, step: u64) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    let rollouts = &live.rollouts;
    let reading = rollouts.reading == Some(step) && shared.is_busy("live.rollouts");
    if step == 0 || !run.loaded || reading || matches!(rollouts.at_step(step), Some(Ok(_))) {
        return Vec::new();
    }
    let (path, of) = (run.path().to_owned(), run.path().to_owned());
    live.rollouts.reading = Some(step);
    let read = move |_: &Sender| {
        read_step(&path, step)
            .map(|groups| groups.into_iter().map(sampled).collect())
            .map_err(|error| error.to_string())
    };
    let work = Work::latest(
        "live.rollouts",
        read,
        move |live: &mut Live, shared, groups| {
            if shared.current.as_ref() == Some(&of) {
                live.rollouts.reading = None;
                live.rollouts.keep(step, groups);
            }
            Vec::new()
        },
    );
    vec![work]
}

/// Whether the selected step could not be read.
pub(super) fn has_failed(live: &Live, shared: &Shared) -> bool {
    let found = shared
        .current_run()
        .and_then(|run| live.rollouts.at_step(live.at(run)));
    matches!(found, Some(Err(_)))
}

fn sampled(group: RolloutGroup) -> SampledGroup {
    let completions = group.completions.into_iter().map(|completion| Completion {
        tokens: completion.sampled_tokens(),
        prompt: completion.prompt,
        chain: completion.chain,
        text: completion.text,
        stop_reason: completion.stop_reason,
        reward: completion.reward,
        advantage: completion.advantage,
        score: serde_json::from_value(completion.score).ok(),
    });
    SampledGroup {
        prompt_id: task_prompt(&group.task, &group.prompt_id),
        prompt: group.prompt,
        replaced: group.replaced,
        completions: completions.collect(),
    }
}
