//! `grpo-tui study`: a question answered by runs, such as whether SFT would have done.

use super::sweep::{
    CommonArguments, begin, blank, fill_runs, resolve, resolve_tasks, resume_existing, run_folders,
};
use super::{Failure, Outcome};
use crate::format::did_you_mean;
use crate::study::{Metric, Space, Study, StudyError};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["study", "resume", "show", "list"]))]
#[command(group = clap::ArgGroup::new("begins").multiple(true).conflicts_with_all(["resume", "show", "list"]))]
#[command(after_long_help = "\
  sft-vs-grpo       base, SFT, GRPO, GRPO after SFT: at equal updates, and until three evals bring no better valid rate\n  \
  binary-vs-tiered  rewards of the tiers 0/0/1 against 0/0.5/1\n  \
  group-size        2, 4, 8 and 16 completions per prompt, at equal completions per step\n  \
  sync-interval     1, 2, 4 and 8 optimizer steps per rollout\n  \
  prompt-sampling   each prompt once a pass, against fewer of those whose groups have no gradient\n  \
  distillation      base, SFT, GRPO, distillation from the model shown the expected answer, or from --set teacher=MODEL\n\n\
Runs are those of a sweep: tagged, resumable, one at a time on a device.")]
pub(super) struct Arguments {
    /// Study: sft-vs-grpo, binary-vs-tiered, group-size, sync-interval, prompt-sampling or distillation
    #[arg(requires = "task", value_parser = study_named)]
    study: Option<Study>,
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

fn study_named(name: &str) -> Result<Study, String> {
    Study::from_name(name).ok_or_else(|| {
        let near = did_you_mean(name, Study::ALL.map(Study::name));
        let names = Study::ALL.map(Study::name).join(", ");
        format!("unknown study `{name}`{near}\nstudies: {names}")
    })
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
    let key = |text: &String| {
        text.split_once('=')
            .map_or(String::new(), |(key, _)| key.to_owned())
    };
    // Each is for one of the settings, or for those that begin.
    let is_taken = |key: &str| match study {
        Study::SftVsGrpo => key == "base_model",
        Study::Distillation => key == "teacher",
        _ => false,
    };
    let own = |key: &String| study.keys().contains(&key.as_str()) && !is_taken(key);
    if let Some(key) = space.fixed.iter().map(key).find(own) {
        // In the group size study, the completions per step are the user's.
        if study != Study::GroupSize || key == "method" {
            return Err(Failure::usage(format!(
                "--set {key}: study {} sets this key itself: leave it out",
                study.name()
            )));
        }
    }
    let teacher = |set: &String| study == Study::Distillation && key(set) == "teacher";
    let (teacher, fixed): (Vec<String>, Vec<String>) = space.fixed.into_iter().partition(teacher);
    let mut sweep = blank(&arguments.common, &tasks, fixed, Metric::Valid)?;
    let mut config = resolve(&sweep, &sweep.fixed, &tasks, &run_folders)?;
    config.teacher = teacher
        .first()
        .and_then(|set| set.split_once('='))
        .map_or(String::new(), |(_, name)| name.to_owned());
    sweep.study = Some(study);
    (sweep.settings, sweep.pairs) = study.settings(&config).map_err(usage)?;
    let seeds = (config.seed..)
        .take(usize::try_from(arguments.seeds)?)
        .collect();
    fill_runs(&mut sweep, seeds, &tasks, &run_folders)?;
    begin(&arguments.common, &run_folders, &tasks, sweep)
}
