//! Checks tools: calls each function twice, in separate conversations, with a call from the task.

use serde::Serialize;
use serde_json::{Map, Value};

use super::calls::{CallOutcome, ToolCall, ToolReply};
use super::error::EnvironmentError;
use super::toolset::Toolset;
use crate::dataset::PromptRow;
use crate::task::functions;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FunctionCheck {
    pub function: String,
    pub finding: FunctionFinding,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionFinding {
    /// Neither rows nor `examples` of its parameters have a fitting call, or it is replayed and not
    /// recorded.
    NotCalled,
    Answered(ToolReply),
    /// Two replies to the same call about the same row.
    Differs([ToolReply; 2]),
    Failed(String),
}

/// Checks every function. Example calls come from a row's earlier turns, its `expected`, or
/// `examples` of the function's parameters (with the first row).
pub fn check_tools(
    tools: &Toolset,
    rows: impl Iterator<Item = PromptRow>,
) -> Result<Vec<FunctionCheck>, EnvironmentError> {
    let functions = functions(tools.definitions()?).unwrap_or_default();
    let fitting = |calls: Vec<ToolCall>, name: &str| {
        let is_fitting = |call: &ToolCall| call.name == name && tools.takes(call);
        calls.into_iter().find(is_fitting)
    };
    let (mut first, mut called) = (None, vec![None; functions.len()]);
    for row in rows {
        for (found, function) in called.iter_mut().zip(&functions) {
            if found.is_none() {
                let call = fitting(example_calls(&row), function.name);
                *found = call.map(|call| (call, row.clone()));
            }
        }
        first.get_or_insert(row);
        if called.iter().all(Option::is_some) {
            break;
        }
    }
    let mut checks = Vec::new();
    for (function, called) in functions.iter().zip(called) {
        let of_schema = || {
            let examples = function.parameters?.get("examples")?.as_array()?;
            let calls = examples
                .iter()
                .filter_map(|arguments| tool_call(function.name, arguments));
            let row = first.clone().unwrap_or_else(no_row);
            Some((fitting(calls.collect(), function.name)?, row))
        };
        let finding = match called.or_else(of_schema) {
            None => FunctionFinding::NotCalled,
            Some((call, row)) => call_twice(tools, &call, &row)?,
        };
        checks.push(FunctionCheck {
            function: function.name.to_owned(),
            finding,
        });
    }
    Ok(checks)
}

fn call_twice(
    tools: &Toolset,
    call: &ToolCall,
    row: &PromptRow,
) -> Result<FunctionFinding, EnvironmentError> {
    let reply = || {
        tools
            .open(row)
            .map(|mut tools| tools.call(std::slice::from_ref(call)).remove(0))
    };
    let (first, second) = (reply()?, reply()?);
    let failed = [&first, &second]
        .into_iter()
        .find(|reply| reply.outcome == CallOutcome::Failed);
    Ok(match failed {
        Some(reply) => FunctionFinding::Failed(reply.text.clone()),
        None if first.outcome == CallOutcome::NotRecorded => FunctionFinding::NotCalled,
        None if first.text == second.text => FunctionFinding::Answered(first),
        None => FunctionFinding::Differs([first, second]),
    })
}

/// Calls in a row's messages and demonstration, then in `expected`.
fn example_calls(row: &PromptRow) -> Vec<ToolCall> {
    let shown = row.demonstration();
    let messages = row.messages.iter().chain(&shown);
    let called = messages.flat_map(|message| message.tool_calls());
    let expected = match &row.expected {
        Some(Value::Array(calls)) => calls.as_slice(),
        Some(call) => std::slice::from_ref(call),
        None => &[],
    };
    called.chain(expected).filter_map(read_call).collect()
}

pub(crate) fn read_call(call: &Value) -> Option<ToolCall> {
    let call = call.get("function").unwrap_or(call);
    tool_call(call.get("name")?.as_str()?, call.get("arguments")?)
}

/// Arguments may be JSON in a string.
fn tool_call(name: &str, arguments: &Value) -> Option<ToolCall> {
    let arguments: Map<String, Value> = match arguments {
        Value::Object(arguments) => arguments.clone(),
        Value::String(text) => serde_json::from_str(text).ok()?,
        _ => return None,
    };
    Some(ToolCall {
        name: name.to_owned(),
        arguments,
    })
}

fn no_row() -> PromptRow {
    let id = "no row".to_owned();
    PromptRow {
        id,
        messages: Vec::new(),
        expected: None,
        tags: Vec::new(),
        fields: Default::default(),
        line: 0,
    }
}
