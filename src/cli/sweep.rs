//! `grpo-tui sweep`: trains runs over values of keys, through the device queue.

mod driver;

use std::path::PathBuf;
use std::process::ExitCode;

use super::device::DeviceArguments;
use super::{Failure, Outcome, print, print_indented, train};
use crate::config::{ConfigFile, ResolvedConfig, TrainConfig};
use crate::page::text::render;
use crate::page::{Block, Cell, Row, Table, markdown};
use crate::run::{RunFolders, check_export, free_path, now_ms, write_export};
use crate::score::Task;
use crate::study::{
    FORMAT_VERSION, MAX_RUNS, Metric, Setting, Space, StudyError, Sweep, SweepFolder, SweepTable,
    SweepTask, grid,
};
use crate::task::{PromptSet, TASK_FILE};
use driver::Driver;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["task", "resume", "show", "list"]))]
#[command(group = clap::ArgGroup::new("begins").multiple(true).conflicts_with_all(["resume", "show", "list"]))]
#[command(after_long_help = "\
The eval set chooses, the test set reports: settings are compared by their best checkpoints on the eval set. Each run \
measures the test set once, at its end; the sweep shows that result only for the best setting.\n\n\
  grpo-tui sweep invoice --set learning_rate=1e-5,3e-5,1e-4 --set seed=0..2")]
pub(super) struct Arguments {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`). Several
    /// are trained together in each run
    #[arg(value_name = "TASK")]
    task: Vec<String>,
    /// Set a configuration key: a value, a list (1e-5,3e-5), or an inclusive range of whole numbers (0..2); repeatable
    #[arg(long, value_name = "KEY=VALUES", group = "begins")]
    set: Vec<String>,
    /// Compare settings by this value of their best checkpoints on the eval set: valid, exact, tolerant, parse or reward
    #[arg(long, default_value = "valid", group = "begins", value_parser = clap::builder::PossibleValuesParser::new(Metric::NAMES))]
    metric: String,
    /// Weights of several tasks, in their order, such as 2:1: their shares of the prompts [default: equal]
    #[arg(
        long,
        value_name = "WEIGHTS",
        allow_hyphen_values = true,
        group = "begins"
    )]
    mix: Option<String>,
    /// Preset: quick, seed or recommended
    #[arg(long, group = "begins")]
    preset: Option<String>,
    /// TOML file of configuration keys; --set overrides them. The sweep stores a copy: later changes have no effect
    #[arg(long, value_name = "FILE", group = "begins")]
    config: Option<PathBuf>,
    /// Name of the sweep, also the tag of its runs [default: from the task's name]
    #[arg(long, group = "begins")]
    name: Option<String>,
    /// Start at most N runs; with --resume, N in total
    #[arg(long, value_name = "N", conflicts_with_all = ["show", "list"])]
    max_runs: Option<usize>,
    /// Stop after H hours in all sessions together; active runs save a checkpoint
    #[arg(long, value_name = "H", conflicts_with_all = ["show", "list"])]
    max_hours: Option<f64>,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Continue a sweep: finished runs are kept, interrupted runs resume from their checkpoints
    #[arg(long, value_name = "SWEEP", conflicts_with = "task")]
    resume: Option<String>,
    /// With --resume: also resume runs that failed
    #[arg(long, requires = "resume")]
    retry_failed: bool,
    /// Show the table of a sweep without starting runs
    #[arg(long, value_name = "SWEEP", conflicts_with_all = ["task", "resume"])]
    show: Option<String>,
    /// List sweeps
    #[arg(long, conflicts_with_all = ["task", "resume", "show"])]
    list: bool,
    /// List the runs without starting them; `train --plan` plans one run in full
    #[arg(long, group = "begins")]
    plan: bool,
    #[command(flatten)]
    device: DeviceArguments,
    /// Write the table as Markdown
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plan", "list"])]
    markdown: Option<PathBuf>,
    /// Replace the file of --markdown
    #[arg(long)]
    force: bool,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let run_folders = run_folders(&arguments)?;
    if arguments.task.is_empty() {
        return resume_existing(&arguments, &run_folders);
    }
    let tasks = resolve_tasks(&arguments.task)?;
    let sweep = planned(&arguments, &tasks, &run_folders)?;
    begin(&arguments, &run_folders, &tasks, sweep)
}

/// The runs folders; first checks the export files and limits, before hours of computing.
fn run_folders(common: &Arguments) -> Result<RunFolders, Failure> {
    if let Some(path) = &common.markdown {
        check_export(path, common.force)?;
    }
    if common
        .max_hours
        .is_some_and(|hours| !(hours > 0.0 && hours.is_finite()))
    {
        return Err(Failure::usage("--max-hours: must be a number above 0"));
    }
    if common.max_runs == Some(0) {
        return Err(Failure::usage("--max-runs: must be 1 or more"));
    }
    Ok(RunFolders::discover(
        common.runs.as_deref(),
        &std::env::current_dir()?,
    ))
}

/// A sweep with the fields shared by all runs; `settings` and `runs` are still empty.
fn blank(
    common: &Arguments,
    tasks: &[Task],
    fixed: Vec<String>,
    metric: Metric,
) -> Result<Sweep, Failure> {
    if let Some(task) = tasks
        .iter()
        .find(|task| task.set_file(PromptSet::Eval).is_none())
    {
        return Err(Failure::usage(format!(
            "settings are compared on the eval set, and {} has none: add `eval = \"FILE.jsonl\"` under [prompts]",
            task.label(TASK_FILE)
        )));
    }
    let config_file = train::read_config(common.config.as_deref())?;
    config_file.as_ref().map_or(Ok(()), ConfigFile::check)?;
    let mut other_tasks = Vec::new();
    for task in tasks {
        let path = task.folder().map(std::path::absolute).transpose()?;
        let path = path.map_or_else(|| task.name.clone(), |path| path.display().to_string());
        other_tasks.push(SweepTask {
            task: path,
            digest: task.digest(),
        });
    }
    let first = other_tasks.remove(0);
    Ok(Sweep {
        version: FORMAT_VERSION,
        name: common.name.clone().unwrap_or_default(),
        created_ms: now_ms(),
        task: first.task,
        task_digest: first.digest,
        other_tasks,
        mix: common.mix.clone(),
        preset: common.preset.clone(),
        config_file,
        fixed,
        metric,
        compute: common.device.compute(),
        max_runs: common.max_runs,
        max_hours: common.max_hours,
        seconds: 0.0,
        settings: Vec::new(),
        runs: Vec::new(),
    })
}

