//! What follows the answers of conversations, from the threads that make it to the one that decodes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::rollout::Request;

/// Numbers of samples in the random numbers of each completion of a conversation.
pub(super) const SAMPLES_OF_TURN: u32 = 1 << 16;

pub(super) type Letter = (usize, Option<Request>);

/// What follows answers, each with its conversation, in the order in which it comes; `None`: nothing does.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    followed: Mutex<Vec<Letter>>,
    pub(super) has_come: Condvar,
}

impl Mailbox {
    pub(super) fn deliver(&self, conversation: usize, next: Option<Request>) {
        self.letters().push((conversation, next));
        self.has_come.notify_all();
    }

    pub(super) fn letters(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
