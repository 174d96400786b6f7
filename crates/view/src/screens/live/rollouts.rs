//! The texts of a step's groups, read in the background and cached for recent steps; of step 0 the base's answers.

use std::path::PathBuf;

use super::header::eval_under_way;
use super::{Completion, Live, SampledGroup};
use crate::facts::StopReason;
use crate::followed_run::FollowedRun;
use crate::message::{Command, Sender, Work};
use crate::run::{EvalRecord, RolloutGroup, read_evals, read_step};
use crate::shared::Shared;
use crate::task::task_prompt;

/// Reads a step, unless it was read or is being read. One that could not be read is retried: the cause may have been
/// fixed.
pub(super) fn load(live: &mut Live, shared: &mut Shared, step: u64) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return Vec::new();
    };
    if step == 0 {
        return load_base(live, shared);
    }
    let rollouts = &live.rollouts;
    let reading = rollouts.reading == Some(step) && shared.is_busy("live.rollouts");
    if !run.loaded || reading || matches!(rollouts.at_step(step), Some(Ok(_))) {
        return Vec::new();
    }
    let (path, of) = (run.path().to_owned(), run.path().to_owned());
    live.rollouts.reading = Some(step);
    let read = move |_: &Sender| {
        read_step(&path, step)
            .map(|groups| groups.into_iter().map(sampled).collect())
            .map_err(|error| error.to_string())
    };
    vec![reading_work(step, of, read)]
}

fn reading_work(
    step: u64,
    of: PathBuf,
    read: impl FnOnce(&Sender) -> Result<Vec<SampledGroup>, String> + Send + 'static,
) -> Command {
    Work::latest(
        "live.rollouts",
        read,
        move |live: &mut Live, shared, groups| {
            if shared.current.as_ref() == Some(&of) {
                live.rollouts.reading = None;
                live.rollouts.keep(step, groups);
            }
            Vec::new()
        },
    )
}

/// Takes the base's answers from the state of the worker that samples them; once they are recorded, reads all.
fn load_base(live: &mut Live, shared: &Shared) -> Vec<Command> {
    let Some(run) = shared.current_run().filter(|run| run.loaded) else {
        return Vec::new();
    };
    if let Some(eval) = eval_under_way(run).filter(|eval| !eval.latest.is_empty()) {
        let groups = eval.latest.iter().cloned();
        let groups = groups
            .map(|record| answer(eval.set.task(), record))
            .collect();
        live.rollouts.keep(0, Ok(groups));
        return Vec::new();
    }
    let evals = base_evals(run);
    let is_read =
        live.rollouts.base_evals == evals.len() && matches!(live.rollouts.at_step(0), Some(Ok(_)));
    if evals.is_empty() || is_read || shared.is_busy("live.rollouts") {
        return Vec::new();
    }
    live.rollouts.base_evals = evals.len();
    let read = move |_: &Sender| {
        let mut groups = Vec::new();
        for (task, file) in evals {
            let records = read_evals(&file).map_err(|error| error.to_string())?;
            groups.extend(records.into_iter().map(|record| answer(&task, record)));
        }
        Ok(groups)
    };
    vec![reading_work(0, run.path().to_owned(), read)]
}

/// The recorded evals of the base: task and file.
fn base_evals(run: &FollowedRun) -> Vec<(String, PathBuf)> {
    let evals = run.history.evals.values();
    evals
        .filter(|eval| eval.step == 0)
        .map(|eval| (eval.set.task().to_owned(), run.path().join(&eval.file)))
        .collect()
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

/// An answer of an eval as a group of one.
fn answer(task: &str, record: EvalRecord) -> SampledGroup {
    SampledGroup {
        prompt_id: task_prompt(task, &record.prompt_id),
        completions: vec![Completion {
            chain: record.chain.map(|chain| *chain),
            text: record.completion,
            tokens: record.tokens.unwrap_or(0),
            stop_reason: if record.truncated {
                StopReason::Length
            } else {
                StopReason::Stop
            },
            reward: Some(record.reward).filter(|reward| !reward.is_nan()),
            score: serde_json::from_value(record.score).ok(),
            ..Completion::default()
        }],
        ..SampledGroup::default()
    }
}