/// Resolves the configuration of a run with these assignments, as `train` does.
fn resolve(
    sweep: &Sweep,
    set: &[String],
    tasks: &[Task],
    run_folders: &RunFolders,
) -> Result<TrainConfig, Failure> {
    let arguments = train::Arguments::for_sweep(sweep, set.to_vec(), run_folders);
    let ResolvedConfig { config, .. } = train::resolve(&arguments, tasks, run_folders)?;
    Ok(config)
}

fn planned(
    arguments: &Arguments,
    tasks: &[Task],
    run_folders: &RunFolders,
) -> Result<Sweep, Failure> {
    let usage = |error: StudyError| Failure::usage(error.to_string());
    let space = Space::parse(&arguments.set).map_err(usage)?;
    if space.axes.is_empty() && space.seeds.len() < 2 {
        return Err(usage(StudyError::NothingVaries));
    }
    let metric = Metric::from_name(&arguments.metric).unwrap_or_default();
    let mut sweep = blank(arguments, tasks, space.fixed.clone(), metric)?;
    let combinations = space
        .axes
        .iter()
        .try_fold(1_usize, |all, axis| all.checked_mul(axis.values.len()));
    let seeds = space.seeds.len().max(1);
    let too_many = |runs: usize| {
        usage(StudyError::TooMany {
            runs,
            most: MAX_RUNS,
        })
    };
    // A grid too large to list is too large to run.
    const MAX_LISTED: usize = 1_000_000;
    let count = combinations
        .filter(|all| *all <= MAX_LISTED)
        .ok_or_else(|| too_many(usize::MAX))?;
    if arguments.max_runs.is_none() && count.saturating_mul(seeds) > MAX_RUNS {
        return Err(too_many(count.saturating_mul(seeds)));
    }
    let setting = |values: Vec<(&'static str, String)>| {
        let set: Vec<String> = values
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let label = if set.is_empty() {
            "all runs".to_owned()
        } else {
            set.join(" ")
        };
        Setting {
            label,
            set,
            ..Setting::default()
        }
    };
    sweep.settings = grid(&space.axes).into_iter().map(setting).collect();
    fill_runs(&mut sweep, space.seeds, tasks, run_folders)?;
    Ok(sweep)
}

