//! The files of requests and answers: a request is one JSON object, an answer one line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::verb::Verb;

pub(super) const FOLDER: &str = "control";

pub(super) const REQUEST: &str = ".request.json";
pub(super) const ANSWERS: &str = ".answers.jsonl";

pub(super) const MAX_REQUEST_BYTES: usize = 64 * 1024;

pub(super) const PROTOCOL_VERSION: u64 = 1;

const MAX_ID_LEN: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    pub(super) v: u64,
    pub(super) id: String,
    pub(super) verb: String,
    #[serde(default)]
    pub(super) arguments: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Accepted,
    /// One of several results.
    Part,
    Done,
    Refused,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub(super) stage: Stage,
    pub(super) text: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) result: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AnswerLine {
    pub(super) v: u64,
    /// The request's id; empty if it could not be read.
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) answer: Answer,
}

impl Request {
    /// The error is the id, as far as it could be read, and a message.
    pub(super) fn parse(bytes: &[u8]) -> Result<(String, Verb), (String, String)> {
        let nameless = |error: String| (String::new(), error);
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(nameless(format!(
                "the request is longer than {MAX_REQUEST_BYTES} bytes"
            )));
        }
        let request: Self = serde_json::from_slice(bytes)
            .map_err(|error| nameless(format!("the request is malformed: {error}")))?;
        if !is_id(&request.id) {
            return Err(nameless(format!(
                "a request's id is 1 to {MAX_ID_LEN} letters, digits, hyphens or underscores"
            )));
        }
        if request.v > PROTOCOL_VERSION {
            let error = format!(
                "the request has version {}, newer than this worker's {PROTOCOL_VERSION}",
                request.v
            );
            return Err((request.id, error));
        }
        match Verb::parse(&request.verb, &request.arguments) {
            Ok(verb) => Ok((request.id, verb)),
            Err(error) => Err((request.id, error)),
        }
    }
}

pub(super) fn request_file(run: &Path, id: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{id}{REQUEST}"))
}

pub(super) fn answers_file(run: &Path, id: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{id}{ANSWERS}"))
}

/// Ids become file names.
pub(super) fn is_id(id: &str) -> bool {
    (1..=MAX_ID_LEN).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl Answer {
    pub(super) fn accepted(text: impl Into<String>) -> Self {
        Self {
            stage: Stage::Accepted,
            text: text.into(),
            result: Value::Null,
        }
    }

    pub fn part(result: Value) -> Self {
        Self {
            stage: Stage::Part,
            text: String::new(),
            result,
        }
    }

    pub fn done(text: impl Into<String>, result: Value) -> Self {
        Self {
            stage: Stage::Done,
            text: text.into(),
            result,
        }
    }

    pub fn refused(text: impl Into<String>) -> Self {
        Self {
            stage: Stage::Refused,
            text: text.into(),
            result: Value::Null,
        }
    }

    pub(super) fn is_last(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Refused)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn malformed_requests_are_refused_with_their_id_where_there_is_one() {
        let check = |request: &[u8], id: &str, expected: &str| {
            let (found, error) = Request::parse(request).unwrap_err();
            assert!(
                found == id && error.contains(expected),
                "{found:?} {error:?} lacks {expected:?}"
            );
        };
        check(b"", "", "malformed");
        check(b"\xff\xfe", "", "malformed");
        check(b"[]", "", "malformed");
        check(br#"{"id":"a"}"#, "", "missing field `verb`");
        check(br#"{"id":"../x","verb":"pause"}"#, "", "letters, digits");
        check(br#"{"id":"","verb":"pause"}"#, "", "letters, digits");
        check(
            br#"{"id":"a","v":2,"verb":"pause"}"#,
            "a",
            "version 2, newer",
        );
        check(
            br#"{"id":"a","verb":"pause","arguments":[]}"#,
            "",
            "malformed",
        );
        check(br#"{"id":"a","verb":"dance"}"#, "a", "unknown verb");
        check(
            &b" ".repeat(MAX_REQUEST_BYTES + 1),
            "",
            "longer than 65536 bytes",
        );
        assert_eq!(
            Request::parse(br#"{"v":1,"id":"a","verb":"pause"}"#).unwrap(),
            ("a".to_owned(), Verb::Pause)
        );
    }
}
