//! Asking the run under the cursor: verbs to its worker, and a new worker where there is none.

use std::time::Duration;

use super::actions::no_readable;
use super::columns::short_id;
use crate::run::{Answered, Liveness, RunError, Status, Verb, WorkerSignal, ask, signal_worker};
use crate::view::message::{Command, Work};
use crate::view::model::Model;
use crate::view::popup::{Ask, Confirm, Popup};
use crate::view::program::Call;

/// How long a checkpoint or an eval is waited for; afterwards it comes all the same.
const PATIENCE: Duration = Duration::from_secs(600);

fn status(model: &Model) -> Option<Status> {
    model.runs.row().map(|row| row.status)
}

/// Why no worker can be asked.
pub(super) fn no_worker(model: &Model) -> Option<String> {
    let gone = || {
        let status = status(model)?;
        let none = status.is_ended() || status == Status::Created;
        none.then(|| format!("the run is {}: no worker lives that could be asked", status.name()))
    };
    no_readable(model).or_else(gone)
}

/// Why the run cannot be paused.
pub(super) fn no_pause(model: &Model) -> Option<String> {
    let paused = || (status(model) == Some(Status::Paused)).then(|| "the run is paused already; r lets it go on".to_owned());
    no_worker(model).or_else(paused)
}

/// Why the run cannot go on.
pub(super) fn no_resume(model: &Model) -> Option<String> {
    let other = || match status(model)? {
        Status::Paused | Status::Interrupted | Status::Failed | Status::Created => None,
        Status::Finished => {
            Some("the run has come to its end; to train its result further, launch one with this run as its model".to_owned())
        }
        status => Some(format!("the run is {} already", status.name())),
    };
    no_readable(model).or_else(other)
}

/// Ask the worker of the run under the cursor; its answer becomes a notice.
pub(super) fn tell(model: &mut Model, verb: Verb) -> Vec<Command> {
    let Some(row) = model.runs.row() else { return Vec::new() };
    let (path, id) = (row.directory.path().to_owned(), short_id(row.directory.id()).to_owned());
    // A key each, so that a later request does not hide the answer to an earlier one.
    let key = match verb {
        Verb::Pause => "runs.ask.pause",
        Verb::Resume => "runs.ask.resume",
        Verb::Checkpoint => "runs.ask.checkpoint",
        Verb::Eval => "runs.ask.eval",
        Verb::Stop { .. } => "runs.ask.stop",
        _ => "runs.ask",
    };
    let work = Work::stream(key, move |outlet| {
        if verb.is_work() {
            let text = format!("{id}: {} asked for; it comes after the step under way", verb.name());
            outlet.put(move |model| {
                model.say(text);
                Vec::new()
            });
        }
        let answer = match (ask(&path, &verb, PATIENCE, &mut |_| {}), &verb) {
            (Err(RunError::NoAnswer { seconds, .. }), Verb::Stop { now }) => signalled(&path, *now, seconds),
            (answer, _) => answer.map_err(|error| error.to_string()),
        };
        outlet.put(move |model| {
            match answer {
                Ok(Answered { text, .. }) => model.say(format!("{id}: {text}")),
                Err(error) => model.complain(error),
            }
            super::look(model)
        });
    });
    vec![work]
}

/// A worker that does not answer is signalled, as `runs stop` does.
fn signalled(path: &std::path::Path, now: bool, seconds: u64) -> Result<Answered, String> {
    let signal = if now { WorkerSignal::Kill } else { WorkerSignal::Stop };
    signal_worker(path, signal).map_err(|error| error.to_string())?;
    let text = format!("it did not answer for {seconds} s, so it was sent {}", if now { "SIGKILL" } else { "SIGTERM" });
    Ok(Answered { text, done: false, result: serde_json::Value::Null })
}

/// Unpause a live run; start a worker on one that has none.
pub(super) fn resume(model: &mut Model) -> Vec<Command> {
    if status(model) == Some(Status::Paused) {
        return tell(model, Verb::Resume);
    }
    let Some(row) = model.runs.row() else { return Vec::new() };
    let (path, id) = (row.directory.path().to_owned(), short_id(row.directory.id()).to_owned());
    let call = Call::of(model, ["runs", "resume", &path.display().to_string(), "--json"]);
    model.say(format!("{id}: starting a worker …"));
    vec![Work::once(
        "runs.resume",
        move || match Liveness::of(&path) {
            Liveness::Gone(_) => call.json().map(|_| format!("{id}: a worker goes on with it")),
            _ => ask(&path, &Verb::Resume, Duration::ZERO, &mut |_| {})
                .map(|answered| format!("{id}: {}", answered.text))
                .map_err(|error| error.to_string()),
        },
        |model, outcome| {
            match outcome {
                Ok(text) => model.say(text),
                Err(error) => model.complain(error),
            }
            super::look(model)
        },
    )]
}

/// Stop the run, after a yes.
pub(super) fn stop(model: &mut Model, now: bool) -> Vec<Command> {
    let Some(row) = model.runs.row() else { return Vec::new() };
    let (id, step) = (row.directory.id().to_owned(), row.last_step);
    let text = match now {
        true => format!(
            "{id} ends at once. The step under way after step {step} is lost; what was saved by the last checkpoint stays, and r goes on from there."
        ),
        false => format!("{id} ends after the step under way (step {step} is done), its checkpoint saved. r goes on from there later."),
    };
    let yes = if now { "stop it now" } else { "stop it after the step" };
    // The question is about this run, wherever the cursor is when it is answered.
    let path = row.directory.path().to_owned();
    model.popup = Some(Popup::Confirm(Confirm::new("Stop the run?", text, yes, move |model| {
        model.runs.under = Some(path);
        model.runs.arrange();
        tell(model, Verb::Stop { now })
    })));
    Vec::new()
}

/// Write a remark into the run's log.
pub(super) fn annotate(model: &mut Model) -> Vec<Command> {
    let question = Ask::new("Annotate the run", "A remark for the run's log:", "", |model, text| {
        let arguments = [("text".to_owned(), serde_json::Value::String(text))].into_iter().collect();
        match Verb::parse("annotate", &arguments) {
            Ok(verb) => tell(model, verb),
            Err(error) => {
                model.complain(error);
                Vec::new()
            }
        }
    });
    model.popup =
        Some(Popup::Ask(question.checked(|text| text.trim().is_empty().then(|| "say something, or leave it with esc".to_owned()))));
    Vec::new()
}
