//! `[score] kind = "http_request"`: OpenAPI document, operation, and the part of an exchange that
//! answers are.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::judge::HttpRequest;
use super::message_schema::message_schemas;
use super::openapi::{find_operation, operations};
use crate::dataset::PromptRow;
use crate::score::definition::degenerate_answers::{FillStyle, answer};
use crate::score::definition::{
    ALIASES, ASSERT_FORMATS, Definition, FoundDefinition, GROUNDED, Grammar, HttpRules, Judge,
    KeyInfo, Kind, LazyAnswer, MessagePart, NORMALISE, TOLERANCE, text_digest,
};
use crate::score::error::ScoreError;
use crate::task::{Home, Read, Section, TaskError, TaskFiles};

pub(crate) static KIND: Kind = Kind {
    name: "http_request",
    about: include_str!("about.md"),
    keys: &[],
    score_keys: &[
        KeyInfo::new("openapi", "", "the OpenAPI document"),
        KeyInfo::new("operation", "any", "the operation that completions are of"),
        KeyInfo::new(
            "part",
            "request",
            "what completions are: request or response",
        ),
        ASSERT_FORMATS,
        NORMALISE,
        TOLERANCE,
        ALIASES,
        GROUNDED,
    ],
    read,
};

fn read(_top: &Section<'_>, score: &Section<'_>, home: &Home) -> Read<FoundDefinition> {
    let example = "openapi = \"openapi.json\"";
    let (file, text) = home
        .file_of(score, "openapi")?
        .ok_or_else(|| home.missing("score.openapi", example))?;
    let document = parse_document(home, &file, &text)?;
    let part = match (score.string("part")?.as_deref(), score.get("part")) {
        (None | Some("request"), _) => MessagePart::Request,
        (Some("response"), _) => MessagePart::Response,
        (Some(other), place) => {
            let offset = place.map_or(0, |(_, offset)| offset);
            return Err(score.error(
                "part",
                offset,
                format!("takes request, response, not {other:?}"),
            ));
        }
    };
    let operation = score.string("operation")?;
    if let (Some(name), Ok(operations), Some((_, offset))) =
        (&operation, operations(&document), score.get("operation"))
    {
        find_operation(&operations, name)
            .map_err(|message| score.error("operation", offset, format!("{message} ({file})")))?;
    }
    Ok((
        Arc::new(HttpRules {
            document,
            operation,
            part,
        }),
        Some((file, text)),
    ))
}

fn parse_document(home: &Home, file: &str, text: &str) -> Read<Value> {
    home.parse_json(file, text).map_err(|error| match error {
        TaskError::Place { label, line, column, message } if is_yaml(file, text) => TaskError::Place {
            label,
            line,
            column,
            message: format!(
                "{message}: this looks like YAML, and only JSON is read; convert it, for example with `python3 -c 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout, indent=2, default=str)' < {file} > openapi.json`"
            ),
        },
        other => other,
    })
}

fn is_yaml(file: &str, text: &str) -> bool {
    let starts = |line: &str| line.starts_with("openapi:") || line.starts_with("---");
    file.ends_with(".yaml") || file.ends_with(".yml") || text.lines().take(20).any(starts)
}

impl Definition for HttpRules {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn judge(&self, task: &TaskFiles) -> Result<Box<dyn Judge>, ScoreError> {
        Ok(Box::new(HttpRequest::new(task, self)?))
    }

    fn expected_schema(&self) -> Cow<'_, Value> {
        Cow::Owned(json!({"type": "object"}))
    }

    fn lazy_answers<'a>(&self, task: &'a TaskFiles, _rows: &'a [PromptRow]) -> Vec<LazyAnswer<'a>> {
        let narrow =
            "give every row an `expected`, and `[[reward]]` part \"fields\" or \"exact\" a weight";
        let (name, short) = match self.part {
            MessagePart::Request => ("the root", json!({"method": "GET", "path": "/"})),
            MessagePart::Response => ("a status alone", json!({"status": 200})),
        };
        let mut answers = vec![
            LazyAnswer::same("a word", "x", narrow),
            LazyAnswer::same(name, short.to_string(), narrow),
        ];
        if let Some(first) = message_schemas(self, task.score.assert_formats).first() {
            let mut least = answer(&first.schema, FillStyle::Least);
            if let Some(path) = least.get("path").and_then(Value::as_str) {
                let variables = first.path.iter().map(|(name, _)| format!("{{{name}}}"));
                let path = variables.fold(path.to_owned(), |path, name| path.replace(&name, "1"));
                least["path"] = path.into();
            }
            answers.push(LazyAnswer::same(
                "the least that an operation takes",
                least.to_string(),
                narrow,
            ));
        }
        answers
    }

    fn digest(&self, task: &TaskFiles) -> String {
        let operation = self.operation.as_deref().unwrap_or_default();
        text_digest(&format!(
            "http_request\n{}\n{operation}\n{}",
            self.part.name(),
            task.definition_text
        ))
    }

    fn file_name(&self) -> &'static str {
        "OpenAPI document"
    }

    fn with_text(&self, home: &Home, file: &str, text: &str) -> Read<Option<Arc<dyn Definition>>> {
        Ok(Some(Arc::new(Self {
            document: parse_document(home, file, text)?,
            ..self.clone()
        })))
    }

    fn grammar(&self) -> Option<Grammar<'_>> {
        Some(Grammar::HttpMessage(self))
    }
}
