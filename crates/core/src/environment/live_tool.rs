//! Interface of a tool in a conversation.

use std::fmt::Debug;
use std::time::Instant;

use serde_json::Value;

use super::calls::{CallOutcome, StateQuestion, ToolCall};

/// A tool with the state of one conversation; dropping it ends all that it started.
pub(super) trait LiveTool: Send + Debug {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply>;

    /// The call by which it answers a question, if it does so by a call.
    fn last_call(&self, _question: &StateQuestion) -> Option<ToolCall> {
        None
    }

    fn has_state(&self, _question: &StateQuestion) -> bool {
        false
    }

    fn state(&mut self, _question: &StateQuestion) -> Result<Value, String> {
        Err("keeps no state that can be asked for".to_owned())
    }

    /// A number that is another one after a call that changed something; `None` if unknown.
    fn changes(&self) -> Option<u64> {
        None
    }

    /// Whether it runs and has no unread output since its last answer.
    fn is_idle(&mut self) -> bool {
        false
    }

    fn is_replayed(&self) -> bool {
        false
    }
}

#[derive(Debug, Clone)]
pub(super) struct RawReply {
    pub(super) text: String,
    pub(super) outcome: CallOutcome,
    pub(super) seconds: f64,
}

#[derive(Debug)]
pub(super) struct Timed<T> {
    pub(super) answer: T,
    pub(super) end: Instant,
}

pub(super) type CallResult = Result<String, String>;

pub(super) fn one_by_one(
    calls: &[&ToolCall],
    mut call: impl FnMut(&ToolCall) -> CallResult,
) -> Vec<RawReply> {
    let timed = |one: &&ToolCall| {
        let start = Instant::now();
        let result = call(one);
        RawReply::new(result, start, Instant::now())
    };
    calls.iter().map(timed).collect()
}

impl RawReply {
    pub(super) fn new(result: CallResult, start: Instant, end: Instant) -> Self {
        let (text, outcome) = match result {
            Ok(text) => (text, CallOutcome::Answered),
            Err(why) => (why, CallOutcome::Failed),
        };
        Self {
            text,
            outcome,
            seconds: (end - start).as_secs_f64(),
        }
    }
}
