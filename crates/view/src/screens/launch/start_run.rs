//! Starts a run with a `train --detach` subprocess, which creates the run and waits until its worker is ready.

use std::path::PathBuf;

use super::context::short_name;
use super::forecast::{ForecastJob, ForecastResult};
use super::form::Form;
use super::{Launch, judge};
use crate::format::quoted;
use crate::message::{Command, Work};
use crate::plan::Forecast;
use crate::plan::preflight::Severity;
use crate::run::{DeviceChoice, RunDirectory};
use crate::screens::Screen;
use crate::shared::Shared;
use crate::subprocess::{Call, CancelToken, Exit, OutputLine, task_argument};
use crate::widgets::list_cursor::Cursor;

/// The arguments of `grpo-tui train` for the current form; `None` without a task.
pub(super) fn train_arguments(launch: &Launch, shared: &Shared) -> Option<Vec<String>> {
    Some(arguments(launch, shared, task_argument(shared)?, true))
}

fn arguments(launch: &Launch, shared: &Shared, task: String, with_runs: bool) -> Vec<String> {
    let mut arguments = vec!["train".to_owned(), task];
    arguments.extend(launch.form.arguments());
    if with_runs {
        arguments.extend(["--runs".to_owned(), shared.new_runs()]);
    }
    arguments
}

/// Further arguments of a launch, which a forecast does not take.
fn launching(launch: &Launch) -> impl Iterator<Item = String> {
    let name = &launch.form.name;
    let name = (!name.is_empty()).then(|| format!("--name={name}"));
    // Slurm's jobs are in the background anyway.
    let detach = launch.form.cluster.is_none().then(|| "--detach".to_owned());
    detach.into_iter().chain(name)
}

/// The equivalent command line in the shell that started the view: same task, same run folder.
pub fn command_line(launch: &Launch, shared: &Shared) -> String {
    let Some(open) = &shared.task else {
        return String::new();
    };
    let options = &shared.options;
    let there = if options.shell == options.here {
        String::new()
    } else {
        format!("cd {} && ", quoted(&options.here.display().to_string()))
    };
    let words = arguments(
        launch,
        shared,
        open.argument.clone(),
        shared.options.run_folders.is_given(),
    )
    .into_iter()
    .chain(launching(launch));
    let words: Vec<String> = words.map(|word| quoted(&word)).collect();
    format!("{there}grpo-tui {}", words.join(" "))
}

pub(super) fn blocked(launch: &Launch, shared: &Shared) -> Option<String> {
    // A run reads what is on disk.
    let unread = shared
        .task_error
        .as_ref()
        .map(|failure| failure.error.clone());
    if let Some(why) = unread.or_else(|| shared.no_task()) {
        return Some(why);
    }
    if let Some(problem) = &launch.problem {
        return Some(problem.clone());
    }
    let unknown = Ok(Vec::new());
    let partitions = launch.partitions.as_ref().unwrap_or(&unknown);
    if let Some(problem) = launch
        .form
        .cluster
        .as_ref()
        .and_then(|cluster| cluster.problem(partitions))
    {
        return Some(problem);
    }
    let is_starting = shared.is_busy("launch.start") || waits_for_checks(launch, shared);
    is_starting.then(|| "a run is already starting".to_owned())
}

pub(super) fn no_samples(launch: &Launch, shared: &Shared) -> Option<String> {
    let elsewhere = launch.form.cluster.as_ref();
    let elsewhere = elsewhere
        .map(|_| "samples are drawn on this machine: choose one of its devices".to_owned());
    elsewhere.or_else(|| blocked(launch, shared))
}

pub(super) fn waits_for_checks(launch: &Launch, shared: &Shared) -> bool {
    launch.start_after_checks.is_some() && shared.is_busy("launch.data")
}

pub(super) fn start_now(launch: &mut Launch, shared: &mut Shared) -> Vec<Command> {
    let Some(mut arguments) = train_arguments(launch, shared) else {
        return Vec::new();
    };
    arguments.extend(launching(launch));
    if launch.preflight.count(Severity::Error) > 0 {
        arguments.push("--ignore-preflight-errors".to_owned());
    }
    arguments.push("--json".to_owned());
    // A forecast in progress would only slow the run down.
    cancel(launch);
    launch.failure = None;
    let call = Call::with_arguments(&shared.options, arguments);
    let line = call.command_line();
    let start = Work::once(
        "launch.start",
        move || {
            let mut document = String::new();
            // A launch is never cancelled half way: the worker may be running already.
            let outcome = call.run_through(&mut |line| {
                if let OutputLine::Result(line) = line {
                    document.push_str(&line);
                }
            });
            started(outcome, &document)
        },
        |launch: &mut Launch, shared, outcome| match outcome {
            Ok(run) => begun(launch, shared, run),
            Err(reason) => {
                let text = format!("run not started: {reason}");
                launch.failure = Some(text.clone());
                launch.scroll = Cursor::default();
                shared.complain(text)
            }
        },
    );
    vec![start.like(line)]
}

struct StartedRun {
    path: PathBuf,
    text: String,
}

fn started(outcome: Result<Exit, String>, document: &str) -> Result<StartedRun, String> {
    let ended = outcome?;
    if !ended.success {
        return Err(ended.reason());
    }
    let value: serde_json::Value = serde_json::from_str(document)
        .map_err(|error| format!("cannot parse the launcher's answer: {error}"))?;
    let path = value["path"]
        .as_str()
        .map(PathBuf::from)
        .ok_or("the launcher returned no run id")?;
    let id = RunDirectory::open(&path)
        .map_err(|error| error.to_string())?
        .id()
        .to_owned();
    if let Some(job) = value["job"].as_u64() {
        return Ok(StartedRun {
            path,
            text: format!("{id} is submitted as Slurm job {job}"),
        });
    }
    let ready = if value["ready"].as_bool() == Some(true) {
        ""
    } else {
        "; not ready yet"
    };
    Ok(StartedRun {
        path,
        text: format!("{id} started in the background{ready}"),
    })
}

