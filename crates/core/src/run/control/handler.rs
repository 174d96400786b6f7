//! Handles requests: refuses malformed ones, answers `status` at once, queues the rest.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::protocol::{Answer, Request};
use super::queue::{ReplyFn, RequestQueue};
use super::verb::Verb;
use crate::facts::Status;
use crate::format::counted;
use crate::run::process::worker_state::{State, StateWriter};
use crate::run::storage::folder::user_name;

#[derive(Clone, Debug)]
pub(super) struct RequestHandler {
    pub(super) controls: RequestQueue,
    pub(super) state: StateWriter,
}

impl RequestHandler {
    /// `reply_to` returns the reply function for a request id.
    pub(super) fn handle(
        &self,
        request: &[u8],
        user_id: u32,
        reply_to: impl FnOnce(&str) -> ReplyFn,
    ) {
        let (id, verb) = match Request::parse(request) {
            Ok(parsed) => parsed,
            Err((id, error)) => return reply_to(&id)(&Answer::refused(error)),
        };
        let reply = reply_to(&id);
        if verb == Verb::Status {
            return reply(&self.status());
        }
        let state = self.state.now();
        if let Err(error) = possible(&verb, state.step) {
            return reply(&Answer::refused(error));
        }
        // Held until `accepted` is sent, so that it precedes the answers of the loop.
        let gate = Arc::new(Mutex::new(()));
        let locked = gate.lock();
        match self.controls.push(
            verb.clone(),
            user_id,
            behind(Arc::clone(&gate), Arc::clone(&reply)),
        ) {
            Err(error) => reply(&Answer::refused(error)),
            Ok(computes_until) => {
                let promise = promise(&verb, &state, computes_until);
                if matches!(verb, Verb::Pause | Verb::Resume) {
                    // The request is queued whether or not the disk can take the state.
                    let _ = self.state.request_pause(verb == Verb::Pause);
                }
                if matches!(verb, Verb::Stop { .. }) {
                    // If the disk cannot take the state, the run stops all the same.
                    let _ = self.state.turn(
                        Status::Stopping,
                        Some(format!("stop requested by {}", user_name(user_id)).into()),
                    );
                }
                reply(&Answer::accepted(promise));
            }
        }
        drop(locked);
    }

    fn status(&self) -> Answer {
        let state = self.state.now();
        let cause = state
            .cause
            .as_ref()
            .map_or_else(String::new, |cause| format!(": {cause}"));
        let text = format!("{} at step {}{cause}", state.status.name(), state.step);
        let mut result = json!(state);
        result["waiting_requests"] = json!(self.controls.waiting());
        result["pause_requested"] = json!(self.controls.pause_requested());
        Answer::done(text, result)
    }
}

fn behind(gate: Arc<Mutex<()>>, reply: ReplyFn) -> ReplyFn {
    Arc::new(move |answer: &Answer| {
        let _open = gate.lock();
        reply(answer);
    })
}

/// Checks that need the worker's state.
fn possible(verb: &Verb, step: u64) -> Result<(), String> {
    let Verb::Set { changes } = verb else {
        return Ok(());
    };
    match changes.get("max_steps").and_then(Value::as_u64) {
        Some(steps @ 1..) if steps < step => Err(format!(
            "set: max_steps = {steps} is below the current step {step}: to end the run, stop it"
        )),
        _ => Ok(()),
    }
}

/// Returns the text of `accepted`. `computes_until`: the step after which the loop looks at requests.
fn promise(verb: &Verb, state: &State, computes_until: Option<u64>) -> String {
    let status = state.status;
    let after = match (status, computes_until) {
        (Status::Running | Status::Stopping, Some(step)) => format!("after step {step}"),
        (Status::Running | Status::Stopping, None) => "next".to_owned(),
        (Status::Paused, _) => "now (the run is paused)".to_owned(),
        _ => "when the run starts".to_owned(),
    };
    match verb {
        Verb::Status => String::new(),
        Verb::Pause if status == Status::Paused => "already paused".to_owned(),
        Verb::Pause => format!("pauses {after}"),
        Verb::Resume if status == Status::Paused => "resumes".to_owned(),
        Verb::Resume if state.pauses_later() => "pause cancelled".to_owned(),
        Verb::Resume => "not paused".to_owned(),
        Verb::Checkpoint => format!("saves a checkpoint {after}"),
        Verb::Eval => format!("runs an eval {after}"),
        Verb::Sample(sample) => format!("samples {} {after}", counted(sample.n, "completion")),
        Verb::Stop { now: true } => {
            "stops now; resume continues from the last checkpoint".to_owned()
        }
        Verb::Stop { now: false } if status == Status::Running => {
            format!("stops {after}, checkpoint saved")
        }
        Verb::Stop { now: false } => "stops".to_owned(),
        Verb::Annotate { .. } => "noted".to_owned(),
        Verb::Set { changes } => {
            let listed: Vec<String> = changes
                .iter()
                .map(|(name, value)| format!("{name} = {value}"))
                .collect();
            format!("sets {} {after}", listed.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn goals_that_lie_behind() {
        assert!(
            possible(&Verb::set(["max_steps=4"]).unwrap(), 5)
                .unwrap_err()
                .contains("is below the current step 5")
        );
        for fine in ["max_steps=5", "max_steps=0", "learning_rate=1"] {
            assert_eq!(possible(&Verb::set([fine]).unwrap(), 5), Ok(()), "{fine}");
        }
    }
}
