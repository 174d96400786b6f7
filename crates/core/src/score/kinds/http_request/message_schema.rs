//! An operation's messages as one JSON Schema, for descriptions, grammars and verdicts.

use serde_json::{Map, Value, json};

use super::document::{Api, Form, Operation, Parameter, Parts};
use super::message::Normal;
use super::schemas::Definitions;
use crate::score::answer::json;
use crate::score::definition::{HttpRules, MessagePart};
use crate::score::kinds::json_schema::schema::{Schema, Violation};
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::score::verdict::FailureClass;
use crate::task::escaped;

/// Limit of described messages.
const MAX_MESSAGES: usize = 50;
const NOWHERE: Written<'_> = Written {
    label: "",
    text: "",
    pointer: "",
};

#[derive(Debug)]
pub struct MessageSchema {
    /// `POST /invoices (createInvoice)`; a response's with its status: `POST /invoices 2XX (createInvoice)`.
    pub name: String,
    /// JSON pointer into the document.
    pub pointer: String,
    /// The path is a constant containing `{NAME}`.
    pub schema: Value,
    pub path: Vec<(String, Value)>,
    /// JSON pointers into [`Self::schema`] and, below `/path/`, to parameters -> pointers into the
    /// document.
    places: Vec<(String, String)>,
}

impl MessageSchema {
    /// Maps a JSON pointer of the schema to the document.
    pub fn place(&self, pointer: &str) -> String {
        let inside = |(from, to): &(String, String)| {
            let rest = pointer
                .strip_prefix(from.as_str())
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
            Some((from.len(), format!("{to}{rest}"), rest.is_empty()))
        };
        let nearest = self
            .places
            .iter()
            .filter_map(inside)
            .max_by_key(|(length, ..)| *length);
        nearest.map_or_else(
            || self.pointer.clone(),
            // The whole parameter, not only its schema.
            |(_, place, is_whole)| match place.strip_suffix("/schema") {
                Some(parameter) if is_whole => parameter.to_owned(),
                _ => place,
            },
        )
    }
}

/// Messages of a task's operations; empty if the document is invalid.
pub fn message_schemas(rules: &HttpRules, assert_formats: bool) -> Vec<MessageSchema> {
    let Ok(api) = Api::new(NOWHERE, rules, assert_formats) else {
        return Vec::new();
    };
    let named = rules.operation.as_deref().and_then(|name| api.named(name));
    let used = api.operations.iter().enumerate();
    let used = used.filter(|(index, _)| named.is_none_or(|named| named == *index));
    let messages = used.flat_map(|(_, operation)| {
        let forms = operation.parts.iter().flat_map(|parts| &parts.forms);
        forms.filter_map(|(status, _)| describe(&api, operation, status).ok())
    });
    messages.take(MAX_MESSAGES).collect()
}

/// The message of an operation: its request with an empty status.
fn describe(api: &Api, operation: &Operation, status: &str) -> Result<MessageSchema, String> {
    let parts = operation.parts.as_ref().map_err(Clone::clone)?;
    let mut draft = Draft {
        api,
        definitions: Definitions::new(),
        translated: Map::new(),
        places: Vec::new(),
    };
    let nothing = Form::default();
    let form = parts.forms.get(status).unwrap_or(&nothing);
    let (path, mut properties, mut required) = match status {
        "" => draft.request(operation, parts)?,
        _ => {
            let code = match status.replace("XX", "00").parse::<u16>() {
                Ok(code) if !status.ends_with("XX") => json!({"const": code}),
                Ok(code) => json!({"type": "integer", "minimum": code, "maximum": code + 99}),
                Err(_) => json!({"type": "integer", "minimum": 100, "maximum": 599}),
            };
            (Vec::new(), json!({"status": code}), vec!["status"])
        }
    };
    if form.has_body {
        properties["body"] = match &form.body {
            Some(pointer) => draft.schema("/properties/body", pointer)?,
            None => Value::Bool(true),
        };
        required.extend(form.requires_body.then_some("body"));
    }
    let mut name = operation.route.clone();
    let words = [
        (status, " ", ""),
        (operation.id.as_deref().unwrap_or_default(), " (", ")"),
    ];
    for (word, before, after) in words.into_iter().filter(|(word, ..)| !word.is_empty()) {
        name += &format!("{before}{word}{after}");
    }
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false, "$defs": draft.translated});
    let places = draft.definitions.into_iter();
    let places = places.map(|(name, pointer)| (format!("/$defs/{name}"), pointer));
    Ok(MessageSchema {
        name,
        pointer: operation.pointer.clone(),
        schema,
        path,
        places: draft.places.into_iter().chain(places).collect(),
    })
}

struct Draft<'a> {
    api: &'a Api,
    definitions: Definitions,
    translated: Map<String, Value>,
    places: Vec<(String, String)>,
}

