//! Asking a run's worker from the view: what cannot be asked now and why, the request beside the view, its answer as a notice.

use std::path::Path;
use std::time::Duration;

use super::message::{Command, Work};
use super::model::Model;
use super::program::Call;
use super::watched::Watched;
use crate::run::{RunError, Status, Verb, WorkerSignal, ask, signal_worker};

/// How long the result of a checkpoint or an eval is waited for, once it is promised.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a run's worker cannot be asked anything; `None` where one should be there.
pub fn refusal(run: &Watched) -> Option<String> {
    let id = run.id();
    match run.status() {
        _ if run.is_gone => Some(format!("{id} is not there any more")),
        Status::Finished => Some(format!("{id} is finished: there is no worker to ask")),
        Status::Failed | Status::Interrupted => Some(format!("{id} is {}: no worker lives; resume it first (r)", run.status().name())),
        Status::Created => Some(format!("no worker of {id} has spoken yet")),
        _ => None,
    }
}

/// Why a run cannot be resumed; `None` where it can be, by its worker or by a new one.
pub fn no_resume(run: &Watched) -> Option<String> {
    let id = run.id();
    match run.status() {
        _ if run.is_gone => Some(format!("{id} is not there any more")),
        Status::Finished => Some(format!("{id} has come to its end; train its result further with `train TASK --model {id}`")),
        Status::Paused | Status::Failed | Status::Interrupted => None,
        status => Some(format!("{id} is {}: there is nothing to resume", status.name())),
    }
}

/// Ask a run's worker; what it answers becomes a notice. One that should stop and does not answer is signalled.
pub fn request(run: &Path, verb: Verb) -> Command {
    let path = run.to_owned();
    let timeout = if verb.is_work() { PATIENCE } else { Duration::ZERO };
    let key = key(&verb);
    let compute = move || match (ask(&path, &verb, timeout, &mut |_| {}), &verb) {
        (Err(RunError::NoAnswer { seconds, .. }), Verb::Stop { now }) => signalled(&path, *now, seconds),
        (answered, _) => answered.map(|answered| answered.text).map_err(|error| error.to_string()),
    };
    Work::once(key, compute, told)
}

fn told(model: &mut Model, answer: Result<String, String>) -> Vec<Command> {
    match answer {
        Ok(text) => model.say(text),
        Err(error) => model.complain(error),
    }
    Vec::new()
}

/// As `runs stop` does.
fn signalled(run: &Path, now: bool, seconds: u64) -> Result<String, String> {
    let (signal, name) = if now { (WorkerSignal::Kill, "SIGKILL") } else { (WorkerSignal::Stop, "SIGTERM") };
    signal_worker(run, signal).map_err(|error| error.to_string())?;
    Ok(format!("the worker did not answer for {seconds} s, so it was sent {name}"))
}

/// Requests of different kinds do not displace each other's answers.
fn key(verb: &Verb) -> &'static str {
    match verb {
        Verb::Checkpoint => "control.checkpoint",
        Verb::Eval => "control.eval",
        Verb::Sample(_) => "control.sample",
        Verb::Stop { .. } => "control.stop",
        Verb::Annotate { .. } => "control.annotate",
        Verb::Set { .. } => "control.set",
        Verb::Status | Verb::Pause | Verb::Resume => "control.pause",
    }
}

/// Let the current run go on.
pub fn resume_current(model: &mut Model) -> Vec<Command> {
    let Some(run) = model.workbench.current_run() else { return Vec::new() };
    let (path, paused) = (run.path().to_owned(), run.status() == Status::Paused);
    vec![resume(model, &path, paused)]
}

/// Let a run go on: its worker where one holds it `paused`, else a new worker, started by our own program.
pub fn resume(model: &mut Model, run: &Path, paused: bool) -> Command {
    if paused {
        return request(run, Verb::Resume);
    }
    let id = name(run);
    let call = Call::of(model, ["runs", "resume", &run.display().to_string(), "--json"]);
    model.say(format!("a worker is started for {id} ..."));
    Work::once("control.resume", move || call.json().map(|_| format!("{id} goes on with a new worker")), told)
}

fn name(run: &Path) -> String {
    run.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
