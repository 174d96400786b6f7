//! What follows the answers of conversations, from the threads that make it to the one that decodes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::rollout::Request;

/// Numbers of samples in the random numbers of each completion of a conversation.
pub(super) const SAMPLES_OF_TURN: u32 = 1 << 16;

/// Of a request in its conversation, from 0.
pub(super) fn request_number(request: &Request) -> u32 {
    request.first_sample / SAMPLES_OF_TURN
}

/// What a conversation asks next.
#[derive(Debug)]
pub(super) struct NextRequest {
    pub(super) request: Request,
    /// The completion of its conversation, by number from 0, after whose tokens its prompt goes on.
    pub(super) follows: Option<u32>,
}

pub(super) type Letter = (usize, Option<NextRequest>);

/// What follows answers, each with its conversation, in the order in which it comes; `None`: nothing does.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    followed: Mutex<Vec<Letter>>,
    pub(super) has_come: Condvar,
}

impl Mailbox {
    pub(super) fn deliver(&self, conversation: usize, next: Option<NextRequest>) {
        self.letters().push((conversation, next));
        self.has_come.notify_all();
    }

    pub(super) fn letters(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