impl Draft<'_> {
    /// Schemas of the path's variables, properties, and names of required ones.
    #[allow(clippy::type_complexity)]
    fn request(
        &mut self,
        operation: &Operation,
        parts: &Parts,
    ) -> Result<(Vec<(String, Value)>, Value, Vec<&'static str>), String> {
        let path = self.named("/path", &parts.path)?;
        let mut properties =
            json!({"method": {"const": operation.method}, "path": {"const": operation.path}});
        let mut required = vec!["method", "path"];
        if !parts.query.is_empty() {
            let query = self.named("/properties/query/properties", &parts.query)?;
            let is_required = |parameter: &&Parameter| parameter.required;
            let names = parts.query.iter().filter(is_required);
            let names: Vec<&str> = names.map(|parameter| &*parameter.name).collect();
            required.extend((!names.is_empty()).then_some("query"));
            properties["query"] = closed(query, &names);
        }
        Ok((path, properties, required))
    }

    fn named(&mut self, at: &str, all: &[Parameter]) -> Result<Vec<(String, Value)>, String> {
        let mut schema = |one: &Parameter| {
            let schema = self.schema(&format!("{at}/{}", escaped(&one.name)), &one.pointer)?;
            Ok((one.name.clone(), schema))
        };
        all.iter().map(&mut schema).collect()
    }

    /// A schema of the document, to be placed at a JSON pointer.
    fn schema(&mut self, at: &str, pointer: &str) -> Result<Value, String> {
        self.places.push((at.to_owned(), pointer.to_owned()));
        let schemas = &self.api.schemas;
        schemas
            .whole(pointer, &mut self.definitions, &mut self.translated)
            .map_err(|error| format!("{}: {}", error.pointer, error.message))
    }
}

fn closed(properties: Vec<(String, Value)>, required: &[&str]) -> Value {
    let properties: Map<String, Value> = properties.into_iter().collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// Checks messages in their normal form.
#[derive(Debug)]
pub(super) struct CompiledForm {
    schema: Schema,
    described: MessageSchema,
}

impl CompiledForm {
    /// # Errors
    /// A sentence; only where the task does not use the operation.
    pub(super) fn new(api: &Api, operation: &Operation, status: &str) -> Result<Self, String> {
        let described = describe(api, operation, status)?;
        let mut schema = described.schema.clone();
        if status.is_empty() {
            let properties = &mut schema["properties"];
            let names: Vec<&str> = described.path.iter().map(|(name, _)| &**name).collect();
            properties["method"] = Value::Bool(true);
            properties["path"] = closed(described.path.clone(), &names);
            if properties.get("query").is_none() {
                properties["query"] = closed(Vec::new(), &[]);
            }
        }
        let schema = Schema::compile_part(NOWHERE, schema, api.schemas.assert_formats)
            .map_err(|error| format!("the schema{error}"))?;
        Ok(Self { schema, described })
    }

    /// Violations with places in the completion and in the document.
    pub(super) fn violations(&self, normal: &Normal) -> Vec<Violation> {
        let document = match json::parse(&normal.text, 0) {
            Ok(document) => document,
            // A list of a query becomes one level deeper.
            Err(error) => {
                return vec![Violation {
                    message: error.reason.to_string(),
                    instance_path: String::new(),
                    schema_path: String::new(),
                    offset: normal.locate(error.offset),
                    class: FailureClass::Other,
                }];
            }
        };
        let root = &document.root;
        let verdict = self
            .schema
            .is_valid(root, &mut self.schema.budget(normal.text.len()));
        if verdict == Ok(true) {
            return Vec::new();
        }
        let found = self.schema.violations(&normal.text, root, verdict);
        let found = found.unwrap_or_else(|exhausted| vec![exhausted]);
        found
            .into_iter()
            .map(|one| self.placed(normal, one))
            .collect()
    }

    fn placed(&self, normal: &Normal, one: Violation) -> Violation {
        let path = one.instance_path.clone();
        let mut names = path.split('/').skip(1);
        let (part, name) = (names.next(), names.next());
        let class = match (part, name, one.class) {
            (Some("query" | "path"), None, FailureClass::MissingKey) => {
                FailureClass::MissingParameter
            }
            (Some("query" | "path"), None, FailureClass::ExtraKey) => FailureClass::ExtraParameter,
            (.., class) => class,
        };
        let message = match (part, name) {
            (Some(part @ ("query" | "path")), Some(name)) => {
                format!("{part} parameter {name}: {}", one.message)
            }
            (Some(part), _) => format!("{part}: {}", one.message),
            (None, _) => one.message,
        };
        let pointer = &one.schema_path;
        let defined = pointer
            .rfind("/$defs/")
            .map_or(&**pointer, |at| &pointer[at..]);
        let defined = defined.replace("/properties/path/properties/", "/path/");
        Violation {
            message,
            class,
            schema_path: self.described.place(&defined),
            offset: normal.locate(one.offset),
            ..one
        }
    }
}

impl MessagePart {
    /// Keys of messages of this part.
    pub(super) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Request => &["method", "path", "query", "headers", "body"],
            Self::Response => &["status", "headers", "body"],
        }
    }
}
