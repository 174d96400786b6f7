//! What happens to the view (messages), what the view asks of the world (commands), and work that runs beside it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossterm::event::{KeyEvent, MouseEvent};

use super::screens::Screen;
use crate::report::EvalId;
use crate::run::{Batch, RunState, State};
use crate::task::Task;

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
    Work(WorkResult),
    /// News of a followed run.
    Run(PathBuf, RunNews),
    /// An external editor ended; the file is to be read again.
    Edited(PathBuf),
    /// End, as a signal asks; the terminal is restored.
    Quit,
}

/// What is new of a followed run.
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

/// What is asked of the rest of the view, which `update` carries out, or of the terminal.
#[derive(Debug)]
pub enum Command {
    /// Bring another screen to the front.
    GoTo(Screen),
    /// Follow a run, and make it the one of the screens Live, Scores and Eval.
    ShowRun(PathBuf),
    /// Compare these evals on the screen Eval.
    Compare(Vec<EvalId>),
    /// Tell every screen that something shared has changed.
    Changed(Change),
    /// Leave. Runs continue.
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

/// Something that screens share and that has changed.
#[derive(Debug)]
pub enum Change {
    /// Another task, or the task read again.
    Task,
    /// The task, a part of the program, was copied into a folder to be written; this is the copy.
    Copied(Arc<Task>),
    /// The schema in the editor was compiled, or could not be.
    Schema,
    /// The runs that there are were looked for.
    Runs {
        /// For the first time.
        first: bool,
        /// Whether anything was read of them.
        news: bool,
    },
    /// Another run is the current one.
    CurrentRun,
    /// There is news of the current run.
    RunNews,
    /// A file was written, by an external editor or by this program.
    File(PathBuf),
    /// A second has passed.
    Second,
}

/// What belongs to one screen alone, or to none (`()`), and can be changed by an [`Update`].
pub trait ScreenState: Any {
    /// What all screens share; always the same type, which this file need not know.
    type Shared: Any;
}

/// The model, as an [`Update`] sees it.
pub trait UpdateTarget {
    /// The screen's own part of that type, and what all screens share.
    fn parts(&mut self, screen: TypeId) -> Option<(&mut dyn Any, &mut dyn Any)>;
}

type Apply = dyn FnOnce(&mut dyn UpdateTarget) -> Vec<Command> + Send;

/// What a result of work, or the answer to a question, does to one screen and to what all screens share.
pub struct Update(Box<Apply>);

impl Update {
    /// An update of the screen whose own part is an `X`; of none where that is `()`.
    pub fn new<X: ScreenState>(apply: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static) -> Self {
        Self(Box::new(move |model| {
            let Some((screen, shared)) = model.parts(TypeId::of::<X>()) else { return Vec::new() };
            match (screen.downcast_mut::<X>(), shared.downcast_mut::<X::Shared>()) {
                (Some(screen), Some(shared)) => apply(screen, shared),
                _ => Vec::new(),
            }
        }))
    }

    /// Do it.
    pub fn apply(self, model: &mut dyn UpdateTarget) -> Vec<Command> {
        (self.0)(model)
    }
}

impl std::fmt::Debug for Update {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Update")
    }
}

/// Work beside the view. Of one key only the newest counts: what older work still brings is dropped.
pub struct Work {
    /// What it is, such as `score` or `runs`.
    pub key: &'static str,
    /// Which work of that key it is; `update` numbers them.
    pub generation: u64,
    /// The work itself, on a thread of its own.
    pub job: Box<dyn FnOnce(&Sender) + Send>,
}

impl Work {
    /// Work that brings one result: `compute` runs beside the view, `apply` takes its result into the model.
    pub fn once<X: ScreenState, T: Send + 'static>(
        key: &'static str,
        compute: impl FnOnce() -> T + Send + 'static,
        apply: impl FnOnce(&mut X, &mut X::Shared, T) -> Vec<Command> + Send + 'static,
    ) -> Command {
        Self::stream(key, move |sender| {
            let result = compute();
            sender.send(move |screen: &mut X, shared: &mut X::Shared| apply(screen, shared, result));
        })
    }

    /// Work whose result is a function of the model as it stands: work that newer one has superseded does not begin,
    /// and learns of it by the sender once it has begun.
    pub fn latest<X: ScreenState, T: Send + 'static>(
        key: &'static str,
        compute: impl FnOnce(&Sender) -> T + Send + 'static,
        apply: impl FnOnce(&mut X, &mut X::Shared, T) -> Vec<Command> + Send + 'static,
    ) -> Command {
        Self::stream(key, move |sender| {
            let Some(_turn) = sender.turn() else { return };
            let result = compute(sender);
            sender.send(move |screen: &mut X, shared: &mut X::Shared| apply(screen, shared, result));
        })
    }

    /// Work that brings its results piece by piece.
    pub fn stream(key: &'static str, job: impl FnOnce(&Sender) + Send + 'static) -> Command {
        Command::Work(Self { key, generation: 0, job: Box::new(job) })
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Work({})", self.key)
    }
}

