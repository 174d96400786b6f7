//! Control requests to a run's worker: the actions on every screen that shows a run, the request in the background, its
//! answer as a notice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::action::Scope;
use super::command_log::CommandLine;
use super::message::{Command, Part, Work};
use super::messages::Level;
use super::popup::{Ask, Confirm, Popup};
use super::screen::Action;
use super::screens::Screen;
use super::shared::Shared;
use super::subprocess::Call;
use super::widgets::text_width::one_line;
use crate::format::short_id;
use crate::run::{
    AgainstBase, Liveness, RequestOutcome, Status, Verb, ask, is_recording, stop_worker,
};

/// How long to wait for the result of a promised checkpoint or eval; afterwards it still arrives through the log.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

pub trait Controls: Part<Shared = Shared> {
    const SCREEN: Screen;
    const IDS: ActionIds;

    fn target(&self, shared: &Shared) -> Result<Target, String>;
}

#[derive(Debug)]
pub struct ActionIds {
    pub pause: &'static str,
    pub resume: &'static str,
    pub checkpoint: &'static str,
    pub eval: &'static str,
    pub stop: &'static str,
    pub kill: &'static str,
    pub note: &'static str,
}

#[derive(Debug, Clone)]
pub struct Target {
    pub path: PathBuf,
    pub id: String,
    /// Its display name; may be empty.
    pub name: String,
    pub status: Status,
    /// Whether it is to pause and is not paused yet.
    pub pauses_later: bool,
}

impl Target {
    /// Whether the key that pauses resumes, or takes the pause back.
    fn resumes(&self) -> bool {
        self.status == Status::Paused || self.pauses_later
    }
}

const fn action<T: Controls>(
    id: &'static str,
    title: &'static str,
    keys: &'static [&'static str],
    perform: fn(&mut T, &mut Shared) -> Vec<Command>,
) -> Action<T> {
    Action::new(id, title, "", keys, Scope::Screen(T::SCREEN), perform)
}

pub const fn pause<T: Controls>() -> Action<T> {
    action(
        T::IDS.pause,
        "Toggle pause",
        &["p"],
        |screen: &mut T, shared| {
            let resumes = screen.target(shared).is_ok_and(|run| run.resumes());
            let verb = if resumes { Verb::Resume } else { Verb::Pause };
            ask_worker(screen, shared, verb)
        },
    )
    .hint("pause")
    .also(&["pause", "hold"])
    .hinting(|screen, shared| match screen.target(shared) {
        Ok(run) if run.pauses_later => Some("cancel pause"),
        Ok(run) if run.resumes() => Some("resume"),
        _ => None,
    })
    .unless(|screen, shared| no_worker(screen, shared, &Verb::Pause))
}

/// Resumed by the run's worker if it is alive, else by a new one.
pub const fn resume<T: Controls>() -> Action<T> {
    action(
        T::IDS.resume,
        "Resume run",
        &["r"],
        |screen: &mut T, shared| {
            screen
                .target(shared)
                .map(|run| resume_run(shared, &run.path))
                .into_iter()
                .collect()
        },
    )
    .also(&["continue", "unpause", "restart"])
    // The hint of the key that pauses says it of a paused run.
    .hinting(|screen, shared| {
        screen
            .target(shared)
            .is_ok_and(|run| run.status == Status::Paused)
            .then_some("")
    })
    .unless(|screen, shared| {
        blocked(screen, shared, |name, status| {
            no_resume_from(name, status, shared)
        })
    })
}

pub const fn checkpoint<T: Controls>() -> Action<T> {
    action(
        T::IDS.checkpoint,
        "Save checkpoint",
        &["C"],
        |screen: &mut T, shared| ask_worker(screen, shared, Verb::Checkpoint),
    )
    .also(&["checkpoint", "snapshot"])
    .unless(|screen, shared| no_worker(screen, shared, &Verb::Checkpoint))
}

