//! Starts an eval: confirms the cost, then runs this program as a process that outlives the view.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Eval, EvalJob};
use crate::command_log::CommandLine;
use crate::facts::Target;
use crate::format::{counted, short_id};
use crate::message::{Command, Work};
use crate::popup::{Ask, Confirm, Popup};
use crate::report::list_evals;
use crate::run::{
    RESULT_FILE, RunDirectory, RunLock, RunState, Verb, list_checkpoints, task_folder,
};
use crate::run_control;
use crate::score::given_threads;
use crate::screens::Screen;
use crate::shared::Shared;
use crate::subprocess::task_argument;
use crate::task::{PromptSet, SetName};

enum EvalStatus {
    Running(String),
    Done,
    Failed(String),
}

pub(super) fn evals_folder(data: &Path) -> PathBuf {
    data.join("evals")
}

pub(super) fn no_start(eval: &Eval, shared: &Shared) -> Option<String> {
    match shared.current_run() {
        Some(run) if eval.started.is_none() => run
            .directory
            .is_none()
            .then(|| format!("cannot read {}", run.id())),
        // Without a run, a baseline is evaluated.
        _ => no_baseline(eval, shared),
    }
}

pub(super) fn no_baseline(eval: &Eval, shared: &Shared) -> Option<String> {
    if eval.started.is_some() {
        return Some("an eval is already running: its result opens here".to_owned());
    }
    shared.no_task()
}

pub(super) fn progress(eval: &Eval) -> Option<String> {
    eval.started
        .as_ref()
        .map(|started| format!("eval running: {}", started.progress))
}

/// Requests an eval from the worker of an active run, else asks for the prompt set. Without a run,
/// asks for a baseline.
pub(super) fn ask(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(run) = shared.current_run() else {
        return ask_baseline(eval, shared);
    };
    let status = run.status();
    if !status.is_ended() && status != crate::run::Status::Created {
        return ask_worker(shared);
    }
    let label = "Prompt set: test, eval, train, or a file".to_owned();
    ask_set(shared, "Run eval", label, PromptSet::Test, confirm);
    Vec::new()
}

/// Asks for a prompt set of the open task for Launch's base model; needs no run.
pub(super) fn ask_baseline(_: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(open) = &shared.task else {
        return Vec::new();
    };
    let set = [PromptSet::Test, PromptSet::Eval]
        .into_iter()
        .find(|set| open.rows.contains_key(set));
    let label = format!(
        "Prompt set that {} answers (base_model on Launch): test, eval, train, or a file",
        shared.new_run.base_model
    );
    let set = set.unwrap_or(PromptSet::Train);
    ask_set(shared, "Run baseline eval", label, set, confirm_baseline);
    Vec::new()
}

fn ask_set(
    shared: &mut Shared,
    title: &'static str,
    label: String,
    proposed: PromptSet,
    then: fn(&mut Shared, SetName),
) {
    let question = Ask::new(
        title,
        label,
        proposed.name(),
        move |_: &mut Eval, shared, on| {
            then(shared, on.trim().into());
            Vec::new()
        },
    );
    shared.popup = Some(Popup::Ask(question.checked(|on| {
        on.trim()
            .is_empty()
            .then(|| "enter a set or a file".to_owned())
    })));
}

fn confirm_baseline(shared: &mut Shared, on: SetName) {
    let (Some(open), Some(task)) = (&shared.task, task_argument(shared)) else {
        return;
    };
    let rows = on
        .set()
        .and_then(|set| open.rows.get(&set)?.as_ref().ok().map(Vec::len));
    let prompts = rows.map_or_else(
        || format!("the prompts of {on}"),
        |rows| counted(rows, &format!("{on} prompt")),
    );
    let model = shared.new_run.base_model.clone();
    let unsaved = match shared.draft.is_changed() {
        true => format!(
            " Unsaved edits of the {} are not used.",
            shared.draft.name()
        ),
        false => String::new(),
    };
    let text = format!(
        "{model} answers {prompts} of {}, greedy. Duration unknown.{unsaved}\nContinues after you quit. Results: {}.",
        open.task.name,
        evals_folder(&shared.options.data).display()
    );
    shared.popup = Some(Popup::Confirm(Confirm::new(
        "Run eval?",
        text,
        "run eval",
        move |_: &mut Eval, shared| {
            let name = shared
                .task
                .as_ref()
                .map_or_else(String::new, |open| open.task.name.clone());
            let runs = shared.new_runs();
            let mut arguments = vec![task];
            let model = format!("base={model}");
            arguments.extend(
                ["--model", &model, "--on", &on.to_string(), "--runs", &runs].map(str::to_owned),
            );
            arguments.extend(shared.new_run.device.arguments());
            let mut commands = begin(shared, &name, move || Ok(arguments));
            commands.push(Command::GoTo(Screen::Eval));
            commands
        },
    )));
}

