//! Asking a run's worker from the view: what cannot be asked now and why, the request beside the view, its answer as a notice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::followed_run::FollowedRun;
use super::message::{Command, Work};
use super::popup::Ask;
use super::shared::Shared;
use super::subprocess::Call;
use crate::format::short_id;
use crate::run::{Liveness, Status, Verb, ask, stop_worker};

/// How long the result of a checkpoint or an eval is waited for, once it is promised; afterwards it comes all the same.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a followed run's worker cannot be asked anything; `None` where one should be there.
pub fn refusal(run: &FollowedRun) -> Option<String> {
    gone(run).or_else(|| no_worker(&run.id(), run.status()))
}

/// Why a followed run cannot be resumed; `None` where it can be, by its worker or by a new one.
pub fn no_resume(run: &FollowedRun) -> Option<String> {
    gone(run).or_else(|| no_resume_from(&run.id(), run.status()))
}

/// Why nothing can be noted in a followed run; `None` where it can be, by its worker or without one.
pub fn no_note(run: &FollowedRun) -> Option<String> {
    gone(run).or_else(|| no_note_in(&run.id(), run.status()))
}

/// Why nothing can be noted in a run that stands there.
pub fn no_note_in(name: &str, status: Status) -> Option<String> {
    (status == Status::Created).then(|| format!("{name} has no worker yet: start it, then add a note"))
}

fn gone(run: &FollowedRun) -> Option<String> {
    run.is_gone.then(|| format!("{} no longer exists", run.id()))
}

/// Why the worker of a run that stands there cannot be asked anything; `name` is what the sentence calls the run.
pub fn no_worker(name: &str, status: Status) -> Option<String> {
    match status {
        Status::Created => Some(format!("{name} has no worker yet")),
        Status::Finished => Some(format!("{name} is finished: no worker to ask")),
        Status::Failed | Status::Interrupted => Some(format!("{name} is {}: resume it first (r)", status.name())),
        _ => None,
    }
}

/// Why a run that stands there cannot be resumed.
pub fn no_resume_from(name: &str, status: Status) -> Option<String> {
    match status {
        Status::Created | Status::Paused | Status::Failed | Status::Interrupted => None,
        Status::Finished => Some(format!("{name} is finished: to train further, start a run from its result")),
        status => Some(format!("{name} is {}: nothing to resume", status.name())),
    }
}

/// Ask a run's worker; what it answers becomes a notice, and the runs are looked at again.
pub fn request(run: &Path, verb: Verb) -> Command {
    let path = run.to_owned();
    let asked = move |_: &mut (), shared: &mut Shared, (answer, name): (_, String)| told(shared, &name, answer);
    Work::once(key(&verb), move || (answer(&path, &verb), name(&path)), asked)
}

/// The question for a note; what was typed is told again where it could not be written.
pub fn ask_note(run: PathBuf) -> Ask {
    let ask = move |_: &mut (), _: &mut Shared, text: String| note_of(&text).into_iter().map(|verb| request(&run, verb)).collect();
    Ask::new("Add note", "Note:", "", ask).checked(|text| note_of(text).err())
}

fn note_of(text: &str) -> Result<Verb, String> {
    Verb::parse("annotate", &[("text".to_owned(), text.into())].into_iter().collect())
}

/// The worker's answer in words.
fn answer(run: &Path, verb: &Verb) -> Result<String, String> {
    let answered = match verb {
        Verb::Stop { now } => stop_worker(run, *now),
        _ => ask(run, verb, PATIENCE, &mut |_| {}),
    };
    match (answered, verb) {
        (Err(error), Verb::Annotate { text }) => Err(format!("{error}; note not saved: {text}")),
        (answered, _) => answered.map(|answered| answered.text).map_err(|error| error.to_string()),
    }
}

fn told(shared: &mut Shared, name: &str, answer: Result<String, String>) -> Vec<Command> {
    match answer {
        Ok(text) => shared.say(format!("{name}: {text}")),
        Err(error) => shared.complain(error),
    }
    shared.look_for_runs()
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

/// Let a run go on: its worker where one lives, else a new one, started by our own program.
pub fn resume(shared: &Shared, run: &Path) -> Command {
    let (path, name) = (run.to_owned(), name(run));
    let call = Call::of(&shared.options, ["runs", "resume", &run.display().to_string(), "--json"]);
    Work::stream("control.resume", move |sender| {
        let answer = match Liveness::of(&path) {
            Liveness::Gone(_) => {
                let text = format!("{name}: starting worker ...");
                sender.send(move |_: &mut (), shared: &mut Shared| {
                    shared.say(text);
                    Vec::new()
                });
                call.json().map(|_| "resumed by a new worker".to_owned())
            }
            _ => answer(&path, &Verb::Resume),
        };
        sender.send(move |_: &mut (), shared: &mut Shared| told(shared, &name, answer));
    })
}

/// What notices call a run.
fn name(run: &Path) -> String {
    short_id(&run.file_name().unwrap_or_default().to_string_lossy()).to_owned()
}
