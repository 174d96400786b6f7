//! Outline of what may be called: functions with parameters, API operations with their messages.

use serde_json::json;

use super::entry::Accepted;
use super::schema::describe;
use crate::score::{HttpRules, ToolRules, message_schemas};
use crate::task::{escaped, functions as functions_of};

pub(super) fn functions(rules: &ToolRules, formats_count: bool) -> Vec<Accepted> {
    let nothing = json!({"type": "object"});
    let mut lines = Vec::new();
    let Some(tools) = &rules.tools else {
        return lines;
    };
    for function in functions_of(tools).unwrap_or_default() {
        let at = function.pointer();
        let description = tools
            .pointer(&at)
            .and_then(|tool| tool.get("description")?.as_str());
        lines.push(Accepted {
            depth: 0,
            name: function.name.to_owned(),
            required: None,
            text: description.unwrap_or("a function").to_owned(),
            pointer: format!("{at}/name"),
        });
        let arguments = describe(function.parameters.unwrap_or(&nothing), formats_count);
        let placed = |line: Accepted| Accepted {
            pointer: format!("{at}/parameters{}", line.pointer),
            ..line
        };
        lines.extend(arguments.into_iter().skip(1).map(placed));
    }
    lines
}

pub(super) fn operations(rules: &HttpRules, formats_count: bool) -> Vec<Accepted> {
    let mut lines = Vec::new();
    for operation in message_schemas(rules, formats_count) {
        let (name, text) = match operation.name.split_once(" (") {
            Some((route, id)) => (route.to_owned(), id.trim_end_matches(')').to_owned()),
            None => (operation.name.clone(), format!("a {}", rules.part.name())),
        };
        lines.push(Accepted {
            depth: 0,
            name,
            required: None,
            text,
            pointer: operation.pointer.clone(),
        });
        for (variable, schema) in &operation.path {
            let at = format!("/path/{}", escaped(variable));
            let of_variable = describe(schema, formats_count).into_iter().take(1);
            lines.extend(of_variable.map(|line| Accepted {
                depth: 1,
                name: format!("{{{variable}}}"),
                required: Some(true),
                pointer: operation.place(&at),
                ..line
            }));
        }
        // The operation's name contains method and path.
        let is_said = |line: &Accepted| {
            ["/properties/method", "/properties/path"].contains(&line.pointer.as_str())
        };
        let fields = describe(&operation.schema, formats_count)
            .into_iter()
            .skip(1)
            .filter(|line| !is_said(line));
        lines.extend(fields.map(|line| Accepted {
            pointer: operation.place(&line.pointer),
            ..line
        }));
    }
    lines
}
