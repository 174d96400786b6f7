//! Messages that change the view, commands that it issues, and background work.

use std::any::Any;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossterm::event::{KeyEvent, MouseEvent};
use parking_lot::{Condvar, Mutex};

use super::action::ActionInfo;
use super::command_log::CommandLine;
use super::screens::Screen;
use crate::report::EvalId;
use crate::run::{Batch, RunState, State};
use crate::score::Task;
use crate::task::PromptSet;

#[derive(Debug)]
pub enum Message {
    Key(KeyEvent),
    Mouse(MouseEvent),
    Paste(String),
    Perform(&'static ActionInfo),
    /// The terminal was resized to columns and rows.
    Resize(u16, u16),
    /// Once a second.
    Tick,
    /// A result of background work.
    Work(WorkResult),
    Run(PathBuf, RunNews),
    /// The external editor has exited; the file is to be read again.
    Edited(PathBuf),
    /// Quit on a signal; the terminal is restored.
    Quit,
}

#[derive(Debug)]
pub enum RunNews {
    Opened(Box<RunState>),
    Events(Batch),
    State(Option<State>),
    /// Why it cannot be read.
    Unreadable(String),
}

/// A command for the rest of the view, which `update` executes, or for the terminal.
#[derive(Debug)]
pub enum Command {
    GoTo(Screen),
    ShowRun(PathBuf),
    /// Compare these evals on the Eval screen.
    Compare(Vec<EvalId>),
    /// Perform the action with this id, on its screen.
    Perform(&'static str),
    /// Notify every screen of a change.
    Changed(Change),
    Quit,
    /// Suspend this process (job control) until it is continued.
    Suspend,
    /// Start background work.
    Work(Work),
    /// Follow a run; its news come as messages.
    Watch(PathBuf),
    Unwatch(PathBuf),
    /// Copy to the terminal's clipboard.
    Copy(String),
    /// A notification of the terminal, and its bell.
    Notify {
        title: String,
        text: String,
        /// Whether the rate limit is ignored: the end of a run.
        urgent: bool,
    },
    /// Open a file in the external editor at a line (from 1).
    Edit {
        path: PathBuf,
        line: usize,
    },
    Redraw,
}

impl Command {
    /// Work that a command line does as well.
    #[must_use]
    pub fn like(self, line: impl Into<Option<CommandLine>>) -> Self {
        match self {
            Self::Work(work) => Self::Work(Work {
                command_line: line.into(),
                ..work
            }),
            other => other,
        }
    }
}

#[derive(Debug)]
pub enum Change {
    /// The user switched to the screen; no other one is told.
    Shown,
    /// Another task was opened, or the task was read again.
    Task,
    /// The task cannot be read, or not any more.
    TaskUnreadable,
    /// An embedded task was copied into a folder; this is the copy.
    Copied(Arc<Task>),
    /// The schema in the editor was compiled, or failed to.
    Schema,
    /// The expected answers were checked with the schema in the editor.
    Expected,
    /// The list of runs was read.
    Runs {
        /// For the first time.
        first: bool,
        /// Whether any run changed.
        news: bool,
    },
    /// Another run is the current one.
    CurrentRun,
    RunNews,
    /// A row of a prompt set is to be shown, by its line.
    PromptRow(PromptSet, usize),
    /// Files were written, by this program or another one.
    Files(Vec<PathBuf>),
    /// A task's programs or judges are trusted now.
    Trust,
    Second,
}

/// A part of the model that an [`Update`] changes: the state of a screen, or of none (`()`).
pub trait Part: Sized + 'static {
    /// The whole, which this file need not know; always the same type.
    type Model: Any;
    /// The state that all screens share; always the same type.
    type Shared;

    fn of(model: &mut Self::Model) -> (&mut Self, &mut Self::Shared);
}

type Apply = dyn FnOnce(&mut dyn Any) -> Vec<Command> + Send;

/// The effect of background work, or of the answer to a question, on one screen and the shared state.
pub struct Update(Box<Apply>);

impl Update {
    /// An update of the screen with the state `X`; of none if that is `()`.
    pub fn new<X: Part>(
        apply: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static,
    ) -> Self {
        Self(Box::new(move |model| {
            let Some(model) = model.downcast_mut::<X::Model>() else {
                return Vec::new();
            };
            let (screen, shared) = X::of(model);
            apply(screen, shared)
        }))
    }

    pub fn apply(self, model: &mut dyn Any) -> Vec<Command> {
        (self.0)(model)
    }
}

impl std::fmt::Debug for Update {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Update")
    }
}

/// Background work. Of each key only the newest counts: results of older work are dropped.
pub struct Work {
    /// The kind of work, such as `score` or `runs`.
    pub key: &'static str,
    /// The number of this work among those of its key; set by `update`.
    pub generation: u64,
    /// The command line that does the same, for the log of commands; taken by `update`.
    pub command_line: Option<CommandLine>,
    /// Runs on a thread of its own.
    pub job: Box<dyn FnOnce(&Sender) + Send>,
}

impl Work {
    /// Work with one result: `compute` runs in the background, `apply` puts its result into the model.
    pub fn once<X: Part, T: Send + 'static>(
        key: &'static str,
        compute: impl FnOnce() -> T + Send + 'static,
        apply: impl FnOnce(&mut X, &mut X::Shared, T) -> Vec<Command> + Send + 'static,
    ) -> Command {
        Self::stream(key, move |sender| {
            let result = compute();
            sender
                .send(move |screen: &mut X, shared: &mut X::Shared| apply(screen, shared, result));
        })
    }

    /// Work whose result is a function of the current model: superseded work does not start, and can ask its sender
    /// once it has started.
    pub fn latest<X: Part, T: Send + 'static>(
        key: &'static str,
        compute: impl FnOnce(&Sender) -> T + Send + 'static,
        apply: impl FnOnce(&mut X, &mut X::Shared, T) -> Vec<Command> + Send + 'static,
    ) -> Command {
        Self::stream(key, move |sender| {
            let Some(_turn) = sender.turn() else { return };
            let result = compute(sender);
            sender
                .send(move |screen: &mut X, shared: &mut X::Shared| apply(screen, shared, result));
        })
    }

    pub fn stream(key: &'static str, job: impl FnOnce(&Sender) + Send + 'static) -> Command {
        Command::Work(Self {
            key,
            generation: 0,
            command_line: None,
            job: Box::new(job),
        })
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Work({})", self.key)
    }
}

