//! `run = [..]`: a program of the task, one process per conversation, that reads calls and writes
//! results as lines.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{StateQuestion, ToolCall};
use super::live_tool::{LiveTool, RawReply, Timed};
use super::program_process::{LineServer, TrustedProgram};
use crate::dataset::PromptRow;
use crate::format::shortened;

/// A program's line: `result` or `error`, and the call's `id` if it answers out of order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    error: Option<Value>,
}

/// Distinguishes `null`, which is a result, from a missing field.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

type Answer = Result<Value, Value>;

#[derive(Debug)]
pub(super) struct RunTool {
    server: LineServer,
    next_id: u64,
    /// First line of the conversation, until sent.
    begin: Option<Value>,
}

impl RunTool {
    pub(super) fn open(
        program: &TrustedProgram,
        row: &PromptRow,
    ) -> Result<Box<dyn LiveTool>, String> {
        let field = program.rules.field.as_ref();
        let begin = field.map(|field| match row.fields.value(field) {
            Some(value) => Ok(json!({"row": value})),
            None => Err(format!(
                "the row has no {field:?}, which `field` of its [[tool]] names"
            )),
        });
        Ok(Box::new(Self {
            server: LineServer::new(program),
            next_id: 1,
            begin: begin.transpose()?,
        }))
    }

    fn ask(&mut self, lines: Vec<Value>) -> Vec<Timed<Result<Answer, String>>> {
        let first = self.next_id;
        self.next_id += lines.len() as u64;
        let mut found: Vec<_> = lines.iter().map(|_| None).collect();
        let mut failure = self
            .begin
            .take()
            .and_then(|line| self.server.send(&line).err());
        for (id, mut line) in (first..).zip(lines) {
            line["id"] = id.into();
            failure = failure.or(self.server.send(&line).err());
        }
        while failure.is_none() && found.iter().any(Option::is_none) {
            let answer = self
                .server
                .line(self.server.deadline())
                .and_then(|line| self.read(&line));
            let pending = |id: Option<u64>| match id {
                Some(id) => usize::try_from(id.checked_sub(first)?)
                    .ok()
                    .filter(|at| matches!(found.get(*at), Some(None))),
                None => found.iter().position(Option::is_none),
            };
            match answer {
                Ok((id, answer)) => match pending(id) {
                    Some(at) => {
                        found[at] = Some(Timed {
                            answer: Ok(answer),
                            end: Instant::now(),
                        })
                    }
                    None => {
                        failure = Some(self.server.end(format!(
                            "answered id {}, which is not pending",
                            id.unwrap_or_default()
                        )))
                    }
                },
                Err(why) => failure = Some(why),
            }
        }
        let why = failure.unwrap_or_default();
        found
            .into_iter()
            .map(|answer| {
                answer.unwrap_or_else(|| Timed {
                    answer: Err(why.clone()),
                    end: Instant::now(),
                })
            })
            .collect()
    }

    fn read(&mut self, line: &[u8]) -> Result<(Option<u64>, Answer), String> {
        let text = String::from_utf8_lossy(line);
        let problem = match serde_json::from_slice::<Line>(line) {
            Ok(Line {
                id,
                result: Some(result),
                error: None,
            }) => return Ok((id, Ok(result))),
            Ok(Line {
                id,
                result: None,
                error: Some(error),
            }) => return Ok((id, Err(error))),
            Ok(_) => "needs either `result` or `error`".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(self
            .server
            .end(format!("wrote {:?}: {problem}", shortened(&text, 100))))
    }
}

impl LiveTool for RunTool {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply> {
        let at_once = if self.server.in_parallel() {
            calls.len().max(1)
        } else {
            1
        };
        let mut replies = Vec::new();
        for calls in calls.chunks(at_once) {
            let start = Instant::now();
            let lines = calls
                .iter()
                .map(|call| json!({"name": call.name, "arguments": call.arguments}))
                .collect();
            let reply = |Timed { answer, end }: Timed<Result<Answer, String>>| {
                RawReply::new(answer.map(|answer| text_of(&answer)), start, end)
            };
            replies.extend(self.ask(lines).into_iter().map(reply));
        }
        replies
    }

    fn has_state(&self, question: &StateQuestion) -> bool {
        matches!(question, StateQuestion::Program(_))
    }

    fn state(&mut self, question: &StateQuestion) -> Result<Value, String> {
        let StateQuestion::Program(query) = question else {
            return Err("takes questions of its own only".to_owned());
        };
        let Timed { answer, .. } = self.ask(vec![json!({"state": query})]).remove(0);
        answer?.map_err(|error| format!("says: {}", text(&error)))
    }

    fn is_idle(&mut self) -> bool {
        self.server.is_idle()
    }
}

fn text_of(answer: &Answer) -> String {
    match answer {
        Ok(result) => text(result),
        Err(error) => format!("error: {}", text(error)),
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
