//! The messages of an operation as one JSON Schema: for describing them, and for the least that an operation takes.

use serde_json::{Map, Value, json};

use super::super::json_schema::Written;
use super::document::{Api, Body, Content, Parameter, Parts};
use super::schemas::{LazySchema, Schemas};
use crate::task::{HttpRules, MessagePart};

/// Operations that are described.
const MOST_OPERATIONS: usize = 50;

/// A schema in the making.
struct Draft<'a> {
    schemas: &'a Schemas,
    definitions: Map<String, Value>,
}

/// The operations that a task uses, each with the schema of its messages; nothing where the document is at fault. The
/// path is a constant with `{NAME}` in it.
pub(in crate::score) fn message_schemas(rules: &HttpRules, assert_formats: bool) -> Vec<(String, Value)> {
    let written = Written { label: "", text: "", pointer: "" };
    let Ok(api) = Api::new(written, rules, assert_formats) else { return Vec::new() };
    let named = rules.operation.as_deref().and_then(|name| api.named(name));
    let used = (0..api.operations.len()).filter(|index| named.is_none_or(|named| named == *index));
    used.take(MOST_OPERATIONS)
        .filter_map(|index| {
            let operation = &api.operations[index];
            let path = api.paths.iter().find(|(_, operations)| operations.contains(&index)).map(|(path, _)| &path.text)?;
            let parts = operation.parts.as_ref().ok()?;
            let mut draft = Draft { schemas: &api.schemas, definitions: Map::new() };
            let (mut properties, required) = match rules.part {
                MessagePart::Request => draft.request(&operation.method, path, parts),
                MessagePart::Response => draft.response(parts),
            };
            properties.retain(|_, schema| !schema.is_null());
            let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false, "$defs": draft.definitions});
            Some((operation.name.clone(), schema))
        })
        .collect()
}

impl Draft<'_> {
    fn request(&mut self, method: &str, path: &str, parts: &Parts) -> (Map<String, Value>, Vec<&'static str>) {
        let mut properties = Map::from_iter([
            ("method".to_owned(), json!({"const": method})),
            ("path".to_owned(), json!({"const": path})),
            ("query".to_owned(), self.named(&parts.query)),
            ("headers".to_owned(), self.named(&parts.headers)),
        ]);
        let mut required = vec!["method", "path"];
        let has_required = |parameters: &[Parameter]| parameters.iter().any(|parameter| parameter.required);
        required.extend(has_required(&parts.query).then_some("query"));
        required.extend(has_required(&parts.headers).then_some("headers"));
        if let Some(body) = &parts.body {
            properties.insert("body".to_owned(), self.body(body));
            required.extend(body.required.then_some("body"));
        }
        (properties, required)
    }

    fn response(&mut self, parts: &Parts) -> (Map<String, Value>, Vec<&'static str>) {
        let codes = parts.responses.keys().filter_map(|key| key.replace("XX", "00").parse::<u16>().ok());
        let codes: Vec<u16> = codes.collect();
        let mut properties = Map::from_iter([("status".to_owned(), json!({"enum": codes}))]);
        if codes.is_empty() {
            properties.insert("status".to_owned(), json!({"type": "integer", "minimum": 100, "maximum": 599}));
        }
        let mut required = vec!["status"];
        if let Some(response) = parts.responses.values().next() {
            properties.insert("headers".to_owned(), self.named(&response.headers));
            if response.body.required {
                properties.insert("body".to_owned(), self.body(&response.body));
                required.push("body");
            }
        }
        (properties, required)
    }

    /// An object of parameters; null for none.
    fn named(&mut self, parameters: &[Parameter]) -> Value {
        if parameters.is_empty() {
            return Value::Null;
        }
        let schemas = parameters.iter().map(|parameter| (parameter.name.clone(), self.schema(&parameter.schema)));
        let properties: Map<String, Value> = schemas.collect();
        let required: Vec<&str> =
            parameters.iter().filter(|parameter| parameter.required).map(|parameter| parameter.name.as_str()).collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    fn body(&mut self, body: &Body) -> Value {
        let schema = body.content(None).and_then(|content: &Content| content.schema.as_ref());
        schema.map_or(Value::Bool(true), |schema| self.schema(schema))
    }

    fn schema(&mut self, schema: &LazySchema) -> Value {
        let Ok(mut whole) = self.schemas.whole(&schema.pointer).map(|whole| whole.value) else {
            return Value::Bool(true);
        };
        if let Some(Value::Object(definitions)) = whole.as_object_mut().and_then(|members| members.remove("$defs")) {
            self.definitions.extend(definitions);
        }
        whole
    }
}
