//! What a request is answered with: one line or several, the last of which says that nothing more comes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// Taken; the loop will see to it.
    Accepted,
    /// A part of the result; more follows.
    Part,
    Done,
    /// Not done, and will not be.
    Refused,
}

/// One answer, without the request's id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub(super) stage: Stage,
    /// The same for people.
    pub(super) text: String,
    /// What the work brought.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) result: Value,
}

impl Answer {
    pub(super) fn accepted(text: impl Into<String>) -> Self {
        Self { stage: Stage::Accepted, text: text.into(), result: Value::Null }
    }

    /// A part of a result, such as one completion; more follows.
    pub fn part(result: Value) -> Self {
        Self { stage: Stage::Part, text: String::new(), result }
    }

    /// The work is done. `result`: what it brought, or null.
    pub fn done(text: impl Into<String>, result: Value) -> Self {
        Self { stage: Stage::Done, text: text.into(), result }
    }

    /// The work could not be done, and why.
    pub fn refused(text: impl Into<String>) -> Self {
        Self { stage: Stage::Refused, text: text.into(), result: Value::Null }
    }

    pub(super) fn is_last(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Refused)
    }
}

/// One answer as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AnswerLine {
    pub(super) v: u64,
    /// The request's id; empty where the request had none that could be read.
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) answer: Answer,
}
