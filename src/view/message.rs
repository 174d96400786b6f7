//! What happens to the view (messages), what the view asks of the world (commands), and work that runs beside it.

use std::path::PathBuf;

use crossterm::event::{KeyEvent, MouseEvent};

use super::model::Model;
pub use super::work_sender::{Outlet, Senders};
use crate::run::{Batch, RunState, State};

/// Something that happened.
#[derive(Debug)]
pub enum Message {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was pressed, moved or turned.
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has this many columns and rows.
    Resize(u16, u16),
    /// Time passed; once a second.
    Tick,
    /// Work brought something.
    Worked(Worked),
    /// A watched run.
    Run(PathBuf, RunNews),
    /// An external editor ended; the file is to be read again.
    Edited(PathBuf),
    /// End, as a signal asks; the terminal is restored.
    Quit,
}

/// What is new of a watched run.
#[derive(Debug)]
pub enum RunNews {
    /// Its log as it stands now.
    Opened(Box<RunState>),
    /// What came since.
    Events(Batch),
    /// What its worker says of itself, as a viewer should see it.
    State(Option<State>),
    /// It cannot be read, as a sentence.
    Unreadable(String),
}

/// What the world is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Leave. Runs go on.
    Quit,
    /// Stop this process as the shell's job control does, until it is continued.
    Suspend,
    /// Compute something beside the view.
    Work(Work),
    /// Follow a run: its news come as messages.
    Watch(PathBuf),
    /// Follow it no more.
    Unwatch(PathBuf),
    /// Into the clipboard of the terminal.
    Copy(String),
    /// A notification of the terminal, and its bell.
    Notify {
        /// A few words.
        title: String,
        /// A sentence.
        text: String,
        /// Whether it rings however lately something else did: the end of a run.
        urgent: bool,
    },
    /// Open a file in the user's editor at a line (from 1), with the terminal as it was before.
    Edit {
        /// The file.
        path: PathBuf,
        /// Where the cursor should stand.
        line: usize,
    },
    /// Draw everything again.
    Redraw,
}

/// Changes the model by what work brought.
pub type ModelUpdate = Box<dyn FnOnce(&mut Model) -> Vec<Command> + Send>;

/// Work beside the view. Of one key only the newest counts: what older work still brings is dropped.
pub struct Work {
    /// What it is, such as `score` or `runs`.
    pub key: &'static str,
    /// Which work of that key it is; `update` numbers them.
    pub generation: u64,
    /// The work itself, on a thread of its own.
    pub job: Box<dyn FnOnce(&Outlet) + Send>,
}

impl Work {
    /// Work that brings one result: `compute` runs beside the view, `apply` takes its result into the model.
    pub fn once<T: Send + 'static>(
        key: &'static str,
        compute: impl FnOnce() -> T + Send + 'static,
        apply: impl FnOnce(&mut Model, T) -> Vec<Command> + Send + 'static,
    ) -> Command {
        Command::Work(Self {
            key,
            generation: 0,
            job: Box::new(move |outlet| {
                let result = compute();
                outlet.put(move |model| apply(model, result));
            }),
        })
    }

    /// Work whose result is a function of the model as it stands: work that newer one has superseded does not begin, and learns of it by the outlet
    /// once it has begun.
    pub fn latest<T: Send + 'static>(
        key: &'static str,
        compute: impl FnOnce(&Outlet) -> T + Send + 'static,
        apply: impl FnOnce(&mut Model, T) -> Vec<Command> + Send + 'static,
    ) -> Command {
        Self::stream(key, move |outlet| {
            let Some(_turn) = outlet.turn() else { return };
            let result = compute(outlet);
            outlet.put(move |model| apply(model, result));
        })
    }

    /// Work that brings its results piece by piece.
    pub fn stream(key: &'static str, job: impl FnOnce(&Outlet) + Send + 'static) -> Command {
        Command::Work(Self { key, generation: 0, job: Box::new(job) })
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Work({})", self.key)
    }
}

/// A piece that work brought.
pub struct Worked {
    /// The work's key.
    pub key: &'static str,
    /// Which work of that key.
    pub generation: u64,
    /// What it does to the model; `None` says that the work is over.
    pub apply: Option<ModelUpdate>,
}

impl std::fmt::Debug for Worked {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Worked({} {})", self.key, self.generation)
    }
}