/// A piece that work brought.
pub struct WorkResult {
    /// The work's key.
    pub key: &'static str,
    /// Which work of that key.
    pub generation: u64,
    /// What it does to the model; `None` says that the work is over.
    pub apply: Option<Update>,
}

impl std::fmt::Debug for WorkResult {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "WorkResult({} {})", self.key, self.generation)
    }
}

/// The generation of no work: nothing is wanted any more.
const CLOSED: u64 = u64::MAX;

/// The newest work of every key. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Senders(Arc<Mutex<HashMap<&'static str, Arc<Key>>>>);

/// The work of one key.
#[derive(Debug, Default)]
struct Key {
    newest: AtomicU64,
    computing: Mutex<bool>,
    changed: Condvar,
}

/// The way of one work to the model.
#[derive(Clone)]
pub struct Sender {
    key: Arc<Key>,
    generation: u64,
    put: Arc<dyn Fn(Update) -> bool + Send + Sync>,
}

/// The right to compute for a key; given back when dropped.
#[derive(Debug)]
pub struct Turn(Arc<Key>);

impl Senders {
    /// The sender of work that begins now: older work of its key is wanted no more. `put` hands on; false says that the
    /// view is gone.
    pub fn begin(&self, work: &Work, put: impl Fn(Update) -> bool + Send + Sync + 'static) -> Sender {
        let key = Arc::clone(locked(&self.0).entry(work.key).or_default());
        key.supersede(work.generation);
        Sender { key, generation: work.generation, put: Arc::new(put) }
    }

    /// The view ends: no work is wanted any more.
    pub fn close(&self) {
        locked(&self.0).values().for_each(|key| key.supersede(CLOSED));
    }
}

impl Key {
    fn supersede(&self, generation: u64) {
        // Under the lock, so that whoever waits for its turn does not miss it.
        let _computing = locked(&self.computing);
        self.newest.store(generation, Ordering::Release);
        self.changed.notify_all();
    }
}

impl Sender {
    /// Whether the model would still take what this work brings: false once newer work of its key has begun, or the
    /// view ends.
    pub fn is_wanted(&self) -> bool {
        self.key.newest.load(Ordering::Acquire) == self.generation
    }

    /// Hand over one piece. False where nobody wants it: then stop.
    pub fn send<X: ScreenState>(
        &self,
        apply: impl FnOnce(&mut X, &mut X::Shared) -> Vec<Command> + Send + 'static,
    ) -> bool {
        self.is_wanted() && (self.put)(Update::new(apply))
    }

    /// Waits until older work of the key has noticed that it is superseded; `None` where this work is by then.
    pub fn turn(&self) -> Option<Turn> {
        let mut computing = locked(&self.key.computing);
        while *computing && self.is_wanted() {
            computing = self.key.changed.wait(computing).unwrap_or_else(PoisonError::into_inner);
        }
        self.is_wanted().then(|| {
            *computing = true;
            Turn(Arc::clone(&self.key))
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *locked(&self.0.computing) = false;
        self.0.changed.notify_all();
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sender({}, current: {})", self.generation, self.is_wanted())
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a plain assignment, so work that panicked has left nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn newer_work_of_the_key_and_the_end_supersede() {
        let senders = Senders::default();
        let sender = |key, generation| senders.begin(&Work { key, generation, job: Box::new(|_| ()) }, |_| true);
        let (first, other) = (sender("schema", 1), sender("runs", 1));
        assert!(first.is_wanted() && first.send(|_: &mut (), _| Vec::new()));
        let second = sender("schema", 2);
        assert!(!first.is_wanted() && !first.send(|_: &mut (), _| Vec::new()) && first.turn().is_none());
        assert!(second.is_wanted() && other.is_wanted());
        senders.close();
        assert!(!second.send(|_: &mut (), _| Vec::new()) && !other.is_wanted());
    }

    /// Forty keystrokes in a schema that takes long: while the first is computed the others end without having begun,
    /// but for the last.
    #[test]
    fn of_one_key_one_computes_and_what_is_superseded_does_not_begin() {
        let senders = Senders::default();
        let ((tell, told), (open, gate)) = (channel(), channel::<()>());
        let mut gate = Some(gate);
        let mut threads = Vec::new();
        for generation in 1..=40 {
            let (tell, gate) = (tell.clone(), gate.take());
            let compute = move |sender: &Sender| {
                tell.send((generation, "begins")).unwrap();
                if let Some(gate) = gate {
                    gate.recv().unwrap();
                    assert!(!sender.is_wanted(), "it is told that newer work waits");
                }
                tell.send((generation, "ends")).unwrap();
            };
            let Command::Work(work) = Work::latest("schema", compute, |_: &mut (), _, ()| Vec::new()) else {
                panic!("it is work")
            };
            let work = Work { generation, ..work };
            let sender = senders.begin(&work, |_| true);
            threads.push(std::thread::spawn(move || (work.job)(&sender)));
            if generation == 1 {
                assert_eq!(told.recv().unwrap(), (1, "begins"));
            }
        }
        threads.drain(1..39).for_each(|thread| thread.join().unwrap());
        open.send(()).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(tell);
        assert_eq!(told.into_iter().collect::<Vec<_>>(), [(1, "ends"), (40, "begins"), (40, "ends")]);
    }
}
