//! Tools in OpenAI's schema: functions with a name and the JSON Schema of their parameters.

use std::collections::HashSet;

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Function<'a> {
    pub name: &'a str,
    /// JSON Schema; `None`: no arguments.
    pub parameters: Option<&'a Value>,
    /// 0-based.
    pub index: usize,
    /// Whether it is nested under `function`, as in OpenAI's form.
    pub is_wrapped: bool,
}

impl Function<'_> {
    /// JSON pointer to its object.
    pub fn pointer(&self) -> String {
        format!(
            "/{}{}",
            self.index,
            if self.is_wrapped { "/function" } else { "" }
        )
    }
}

/// Why a value is not a list of tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", if pointer.is_empty() { "the whole list" } else { pointer })]
pub struct ToolsError {
    /// JSON pointer to the error.
    pub pointer: String,
    /// Problem and remedy.
    pub message: String,
}

const FORM: &str = "write {\"type\": \"function\", \"function\": {\"name\": …, \"description\": …, \"parameters\": JSON Schema}}";

pub fn functions(tools: &Value) -> Result<Vec<Function<'_>>, ToolsError> {
    let fault = |pointer: String, message: String| ToolsError { pointer, message };
    let list = tools.as_array().ok_or_else(|| {
        fault(
            String::new(),
            format!("tools are a list, not {}; {FORM}", shown(tools)),
        )
    })?;
    let (mut found, mut names) = (Vec::with_capacity(list.len()), HashSet::new());
    for (index, tool) in list.iter().enumerate() {
        let inner = tool.get("function");
        let mut function = Function {
            name: "",
            parameters: None,
            index,
            is_wrapped: inner.is_some(),
        };
        let Some(object) = inner.unwrap_or(tool).as_object() else {
            return Err(fault(
                function.pointer(),
                format!("a tool is an object, not {}; {FORM}", shown(tool)),
            ));
        };
        function.name = match object.get("name") {
            Some(Value::String(name)) if !name.is_empty() => name,
            Some(other) => {
                let message = format!("must be a text that is not empty, not {}", shown(other));
                return Err(fault(format!("{}/name", function.pointer()), message));
            }
            None => {
                return Err(fault(
                    function.pointer(),
                    format!("a function needs a `name`; {FORM}"),
                ));
            }
        };
        if !names.insert(function.name) {
            let message = format!(
                "{} occurs twice: give each function its own name",
                shown(&object["name"])
            );
            return Err(fault(format!("{}/name", function.pointer()), message));
        }
        function.parameters = object
            .get("parameters")
            .filter(|parameters| !parameters.is_null());
        if let Some(parameters) = function
            .parameters
            .filter(|parameters| !parameters.is_object())
        {
            let message = format!(
                "must be a JSON Schema of an object, not {}",
                shown(parameters)
            );
            return Err(fault(format!("{}/parameters", function.pointer()), message));
        }
        found.push(function);
    }
    Ok(found)
}

/// Truncates to 60 characters.
fn shown(value: &Value) -> String {
    crate::format::shortened(&value.to_string(), 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_are_functions_with_names_of_their_own() {
        let check = |tools: Value, expected: Result<&[(&str, &str)], &str>| {
            let found = functions(&tools).map_err(|error| error.to_string());
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    let found: Vec<_> = found
                        .iter()
                        .map(|function| (function.name, function.pointer()))
                        .collect();
                    let found: Vec<_> = found
                        .iter()
                        .map(|(name, pointer)| (*name, pointer.as_str()))
                        .collect();
                    assert_eq!(found, expected, "{tools}");
                }
                (Err(message), Err(part)) => {
                    assert!(message.starts_with(part), "{message:?} instead of {part:?}")
                }
                (found, expected) => panic!("{tools}: {found:?} instead of {expected:?}"),
            }
        };
        let tool = |function: Value| json!({"type": "function", "function": function});
        let (f, g) = (json!({"name": "f", "parameters": {}}), json!({"name": "g"}));
        check(
            json!([tool(f.clone()), g]),
            Ok(&[("f", "/0/function"), ("g", "/1")]),
        );
        check(json!([]), Ok(&[]));
        check(
            json!({"f": {}}),
            Err("the whole list: tools are a list, not {\"f\":{}}; write"),
        );
        check(
            json!([tool(f.clone()), f.clone()]),
            Err("/1/name: \"f\" occurs twice: give each function its own name"),
        );
        check(
            json!([tool(json!(7))]),
            Err("/0/function: a tool is an object"),
        );
        check(json!([7]), Err("/0: a tool is an object, not 7"));
        check(json!([{}]), Err("/0: a function needs a `name`"));
        check(
            json!([{"name": ""}]),
            Err("/0/name: must be a text that is not empty, not \"\""),
        );
        check(
            json!([{"name": "f", "parameters": []}]),
            Err("/0/parameters: must be a JSON Schema of an object, not []"),
        );
    }
}