fn ask_worker(shared: &mut Shared) -> Vec<Command> {
    let Some(path) = shared.current.clone() else {
        return Vec::new();
    };
    let text =
        "The run is active: its worker runs the eval after the current step, and training waits.";
    let yes = move |_: &mut (), _: &mut Shared| vec![run_control::request(&path, Verb::Eval)];
    shared.open_popup(Popup::Confirm(Confirm::new(
        "Run eval now?",
        text,
        "run eval",
        yes,
    )))
}

/// Confirms an eval, showing the estimated cost as far as measured.
fn confirm(shared: &mut Shared, on: SetName) {
    let Some(run) = shared.current_run() else {
        return;
    };
    let Some(directory) = run.directory.clone() else {
        return;
    };
    let evals: Vec<_> = run
        .history
        .evals
        .values()
        .filter(|eval| eval.set == on)
        .collect();
    let cost = match evals.last() {
        Some(eval) => {
            let slowest = evals.iter().map(|eval| eval.seconds).fold(0.0, f64::max);
            let device = run
                .history
                .run
                .as_ref()
                .map_or("its device", |run| run.device.as_str());
            format!(
                "{} of {}, two models. The run's own evals took up to {slowest:.1} s each on {device}, plus loading both models.",
                counted(eval.summary.n, "prompt"),
                directory.file().task
            )
        }
        None => format!(
            "Duration unknown: the run has no eval on {on} of {}.",
            directory.file().task
        ),
    };
    let text = format!(
        "{cost}\nContinues after you quit; the run is not changed. Results: {}.",
        evals_folder(&shared.options.data).display()
    );
    shared.popup = Some(Popup::Confirm(Confirm::new(
        "Run eval?",
        text,
        "run eval",
        move |_: &mut Eval, shared| {
            let name = short_id(directory.id()).to_owned();
            begin(shared, &name, move || base_and_best(&directory, &on))
        },
    )));
}

fn base_and_best(directory: &RunDirectory, on: &SetName) -> Result<Vec<String>, String> {
    let checkpoints = list_checkpoints(directory.path()).unwrap_or_default();
    let history = RunState::read(directory.path()).unwrap_or_default();
    if checkpoints.is_empty() {
        return Err(format!("{} has no checkpoint", directory.id()));
    }
    if history.best_step_by(&checkpoints, directory.file().config.keep_best_by) == Some(0) {
        return Err(format!(
            "the best checkpoint of {} is step 0 (the base): nothing to compare",
            directory.id()
        ));
    }
    let task = match on.task() {
        "" => directory.task_names()[0],
        task => task,
    };
    let task = task_folder(directory.path(), task).display().to_string();
    let base = format!("base={}", directory.file().config.base_model);
    let best = format!("trained={}@best", directory.path().display());
    let on = on.in_task("").to_string();
    let words = ["--model", &base, "--model", &best, "--on", &on];
    Ok(std::iter::once(task)
        .chain(words.map(str::to_owned))
        .collect())
}

