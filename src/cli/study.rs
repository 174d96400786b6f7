//! `grpo-tui study`: whether SFT would have done, answered by runs.

use super::sweep::{
    CommonArguments, begin, blank, fill_runs, resolve, resolve_tasks, resume_existing, run_folders,
};
use super::{Failure, Outcome};
use crate::study::{Metric, SFT_VS_GRPO, Space, StudyError, sft_vs_grpo};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["study", "resume", "show", "list"]))]
#[command(group = clap::ArgGroup::new("begins").multiple(true).conflicts_with_all(["resume", "show", "list"]))]
#[command(after_long_help = "\
  sft-vs-grpo  base, SFT, GRPO, GRPO after SFT: at equal updates, and until three evals bring no better valid rate\n\n\
Runs are those of a sweep: tagged, resumable, one at a time on a device. docs/sweeps.md has sweeps that answer other questions.")]
pub(super) struct Arguments {
    /// Study
    #[arg(requires = "task", value_parser = [SFT_VS_GRPO])]
    study: Option<String>,
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`). Several
    /// are trained together in each run
    #[arg(value_name = "TASK")]
    task: Vec<String>,
    /// Seeds: runs of each setting
    #[arg(long, value_name = "N", default_value_t = 3, group = "begins", value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Set a configuration key of all runs; repeatable
    #[arg(long, value_name = "KEY=VALUE", group = "begins")]
    set: Vec<String>,
    #[command(flatten)]
    common: CommonArguments,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let run_folders = run_folders(&arguments.common)?;
    let Some(study) = arguments.study else {
        return resume_existing(&arguments.common, &run_folders);
    };
    let usage = |error: StudyError| Failure::usage(error.to_string());
    let tasks = resolve_tasks(&arguments.task)?;
    let space = Space::parse(&arguments.set).map_err(usage)?;
    if let Some(axis) = space.axes.first() {
        return Err(Failure::usage(format!(
            "--set {}: a study takes one value per key; `grpo-tui sweep` varies keys",
            axis.key
        )));
    }
    if !space.seeds.is_empty() {
        return Err(Failure::usage(
            "--set seed: a study chooses its seeds: set their number with --seeds N",
        ));
    }
    let is_own = |set: &&String| {
        ["method=", "patience="]
            .iter()
            .any(|own| set.starts_with(own))
    };
    if let Some(set) = space.fixed.iter().find(is_own) {
        return Err(Failure::usage(format!(
            "--set {set}: the study sets this key itself: leave it out"
        )));
    }
    let mut sweep = blank(&arguments.common, &tasks, space.fixed, Metric::Valid)?;
    let config = resolve(&sweep, &sweep.fixed, &tasks, &run_folders)?;
    sweep.study = Some(study);
    (sweep.settings, sweep.pairs) = sft_vs_grpo(config.max_steps).map_err(usage)?;
    let seeds = (config.seed..)
        .take(usize::try_from(arguments.seeds)?)
        .collect();
    fill_runs(&mut sweep, seeds, &tasks, &run_folders)?;
    begin(&arguments.common, &run_folders, &tasks, sweep)
}
