//! Tools of a request, and the tool choice.

use serde_json::Value as Json;

use super::{Fields, MAX_PROMPTS, ToolChoice, Tools};
use crate::openai::ApiError;
use crate::openai::fields::{shown, wrong};

const CHOICE: &str = "tool_choice";
const ALLOWED: &str = "allowed_tools";

impl Fields<'_> {
    pub(super) fn tools_of(
        &self,
        tools: Option<&Json>,
        choice: Option<&Json>,
    ) -> Result<Option<Tools>, ApiError> {
        let parallel =
            self.flag("parallel_tool_calls")? || self.get("parallel_tool_calls").is_none();
        let expected = || {
            wrong(
                "tools",
                "a list of {\"type\": \"function\", \"function\": {\"name\": …}}",
            )
        };
        let mut list: Vec<Json> = match tools {
            None => Vec::new(),
            Some(Json::Array(tools)) if tools.len() <= MAX_PROMPTS => tools.clone(),
            Some(_) => return Err(expected()),
        };
        let (mut names, mut strict) = (Vec::new(), Vec::new());
        for tool in &mut list {
            let kind = tool.get("type").and_then(Json::as_str);
            let is_function = kind == Some("function");
            if let Some(kind) = kind.filter(|_| !is_function) {
                return Err(unknown_tool(kind));
            }
            if let Json::Object(fields) = &mut *tool {
                fields.retain(|_, value| !value.is_null());
            }
            let function = tool
                .get_mut("function")
                .and_then(Json::as_object_mut)
                .filter(|_| is_function);
            let function = function.ok_or_else(expected)?;
            // Null means absent, but is part of a schema within `parameters`.
            function.retain(|_, value| !value.is_null());
            let is_strict = match function.shift_remove("strict") {
                None => false,
                Some(Json::Bool(is_strict)) => is_strict,
                Some(_) => return Err(wrong("tools.function.strict", "true or false")),
            };
            let name = function
                .get("name")
                .and_then(Json::as_str)
                .ok_or_else(expected)?;
            strict.extend(is_strict.then(|| name.to_owned()));
            names.push(name.to_owned());
        }
        let mut allowed = Vec::new();
        let choice = match choice {
            None => ToolChoice::Auto,
            Some(Json::String(choice)) if choice == "auto" => ToolChoice::Auto,
            Some(Json::String(choice)) if choice == "none" => return Ok(None),
            Some(Json::String(choice)) if choice == "required" => ToolChoice::Required,
            Some(choice) if choice.get("type").is_some_and(|kind| kind == ALLOWED) => {
                let (mode, names) = allowed_tools(choice)?;
                allowed = names;
                mode
            }
            Some(choice) => ToolChoice::Function(named(choice).ok_or_else(|| {
                wrong(
                    CHOICE,
                    "\"auto\", \"none\", \"required\", {\"type\": \"function\", \"function\": {\"name\": …}} or {\"type\": \"allowed_tools\", …}",
                )
            })?),
        };
        let unknown = |name: &&String| !names.contains(name);
        let chosen = match &choice {
            ToolChoice::Function(name) => Some(name),
            ToolChoice::Auto | ToolChoice::Required => None,
        };
        if let Some(name) = allowed.iter().chain(chosen).find(unknown) {
            return Err(ApiError::invalid(
                CHOICE,
                format!("`{CHOICE}`: no tool is named `{}`", shown(name)),
            ));
        }
        if choice == ToolChoice::Required && names.is_empty() {
            return Err(wrong(CHOICE, "possible without `tools`"));
        }
        if names.iter().all(|name| allowed.contains(name)) {
            allowed.clear();
        }
        Ok((!names.is_empty()).then_some(Tools {
            list: list.into(),
            strict,
            allowed,
            choice,
            parallel,
        }))
    }
}

pub(super) fn unknown_tool(kind: &str) -> ApiError {
    let message = format!(
        "`tools`: tools of type `{}` are not supported, only of type `function`",
        shown(kind)
    );
    ApiError {
        code: Some("unsupported_parameter"),
        ..ApiError::invalid("tools", message)
    }
}

/// The name in `{"type": "function", "function": {"name": ...}}`.
fn named(function: &Json) -> Option<String> {
    let is_function = function.get("type").is_some_and(|kind| kind == "function");
    let name = function.pointer("/function/name").filter(|_| is_function)?;
    name.as_str().map(str::to_owned)
}

fn allowed_tools(choice: &Json) -> Result<(ToolChoice, Vec<String>), ApiError> {
    let expected = || {
        wrong(
            CHOICE,
            "{\"type\": \"allowed_tools\", \"allowed_tools\": {\"mode\": \"auto\" or \"required\", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": …}}]}}",
        )
    };
    let allowed = choice.get(ALLOWED).ok_or_else(expected)?;
    let mode = match allowed.get("mode").and_then(Json::as_str) {
        Some("auto") => ToolChoice::Auto,
        Some("required") => ToolChoice::Required,
        _ => return Err(expected()),
    };
    let tools = allowed.get("tools").and_then(Json::as_array);
    let names: Option<Vec<String>> = tools.ok_or_else(expected)?.iter().map(named).collect();
    match names.filter(|names| !names.is_empty()) {
        Some(names) => Ok((mode, names)),
        None => Err(expected()),
    }
}