fn begun(launch: &mut Launch, shared: &mut Shared, run: StartedRun) -> Vec<Command> {
    launch.form.name.clear();
    let mut commands = vec![Command::ShowRun(run.path)];
    // Switches to the run only if the user is still here and not typing.
    if shared.screen == Screen::Launch && !shared.takes_text() {
        shared.say(run.text);
        commands.push(Command::GoTo(Screen::Live));
    } else {
        shared.say(format!(
            "{}; {} shows it",
            run.text,
            shared.key_of("screen.live")
        ));
    }
    commands
}

/// A short description of the run that would start.
pub(super) fn in_words(launch: &Launch, shared: &Shared) -> String {
    let Some(resolved) = &launch.resolved else {
        return String::new();
    };
    let config = &resolved.config;
    let rows = shared.task.as_ref().and_then(|open| {
        open.rows
            .get(&crate::task::PromptSet::Train)?
            .as_ref()
            .ok()
            .map(Vec::len)
    });
    let steps = rows.map_or_else(String::new, |rows| match config.total_steps(rows) {
        1 => "1 step of ".to_owned(),
        steps => format!("{steps} steps of "),
    });
    let device = match &launch.form.compute {
        _ if launch.form.cluster.is_some() => launch
            .form
            .cluster
            .iter()
            .map(|cluster| format!(", {}", cluster.described()))
            .collect(),
        DeviceChoice::Any => String::new(),
        DeviceChoice::Cpu => ", CPU".to_owned(),
        DeviceChoice::Gpus(ordinals) => ordinals
            .iter()
            .map(|ordinal| format!(", GPU {ordinal}"))
            .collect(),
    };
    let model_name = short_name(&config.base_model);
    let found = launch.preflight.summary();
    let found = if found.is_empty() {
        found
    } else {
        format!("; {found}")
    };
    format!(
        "{steps}{} x {}, {model_name}{device}{found}",
        config.prompt_groups_per_step, config.completions_per_prompt
    )
}

/// Requests the forecast of the current form; `samples`: sample groups of the base too.
pub(super) fn forecast(launch: &mut Launch, shared: &mut Shared, samples: bool) -> Vec<Command> {
    cancel(launch);
    let Some(call) = call(launch, shared, samples) else {
        return Vec::new();
    };
    let cancel = CancelToken::default();
    launch.failure = None;
    launch.forecast_job = Some(ForecastJob {
        cancel: cancel.clone(),
        progress: String::new(),
        since_ms: shared.now_ms,
        samples,
    });
    let (of, line) = (launch.form.clone(), call.command_line());
    let forecast = Work::stream("launch.forecast", move |sender| {
        let mut document = String::new();
        let outcome = call.run(&cancel, &mut |line| match line {
            OutputLine::Result(line) => document.push_str(&line),
            OutputLine::Progress(line) => {
                sender.send(move |launch: &mut Launch, _| {
                    if let Some(job) = &mut launch.forecast_job {
                        job.progress = line;
                    }
                    Vec::new()
                });
            }
        });
        sender.send(move |launch: &mut Launch, shared| {
            launch.forecast_job = None;
            finish_start(launch, shared, of, outcome, &document);
            Vec::new()
        });
    });
    shared.say(format!(
        "{}: {} cancels",
        if samples {
            "sampling groups of the base"
        } else {
            "loading the model"
        },
        shared.key_of("launch.cancel")
    ));
    launch.scroll = Cursor::default();
    vec![forecast.like(line)]
}

pub(super) fn cancel(launch: &mut Launch) {
    if let Some(job) = launch.forecast_job.take() {
        job.cancel.cancel();
    }
}

fn call(launch: &Launch, shared: &Shared, samples: bool) -> Option<Call> {
    let mut arguments = train_arguments(launch, shared)?;
    arguments.extend(["--plan".to_owned(), "--json".to_owned()]);
    if samples {
        arguments.push("--sample".to_owned());
    }
    Some(Call::with_arguments(&shared.options, arguments))
}

fn finish_start(
    launch: &mut Launch,
    shared: &mut Shared,
    of: Form,
    outcome: Result<Option<Exit>, String>,
    document: &str,
) {
    let failed = |reason: String| format!("forecast failed: {reason}");
    match (outcome, serde_json::from_str::<Forecast>(document)) {
        (Ok(None), _) => {}
        (Err(error), _) => launch.failure = Some(failed(error)),
        // A run that does not fit has a forecast although the program fails.
        (Ok(Some(_)), Ok(mut forecast)) => {
            if let Some(signal) = forecast.signal.take() {
                shared.say(signal.sentence(""));
                launch.scroll = Cursor::default();
                launch.signal = Some(ForecastResult {
                    of: of.clone(),
                    value: signal,
                    is_old: false,
                });
            }
            launch.forecast = Some(ForecastResult {
                of,
                value: forecast,
                is_old: false,
            });
        }
        (Ok(Some(ended)), Err(error)) => {
            let reason = if ended.success {
                format!("cannot parse the forecast: {error}")
            } else {
                ended.reason()
            };
            launch.failure = Some(failed(reason));
        }
    }
    judge(launch, shared);
    if let Some(failure) = launch.failure.clone() {
        shared.complain(failure);
    }
}
