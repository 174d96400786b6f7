//! Functions of a task's tools, and validation of call arguments.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Value, json};

use super::calls::ToolCall;
use crate::format::{did_you_mean, shortened};
use crate::task::functions;

/// Reported per call.
const MAX_FAULTS: usize = 3;
const MAX_FAULT_CHARS: usize = 300;

#[derive(Debug, Default)]
pub(super) struct Functions {
    by_name: BTreeMap<String, Function>,
}

#[derive(Debug)]
struct Function {
    tool: usize,
    parameters: Validator,
}

impl Functions {
    pub(super) fn add(&mut self, tools: &[&str], definitions: &Value) -> Result<(), String> {
        let tool = tools.len() - 1;
        for function in functions(definitions).map_err(|error| error.to_string())? {
            let empty = json!({"type": "object"});
            // Not generic, so compiled in its own crate.
            let parameters = jsonschema::validator_for(function.parameters.unwrap_or(&empty))
                .map_err(|error| {
                    format!(
                        "{}/parameters{}: {error}",
                        function.pointer(),
                        error.instance_path()
                    )
                })?;
            let added = Function { tool, parameters };
            if let Some(other) = self.by_name.insert(function.name.to_owned(), added) {
                return Err(format!(
                    "{:?} is a function of the tool {:?}, too: leave out one of them, or give a built-in one a `name`",
                    function.name, tools[other.tool]
                ));
            }
        }
        Ok(())
    }

    pub(super) fn tool_named(&self, function: &str) -> Option<usize> {
        self.by_name.get(function).map(|function| function.tool)
    }

    /// The tool of a call.
    ///
    /// # Errors
    /// A message for the model: unknown function, or arguments that do not fit.
    pub(super) fn tool_of(&self, call: &ToolCall) -> Result<usize, String> {
        let names = || self.by_name.keys().map(String::as_str);
        let name = shortened(&call.name, 60);
        let Some(function) = self.by_name.get(&call.name) else {
            let near = did_you_mean(&call.name, names());
            return Err(format!(
                "error: no function {name:?}{near}; there are {}",
                names().collect::<Vec<_>>().join(", ")
            ));
        };
        let arguments = Value::Object(call.arguments.clone());
        let fault = |error: jsonschema::ValidationError<'_>| {
            let at = error.instance_path().to_string();
            let text = shortened(&error.to_string(), MAX_FAULT_CHARS);
            if at.is_empty() {
                text
            } else {
                format!("{at}: {text}")
            }
        };
        let faults: Vec<String> = function
            .parameters
            .iter_errors(&arguments)
            .take(MAX_FAULTS)
            .map(fault)
            .collect();
        if faults.is_empty() {
            Ok(function.tool)
        } else {
            Err(format!("error: arguments of {name}: {}", faults.join("; ")))
        }
    }
}
