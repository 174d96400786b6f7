//! Recorded replies of programs: `[tools] replay = true` answers calls only from these, without
//! starting programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::arguments::Functions;
use super::calls::{CallOutcome, StateQuestion, ToolCall};
use super::chain::ToolChain;
use super::definition::ToolKind;
use super::live_tool::{LiveTool, RawReply};
use super::mcp::last_call;
use crate::dataset::{PromptRow, read_lines};
use crate::format::{grouped, shortened};
use crate::task::{Home, Read, TaskError};

/// A line of the file of recorded results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedConversation {
    pub row: String,
    /// Answered calls, in order.
    pub calls: Vec<RecordedCall>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub states: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedCall {
    pub name: String,
    pub arguments: Map<String, Value>,
    pub reply: String,
}

impl RecordedConversation {
    /// Records the turn up to the first unanswered call; `None` without calls and questions.
    pub fn new(row: &str, chain: &ToolChain) -> Option<Self> {
        let has_reply = |call: &&crate::environment::chain::AnsweredCall| {
            matches!(call.outcome, CallOutcome::Answered | CallOutcome::Refused)
                && chain.agent.is_none()
        };
        let reached = chain
            .calls()
            .take_while(has_reply)
            .filter(|call| call.outcome == CallOutcome::Answered)
            .cloned();
        let calls: Vec<RecordedCall> = reached
            .map(|call| RecordedCall {
                name: call.name,
                arguments: call.arguments,
                reply: call.reply,
            })
            .collect();
        let states = chain.states.clone();
        (!calls.is_empty() || !states.is_empty()).then(|| Self {
            row: row.to_owned(),
            calls,
            states,
        })
    }
}

/// Replies of one program, for conversations with the calls of a recorded one.
#[derive(Debug, Default)]
pub(super) struct RecordedReplies {
    label: String,
    /// A reply depends only on its call.
    is_stateless: bool,
    /// Initial index in `states` by row.
    rows: BTreeMap<String, usize>,
    states: Vec<RecordedState>,
}

/// State of a program after some calls.
#[derive(Debug, Default)]
struct RecordedState {
    replies: BTreeMap<String, (String, usize)>,
    answers: BTreeMap<String, Value>,
}

/// Reads recorded results by tool number, for the tools of `replayed`, which says whether each is
/// stateless.
///
/// # Errors
/// A malformed line, or a call of an unknown function.
pub(super) fn read_recorded(
    home: &Home,
    file: &str,
    functions: &Functions,
    replayed: BTreeMap<usize, bool>,
) -> Read<BTreeMap<usize, RecordedReplies>> {
    let label = home.label(file);
    let empty = |(tool, is_stateless)| {
        (
            tool,
            RecordedReplies {
                label: label.clone(),
                is_stateless,
                ..RecordedReplies::default()
            },
        )
    };
    let mut found: BTreeMap<usize, RecordedReplies> = replayed.into_iter().map(empty).collect();
    for line in read_lines(home.open(file)?) {
        let place = |line: usize, column: usize, message: String| {
            let column = column.max(1);
            TaskError::Place {
                label: label.clone(),
                line,
                column,
                message,
            }
        };
        let (number, line) = line.map_err(|(number, problem)| place(number, 1, problem))?;
        let told: RecordedConversation = serde_json::from_slice(&line).map_err(|why| {
            let whole = why.to_string();
            let message = whole.split(" at line ").next().unwrap_or(&whole);
            let message =
                format!("{message}; `grpo-tui runs export RUN --tools` writes such lines");
            place(number, why.column(), message)
        })?;
        let unknown = told
            .calls
            .iter()
            .find(|call| functions.tool_named(&call.name).is_none());
        if let Some(call) = unknown {
            let message = format!(
                "calls {:?}, a function that no tool has",
                shortened(&call.name, 60)
            );
            return Err(place(number, 1, message));
        }
        for (tool, replies) in &mut found {
            let own = told
                .calls
                .iter()
                .filter(|call| functions.tool_named(&call.name) == Some(*tool));
            replies.add(&told.row, own, &told.states);
        }
    }
    Ok(found)
}

