//! Where work puts what it brings, and whether anybody still wants it: of one key only the newest work counts, and one at a time computes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::message::{Command, ModelUpdate, Work};
use super::model::Model;

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
pub struct Outlet {
    key: Arc<Key>,
    generation: u64,
    put: Arc<dyn Fn(ModelUpdate) -> bool + Send + Sync>,
}

/// The right to compute for a key; given back when dropped.
#[derive(Debug)]
pub struct Turn(Arc<Key>);

impl Senders {
    /// The outlet of work that begins now: older work of its key is wanted no more. `put` hands on; false says that the view is gone.
    pub fn begin(&self, work: &Work, put: impl Fn(ModelUpdate) -> bool + Send + Sync + 'static) -> Outlet {
        let key = Arc::clone(locked(&self.0).entry(work.key).or_default());
        key.supersede(work.generation);
        Outlet { key, generation: work.generation, put: Arc::new(put) }
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

impl Outlet {
    /// Whether the model would still take what this work brings: false once newer work of its key has begun, or the view ends.
    pub fn is_wanted(&self) -> bool {
        self.key.newest.load(Ordering::Acquire) == self.generation
    }

    /// Hand over one piece. False where nobody wants it: then stop.
    pub fn put(&self, apply: impl FnOnce(&mut Model) -> Vec<Command> + Send + 'static) -> bool {
        self.is_wanted() && (self.put)(Box::new(apply))
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

impl std::fmt::Debug for Outlet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sender({}, current: {})", self.generation, self.is_wanted())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a plain assignment, so work that panicked has left nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn newer_work_of_the_key_and_the_end_supersede() {
        let outlets = Senders::default();
        let outlet = |key, generation| outlets.begin(&Work { key, generation, job: Box::new(|_| ()) }, |_| true);
        let (first, other) = (outlet("schema", 1), outlet("runs", 1));
        assert!(first.is_wanted() && first.put(|_| Vec::new()));
        let second = outlet("schema", 2);
        assert!(!first.is_wanted() && !first.put(|_| Vec::new()) && first.turn().is_none());
        assert!(second.is_wanted() && other.is_wanted());
        outlets.close();
        assert!(!second.put(|_| Vec::new()) && !other.is_wanted());
    }

    /// Forty keystrokes in a schema that takes long: while the first is computed the others end without having begun, but for the last.
    #[test]
    fn of_one_key_one_computes_and_what_is_superseded_does_not_begin() {
        let outlets = Senders::default();
        let ((tell, told), (open, gate)) = (channel(), channel::<()>());
        let mut gate = Some(gate);
        let mut threads = Vec::new();
        for generation in 1..=40 {
            let (tell, gate) = (tell.clone(), gate.take());
            let compute = move |outlet: &Outlet| {
                tell.send((generation, "begins")).unwrap();
                if let Some(gate) = gate {
                    gate.recv().unwrap();
                    assert!(!outlet.is_wanted(), "it is told that newer work waits");
                }
                tell.send((generation, "ends")).unwrap();
            };
            let Command::Work(work) = Work::latest("schema", compute, |_, ()| Vec::new()) else { panic!("it is work") };
            let work = Work { generation, ..work };
            let outlet = outlets.begin(&work, |_| true);
            threads.push(std::thread::spawn(move || (work.job)(&outlet)));
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
