//! An operation's messages as one JSON Schema, for descriptions and minimal messages.

use serde_json::{Map, Value, json};

use super::document::{Api, Body, Content, Parameter, Parts};
use super::schemas::{BundledSchema, LazySchema, Schemas, Shape};
use crate::score::definition::{HttpRules, MessagePart};
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::task::escaped;

/// Limit of described operations.
const MAX_OPERATIONS: usize = 50;

#[derive(Debug)]
pub struct MessageSchema {
    /// `POST /invoices (createInvoice)`.
    pub name: String,
    /// JSON pointer into the document.
    pub pointer: String,
    /// The path is a constant containing `{NAME}`.
    pub schema: Value,
    pub path: Vec<(String, Value)>,
    /// JSON pointers into [`Self::schema`] to parameters parsed from text as a whole.
    pub read_from_text: Vec<String>,
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

struct Draft<'a> {
    schemas: &'a Schemas,
    definitions: Map<String, Value>,
    places: Vec<(String, String)>,
    read_from_text: Vec<String>,
}

/// Operations of a task with message schemas; empty if the document is invalid.
pub fn message_schemas(rules: &HttpRules, assert_formats: bool) -> Vec<MessageSchema> {
    let written = Written {
        label: "",
        text: "",
        pointer: "",
    };
    let Ok(api) = Api::new(written, rules, assert_formats) else {
        return Vec::new();
    };
    let named = rules.operation.as_deref().and_then(|name| api.named(name));
    let used = (0..api.operations.len()).filter(|index| named.is_none_or(|named| named == *index));
    used.take(MAX_OPERATIONS)
        .filter_map(|index| {
            let operation = &api.operations[index];
            let path = api.paths.iter().find(|(_, operations)| operations.contains(&index)).map(|(path, _)| &path.text)?;
            let parts = operation.parts.as_ref().ok()?;
            let mut draft = Draft { schemas: &api.schemas, definitions: Map::new(), places: Vec::new(), read_from_text: Vec::new() };
            let of_path = |parameter: &Parameter| {
                let schema = draft.schema(&format!("/path/{}", escaped(&parameter.name)), &parameter.schema);
                (parameter.name.clone(), schema)
            };
            let variables = parts.path.iter().map(of_path).collect();
            let (mut properties, required) = match rules.part {
                MessagePart::Request => draft.request(&operation.method, path, parts),
                MessagePart::Response => draft.response(parts),
            };
            properties.retain(|_, schema| !schema.is_null());
            let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false, "$defs": draft.definitions});
            let (name, pointer) = (operation.name.clone(), operation.pointer.clone());
            let Draft { places, read_from_text, .. } = draft;
            Some(MessageSchema { name, pointer, schema, path: variables, read_from_text, places })
        })
        .collect()
}

impl Draft<'_> {
    fn request(
        &mut self,
        method: &str,
        path: &str,
        parts: &Parts,
    ) -> (Map<String, Value>, Vec<&'static str>) {
        let mut properties = Map::from_iter([
            ("method".to_owned(), json!({"const": method})),
            ("path".to_owned(), json!({"const": path})),
            ("query".to_owned(), self.named("query", &parts.query)),
            ("headers".to_owned(), self.named("headers", &parts.headers)),
        ]);
        let mut required = vec!["method", "path"];
        let has_required =
            |parameters: &[Parameter]| parameters.iter().any(|parameter| parameter.required);
        required.extend(has_required(&parts.query).then_some("query"));
        required.extend(has_required(&parts.headers).then_some("headers"));
        if let Some(body) = &parts.body {
            properties.insert("body".to_owned(), self.body(body));
            required.extend(body.required.then_some("body"));
        }
        (properties, required)
    }

    fn response(&mut self, parts: &Parts) -> (Map<String, Value>, Vec<&'static str>) {
        let codes = parts
            .responses
            .keys()
            .filter_map(|key| key.replace("XX", "00").parse::<u16>().ok());
        let codes: Vec<u16> = codes.collect();
        let mut properties = Map::from_iter([("status".to_owned(), json!({"enum": codes}))]);
        if codes.is_empty() {
            properties.insert(
                "status".to_owned(),
                json!({"type": "integer", "minimum": 100, "maximum": 599}),
            );
        }
        let mut required = vec!["status"];
        if let Some(response) = parts.responses.values().next() {
            properties.insert(
                "headers".to_owned(),
                self.named("headers", &response.headers),
            );
            if response.body.required {
                properties.insert("body".to_owned(), self.body(&response.body));
                required.push("body");
            }
        }
        (properties, required)
    }

    /// An object of parameters; null if there are none.
    fn named(&mut self, key: &str, parameters: &[Parameter]) -> Value {
        if parameters.is_empty() {
            return Value::Null;
        }
        let schemas = parameters.iter().map(|parameter| {
            let at = format!("/properties/{key}/properties/{}", escaped(&parameter.name));
            if parameter.is_json || parameter.shape != Shape::Scalar {
                self.read_from_text.push(at.clone());
            }
            (parameter.name.clone(), self.schema(&at, &parameter.schema))
        });
        let properties: Map<String, Value> = schemas.collect();
        let required: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter.required)
            .map(|parameter| parameter.name.as_str())
            .collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    fn body(&mut self, body: &Body) -> Value {
        let schema = body
            .content(None)
            .and_then(|content: &Content| content.schema.as_ref());
        schema.map_or(Value::Bool(true), |schema| {
            self.schema("/properties/body", schema)
        })
    }

    /// A schema of the document, to be placed at a JSON pointer.
    fn schema(&mut self, at: &str, schema: &LazySchema) -> Value {
        self.places.push((at.to_owned(), schema.pointer.clone()));
        let Ok(BundledSchema {
            value: mut whole,
            definitions,
        }) = self.schemas.whole(&schema.pointer)
        else {
            return Value::Bool(true);
        };
        self.places.extend(
            definitions
                .into_iter()
                .map(|(name, pointer)| (format!("/$defs/{name}"), pointer)),
        );
        if let Some(Value::Object(definitions)) = whole
            .as_object_mut()
            .and_then(|members| members.remove("$defs"))
        {
            self.definitions.extend(definitions);
        }
        whole
    }
}
