//! Asking the run under the cursor: verbs to its worker, and a new worker where there is none.

use std::path::PathBuf;

use super::Runs;
use super::no_readable;
use crate::run::{Status, Verb};
use crate::view::message::Command;
use crate::view::popup::{Confirm, Popup};
use crate::view::run_control;
use crate::view::shared::Shared;

fn status(runs: &Runs, shared: &Shared) -> Option<Status> {
    runs.row(shared).map(|row| row.status)
}

fn path(runs: &Runs, shared: &Shared) -> Option<PathBuf> {
    runs.row(shared).map(|row| row.directory.path().to_owned())
}

/// Why no worker can be asked.
pub(super) fn no_worker(runs: &Runs, shared: &Shared) -> Option<String> {
    no_readable(runs, shared).or_else(|| run_control::no_worker("the run", status(runs, shared)?))
}

/// Why no note can be written.
pub(super) fn no_note(runs: &Runs, shared: &Shared) -> Option<String> {
    no_readable(runs, shared).or_else(|| run_control::no_note_in("the run", status(runs, shared)?))
}

/// Why the run cannot be paused.
pub(super) fn no_pause(runs: &Runs, shared: &Shared) -> Option<String> {
    let paused = || (status(runs, shared) == Some(Status::Paused)).then(|| "the run is paused: resume it with r".to_owned());
    no_worker(runs, shared).or_else(paused)
}

/// Why the run cannot go on.
pub(super) fn no_resume(runs: &Runs, shared: &Shared) -> Option<String> {
    no_readable(runs, shared).or_else(|| run_control::no_resume_from("the run", status(runs, shared)?))
}

/// Ask the worker of the run under the cursor; its answer becomes a notice, and the list is looked at again.
pub(super) fn tell(runs: &mut Runs, shared: &mut Shared, verb: Verb) -> Vec<Command> {
    let Some(path) = path(runs, shared) else { return Vec::new() };
    if verb.is_work() {
        shared.say(format!("requested: {}, runs after the current step", verb.name()));
    }
    vec![run_control::request(&path, verb)]
}

/// Unpause a live run; start a worker on one that has none.
pub(super) fn resume(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    path(runs, shared).map(|path| run_control::resume(shared, &path)).into_iter().collect()
}

/// Stop the run, after a yes.
pub(super) fn stop(runs: &mut Runs, shared: &mut Shared, now: bool) -> Vec<Command> {
    let Some(row) = runs.row(shared) else { return Vec::new() };
    let (id, step) = (row.directory.id().to_owned(), row.last_step);
    let text = match now {
        true => format!("{id} stops now. The current step (after {step}) is lost; resume (r) continues from the last checkpoint."),
        false => format!("{id} stops after the current step (step {step} is done) and saves a checkpoint. Resume later with r."),
    };
    let yes = if now { "kill" } else { "stop" };
    // The question is about this run, wherever the cursor is when it is answered.
    let path = row.directory.path().to_owned();
    shared.popup = Some(Popup::Confirm(Confirm::new("Stop run?", text, yes, move |runs: &mut Runs, shared| {
        runs.under = Some(path);
        runs.arrange(shared);
        tell(runs, shared, Verb::Stop { now })
    })));
    Vec::new()
}

/// Write a note into the run's log.
pub(super) fn note(runs: &mut Runs, shared: &mut Shared) -> Vec<Command> {
    let Some(path) = path(runs, shared) else { return Vec::new() };
    shared.popup = Some(Popup::Ask(run_control::ask_note(path)));
    Vec::new()
}
