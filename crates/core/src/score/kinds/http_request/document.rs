//! An OpenAPI document, indexed: operations with their paths, parameters and bodies.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::openapi::{self, OpenApiError, find_operation, object, operations, resolved};
use super::schemas::{Schemas, Types};
use crate::score::definition::{HttpRules, MessagePart};
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::task::escaped;

type Read<T> = Result<T, OpenApiError>;

#[derive(Debug)]
pub(super) struct Api {
    pub(super) schemas: Schemas,
    /// Those of plain paths first, as the standard has it.
    pub(super) operations: Vec<Operation>,
}

#[derive(Debug)]
pub(super) struct Operation {
    /// `POST /invoices`.
    pub(super) route: String,
    pub(super) id: Option<String>,
    pub(super) method: String,
    pub(super) path: String,
    /// Matches paths; a group for each variable.
    pub(super) pattern: Regex,
    /// JSON pointer into the document.
    pub(super) pointer: String,
    /// Or why it cannot be scored.
    pub(super) parts: Result<Parts, String>,
}

#[derive(Debug, Default)]
pub(super) struct Parts {
    /// In the order of the path's variables.
    pub(super) path: Vec<Parameter>,
    pub(super) query: Vec<Parameter>,
    /// The request's under an empty key, or responses by status: `200`, `2XX` or `default`.
    pub(super) forms: BTreeMap<String, Form>,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) types: Types,
    /// Whether items of a list repeat the parameter; else they are separated by commas.
    pub(super) explode: bool,
    /// JSON pointer to the schema.
    pub(super) pointer: String,
}

/// A request or response of an operation.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) has_body: bool,
    pub(super) requires_body: bool,
    /// JSON pointer to the body's schema; `None` where any body passes.
    pub(super) body: Option<String>,
}

impl Api {
    pub(super) fn new(
        written: Written<'_>,
        rules: &HttpRules,
        assert_formats: bool,
    ) -> Result<Self, ScoreError> {
        let fault = |error: OpenApiError| written.error(&error.pointer, error.message);
        let document = &rules.document;
        let listed = operations(document).map_err(fault)?;
        let find = |name: &String| {
            find_operation(&listed, name).map_err(|message| {
                let message = format!("`score.operation` of task.toml {message}");
                written.error("/paths", message)
            })
        };
        let named = rules.operation.as_ref().map(find).transpose()?;
        let (mut found, mut used) = (Vec::with_capacity(listed.len()), Vec::new());
        for operation in &listed {
            let parts = Parts::read(document, operation, rules.part);
            if named.is_none_or(|named| named.route() == operation.route()) {
                let parts = parts.as_ref().map_err(|error| fault(error.clone()))?;
                let parameters = parts.path.iter().chain(&parts.query);
                used.extend(parameters.map(|parameter| parameter.pointer.clone()));
                used.extend(parts.forms.values().filter_map(|form| form.body.clone()));
            }
            found.push(Operation {
                route: operation.route(),
                id: operation.id.map(str::to_owned),
                method: operation.method.clone(),
                path: operation.path.to_owned(),
                pattern: Regex::new(&pattern(operation.path))
                    .map_err(|error| written.error(&operation.pointer, error.to_string()))?,
                pointer: operation.pointer.clone(),
                parts: parts.map_err(|error| format!("{}: {}", error.pointer, error.message)),
            });
        }
        let is_variable = |segment: &str| segment.contains('{');
        let rank = |one: &Operation| one.path.split('/').map(is_variable).collect::<Vec<_>>();
        found.sort_by_key(rank);
        let schemas = Schemas::new(document.clone(), rules.part, assert_formats);
        schemas.check(written, used)?;
        Ok(Self {
            schemas,
            operations: found,
        })
    }

    /// The operation with an `operationId` or a route.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        let has_name = |one: &Operation| {
            one.id.as_deref() == Some(name) || openapi::is_route(name, &one.method, &one.path)
        };
        self.operations.iter().position(has_name)
    }
}

/// Pattern of a path, with a group for each variable.
fn pattern(path: &str) -> String {
    let mut pattern = "^".to_owned();
    for (index, piece) in path.split('{').enumerate() {
        let (variable, text) = match piece.split_once('}') {
            Some((_, rest)) if index > 0 => ("([^/]+?)", rest),
            _ => ("", piece),
        };
        pattern.push_str(variable);
        pattern.push_str(&regex::escape(text));
    }
    pattern + "$"
}

fn variables(path: &str) -> impl Iterator<Item = &str> {
    let pieces = path.split('{').skip(1);
    pieces.filter_map(|piece| Some(piece.split_once('}')?.0))
}

