//! `grpo-tui train`: starts or resumes a run.

mod model_names;
mod result;
mod slurm;
mod tasks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::device::{DeviceArguments, Gpus};
use super::output::eprint_line;
use super::{Failure, Outcome, preflight};
use crate::checkpoint::ModelLocation;
use crate::config::{ConfigFile, Method, ResolvedConfig, TrainConfig, reference};
use crate::facts::Job;
use crate::plan::preflight::{Facts, Preflight, read_data};
use crate::ranks::Placement;
use crate::run::{
    Device, DeviceChoice, Launch, NewRun, RunDirectory, RunError, RunFolders, RunState, Slot,
    TO_BE_CONTINUED, Trash, Worker, check_name, damage_of, list_checkpoints,
};
use crate::score::{CommandRules, Task};
use crate::study::Sweep;
use crate::task::{PromptSet, TASK_FILE};
use crate::train::{Ended, RankSource, TrainError, check, finished_report};
use model_names::exact_name;
use result::show;
pub(super) use tasks::{named_tasks, run_input};

#[derive(Debug, Default, clap::Args)]
#[command(after_long_help = reference::help())]
pub(super) struct Arguments {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`). Several
    /// are trained together: each has its share of the prompts
    #[arg(required_unless_present = "resume", value_name = "TASK")]
    pub(super) task: Vec<String>,
    /// Weights of several tasks, in their order, such as 2:1: their shares of the prompts [default: equal]
    #[arg(long, value_name = "WEIGHTS", allow_hyphen_values = true)]
    mix: Option<String>,
    /// Resume a run from its last checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["task", "model", "method", "preset", "config", "set", "name", "mix"])]
    resume: Option<String>,
    /// Model to start from: a model or adapter folder, a GGUF file, a Hugging Face name, an embedded model (`tiny`, `tiny-sql`,
    /// `tiny-tools`, `tiny-shell`, `tiny-python`, `tiny-assistant`), or a run's result
    #[arg(long, value_name = "M")]
    model: Option<String>,
    /// Program that holds the conversations, such as "python3 agent.py": the task's [agent]
    #[arg(long, value_name = "COMMAND", conflicts_with = "resume")]
    agent: Option<String>,
    /// Training method: grpo, sft, sft+grpo or distill
    #[arg(long)]
    method: Option<String>,
    /// Preset: quick, seed or recommended
    #[arg(long)]
    preset: Option<String>,
    /// TOML file of configuration keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Contents of --config, read once by the sweep
    #[arg(skip)]
    config_file: Option<ConfigFile>,
    /// Set a configuration key; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Optimizer steps; sets `max_steps`
    #[arg(long, value_name = "N", conflicts_with = "resume", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Time limit, minutes; sets `max_minutes`
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    minutes: Option<f64>,
    /// Runs folder [default: the workspace's runs/, else the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Run name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Show memory, the pace of a recorded run and the checks before the start; with --slurm, print the job script; create nothing
    #[arg(long, conflicts_with = "resume")]
    plan: bool,
    /// With --plan: sample groups from the base model and check learnability
    #[arg(long, requires = "plan")]
    sample: bool,
    /// Start even if a check before the run reports an error; warnings never stop a run
    #[arg(long, conflicts_with_all = ["plan", "resume"])]
    ignore_preflight_errors: bool,
    /// Run in the background, independent of this terminal
    #[arg(long, conflicts_with = "plan")]
    detach: bool,
    /// Number of processes (`ranks`), each on its own GPU if there are GPUs; with --resume, replaces the configured
    /// number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    ranks: Option<u16>,
    /// Number of ranks that a launcher started on this host
    #[arg(skip)]
    local_ranks: Option<usize>,
    /// Preflight warnings were already printed for another run of the sweep
    #[arg(skip)]
    pub(super) is_quiet: bool,
    /// Compute on several GPUs, one rank each: count, `all` or indices (0,2,3); sets `ranks`
    #[arg(long, value_name = "GPUS", conflicts_with_all = ["gpu", "cpu"])]
    gpus: Option<Gpus>,
    /// Hold the run to this much of each GPU's memory, such as 22GiB; sets `gpu_memory_gib`
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["resume", "cpu"], value_parser = super::device::gib)]
    gpu_memory: Option<u64>,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    cluster: slurm::SlurmArguments,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn for_sweep(sweep: &Sweep, set: Vec<String>, run_folders: &RunFolders) -> Self {
        let Sweep {
            mix,
            preset,
            config_file,
            ..
        } = sweep.clone();
        let task = sweep.tasks().into_iter().map(str::to_owned).collect();
        let runs = Some(run_folders.for_new_runs().to_owned());
        Self {
            task,
            mix,
            set,
            preset,
            config_file,
            runs,
            ..Self::default()
        }
    }
}

pub(super) fn run(mut arguments: Arguments) -> Outcome {
    let here = std::env::current_dir()?;
    let run_folders = RunFolders::discover(arguments.runs.as_deref(), &here);
    let limit = arguments.gpu_memory;
    arguments
        .set
        .extend(limit.map(|gib| format!("gpu_memory_gib={gib}")));
    let steps = arguments.steps.map(|steps| format!("max_steps={steps}"));
    let minutes = arguments
        .minutes
        .map(|minutes| format!("max_minutes={minutes}"));
    arguments.set.extend(steps.into_iter().chain(minutes));
    if arguments.cluster.is_given() {
        return slurm::run(arguments, &run_folders);
    }
    let compute = choose_devices(&mut arguments)?;
    if arguments.plan {
        let input = run_input(&arguments, named_tasks(&arguments)?, &run_folders)?;
        let engine = super::device::engine_of(&compute)?;
        return super::plan::run(
            &input,
            &run_folders,
            &engine,
            arguments.sample,
            arguments.json,
        );
    }
    // The rank assigned by a launcher, if one started this process.
    let placement = Placement::from_env(|name| std::env::var(name).ok())?;
    let compute = placement.as_ref().map_or(Ok(compute.clone()), |own| {
        super::rank::device_of(own, &compute)
    })?;
    let devices = super::device::devices(&compute)?;
    if let Some(placement) = placement.as_ref().filter(|placement| placement.rank > 0) {
        return super::rank::launched(placement, run_folders.for_new_runs(), &devices[0]);
    }
    let started = match &placement {
        None => None,
        Some(_) if arguments.detach => {
            return Err(Failure::usage(
                "--detach: a launcher has started this process: omit the option",
            ));
        }
        Some(Placement { size, .. })
            if arguments
                .ranks
                .is_some_and(|ranks| usize::from(ranks) != *size) =>
        {
            return Err(Failure::usage(format!(
                "--ranks: the launcher has started {size} ranks: omit the option"
            )));
        }
        Some(placement) => {
            arguments.ranks = Some(u16::try_from(placement.size)?);
            arguments.local_ranks = Some(placement.here);
            Some(
                placement
                    .rendezvous(run_folders.for_new_runs(), super::device::uuid(&devices[0]))?,
            )
        }
    };
    let run = match &arguments.resume {
        Some(run) => run_folders.find(run)?,
        None => create(
            &arguments,
            named_tasks(&arguments)?,
            &run_folders,
            Some(&devices),
        )?,
    };
    if is_finished(&run, &arguments, &run_folders)? {
        return Ok(ExitCode::SUCCESS);
    }
    slurm::check_devices(&run, &devices)?;
    let ranks = arguments.ranks.map_or(run.file().config.ranks, usize::from);
    let count = slots(&arguments, ranks, &devices)?;
    if arguments.detach {
        let how = Launch {
            compute,
            resume: arguments.resume.is_some(),
            ranks: arguments.ranks,
            ..Launch::default()
        };
        return super::worker::detach(&run, &how, "train", arguments.json)
            .map_err(|failure| remove_unstarted(&run, &arguments, failure));
    }
    let worker = super::worker::begin_here(&run)?;
    let begun_at = list_checkpoints(run.path())?.last().copied();
    let source = |slot: &Slot| match started {
        Some(ranks) => RankSource::Launched(ranks),
        None => super::device::ranks_on(slot, arguments.ranks),
    };
    let devices = (&devices[..], count);
    let trained = super::worker::train_here(&run, &run_folders, &worker, devices, source)?;
    let name = run_argument(&run, &run_folders);
    let Some(trained) = trained else {
        return Ok(ExitCode::from(130));
    };
    match trained {
        Ok(Ended::Finished(report)) => {
            show(&run, &report, &name, arguments.json)?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Ended::Interrupted { step }) => {
            eprintln!(
                "stopped after step {step}, checkpoint saved. Resume: grpo-tui train --resume {name}"
            );
            // A job that ends before its first step would be requeued forever.
            let goes_on =
                worker.is_ended_by_slurm() && begun_at.is_none_or(|begun_at| step > begun_at);
            Ok(ExitCode::from(if goes_on { TO_BE_CONTINUED } else { 130 }))
        }
        Ok(Ended::CutShort {
            resumes_from,
            cause,
        }) => {
            let step = resumes_from.map_or_else(
                || "no checkpoint yet".to_owned(),
                |step| format!("last checkpoint: step {step}"),
            );
            eprintln!("{cause}; {step}. Resume: grpo-tui train --resume {name}");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(training_failure(
            &run,
            &name,
            arguments.resume.is_some(),
            &error,
        )),
    }
}

/// Whether a run to resume has nothing left to compute; if so, prints its result.
fn is_finished(
    run: &RunDirectory,
    arguments: &Arguments,
    run_folders: &RunFolders,
) -> Result<bool, Failure> {
    let report = if arguments.resume.is_some() {
        finished_report(run)?
    } else {
        None
    };
    if let Some(report) = &report {
        for (_, damage) in damage_of(run, None, &RunState::read(run.path())?) {
            eprint_line(&format!("warning: {damage}"));
        }
        Worker::tidy_finished(run)?;
        let name = run_argument(run, run_folders);
        show(run, report, &name, arguments.json)?;
        eprintln!(
            "run is finished, nothing to do: to train further, grpo-tui train TASK --model {name}"
        );
    }
    Ok(report.is_some())
}

/// Removes a new run whose launch failed before anything was computed.
fn remove_unstarted(run: &RunDirectory, arguments: &Arguments, failure: Failure) -> Failure {
    if arguments.resume.is_none() {
        // If removal fails, the run is listed as failed with the same cause.
        let _ = std::fs::remove_dir_all(run.path());
    }
    failure
}

/// Creates the run directory with a resolved configuration, after the preflight checks. `devices`:
/// of this machine; `None` if the run computes elsewhere.
pub(super) fn create(
    arguments: &Arguments,
    tasks: Vec<Task>,
    run_folders: &RunFolders,
    devices: Option<&[Device]>,
) -> Result<RunDirectory, Failure> {
    let name = arguments.name.as_deref();
    if let Some(wrong) = name.filter(|name| !name.is_empty()).and_then(check_name) {
        return Err(Failure::usage(format!("--name: {wrong}")));
    }
    let input = run_input(arguments, tasks, run_folders)?;
    let ResolvedConfig {
        mut config,
        sources,
    } = input.resolved.clone();
    let located = ModelLocation::find(&config.base_model, run_folders)?;
    let model_digest = located.digest(run_folders)?;
    config.base_model = exact_name(&located, config.base_model)?;
    if config.is_distilled() && !config.is_self_distilled() {
        config.teacher = exact_name(
            &ModelLocation::find(&config.teacher, run_folders)?,
            config.teacher,
        )?;
    }
    devices.map_or(Ok(1), |devices| slots(arguments, config.ranks, devices))?;
    let checked = check(
        &input.parts,
        &located.source(run_folders)?,
        &config,
        run_folders,
    )?;
    let mut data = Vec::new();
    for task in input.tasks() {
        check_sets(task, &config)?;
        if task.command().is_some_and(CommandRules::takes_code) {
            eprint_line("checking the expected answers by the task's program ...");
        }
        data.extend(read_data(task)?);
    }
    // The worker that opens a GPU plans its memory; supervised fine-tuning has no rollouts.
    let is_forecast = config.method != Method::Sft;
    let on_cpu = devices.is_some_and(|devices| devices.iter().all(|device| *device == Device::Cpu));
    let here = TrainConfig {
        ranks: arguments.local_ranks.unwrap_or(config.ranks),
        ..config.clone()
    };
    let memory = (is_forecast && on_cpu).then(|| checked.cpu_memory(&here));
    let facts = Facts {
        data: Some(Ok(&data)),
        base_model: Some(Ok(preflight::base_model_note(&input, &config, run_folders))),
        memory: memory.as_ref(),
        signals: Vec::new(),
    };
    preflight::gate(
        &Preflight::for_run(&config, &facts),
        arguments.ignore_preflight_errors,
        arguments.is_quiet,
    )?;
    let new = NewRun {
        job: if config.method == Method::Sft {
            Job::Sft
        } else {
            Job::Train
        },
        name: arguments.name.clone().unwrap_or_default(),
        task: input.name(),
        task_origin: arguments.task.join(" "),
        task_files: input.files()?,
        config,
        sources,
        argv: std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        features: features(),
        model_digest,
        mix: input.mix,
    };
    let runs = run_folders.for_new_runs();
    Trash::new(runs).expire();
    Ok(RunDirectory::create(runs, new)?)
}

fn features() -> Vec<String> {
    [
        ("view", cfg!(feature = "view")),
        ("engine", cfg!(feature = "engine")),
        ("cuda", cfg!(feature = "cuda")),
    ]
    .into_iter()
    .filter(|(_, present)| *present)
    .map(|(name, _)| name.to_owned())
    .collect()
}

/// Devices named by the options; `--gpus` also sets the number of ranks.
fn choose_devices(arguments: &mut Arguments) -> Result<DeviceChoice, Failure> {
    let Some(gpus) = &arguments.gpus else {
        return Ok(arguments.device.compute());
    };
    let (compute, count) = gpus.choose()?;
    match arguments.ranks.replace(u16::try_from(count)?) {
        Some(ranks) if usize::from(ranks) != count => Err(Failure::usage(format!(
            "--gpus: {count}, one rank each, but --ranks {ranks}: omit one of them"
        ))),
        _ => Ok(compute),
    }
}

/// Number of device slots for this process: one if a launcher starts each rank separately.
fn slots(arguments: &Arguments, ranks: usize, devices: &[Device]) -> Result<usize, Failure> {
    super::device::slots_of(
        if arguments.local_ranks.is_some() {
            1
        } else {
            ranks
        },
        devices,
    )
}

/// Rejects a goal on a set that the task lacks: it would never be reached.
fn check_sets(task: &Task, config: &TrainConfig) -> Result<(), Failure> {
    let goal = match config {
        _ if task.set_file(PromptSet::Eval).is_some() => return Ok(()),
        TrainConfig { stop_when, .. } if !stop_when.is_empty() => {
            format!("stop_when = {stop_when}")
        }
        TrainConfig { patience: 1.., .. } => format!("patience = {}", config.patience),
        _ => return Ok(()),
    };
    let label = task.label(TASK_FILE);
    Err(Failure::usage(format!(
        "{goal} needs an eval set, and {label} has none: add `eval = \"FILE.jsonl\"` under [prompts]"
    )))
}

