//! What all ranks do next, and the requests from which rank 0 decides it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::run::events::Collapse;
use crate::run::{AcceptedRequest, Answer, Settings, Worker};

/// What all ranks do next.
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
    /// Saves a checkpoint and ends; `with_eval`: after an eval, if the step was given by `--until`.
    Stop {
        with_eval: bool,
    },
    Finish {
        cause: String,
    },
}

/// The requests of users, and what is known of them.
pub(super) struct Requests<'a> {
    pub(super) worker: &'a Worker,
    /// Settings that earlier workers accepted, by the step that they apply to.
    pub(super) settings: Settings,
    /// The last step that was recorded.
    pub(super) last_step: u64,
    pub(super) open: VecDeque<AcceptedRequest>,
    /// The request that all ranks carry out.
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

    /// Answers the request that all ranks have carried out, if a user asked for it.
    pub(super) fn answer(&mut self, answer: Option<Answer>) {
        if let (Some(answer), Some(id)) = (answer, self.answering.take()) {
            self.worker.controls().answer(id, &answer);
        }
    }
}