impl Parts {
    fn read(document: &Value, operation: &openapi::Operation<'_>, part: MessagePart) -> Read<Self> {
        let mut parts = Self::default();
        let pointer = &operation.pointer;
        if part == MessagePart::Response {
            let Some(responses) = operation.value.get("responses") else {
                let message = "an operation whose responses are scored needs `responses`";
                return Err(OpenApiError::new(pointer, message));
            };
            let at = format!("{pointer}/responses");
            let responses = object(responses, &at, "`responses`")?.iter();
            for (status, response) in responses.filter(|(key, _)| !key.starts_with("x-")) {
                let at = format!("{at}/{}", escaped(status));
                if status != "default"
                    && !(status.len() == 3 && status.starts_with(['1', '2', '3', '4', '5']))
                {
                    let message = format!(
                        "a response is named by its status, such as 200, 2XX or default, not {status:?}"
                    );
                    return Err(OpenApiError::new(at, message));
                }
                let (at, response) = resolved(document, at, response)?;
                let mut form = Form::read(&at, response)?;
                form.requires_body = form.body.is_some();
                parts.forms.insert(status.replace('x', "X"), form);
            }
            return Ok(parts);
        }
        let parameters = parameters(document, operation)?.into_iter();
        let (mut path, query) = parameters.partition::<Vec<_>, _>(|(place, _)| *place == "path");
        parts.query = query.into_iter().map(|(_, parameter)| parameter).collect();
        for name in variables(operation.path) {
            let Some(known) = path.iter().position(|(_, known)| known.name == name) else {
                let message = format!(
                    "no parameter for {{{name}}} of the path: add {{\"name\": {name:?}, \"in\": \"path\", \"required\": true, \"schema\": {{\"type\": \"string\"}}}} to `parameters`"
                );
                return Err(OpenApiError::new(pointer, message));
            };
            parts.path.push(path.swap_remove(known).1);
        }
        let form = match operation.value.get("requestBody") {
            Some(body) => {
                let (at, body) = resolved(document, format!("{pointer}/requestBody"), body)?;
                if body.get("content").is_none() {
                    return Err(OpenApiError::new(at, "a body needs `content`"));
                }
                Form::read(&at, body)?
            }
            None => Form::default(),
        };
        parts.forms.insert(String::new(), form);
        Ok(parts)
    }
}

/// Parameters in path and query, with their places. Headers and cookies are not checked.
fn parameters<'a>(
    document: &'a Value,
    operation: &openapi::Operation<'a>,
) -> Read<Vec<(&'a str, Parameter)>> {
    let mut found: Vec<(&str, Parameter)> = Vec::new();
    for (pointer, holder) in [
        (&operation.item_pointer, operation.item),
        (&operation.pointer, operation.value),
    ] {
        let pointer = format!("{pointer}/parameters");
        let listed = match holder.get("parameters") {
            Some(Value::Array(listed)) => listed,
            Some(_) => return Err(OpenApiError::new(pointer, "`parameters` is a list")),
            None => continue,
        };
        for (index, parameter) in listed.iter().enumerate() {
            let (at, parameter) = resolved(document, format!("{pointer}/{index}"), parameter)?;
            let place = match parameter.get("in").and_then(Value::as_str) {
                Some("header" | "cookie") => continue,
                Some(place @ ("path" | "query")) => place,
                _ => {
                    let message = "`in` takes path, query, header, cookie";
                    return Err(OpenApiError::new(format!("{at}/in"), message));
                }
            };
            let parameter = Parameter::read(document, &at, parameter, place)?;
            if place == "path" && !variables(operation.path).any(|name| name == parameter.name) {
                let message = format!("the path {} has no {{{}}}", operation.path, parameter.name);
                return Err(OpenApiError::new(format!("{at}/name"), message));
            }
            found.retain(|(other, known)| (*other, &known.name) != (place, &parameter.name));
            found.push((place, parameter));
        }
    }
    Ok(found)
}

impl Parameter {
    fn read(document: &Value, at: &str, parameter: &Value, place: &str) -> Read<Self> {
        let text = |key: &str| parameter.get(key).and_then(Value::as_str);
        let Some(name) = text("name") else {
            return Err(OpenApiError::new(at, "a parameter needs a `name`"));
        };
        let simple = if place == "path" { "simple" } else { "form" };
        let schema = parameter.get("schema");
        let types = Types::new(document, schema.unwrap_or(&Value::Null));
        let (key, problem) = match (schema, text("style")) {
            (_, Some(style)) if style != simple => (
                "/style",
                format!("has `style` {style}, but only {simple} is supported"),
            ),
            (None, _) => (
                "",
                "has no `schema`, and `content` is not supported: give it a schema, such as {\"type\": \"string\"}".to_owned(),
            ),
            _ if types.states("object") => (
                "/schema",
                "is an object, but only texts, numbers, booleans and lists of them are supported".to_owned(),
            ),
            _ => {
                let explode = parameter.get("explode").and_then(Value::as_bool);
                return Ok(Self {
                    name: name.to_owned(),
                    required: place == "path" || parameter.get("required") == Some(&true.into()),
                    explode: place == "query" && explode.unwrap_or(true),
                    pointer: format!("{at}/schema"),
                    types,
                });
            }
        };
        let message = format!("parameter {name} {problem}");
        Err(OpenApiError::new(format!("{at}{key}"), message))
    }
}

impl Form {
    /// The JSON of the `content` of a body or a response, else its first.
    fn read(at: &str, holder: &Value) -> Read<Self> {
        let at_content = format!("{at}/content");
        let content = match object(holder, at, "a body or a response")?.get("content") {
            Some(content) => Some(object(content, &at_content, "`content`")?),
            None => None,
        };
        let is_json =
            |(media, _): &(&String, &Value)| media.contains("json") || media.contains('*');
        let json = content.and_then(|content| content.iter().find(is_json));
        let first = json.or_else(|| content?.iter().next());
        let described = first.filter(|(_, one)| one.get("schema").is_some());
        Ok(Self {
            has_body: first.is_some(),
            requires_body: holder.get("required") == Some(&Value::Bool(true)),
            body: described.map(|(media, _)| format!("{at_content}/{}/schema", escaped(media))),
        })
    }
}