/// Reads the `--config` file.
pub(super) fn read_config(path: Option<&Path>) -> Result<Option<ConfigFile>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let label = path.display().to_string();
    let text = crate::files::read_text(path).map_err(|error| {
        Failure::usage(format!(
            "--config {label}: {error}; name a TOML file of configuration keys"
        ))
    })?;
    Ok(Some(ConfigFile { label, text }))
}

/// Resolves the configuration of a run of these tasks.
pub(super) fn resolve(
    arguments: &Arguments,
    tasks: &[Task],
    run_folders: &RunFolders,
) -> Result<ResolvedConfig, Failure> {
    Ok(run_input(arguments, tasks.to_vec(), run_folders)?.resolved)
}

/// The run's id if `--resume` finds it by id, else its path.
fn run_argument(run: &RunDirectory, run_folders: &RunFolders) -> String {
    let by_id = RunFolders::discover(None, &std::env::current_dir().unwrap_or_default())
        .find(run.id())
        .is_ok();
    match run_folders.find(run.id()) {
        Ok(_) if by_id => run.id().to_owned(),
        _ => run.path().display().to_string(),
    }
}

/// The message of a failed training; removes a new run without results.
fn training_failure(run: &RunDirectory, name: &str, resumed: bool, error: &TrainError) -> Failure {
    if let TrainError::Run(RunError::Lost { .. }) = error {
        return Failure::failed(error.to_string());
    }
    let empty = RunState::read(run.path()).is_ok_and(|state| {
        state.evals.is_empty() && state.last_step == 0 && state.checkpoints.is_empty()
    });
    if !resumed && empty && std::fs::remove_dir_all(run.path()).is_ok() {
        return Failure::failed(error.to_string());
    }
    let hint = match error {
        TrainError::Run(RunError::InUse { .. }) => String::new(),
        _ => format!("\nfix the cause, then resume: grpo-tui train --resume {name}"),
    };
    Failure::failed(format!("{error}{hint}"))
}