pub const fn eval<T: Controls>() -> Action<T> {
    action(T::IDS.eval, "Run eval", &["E"], |screen: &mut T, shared| {
        ask_worker(screen, shared, Verb::Eval)
    })
    .also(&["evaluate"])
    .unless(|screen, shared| no_worker(screen, shared, &Verb::Eval))
}

pub const fn stop<T: Controls>() -> Action<T> {
    action(T::IDS.stop, "Stop run", &["x"], |screen: &mut T, shared| {
        confirm_stop(screen, shared, false)
    })
    .also(&["end", "cancel", "terminate"])
    .unless(|screen, shared| no_worker(screen, shared, &Verb::Stop { now: false }))
}

pub const fn kill<T: Controls>() -> Action<T> {
    action(T::IDS.kill, "Kill run", &["X"], |screen: &mut T, shared| {
        confirm_stop(screen, shared, true)
    })
    .also(&["kill", "abort"])
    .unless(|screen, shared| no_worker(screen, shared, &Verb::Stop { now: true }))
}

/// A note needs no worker: it is appended to the log before the first and after the last one, too.
pub const fn note<T: Controls>() -> Action<T> {
    action(T::IDS.note, "Add note", &["a"], |screen: &mut T, shared| {
        let run = screen.target(shared).map(|run| run.path);
        shared.popup = run.map(|run| Popup::Ask(ask_note(run))).ok();
        Vec::new()
    })
    .also(&["note", "annotate", "comment"])
    .asking()
    .unless(|screen, shared| blocked(screen, shared, |_, _| None))
}

/// Why the worker of a screen's run cannot take a request.
pub fn no_worker<T: Controls>(screen: &T, shared: &Shared, verb: &Verb) -> Option<String> {
    blocked(screen, shared, |name, status| match status {
        Status::Created => Some(format!("{name} has no worker yet")),
        Status::Finished => Some(format!(
            "{name} is finished: {}",
            verb.why_not_after_the_end()
        )),
        Status::Failed | Status::Interrupted => Some(format!(
            "{name} is {}: resume it first ({})",
            status.name(),
            shared.key_of(T::IDS.resume)
        )),
        _ => None,
    })
}

fn blocked<T: Controls>(
    screen: &T,
    shared: &Shared,
    why: impl Fn(&str, Status) -> Option<String>,
) -> Option<String> {
    match screen.target(shared) {
        Ok(run) if is_recording(&run.path) => Some(shared.no_change_of_recording()),
        Ok(run) => why(&format!("run {}", short_id(&run.id)), run.status),
        Err(none) => Some(none),
    }
}

fn ask_worker<T: Controls>(screen: &T, shared: &mut Shared, verb: Verb) -> Vec<Command> {
    let Ok(run) = screen.target(shared) else {
        return Vec::new();
    };
    if verb.is_work() {
        shared.say(format!(
            "{} requested: runs after the current step",
            verb.name()
        ));
    }
    vec![request(&run.path, verb)]
}

/// The confirmation is bound to this run, even if the screen shows another one when it is answered.
fn confirm_stop<T: Controls>(screen: &T, shared: &mut Shared, now: bool) -> Vec<Command> {
    let Ok(Target {
        path,
        id,
        name,
        status,
        ..
    }) = screen.target(shared)
    else {
        return Vec::new();
    };
    let (title, text, yes) = match now {
        _ if status == Status::Waiting => ("Stop", "It leaves the queue. Can be resumed.", "stop"),
        true => (
            "Kill",
            "Stops now. The current step is lost; resume continues from the last checkpoint.",
            "kill",
        ),
        false => (
            "Stop",
            "Stops after the current step and saves a checkpoint. Can be resumed.",
            "stop",
        ),
    };
    let text = if name.is_empty() {
        text.to_owned()
    } else {
        format!("{}\n{text}", one_line(&name))
    };
    let then = move |_: &mut (), _: &mut Shared| vec![request(&path, Verb::Stop { now })];
    shared.open_popup(Popup::Confirm(Confirm::new(
        format!("{title} {id}?"),
        text,
        yes,
        then,
    )))
}