/// Validates every setting and creates the runs, with the configuration's seed if none is given.
fn fill_runs(
    sweep: &mut Sweep,
    mut seeds: Vec<u64>,
    tasks: &[Task],
    run_folders: &RunFolders,
) -> Result<(), Failure> {
    for index in 0..sweep.settings.len() {
        let setting = &sweep.settings[index];
        let config = resolve(
            sweep,
            &[sweep.fixed.as_slice(), &setting.set].concat(),
            tasks,
            run_folders,
        )
        .map_err(|failure| Failure {
            message: format!("{}: {}", setting.label, failure.message),
            ..failure
        })?;
        sweep.settings[index].resolved = config.texts().collect();
        if seeds.is_empty() {
            seeds.push(config.seed);
        }
    }
    sweep.runs = Sweep::all_runs(sweep.settings.len(), &seeds);
    Ok(())
}

/// Names the sweep, then plans or runs it.
fn begin(
    common: &Arguments,
    run_folders: &RunFolders,
    tasks: &[Task],
    mut sweep: Sweep,
) -> Outcome {
    let runs = run_folders.for_new_runs();
    if sweep.name.is_empty() {
        sweep.name = default_name(&tasks[0], runs);
    }
    if common.plan {
        return plan(common, &sweep, tasks, run_folders);
    }
    let folder =
        SweepFolder::create(runs, &sweep).map_err(|error| Failure::usage(error.to_string()))?;
    eprintln!(
        "{}: sweep; resume it with `grpo-tui sweep --resume {0}`",
        sweep.name
    );
    drive(common, folder, sweep)
}

/// Finds the tasks named on the command line.
fn resolve_tasks(names: &[impl AsRef<str>]) -> Result<Vec<Task>, Failure> {
    Ok(names
        .iter()
        .map(|name| Task::resolve(name.as_ref()))
        .collect::<Result<_, _>>()?)
}

fn named_tasks(sweep: &Sweep) -> Result<Vec<Task>, Failure> {
    resolve_tasks(&sweep.tasks())
}

/// `TASK-sweep` with the first free number.
fn default_name(task: &Task, runs: &std::path::Path) -> String {
    const KIND: &str = "sweep";
    let letters = task.name.chars().map(|letter| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '-'
        }
    });
    let task: String = letters
        .skip_while(|letter| *letter == '-')
        .take(32 - KIND.len() - 5)
        .collect();
    let start = if task.is_empty() {
        KIND.to_owned()
    } else {
        format!("{task}-{KIND}")
    };
    let path = free_path(&runs.join(".sweeps").join(start));
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// `--resume`, `--show` and `--list`.
fn resume_existing(common: &Arguments, run_folders: &RunFolders) -> Outcome {
    let find = |name: &str| {
        SweepFolder::find(run_folders, name).map_err(|error| Failure::failed(error.to_string()))
    };
    match (&common.resume, &common.show) {
        (Some(name), _) => {
            let (folder, mut sweep) = find(name)?;
            let first = std::iter::once(&sweep.task_digest);
            let digests = first.chain(sweep.other_tasks.iter().map(|other| &other.digest));
            for ((task, then), name) in named_tasks(&sweep)?.iter().zip(digests).zip(sweep.tasks())
            {
                if task.digest() != *then {
                    let short = |digest: &str| digest.chars().take(8).collect();
                    let error = StudyError::TaskChanged {
                        task: name.to_owned(),
                        name: sweep.name.clone(),
                        then: short(then),
                        now: short(&task.digest()),
                    };
                    return Err(Failure::failed(error.to_string()));
                }
            }
            sweep.max_runs = common.max_runs.or(sweep.max_runs);
            sweep.max_hours = common.max_hours.or(sweep.max_hours);
            drive(common, folder, sweep)
        }
        (None, Some(name)) => {
            let (folder, sweep) = find(name)?;
            show(common, &SweepTable::for_sweep(&folder, sweep))
        }
        (None, None) => list(common, run_folders),
    }
}

