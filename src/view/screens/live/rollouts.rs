//! The texts of a step's groups, read beside the view and kept for the steps looked at lately.

use std::collections::BTreeMap;

use crate::run::{RolloutGroup, read_step};
use crate::score::Score;
use crate::view::app::Model;
use crate::view::message::{Command, Outlet, Work};

/// Steps whose texts are kept.
const STEPS_KEPT: usize = 6;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    /// By step; the texts, or why they cannot be read.
    steps: BTreeMap<u64, Result<Vec<Sampled>, String>>,
    /// Steps in the order in which they were read.
    order: Vec<u64>,
    /// The step that is being read.
    reading: Option<u64>,
}

/// One group, without the tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Sampled {
    /// The prompt row's id.
    pub(super) prompt_id: String,
    /// The prompt as the model read it.
    pub(super) prompt: String,
    pub(super) replaced: bool,
    /// What the model wrote.
    pub(super) completions: Vec<Completion>,
}

/// One completion, without the tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Completion {
    pub(super) text: String,
    pub(super) tokens: usize,
    pub(super) stop_reason: String,
    pub(super) reward: Option<f64>,
    pub(super) advantage: f64,
    /// `None` where the run's scorer wrote something else.
    pub(super) score: Option<Score>,
}

impl Rollouts {
    /// The groups of a step; `None` while they are read.
    pub(super) fn of(&self, step: u64) -> Option<&Result<Vec<Sampled>, String>> {
        self.steps.get(&step)
    }

    fn keep(&mut self, step: u64, groups: Result<Vec<Sampled>, String>) {
        if self.steps.insert(step, groups).is_none() {
            self.order.push(step);
        }
        if self.order.len() > STEPS_KEPT {
            let oldest = self.order.remove(0);
            self.steps.remove(&oldest);
        }
    }
}

/// The work that reads a step, unless it was read or is being read. One that could not be read is tried again: what was wrong may have been mended.
pub(super) fn wanted(model: &mut Model, step: u64) -> Vec<Command> {
    let Some(run) = model.shared.current_run() else { return Vec::new() };
    let rollouts = &model.live.rollouts;
    let reading = rollouts.reading == Some(step) && model.shared.is_busy("live.rollouts");
    if step == 0 || !run.loaded || reading || matches!(rollouts.of(step), Some(Ok(_))) {
        return Vec::new();
    }
    let (path, of) = (run.path().to_owned(), run.path().to_owned());
    model.live.rollouts.reading = Some(step);
    let read =
        move |_: &Outlet| read_step(&path, step).map(|groups| groups.into_iter().map(sampled).collect()).map_err(|error| error.to_string());
    let work = Work::latest("live.rollouts", read, move |model, groups| {
        if model.shared.current.as_ref() == Some(&of) {
            model.live.rollouts.reading = None;
            model.live.rollouts.keep(step, groups);
        }
        Vec::new()
    });
    vec![work]
}

/// Whether the step that is looked at could not be read.
pub(super) fn has_failed(model: &Model) -> bool {
    let found = model.shared.current_run().and_then(|run| model.live.rollouts.of(model.live.at(run)));
    matches!(found, Some(Err(_)))
}

fn sampled(group: RolloutGroup) -> Sampled {
    let completions = group.completions.into_iter().map(|completion| Completion {
        text: completion.text,
        tokens: completion.token_ids.len(),
        stop_reason: completion.stop_reason,
        reward: completion.reward,
        advantage: completion.advantage,
        score: serde_json::from_value(completion.score).ok(),
    });
    Sampled { prompt_id: group.prompt_id, prompt: group.prompt, replaced: group.replaced, completions: completions.collect() }
}
