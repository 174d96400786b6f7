//! The pace that an earlier run of a task recorded, for the plan of the next.

use super::lookup::RunFolders;
use crate::config::TrainConfig;
use crate::facts::{Job, Status};
use crate::plan::Pace;
use crate::run::record::history::RunState;
use crate::run::storage::directory::RunDirectory;

/// The median seconds per step of the latest finished run of the task from the same model, with steps of as many and as
/// long completions and as many ranks, and where `is_there` says by the run and its device; `None` without one.
pub fn recorded_pace(
    run_folders: &RunFolders,
    task: &str,
    model_digest: &str,
    config: &TrainConfig,
    is_there: impl Fn(&RunDirectory, &str) -> bool,
) -> Option<Pace> {
    let shape = |config: &TrainConfig| {
        let completions = (
            config.prompt_groups_per_step,
            config.completions_per_prompt,
            config.max_completion_tokens,
        );
        (
            completions,
            config.lora_rank,
            config.weight_sync_interval,
            config.kl_beta > 0.0,
            config.ranks,
        )
    };
    let pace = |run: RunDirectory| {
        let state = RunState::read(run.path()).ok()?;
        let is_finished = state
            .end
            .as_ref()
            .is_some_and(|end| end.status == Status::Finished);
        let is_alike = state
            .run
            .as_ref()
            .is_some_and(|begun| is_there(&run, &begun.device));
        let mut seconds = state
            .metrics
            .get("seconds")
            .filter(|_| is_finished && is_alike)?
            .values()
            .to_vec();
        seconds.sort_by(f64::total_cmp);
        let seconds_per_step = seconds.get(seconds.len() / 2).copied()?;
        Some(Pace {
            run: run.id().to_owned(),
            seconds_per_step,
        })
    };
    let alike = |run: &RunDirectory| shape(&run.file().config) == shape(config);
    latest_first(run_folders, task, model_digest)
        .filter(alike)
        .find_map(pace)
}

fn latest_first<'a>(
    run_folders: &RunFolders,
    task: &'a str,
    model_digest: &'a str,
) -> impl Iterator<Item = RunDirectory> + use<'a> {
    let of_job = move |run: &RunDirectory| {
        let file = run.file();
        file.job == Job::Train && file.task == task && file.model_digest == model_digest
    };
    run_folders
        .list()
        .into_iter()
        .rev()
        .filter_map(|(_, run)| run.ok())
        .filter(of_job)
}