impl RecordedReplies {
    /// The first of several replies to the same calls counts: what followed the others is
    /// unreachable.
    fn add<'a>(
        &mut self,
        row: &str,
        calls: impl Iterator<Item = &'a RecordedCall>,
        states: &Map<String, Value>,
    ) {
        let row = self.row(row).to_owned();
        let mut at = match self.rows.get(&row) {
            Some(first) => *first,
            None => {
                let first = self.add_state();
                *self.rows.entry(row).or_insert(first)
            }
        };
        for call in calls {
            let key = call_key(&call.name, &call.arguments);
            at = match self.states[at].replies.get(&key) {
                Some((reply, next)) if self.is_stateless || *reply == call.reply => *next,
                Some(_) => return,
                None => {
                    let next = if self.is_stateless {
                        at
                    } else {
                        self.add_state()
                    };
                    self.states[at]
                        .replies
                        .insert(key, (call.reply.clone(), next));
                    next
                }
            };
        }
        for (question, answer) in states {
            self.states[at]
                .answers
                .entry(question.clone())
                .or_insert_with(|| answer.clone());
        }
    }

    fn row<'a>(&self, row: &'a str) -> &'a str {
        if self.is_stateless { "" } else { row }
    }

    fn add_state(&mut self) -> usize {
        self.states.push(RecordedState::default());
        self.states.len() - 1
    }
}

/// Independent of the order of arguments.
fn call_key(name: &str, arguments: &Map<String, Value>) -> String {
    let mut arguments = Value::Object(arguments.clone());
    arguments.sort_all_objects();
    format!("{name} {arguments}")
}

/// A program that is not started.
#[derive(Debug)]
pub(super) struct ReplayedTool {
    replies: Arc<RecordedReplies>,
    row: String,
    kind: Arc<ToolKind>,
    /// `None` after an unrecorded call, and for an unrecorded row.
    at: Option<usize>,
    calls: usize,
}

impl ReplayedTool {
    pub(super) fn open(
        replies: &Arc<RecordedReplies>,
        kind: &Arc<ToolKind>,
        row: &PromptRow,
    ) -> Result<Box<dyn LiveTool>, String> {
        if row.turn_count() > 1 && !replies.is_stateless {
            return Err(format!(
                "replays rows of one turn, and this has {}",
                row.turn_count()
            ));
        }
        let (replies, at) = (
            Arc::clone(replies),
            replies.rows.get(replies.row(&row.id)).copied(),
        );
        Ok(Box::new(Self {
            replies,
            row: row.id.clone(),
            kind: Arc::clone(kind),
            at,
            calls: 0,
        }))
    }

    fn missing(&self, what: &str) -> String {
        let Self {
            replies,
            row,
            calls,
            ..
        } = self;
        if replies.is_stateless {
            return format!("has no recorded {what} in {}", replies.label);
        }
        let after = match calls {
            0 => String::new(),
            1 => " after 1 call".to_owned(),
            calls => format!(" after {} calls", grouped(*calls as u64)),
        };
        format!(
            "has no recorded {what}{after} about row {row:?} in {}",
            replies.label
        )
    }
}

impl LiveTool for ReplayedTool {
    fn call(&mut self, calls: &[&ToolCall]) -> Vec<RawReply> {
        let mut reply = |call: &&ToolCall| {
            let key = call_key(&call.name, &call.arguments);
            let found = self
                .at
                .and_then(|at| self.replies.states[at].replies.get(&key));
            let (text, outcome) = match found {
                Some((reply, _)) => (reply.clone(), CallOutcome::Answered),
                None => (
                    self.missing(&format!("reply to {}", shortened(&key, 200))),
                    CallOutcome::NotRecorded,
                ),
            };
            let next = found.map(|(_, next)| *next);
            (self.at, self.calls) = (
                if self.replies.is_stateless {
                    self.at
                } else {
                    next
                },
                self.calls + 1,
            );
            RawReply {
                text,
                outcome,
                seconds: 0.0,
            }
        };
        calls.iter().map(&mut reply).collect()
    }

    fn has_state(&self, question: &StateQuestion) -> bool {
        match &*self.kind {
            ToolKind::Run { .. } => matches!(question, StateQuestion::Program(_)),
            ToolKind::Mcp {
                definitions: Some((_, definitions)),
                ..
            } => last_call(definitions, question).is_some(),
            _ => false,
        }
    }

    fn state(&mut self, question: &StateQuestion) -> Result<Value, String> {
        let asked = serde_json::to_value(question).unwrap_or_default();
        let is_asked = |key: &str| {
            serde_json::from_str::<Value>(key).is_ok_and(|query| query["question"] == asked)
        };
        let answers = self.at.map(|at| &self.replies.states[at].answers);
        let answer = answers.into_iter().flatten().find(|(key, _)| is_asked(key));
        answer
            .map(|(_, answer)| answer.clone())
            .ok_or_else(|| self.missing("final state"))
    }

    fn is_replayed(&self) -> bool {
        true
    }
}