pub struct WorkResult {
    pub key: &'static str,
    pub generation: u64,
    /// The change of the model; `None` ends the work.
    pub apply: Option<Update>,
}

impl std::fmt::Debug for WorkResult {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "WorkResult({} {})", self.key, self.generation)
    }
}

/// The generation after which no work is current.
const CLOSED: u64 = u64::MAX;

/// The newest work of every key. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Senders(Arc<Mutex<HashMap<&'static str, Arc<Key>>>>);

#[derive(Debug, Default)]
struct Key {
    newest: AtomicU64,
    computing: Mutex<bool>,
    changed: Condvar,
}

/// Sends the results of one work to the model.
#[derive(Clone)]
pub struct Sender {
    key: Arc<Key>,
    generation: u64,
    put: Arc<dyn Fn(Update) -> bool + Send + Sync>,
}

/// The right to compute for a key, released when dropped.
#[derive(Debug)]
pub struct Turn(Arc<Key>);

impl Senders {
    /// The sender of work that starts now and supersedes older work of its key. `put` delivers a result and returns
    /// false once the view is gone.
    pub fn begin(
        &self,
        work: &Work,
        put: impl Fn(Update) -> bool + Send + Sync + 'static,
    ) -> Sender {
        let key = Arc::clone(self.0.lock().entry(work.key).or_default());
        key.supersede(work.generation);
        Sender {
            key,
            generation: work.generation,
            put: Arc::new(put),
        }
    }

    /// The view ends: all work is superseded.
    pub fn close(&self) {
        self.0.lock().values().for_each(|key| key.supersede(CLOSED));
    }
}

impl Key {
    fn supersede(&self, generation: u64) {
        // Under the lock, so that a waiting thread does not miss it.
        let _computing = self.computing.lock();
        self.newest.store(generation, Ordering::Release);
        self.changed.notify_all();
    }
}

impl Sender {
    /// Whether results of this work still count: false once newer work of its key has started, or the view ends.
    pub fn is_wanted(&self) -> bool {
        self.key.newest.load(Ordering::Acquire) == self.generation
    }

    /// Sends one result. Returns false if the work is superseded and should stop.
    pub fn send<X: Part>(
        &self,
        apply: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static,
    ) -> bool {
        self.is_wanted() && (self.put)(Update::new(apply))
    }

    /// Waits until older work of the key has stopped; `None` if this work is superseded by then.
    pub fn turn(&self) -> Option<Turn> {
        let mut computing = self.key.computing.lock();
        while *computing && self.is_wanted() {
            self.key.changed.wait(&mut computing);
        }
        self.is_wanted().then(|| {
            *computing = true;
            Turn(Arc::clone(&self.key))
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.computing.lock() = false;
        self.0.changed.notify_all();
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Sender({}, current: {})",
            self.generation,
            self.is_wanted()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn newer_work_of_the_key_and_the_end_supersede() {
        let senders = Senders::default();
        let sender = |key, generation| {
            senders.begin(
                &Work {
                    key,
                    generation,
                    command_line: None,
                    job: Box::new(|_| ()),
                },
                |_| true,
            )
        };
        let (first, other) = (sender("schema", 1), sender("runs", 1));
        assert!(first.is_wanted() && first.send(|_: &mut (), _| Vec::new()));
        let second = sender("schema", 2);
        assert!(
            !first.is_wanted() && !first.send(|_: &mut (), _| Vec::new()) && first.turn().is_none()
        );
        assert!(second.is_wanted() && other.is_wanted());
        senders.close();
        assert!(!second.send(|_: &mut (), _| Vec::new()) && !other.is_wanted());
    }

    /// Forty edits of a schema that is slow to score: while the first is computed, all others but the last are dropped
    /// without having started.
    #[test]
    fn of_one_key_one_computes_and_what_is_superseded_does_not_begin() {
        let senders = Senders::default();
        let ((events, received), (open, gate)) = (channel(), channel::<()>());
        let mut gate = Some(gate);
        let mut threads = Vec::new();
        for generation in 1..=40 {
            let (events, gate) = (events.clone(), gate.take());
            let compute = move |sender: &Sender| {
                events.send((generation, "begins")).unwrap();
                if let Some(gate) = gate {
                    gate.recv().unwrap();
                    assert!(!sender.is_wanted(), "newer work waits");
                }
                events.send((generation, "ends")).unwrap();
            };
            let Command::Work(work) =
                Work::latest("schema", compute, |_: &mut (), _, ()| Vec::new())
            else {
                panic!("it is work")
            };
            let work = Work { generation, ..work };
            let sender = senders.begin(&work, |_| true);
            threads.push(std::thread::spawn(move || (work.job)(&sender)));
            if generation == 1 {
                assert_eq!(received.recv().unwrap(), (1, "begins"));
            }
        }
        threads
            .drain(1..39)
            .for_each(|thread| thread.join().unwrap());
        open.send(()).unwrap();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        drop(events);
        assert_eq!(
            received.into_iter().collect::<Vec<_>>(),
            [(1, "ends"), (40, "begins"), (40, "ends")]
        );
    }
}
