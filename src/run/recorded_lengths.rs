//! The completion lengths that earlier runs of a task recorded, for the forecast of the next.

use super::directory::RunDirectory;
use super::history::RunState;
use super::lookup::RunFolders;
use crate::plan::CompletionLengths;

/// Above this share of truncated completions, another limit would have given other lengths.
const MOST_TRUNCATED: f64 = 0.01;

/// The lengths of the latest run of the task from the same model with any step; `None` without one, or if a lower limit
/// than `limit` truncated them. An older run would be an older guess, so only the latest counts.
pub fn recorded_lengths(
    places: &RunFolders,
    task: &str,
    model_digest: &str,
    limit: usize,
) -> Option<CompletionLengths> {
    let of_job = |run: &RunDirectory| {
        let file = run.file();
        file.job == "train" && file.task == task && file.model_digest == model_digest
    };
    let runs = places.list().into_iter().rev().filter_map(|(_, run)| run.ok()).filter(of_job);
    let with_steps = |run: RunDirectory| {
        let state = RunState::read(run.path()).ok()?;
        (state.last_step > 0).then_some((run, state))
    };
    let (run, state) = runs.into_iter().find_map(with_steps)?;
    let truncated = state.metrics.get("completions/clipped_ratio").map_or(&[][..], |series| series.values());
    let truncated = truncated.iter().sum::<f64>() / truncated.len().max(1) as f64;
    if run.file().config.max_completion_tokens < limit && truncated > MOST_TRUNCATED {
        return None;
    }
    CompletionLengths::of_run(run.id(), state.metrics.get("completions/mean_length")?.values(), limit)
}
