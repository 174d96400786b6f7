//! Mutexes whose data a panicked thread leaves valid.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it, also after a thread panicked with it: every change of the data is whole.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