fn begin(
    shared: &mut Shared,
    name: &str,
    arguments: impl FnOnce() -> Result<Vec<String>, String> + Send + 'static,
) -> Vec<Command> {
    let time = i64::try_from(shared.now_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map_or_else(
        || shared.now_ms.to_string(),
        |time| {
            time.to_zoned(jiff::tz::TimeZone::UTC)
                .strftime("%Y%m%d-%H%M%S")
                .to_string()
        },
    );
    let folder = evals_folder(&shared.options.data).join(format!("{time}-{name}"));
    let (program, here) = (shared.options.program.clone(), shared.options.here.clone());
    vec![Work::once(
        "eval.start",
        move || {
            let out = [
                "--json".to_owned(),
                "--out".to_owned(),
                folder.display().to_string(),
            ];
            let line: CommandLine = std::iter::once("eval".to_owned())
                .chain(arguments()?)
                .chain(out)
                .collect();
            let mut process = Process::new(program);
            process.arg0("grpo-tui").envs(given_threads());
            process.args(&line.arguments).current_dir(here);
            let ended = detached(process, &folder)?;
            Ok::<_, String>((
                EvalJob {
                    folder,
                    ended,
                    progress: "loading".to_owned(),
                },
                line,
            ))
        },
        |eval: &mut Eval, shared, started| match started {
            Ok((started, line)) => {
                shared.log_command(&line);
                eval.started = Some(started);
                shared.say("eval started: its result opens here")
            }
            Err(error) => shared.complain(error),
        },
    )]
}

/// Starts a process that survives the terminal, with its output in the folder. The flag is set when
/// it exits.
fn detached(mut process: Process, folder: &Path) -> Result<Arc<AtomicBool>, String> {
    let failed =
        |error: std::io::Error| format!("cannot start the eval in {}: {error}", folder.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let file = |name: &str| {
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(folder.join(name))
            .map_err(failed)
    };
    process
        .stdin(Stdio::null())
        .stdout(file("out.json")?)
        .stderr(file("log")?)
        .process_group(0);
    let mut child = process.spawn().map_err(failed)?;
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    // Reaps the process, which would otherwise remain a zombie.
    let waiting = move || {
        let _ = child.wait();
        seen.store(true, Ordering::Release);
    };
    std::thread::Builder::new()
        .name("reaper".to_owned())
        .spawn(waiting)
        .map_err(failed)?;
    Ok(ended)
}

/// Searches once for a running eval of an earlier session.
pub(super) fn find(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    if std::mem::replace(&mut eval.looked, true) {
        return Vec::new();
    }
    let folder = evals_folder(&shared.options.data);
    vec![Work::once(
        "eval.find",
        move || {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            folders.sort();
            folders
                .into_iter()
                .rev()
                .find(|folder| RunLock::is_held(folder))
        },
        |eval: &mut Eval, _, found| {
            if let (Some(folder), None) = (found, &eval.started) {
                eval.started = Some(EvalJob {
                    folder,
                    ended: Arc::new(AtomicBool::new(true)),
                    progress: "loading".to_owned(),
                });
            }
            Vec::new()
        },
    )]
}

/// Checks the eval in progress, once a second.
pub(super) fn look(eval: &mut Eval, shared: &mut Shared) -> Vec<Command> {
    let Some(EvalJob { folder, ended, .. }) = &eval.started else {
        return Vec::new();
    };
    if shared.is_busy("eval.look") {
        return Vec::new();
    }
    let (folder, ended) = (folder.clone(), Arc::clone(ended));
    vec![Work::once(
        "eval.look",
        move || (status(&folder, &ended), folder),
        |eval: &mut Eval, shared, (status, folder)| {
            match status {
                EvalStatus::Running(progress) => {
                    if let Some(started) = &mut eval.started {
                        started.progress = progress;
                    }
                }
                EvalStatus::Failed(why) => {
                    eval.started = None;
                    shared.complain(format!("eval failed: {why}"));
                }
                EvalStatus::Done => {
                    eval.started = None;
                    shared.say("eval finished");
                    return match list_evals(&folder) {
                        // The base first, as on the command line.
                        Ok(mut evals) => {
                            evals.sort_by_key(|eval| eval.target != Target::Base.name());
                            super::show(eval, shared, evals)
                        }
                        Err(error) => shared.complain(error.to_string()),
                    };
                }
            }
            Vec::new()
        },
    )]
}

fn status(folder: &Path, ended: &AtomicBool) -> EvalStatus {
    // Checked before the result: a process that ends in between has written one.
    let is_running = !ended.load(Ordering::Acquire) || RunLock::is_held(folder);
    if folder.join(RESULT_FILE).is_file() {
        return EvalStatus::Done;
    }
    let log = crate::files::read(&folder.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let last = log
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .trim()
        .to_owned();
    match (is_running, last.strip_prefix("error:")) {
        (true, _) => EvalStatus::Running(if last.is_empty() {
            "loading".to_owned()
        } else {
            last
        }),
        (false, Some(why)) => EvalStatus::Failed(why.trim().to_owned()),
        (false, None) => EvalStatus::Failed(format!(
            "no result; last line of {}: {last}",
            folder.join("log").display()
        )),
    }
}
