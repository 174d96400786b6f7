//! The tools of one conversation: dispatches calls, and prepares replies for the model.

use std::sync::Arc;

use serde_json::Value;

use super::calls::{CallOutcome, StateQuery, StateQuestion, ToolCall, ToolReply};
use super::error::EnvironmentError;
use super::live_tool::{LiveTool, RawReply};
use super::ready::ReadyTools;
use super::reply_text::reply_text;
use crate::dataset::PromptRow;
use crate::format::shortened;

const MAX_ARGUMENTS_CHARS: usize = 200;

/// The tools of one conversation with their state; dropping it ends all that they started.
#[derive(Debug)]
pub struct Environment {
    ready: Arc<ReadyTools>,
    tools: Vec<Box<dyn LiveTool>>,
    max_result_bytes: usize,
    row: String,
}

impl Environment {
    pub(super) fn new(
        ready: &Arc<ReadyTools>,
        max_result_bytes: usize,
        row: &PromptRow,
    ) -> Result<Self, EnvironmentError> {
        let open = |(name, tool): &(String, super::ready::ReadyTool)| {
            let failed = |why| EnvironmentError::Row {
                row: row.id.clone(),
                why: format!("the tool {name:?}: {why}"),
            };
            tool.open(row).map_err(failed)
        };
        let tools = ready.tools.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            ready: ready.clone(),
            tools,
            max_result_bytes,
            row: row.id.clone(),
        })
    }

    /// Replies to the calls of one answer, in order. Tools run in parallel; one tool gets its calls
    /// in sequence, or at once with `parallel = true`.
    pub fn call(&mut self, calls: &[ToolCall]) -> Vec<ToolReply> {
        let mut replies: Vec<Option<RawReply>> = vec![None; calls.len()];
        let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); self.tools.len()];
        for (place, call) in calls.iter().enumerate() {
            match self.ready.functions.tool_of(call) {
                Ok(tool) => waiting[tool].push(place),
                Err(text) => {
                    replies[place] = Some(RawReply {
                        text,
                        outcome: CallOutcome::Refused,
                        seconds: 0.0,
                    })
                }
            }
        }
        let named = self.ready.tools.iter().map(|(name, _)| name.as_str());
        let asked = named
            .zip(&mut self.tools)
            .zip(&waiting)
            .filter(|(_, places)| !places.is_empty());
        let mut work: Vec<_> = asked
            .map(|((name, tool), places)| ToolWork {
                name,
                tool,
                places,
                row: &self.row,
            })
            .collect();
        let last = work.pop();
        std::thread::scope(|scope| {
            let others: Vec<_> = work
                .into_iter()
                .map(|work| scope.spawn(move || work.answer(calls)))
                .collect();
            let answered = last.into_iter().flat_map(|work| work.answer(calls));
            let answered: Vec<_> = answered.collect();
            for (place, reply) in others
                .into_iter()
                .filter_map(|other| other.join().ok())
                .flatten()
                .chain(answered)
            {
                replies[place] = Some(reply);
            }
        });
        let unanswered = || RawReply {
            text: "the tool gave no reply".to_owned(),
            outcome: CallOutcome::Failed,
            seconds: 0.0,
        };
        let replies = replies
            .into_iter()
            .map(|reply| reply.unwrap_or_else(unanswered));
        replies
            .map(
                |RawReply {
                     text,
                     outcome,
                     seconds,
                 }| ToolReply {
                    text: reply_text(&text, self.max_result_bytes),
                    outcome,
                    seconds,
                },
            )
            .collect()
    }

    /// A number that is another one after calls that changed something; `None` if a tool cannot
    /// tell.
    pub(crate) fn changes(&self) -> Option<u64> {
        let changes = self.tools.iter().map(|tool| tool.changes());
        changes.reduce(|all, one| Some(all?.wrapping_mul(31).wrapping_add(one?)))?
    }

    /// The final state, for scoring.
    ///
    /// # Errors
    /// [`EnvironmentError::State`]: no tool answers such questions, or it fails.
    pub fn state(&mut self, query: &StateQuery) -> Result<Value, EnvironmentError> {
        let named = self
            .ready
            .tools
            .iter()
            .map(|(name, _)| name)
            .zip(&mut self.tools);
        let is_asked = |(name, tool): &(&String, &mut Box<dyn LiveTool>)| match &query.tool {
            Some(asked) => *name == asked,
            None => tool.has_state(&query.question),
        };
        let row = &self.row;
        let failed = |why: String| EnvironmentError::State {
            why: format!("{why} (row {row})"),
        };
        let Some((name, tool)) = { named }.find(is_asked) else {
            let tool = query
                .tool
                .as_ref()
                .map_or_else(|| "that answers it".to_owned(), |name| format!("{name:?}"));
            let question = match &query.question {
                StateQuestion::Sql(text) | StateQuestion::File(text) => text.clone(),
                StateQuestion::Program(asked) => asked.to_string(),
            };
            return Err(failed(format!("no [[tool]] {tool}: {question}")));
        };
        if let Some(call) = tool.last_call(&query.question) {
            // A server may answer wrong arguments like any others.
            let found = self.ready.functions.tool_of(&call);
            found.map_err(|why| failed(format!("the tool {name:?}: {why}")))?;
        }
        tool.state(&query.question)
            .map_err(|why| match tool.is_replayed() {
                true => EnvironmentError::NotRecorded {
                    why: format!("the tool {name:?} {why}"),
                },
                false => failed(format!("the tool {name:?}: {why}")),
            })
    }
}

/// Calls for one tool, by their index in the answer.
struct ToolWork<'e> {
    name: &'e str,
    tool: &'e mut Box<dyn LiveTool>,
    places: &'e [usize],
    row: &'e str,
}

impl ToolWork<'_> {
    fn answer(self, calls: &[ToolCall]) -> Vec<(usize, RawReply)> {
        let asked: Vec<&ToolCall> = self.places.iter().map(|place| &calls[*place]).collect();
        let replies = self.tool.call(&asked).into_iter().zip(&asked);
        let replies = replies.map(|(mut reply, call)| {
            let told = |what: String| format!("the tool {:?} {}{what}", self.name, reply.text);
            match reply.outcome {
                CallOutcome::Answered | CallOutcome::Refused => {}
                CallOutcome::Failed => {
                    let arguments = serde_json::to_string(&call.arguments).unwrap_or_default();
                    let arguments = shortened(&arguments, MAX_ARGUMENTS_CHARS);
                    let call = format!(" (row {}, call {} {arguments})", self.row, call.name);
                    reply.text = told(call);
                }
                CallOutcome::NotRecorded => reply.text = told(String::new()),
            }
            reply
        });
        self.places.iter().copied().zip(replies).collect()
    }
}
