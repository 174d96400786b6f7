//! What all ranks do next, and the requests from which rank 0 decides.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::events::Collapse;
use crate::run::{AcceptedRequest, Answer, Settings, Worker};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) enum NextAction {
    #[default]
    Steps,
    /// New values of keys, from the next step on.
    Set(BTreeMap<String, Value>),
    Eval,
    Checkpoint,
    /// Continues from an earlier checkpoint after a collapse.
    Recover(Collapse),
    /// Saves a checkpoint and ends.
    Stop,
    Finish {
        cause: String,
    },
}

/// User requests and their state.
pub(super) struct Requests<'a> {
    pub(super) worker: &'a Worker,
    /// Settings accepted by earlier workers, by first step.
    pub(super) settings: Settings,
    /// The last recorded step.
    pub(super) last_step: u64,
    pub(super) open: VecDeque<AcceptedRequest>,
    /// The request being carried out by all ranks.
    pub(super) answering: Option<u64>,
    pub(super) is_paused: bool,
}

impl<'a> Requests<'a> {
    pub(super) fn new(worker: &'a Worker, last_step: u64) -> Self {
        let (settings, open) = (Settings::new(), VecDeque::new());
        Self {
            worker,
            settings,
            last_step,
            open,
            answering: None,
            is_paused: false,
        }
    }

    /// Answers the user's request carried out by all ranks, if any.
    pub(super) fn answer(&mut self, answer: Option<Answer>) {
        if let (Some(answer), Some(id)) = (answer, self.answering.take()) {
            self.worker.controls().answer(id, &answer);
        }
    }
}
