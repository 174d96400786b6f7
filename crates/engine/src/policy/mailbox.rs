//! What follows the answers of conversations, from the threads that make it to the one that decodes.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::rollout::Request;

/// What follows answers, by conversation; `None`: nothing does.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    followed: Mutex<HashMap<usize, Option<Request>>>,
    pub(super) has_come: Condvar,
}

impl Mailbox {
    pub(super) fn deliver(&self, conversation: usize, next: Option<Request>) {
        self.letters().insert(conversation, next);
        self.has_come.notify_all();
    }

    pub(super) fn letters(&self) -> MutexGuard<'_, HashMap<usize, Option<Request>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