#[cfg(all(test, feature = "view"))]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use clap::Parser;

    use super::*;
    use crate::config::{KEYS, Key, Kind, Preset};
    use crate::run::Partition;
    use crate::view::screens::launch::cluster::Cluster;
    use crate::view::screens::launch::form::Form;
    use crate::view::screens::launch::{self, context};
    use crate::view::shared::OpenTask;
    use crate::view::{Model, Options};

    /// The form, filled in for a separate task in a folder with one run.
    fn filled(folder: &Path, form: Form) -> Model {
        let run_folders = RunFolders::discover(Some(&folder.join("runs")), folder);
        let mut model = Model::new(Options::at(
            folder.to_owned(),
            run_folders.clone(),
            folder.join("data"),
        ));
        let argument = folder.join("it's a task").display().to_string();
        let task = Task::load(Path::new(&argument)).unwrap();
        model.launch.train = Some(launch::task_tables(&task, &form.other_tasks().0, folder));
        let of = form
            .changed
            .get("base_model")
            .cloned()
            .unwrap_or_else(|| "tiny".to_owned());
        model.launch.origin = Some(context::origin(of, &run_folders));
        let samples = Ok(Vec::new());
        model.shared.task = Some(Arc::new(OpenTask {
            toml: task.clone(),
            task,
            argument,
            rows: BTreeMap::new(),
            has_row_schemas: false,
            samples,
            stamps: Vec::new(),
        }));
        model.launch.form = form;
        launch::refresh(&mut model.launch, &mut model.shared);
        model
    }

    /// Parses a command line as a shell splits it.
    fn parsed(line: &str) -> Arguments {
        let script = format!("grpo-tui() {{ printf '%s\\n' grpo-tui \"$@\"; }}\n{line}")
            .replace("grpo-tui", "program");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        match crate::cli::Arguments::try_parse_from(words.lines())
            .unwrap()
            .command
        {
            Some(crate::cli::Command::Train(arguments)) => *arguments,
            other => panic!("{line} is {other:?}"),
        }
    }

    /// A value other than the default.
    fn other_value(key: &Key) -> String {
        match key.kind {
            Kind::Choice(names) => names
                .iter()
                .rev()
                .find(|name| **name != key.default)
                .unwrap()
                .to_string(),
            Kind::Flag => (key.default == "false").to_string(),
            Kind::Integer { least, .. } => (least + 3).to_string(),
            Kind::Number { least, .. } => (least + 0.25).to_string(),
            Kind::Condition => "valid>=0.99".to_owned(),
            Kind::Text => "it's $HOME \"x\" -y".to_owned(),
        }
    }

    #[test]
    fn the_printed_command_trains_what_the_form_does() {
        let folder = tempfile::tempdir().unwrap();
        let task = folder.path().join("it's a task");
        std::fs::create_dir_all(&task).unwrap();
        for (name, bytes) in Task::embedded("invoice").unwrap().files().unwrap() {
            std::fs::write(task.join(name), bytes).unwrap();
        }
        let run_folders = RunFolders::discover(Some(&folder.path().join("runs")), folder.path());
        let base = Arguments {
            task: vec![task.display().to_string()],
            ..Arguments::default()
        };
        let run = create(
            &base,
            vec![Task::load(&task).unwrap()],
            &run_folders,
            Some(&[Device::Cpu]),
        )
        .unwrap();
        let checkpoint = run.path().join("checkpoints/step-000000");
        std::fs::create_dir_all(&checkpoint).unwrap();
        std::fs::write(checkpoint.join(crate::run::CHECKPOINT_MARK), "").unwrap();

        let gpus = Partition {
            name: "gpu".to_owned(),
            nodes: 2,
            gpus_per_node: 4,
            ..Partition::default()
        };
        let gpus = Cluster::from_partition(&gpus);
        let set = |pairs: &[(&'static str, &str)]| Form {
            changed: pairs
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            ..Form::default()
        };
        let mut forms: Vec<Form> = vec![
            Form {
                name: "it's -- \"mine\"".to_owned(),
                compute: DeviceChoice::Cpu,
                ..Form::default()
            },
            Form {
                compute: DeviceChoice::Gpus(vec![3]),
                preset: Some(Preset::Seed),
                ..set(&[("policy_loss", "dapo")])
            },
            Form {
                cluster: Some(Cluster {
                    nodes: 2,
                    per_node: 4,
                    time: "90".to_owned(),
                    ..gpus
                }),
                ..Form::default()
            },
            Form {
                others: "sql 2:1".to_owned(),
                ..set(&[("lora_rank", "0"), ("learning_rate", "1e-4")])
            },
            // The task's table for `tiny` also applies to models derived from it, and to no other.
            set(&[("base_model", &format!("{}@0", run.path().display()))]),
            set(&[("base_model", "org/other"), ("max_steps", "7")]),
        ];
        forms.extend(Preset::ALL.iter().map(|preset| Form {
            preset: Some(*preset),
            ..Form::default()
        }));
        forms.extend(KEYS.iter().map(|key| set(&[(key.name, &other_value(key))])));
        let mut compared = 0;
        for form in forms {
            let mut model = filled(folder.path(), form);
            model.shared.options.shell = "/".into();
            // Some values require others; such a form starts nothing.
            if model.launch.problem.is_some() {
                continue;
            }
            compared += 1;
            let line = launch::start_run::command_line(&model.launch, &model.shared);
            let (form, resolved) = (&model.launch.form, model.launch.resolved.as_ref().unwrap());
            let arguments = parsed(&line);
            let found: Vec<Task> = arguments
                .task
                .iter()
                .map(|task| Task::resolve_from(task, folder.path()).unwrap())
                .collect();
            let run_folders = RunFolders::discover(arguments.runs.as_deref(), folder.path());
            assert_eq!(run_folders, model.shared.options.run_folders, "{line}");
            assert_eq!(
                found[0].digest(),
                model.shared.task.as_ref().unwrap().task.digest(),
                "{line}"
            );
            let trained = resolve(&arguments, &found, &run_folders).unwrap();
            assert_eq!(
                (&trained.config, &trained.sources),
                (&resolved.config, &resolved.sources),
                "{line}"
            );
            assert_eq!(arguments.device.compute(), form.compute, "{line}");
            assert_eq!(
                arguments.name.as_deref().unwrap_or_default(),
                form.name,
                "{line}"
            );
            let is_submitted = arguments.cluster.is_given();
            assert_eq!(
                (is_submitted, arguments.detach),
                (form.cluster.is_some(), form.cluster.is_none()),
                "{line}"
            );
            assert!(!arguments.plan && arguments.resume.is_none(), "{line}");
        }
        assert!(compared > 35, "only {compared} forms were valid");
    }
}
