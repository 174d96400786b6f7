//! Asking the run under the cursor: verbs to its worker, and a new worker where there is none.

use std::path::PathBuf;

use super::actions::no_readable;
use crate::run::{Status, Verb};
use crate::view::app::Model;
use crate::view::message::Command;
use crate::view::popup::{Confirm, Popup};
use crate::view::run_control;

fn status(model: &Model) -> Option<Status> {
    model.runs.row().map(|row| row.status)
}

fn path(model: &Model) -> Option<PathBuf> {
    model.runs.row().map(|row| row.directory.path().to_owned())
}

/// Why no worker can be asked.
pub(super) fn no_worker(model: &Model) -> Option<String> {
    no_readable(model).or_else(|| run_control::no_worker("the run", status(model)?))
}

/// Why no note can be written.
pub(super) fn no_note(model: &Model) -> Option<String> {
    no_readable(model).or_else(|| run_control::no_note_in("the run", status(model)?))
}

/// Why the run cannot be paused.
pub(super) fn no_pause(model: &Model) -> Option<String> {
    let paused = || (status(model) == Some(Status::Paused)).then(|| "the run is paused: resume it with r".to_owned());
    no_worker(model).or_else(paused)
}

/// Why the run cannot go on.
pub(super) fn no_resume(model: &Model) -> Option<String> {
    no_readable(model).or_else(|| run_control::no_resume_from("the run", status(model)?))
}

/// Ask the worker of the run under the cursor; its answer becomes a notice, and the list is looked at again.
pub(super) fn tell(model: &mut Model, verb: Verb) -> Vec<Command> {
    let Some(path) = path(model) else { return Vec::new() };
    if verb.is_work() {
        model.shared.say(format!("requested: {}, runs after the current step", verb.name()));
    }
    vec![run_control::request_then(&path, verb, super::look)]
}

/// Unpause a live run; start a worker on one that has none.
pub(super) fn resume(model: &mut Model) -> Vec<Command> {
    path(model).map(|path| run_control::resume(model, &path, super::look)).into_iter().collect()
}

/// Stop the run, after a yes.
pub(super) fn stop(model: &mut Model, now: bool) -> Vec<Command> {
    let Some(row) = model.runs.row() else { return Vec::new() };
    let (id, step) = (row.directory.id().to_owned(), row.last_step);
    let text = match now {
        true => format!("{id} stops now. The current step (after {step}) is lost; resume (r) continues from the last checkpoint."),
        false => format!("{id} stops after the current step (step {step} is done) and saves a checkpoint. Resume later with r."),
    };
    let yes = if now { "kill" } else { "stop" };
    // The question is about this run, wherever the cursor is when it is answered.
    let path = row.directory.path().to_owned();
    model.shared.popup = Some(Popup::Confirm(Confirm::new("Stop run?", text, yes, move |model| {
        model.runs.under = Some(path);
        model.runs.arrange();
        tell(model, Verb::Stop { now })
    })));
    Vec::new()
}

/// Write a note into the run's log.
pub(super) fn note(model: &mut Model) -> Vec<Command> {
    let Some(path) = path(model) else { return Vec::new() };
    model.shared.popup = Some(Popup::Ask(run_control::ask_note(path, super::look)));
    Vec::new()
}