fn no_resume_from(name: &str, status: Status, shared: &Shared) -> Option<String> {
    match status {
        Status::Created | Status::Paused | Status::Failed | Status::Interrupted => None,
        Status::Finished => Some(format!(
            "{name} is finished: to train further, start a run from its result (Launch, {})",
            shared.key_of("launch.models")
        )),
        status => Some(format!("{name} is {}: nothing to resume", status.name())),
    }
}

/// Sends a request to a run's worker; the answer becomes a notice and refreshes the list of runs.
pub fn request(run: &Path, verb: Verb) -> Command {
    let (path, line) = (run.to_owned(), CommandLine::for_request(run, &verb));
    let done = move |_: &mut (), shared: &mut Shared, (answer, name): (_, String)| {
        report(shared, &name, answer)
    };
    Work::once(
        key(&verb),
        move || (answer(&path, &verb), name(&path)),
        done,
    )
    .like(line)
}

/// If the note cannot be written, the error repeats its text.
fn ask_note(run: PathBuf) -> Ask {
    let ask = move |_: &mut (), _: &mut Shared, text: String| {
        note_of(&text)
            .into_iter()
            .map(|verb| request(&run, verb))
            .collect()
    };
    Ask::new("Add note", "Note:", "", ask).checked(|text| note_of(text).err())
}

fn note_of(text: &str) -> Result<Verb, String> {
    Verb::parse(
        "annotate",
        &[("text".to_owned(), text.into())].into_iter().collect(),
    )
}

/// The answer, a warning where it is an eval below the base.
fn answer(run: &Path, verb: &Verb) -> Result<(String, Level), String> {
    let answered = match verb {
        Verb::Stop { now } => stop_worker(run, *now),
        _ => ask(run, verb, ANSWER_TIMEOUT, &mut |_| {}),
    };
    match (answered, verb) {
        (Err(error), Verb::Annotate { text }) => Err(format!("{error}; note not saved: {text}")),
        (Err(error), _) => Err(error.to_string()),
        (Ok(RequestOutcome { text, result, .. }), _) => {
            let against_base = AgainstBase::deserialize(&result["against_base"]);
            let is_below = against_base.is_ok_and(|against_base| against_base.is_below());
            Ok((
                text,
                if is_below {
                    Level::Warning
                } else {
                    Level::Done
                },
            ))
        }
    }
}

fn report(
    shared: &mut Shared,
    name: &str,
    answer: Result<(String, Level), String>,
) -> Vec<Command> {
    match answer {
        Ok((text, level)) => shared.notice(level, format!("{name}: {text}")),
        Err(error) => shared.complain(error),
    };
    shared.look_for_runs()
}

/// Requests of different kinds do not replace each other's answers.
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

fn resume_run(shared: &Shared, run: &Path) -> Command {
    let (path, name) = (run.to_owned(), name(run));
    let call = Call::with_arguments(
        &shared.options,
        ["runs", "resume", &run.display().to_string(), "--json"],
    );
    let line = call.command_line();
    let resume = Work::stream("control.resume", move |sender| {
        let answer = match Liveness::for_run(&path) {
            Liveness::Gone(_) => {
                let text = format!("{name}: starting worker ...");
                sender.send(move |_: &mut (), shared: &mut Shared| shared.say(text));
                call.json().map(|answer| match answer["job"].as_u64() {
                    Some(job) => (format!("submitted as Slurm job {job}"), Level::Done),
                    None => ("resumed".to_owned(), Level::Done),
                })
            }
            _ => answer(&path, &Verb::Resume),
        };
        sender.send(move |_: &mut (), shared: &mut Shared| report(shared, &name, answer));
    });
    resume.like(line)
}

fn name(run: &Path) -> String {
    short_id(&run.file_name().unwrap_or_default().to_string_lossy()).to_owned()
}