fn drive(common: &Arguments, folder: SweepFolder, sweep: Sweep) -> Outcome {
    let mut driver = Driver::begin(&folder, sweep, common.retry_failed)?;
    let code = driver.run()?;
    let sweep = driver.end();
    show(common, &SweepTable::for_sweep(&folder, sweep))?;
    Ok(code)
}

fn show(common: &Arguments, table: &SweepTable) -> Outcome {
    let export = |path: &PathBuf, text: String| write_export(path, text.as_bytes(), common.force);
    common
        .markdown
        .as_ref()
        .map_or(Ok(()), |path| export(path, markdown::render(&table.page())))?;
    match common.json {
        true => print_indented(&table.document()),
        false => print(&render(&table.page())),
    }
}

fn plan(common: &Arguments, sweep: &Sweep, tasks: &[Task], run_folders: &RunFolders) -> Outcome {
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    for (index, run) in sweep.runs.iter().enumerate() {
        let setting = &sweep.settings[run.setting];
        let config = resolve(sweep, &sweep.assignments(run), tasks, run_folders)?;
        let steps = match config.max_steps {
            0 => "by epochs".to_owned(),
            steps => steps.to_string(),
        };
        documents.push(serde_json::json!({"name": sweep.run_name(index), "setting": setting.label, "set": sweep.assignments(run),
            "seed": run.seed, "max_steps": config.max_steps}));
        let cells = [
            setting.label.as_str().into(),
            run.seed.to_string().into(),
            steps.into(),
        ];
        rows.push(Row::new(sweep.run_name(index), cells));
    }
    if common.json {
        let document = serde_json::json!({"name": sweep.name, "task": sweep.tasks().join(" "), "metric": sweep.metric.name(),
            "max_runs": sweep.max_runs, "runs": documents});
        return print_indented(&document);
    }
    let names = sweep.task_names();
    let head = ["run", "setting", "seed", "steps"];
    let mut page = vec![
        Block::heading(format!("{}: sweep of task {names}", sweep.name)),
        Block::Table(Table::new(&head, "llr", rows)),
    ];
    let mut note = |text: String| page.push(Block::detail(text));
    if let Some(most) = sweep.max_runs.filter(|most| *most < sweep.runs.len()) {
        note(format!(
            "starting the first {most} of {} runs",
            sweep.runs.len()
        ));
    }
    print(&render(&page))
}

fn list(common: &Arguments, run_folders: &RunFolders) -> Outcome {
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for folder in SweepFolder::list(run_folders) {
        let name = folder.name();
        let cells: [Cell; 3] = match SweepTable::read(&folder) {
            Ok(table) => {
                documents.push(table.document());
                let active = if table.is_active { "active: " } else { "" };
                [
                    table.sweep.task_names().into(),
                    Cell::Count(table.sweep.runs.len()),
                    format!("{active}{}", table.progress()).into(),
                ]
            }
            Err(error) => {
                let error = error.to_string();
                documents.push(serde_json::json!({"name": name, "error": error}));
                ["".into(), "".into(), error.into()]
            }
        };
        rows.push(Row::new(name, cells));
    }
    let head = ["name", "task", "runs", "state"];
    match rows.is_empty() {
        _ if common.json => print_indented(&serde_json::Value::from(documents)),
        true => print("no sweeps: start one with `grpo-tui sweep TASK --set KEY=VALUE,VALUE`\n"),
        false => print(&render(&[Block::Table(Table::new(&head, "llrl", rows))])),
    }
}

/// Exit code of a session.
fn exit_code(is_interrupted: bool, any_failed: bool) -> ExitCode {
    match (is_interrupted, any_failed) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    }
}
