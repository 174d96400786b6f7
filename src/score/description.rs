//! What a task accepts, in words: a line a field, or what the kind of scorer asks for.

use super::http_request::message_schemas;
use super::json_schema::{Accepted, describe};
use crate::task::{CommandMode, Definition, Task, functions};

pub fn describe_task(task: &Task) -> Vec<Accepted> {
    let line = |name: &str, text: String| Accepted { depth: 0, name: name.to_owned(), required: None, text };
    let normalised = |names: &str| match names {
        "" => String::new(),
        names => format!(", compared by {}", names.replace('+', ", ")),
    };
    match &task.definition {
        Definition::JsonSchema(files) => describe(&files.schema, task.score.assert_formats),
        Definition::Text { normalise } => {
            vec![line("the answer", format!("the row's `expected`, or one of its list{}", normalised(normalise)))]
        }
        Definition::Regex { pattern } => {
            let mut lines = vec![line("the answer", format!("a text with a match for {pattern}"))];
            for (group, names) in &task.score.normalise {
                lines.push(line(group, format!("a named group{}", normalised(names))));
            }
            lines
        }
        Definition::ToolCalls(rules) => {
            let order = if rules.in_order { "in the order of `expected`" } else { "in any order" };
            let mut lines = vec![line("the answer", format!("calls of functions, {order}"))];
            let Some(tools) = &rules.tools else {
                lines.push(line("functions", "those of each row's `tools`".to_owned()));
                return lines;
            };
            for function in functions(tools).unwrap_or_default() {
                let nothing = serde_json::json!({"type": "object"});
                let arguments = describe(function.parameters.unwrap_or(&nothing), task.score.assert_formats);
                let named = arguments.into_iter().enumerate().map(|(index, accepted)| match index {
                    0 => line(function.name, "a function".to_owned()),
                    _ => accepted,
                });
                lines.extend(named);
            }
            lines
        }
        Definition::Command(rules) => {
            let command = rules.command.join(" ");
            let is_code = matches!(rules.mode, CommandMode::Code(_));
            let answer =
                if is_code { format!("code that passes `{command}`") } else { format!("what `{command}` scores") };
            let mut lines = vec![line("the answer", answer)];
            lines.extend(rules.files.iter().map(|file| line("file", file.clone())));
            lines
        }
        Definition::HttpRequest(rules) => {
            let part = rules.part.name();
            let mut lines = vec![line("the answer", format!("a {part} as one JSON object"))];
            for (operation, schema) in message_schemas(rules, task.score.assert_formats) {
                let accepted = describe(&schema, task.score.assert_formats).into_iter().skip(1);
                lines.push(line(&operation, format!("a {part}")));
                lines.extend(accepted);
            }
            lines
        }
        Definition::Sql(rules) => {
            let whose = if rules.has_schema { "the task's schema" } else { "the row's `schema`" };
            vec![line(
                "the answer",
                format!("a query ({}) that runs against {whose}, with the result of `expected`", rules.dialect),
            )]
        }
    }
}
