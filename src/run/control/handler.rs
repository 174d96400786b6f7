//! Where requests are read and judged, however they came: malformed ones are refused, `status` is answered at once, the rest is queued.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::queue::{ReplyFn, RequestQueue};
use super::verb::Verb;
use super::{LONGEST_REQUEST, PROTOCOL_VERSION};
use crate::run::worker_state::{StateWriter, Status};

/// The longest request id.
const LONGEST_ID: usize = 64;

/// One request as it travels.
#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    v: u64,
    id: String,
    verb: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// The worker's desk for requests.
#[derive(Clone, Debug)]
pub(super) struct RequestHandler {
    pub(super) controls: RequestQueue,
    pub(super) state: StateWriter,
}

impl RequestHandler {
    /// See to one request. `reply_to` makes the way back once the request's id is known.
    pub(super) fn handle(&self, request: &[u8], user_id: u32, reply_to: impl FnOnce(&str) -> ReplyFn) {
        let (id, verb) = match read(request) {
            Ok(read) => read,
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
        // Held until the promise is out, so that it comes before whatever the loop answers.
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap_or_else(PoisonError::into_inner);
        match self.controls.put(verb.clone(), user_id, behind(Arc::clone(&gate), Arc::clone(&reply))) {
            Err(error) => reply(&Answer::refused(error)),
            Ok(computes_until) => {
                let promise = promise(&verb, state.status, computes_until);
                if matches!(verb, Verb::Stop { .. }) {
                    // Where the disk cannot take it, the run stops all the same.
                    let _ = self.state.turn(Status::Stopping, Some(format!("stop requested by user {user_id}")));
                }
                reply(&Answer::accepted(promise));
            }
        }
        drop(held);
    }

    fn status(&self) -> Answer {
        let state = self.state.now();
        let cause = state.cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
        let text = format!("{} at step {}{cause}", state.status.name(), state.step);
        let mut result = json!(state);
        result["waiting_requests"] = json!(self.controls.waiting());
        result["pause_requested"] = json!(self.controls.pause_requested());
        Answer::done(text, result)
    }
}

fn behind(gate: Arc<Mutex<()>>, reply: ReplyFn) -> ReplyFn {
    Arc::new(move |answer: &Answer| {
        let _open = gate.lock().unwrap_or_else(PoisonError::into_inner);
        reply(answer);
    })
}

/// The request's id and verb; else what is wrong, with the id as far as it could be read.
fn read(request: &[u8]) -> Result<(String, Verb), (String, String)> {
    let nameless = |error: String| (String::new(), error);
    if request.len() > LONGEST_REQUEST {
        return Err(nameless(format!("the request is longer than {LONGEST_REQUEST} bytes")));
    }
    let request: Request = serde_json::from_slice(request).map_err(|error| nameless(format!("the request is malformed: {error}")))?;
    if !is_id(&request.id) {
        return Err(nameless(format!("a request's id is 1 to {LONGEST_ID} letters, digits, hyphens or underscores")));
    }
    if request.v > PROTOCOL_VERSION {
        let error = format!("the request has version {}, newer than this worker's {PROTOCOL_VERSION}", request.v);
        return Err((request.id, error));
    }
    match Verb::parse(&request.verb, &request.arguments) {
        Ok(verb) => Ok((request.id, verb)),
        Err(error) => Err((request.id, error)),
    }
}

/// Ids become file names, so they hold nothing that means something in one.
pub(super) fn is_id(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What only the worker can judge.
fn possible(verb: &Verb, step: u64) -> Result<(), String> {
    let Verb::Set { changes } = verb else { return Ok(()) };
    match changes.get("max_steps").and_then(Value::as_u64) {
        Some(steps @ 1..) if steps < step => {
            Err(format!("set: max_steps = {steps} is below the current step {step}: to end the run, stop it"))
        }
        _ => Ok(()),
    }
}

/// What will happen, and when. `computes_until`: the step after which the loop looks at requests.
fn promise(verb: &Verb, status: Status, computes_until: Option<u64>) -> String {
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
        Verb::Resume => "not paused".to_owned(),
        Verb::Checkpoint => format!("saves a checkpoint {after}"),
        Verb::Eval => format!("runs an eval {after}"),
        Verb::Sample(sample) => format!("samples {} completions {after}", sample.n),
        Verb::Stop { now: true } => "stops now; resume continues from the last checkpoint".to_owned(),
        Verb::Stop { now: false } if status == Status::Running => format!("stops {after}, checkpoint saved"),
        Verb::Stop { now: false } => "stops".to_owned(),
        Verb::Annotate { .. } => "noted".to_owned(),
        Verb::Set { changes } => {
            let listed: Vec<String> = changes.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            format!("sets {} {after}", listed.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn malformed_requests_are_refused_with_their_id_where_there_is_one() {
        let check = |request: &[u8], id: &str, expected: &str| {
            let (found, error) = read(request).unwrap_err();
            assert!(found == id && error.contains(expected), "{found:?} {error:?} lacks {expected:?}");
        };
        check(b"", "", "malformed");
        check(b"\xff\xfe", "", "malformed");
        check(b"[]", "", "malformed");
        check(br#"{"id":"a"}"#, "", "missing field `verb`");
        check(br#"{"id":"../x","verb":"pause"}"#, "", "letters, digits");
        check(br#"{"id":"","verb":"pause"}"#, "", "letters, digits");
        check(br#"{"id":"a","v":2,"verb":"pause"}"#, "a", "version 2, newer");
        check(br#"{"id":"a","verb":"pause","arguments":[]}"#, "", "malformed");
        check(br#"{"id":"a","verb":"dance"}"#, "a", "unknown verb");
        check(&b" ".repeat(LONGEST_REQUEST + 1), "", "longer than 65536 bytes");
        assert_eq!(read(br#"{"v":1,"id":"a","verb":"pause"}"#).unwrap(), ("a".to_owned(), Verb::Pause));
    }

    #[test]
    fn goals_that_lie_behind() {
        assert!(possible(&Verb::set(["max_steps=4"]).unwrap(), 5).unwrap_err().contains("is below the current step 5"));
        for fine in ["max_steps=5", "max_steps=0", "learning_rate=1"] {
            assert_eq!(possible(&Verb::set([fine]).unwrap(), 5), Ok(()), "{fine}");
        }
    }
}
