//! Schemas of an OpenAPI document as JSON Schema for the validator: the dialect of 3.0 translated, references within the
//! document gathered.

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::super::ScoreError;
use super::super::json_schema::{Draft, Keyword, KeywordValue, Schema, Written};
use super::openapi::{OpenApiError, resolved, target};
use crate::score::grammar::MessagePart;
use crate::task::escaped;

/// Keywords whose schemas judge the same value.
const COMBINING: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Compiles the schemas of a document.
#[derive(Debug)]
pub(super) struct Schemas {
    pub(super) document: Value,
    /// Whether the document is of OpenAPI 3.0, whose schemas are a dialect.
    is_30: bool,
    part: MessagePart,
    assert_formats: bool,
}

/// A schema bundled with its definitions.
#[derive(Debug)]
pub(super) struct BundledSchema {
    pub(super) value: Value,
    /// Name in `$defs` -> JSON pointer into the document.
    pub(super) definitions: BTreeMap<String, String>,
}

/// A schema of the document, compiled on first use.
#[derive(Debug)]
pub(super) struct LazySchema {
    /// JSON pointer into the document.
    pub(super) pointer: String,
    compiled: OnceLock<Result<CompiledSchema, String>>,
}

#[derive(Debug)]
pub(super) struct CompiledSchema {
    pub(super) schema: Schema,
    definitions: BTreeMap<String, String>,
}

/// How a translation treats references.
enum References<'r> {
    /// Leaves them out, and lists what they lead to.
    List(&'r mut Vec<String>),
    /// Names definitions for them.
    Define(&'r mut BTreeMap<String, String>),
}

impl Schemas {
    pub(super) fn new(document: Value, part: MessagePart, assert_formats: bool) -> Self {
        let is_30 = document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.0"));
        Self {
            document,
            is_30,
            part,
            assert_formats,
        }
    }

    /// Checks the schemas at these JSON pointers and all that they refer to, each once.
    pub(super) fn check(
        &self,
        written: Written<'_>,
        mut pointers: Vec<String>,
    ) -> Result<(), ScoreError> {
        let mut seen: HashSet<String> = pointers.iter().cloned().collect();
        while let Some(pointer) = pointers.pop() {
            let mut found = Vec::new();
            let schema = self.document.pointer(&pointer).unwrap_or(&Value::Null);
            let alone = self
                .translated(&pointer, schema, &mut References::List(&mut found))
                .map_err(|error| written.error(&error.pointer, error.message))?;
            Schema::compile_part(
                Written {
                    pointer: &pointer,
                    ..written
                },
                alone,
                self.assert_formats,
            )?;
            pointers.extend(found.into_iter().filter(|found| seen.insert(found.clone())));
        }
        Ok(())
    }

    /// The schema at a JSON pointer with all that it refers to.
    pub(super) fn whole(&self, pointer: &str) -> Result<BundledSchema, OpenApiError> {
        let schema = self.document.pointer(pointer).unwrap_or(&Value::Bool(true));
        let mut definitions = BTreeMap::new();
        let mut value =
            self.translated(pointer, schema, &mut References::Define(&mut definitions))?;
        let mut translated = Map::new();
        while let Some((name, pointer)) = definitions
            .iter()
            .find(|(name, _)| !translated.contains_key(*name))
        {
            let (name, pointer) = (name.clone(), pointer.clone());
            let schema = self
                .document
                .pointer(&pointer)
                .unwrap_or(&Value::Bool(true));
            let schema =
                self.translated(&pointer, schema, &mut References::Define(&mut definitions))?;
            translated.insert(name, schema);
        }
        if let (Value::Object(members), false) = (&mut value, translated.is_empty()) {
            members.insert("$defs".to_owned(), Value::Object(translated));
        }
        Ok(BundledSchema { value, definitions })
    }

    /// One schema; `pointer` is its place in the document.
    fn translated(
        &self,
        pointer: &str,
        schema: &Value,
        references: &mut References<'_>,
    ) -> Result<Value, OpenApiError> {
        let members = match schema {
            Value::Object(members) => members,
            Value::Bool(_) => return Ok(schema.clone()),
            other => {
                return Err(OpenApiError::new(
                    pointer,
                    format!("a schema is an object, not {other}"),
                ));
            }
        };
        let mut out = Map::new();
        if let Some(named) = self.reference(pointer, members)? {
            match references {
                References::List(found) => found.push(named),
                References::Define(definitions) => {
                    let name = define(definitions, named);
                    out.insert("$ref".to_owned(), Value::String(format!("#/$defs/{name}")));
                }
            }
            if self.is_30 {
                return Ok(Value::Object(out));
            }
        }
        for (key, inner) in members {
            // A keyword without effect could give the schema another address than its place in the document.
            let Some(keyword) =
                Keyword::named(key).filter(|keyword| keyword.constrains(Draft::D2020))
            else {
                continue;
            };
            if keyword.holds == KeywordValue::Reference {
                continue;
            }
            let pointer = format!("{pointer}/{key}");
            let mut schema =
                |pointer: String, inner: &Value| self.translated(&pointer, inner, references);
            let translated = match (keyword.holds, inner) {
                (KeywordValue::NamedSchemas | KeywordValue::Dependencies, Value::Object(named)) => {
                    let mut all = Map::new();
                    for (name, inner) in named {
                        let pointer = format!("{pointer}/{}", escaped(name));
                        let is_list =
                            inner.is_array() && keyword.holds == KeywordValue::Dependencies;
                        let value = if is_list {
                            inner.clone()
                        } else {
                            schema(pointer, inner)?
                        };
                        all.insert(name.clone(), value);
                    }
                    Value::Object(all)
                }
                (KeywordValue::Schemas | KeywordValue::SchemaOrList, Value::Array(items)) => {
                    let item = |(index, inner): (usize, &Value)| {
                        schema(format!("{pointer}/{index}"), inner)
                    };
                    Value::Array(
                        items
                            .iter()
                            .enumerate()
                            .map(item)
                            .collect::<Result<_, _>>()?,
                    )
                }
                (
                    KeywordValue::Schema | KeywordValue::SchemaOrList,
                    Value::Object(_) | Value::Bool(_),
                ) => schema(pointer, inner)?,
                // The meta-schema says what is wrong with it.
                _ => inner.clone(),
            };
            out.insert(key.clone(), translated);
        }
        self.leave_out_foreign(members, &mut out);
        if self.is_30 {
            // Definitions alone are checked as they are written, so that faults have their places.
            let is_checked = matches!(references, References::List(_));
            of_30(members, &mut out, is_checked);
        }
        Ok(Value::Object(out))
    }

    /// Where a schema's reference leads.
    fn reference(
        &self,
        pointer: &str,
        members: &Map<String, Value>,
    ) -> Result<Option<String>, OpenApiError> {
        let Some((key, reference)) = ["$ref", "$dynamicRef"]
            .iter()
            .find_map(|key| Some((key, members.get(*key)?)))
        else {
            return Ok(None);
        };
        let pointer = format!("{pointer}/{key}");
        let Some(reference) = reference.as_str() else {
            return Err(OpenApiError::new(
                pointer,
                format!("a reference is a text, not {reference}"),
            ));
        };
        target(&self.document, &pointer, reference).map(|(target, _)| Some(target))
    }

    /// Forbids properties that belong to the other part: `readOnly` in a request, `writeOnly` in a response.
    fn leave_out_foreign(&self, members: &Map<String, Value>, out: &mut Map<String, Value>) {
        let mut foreign = HashSet::new();
        self.foreign_properties(members, &mut foreign, 0);
        if foreign.is_empty() {
            return;
        }
        if let Some(Value::Object(properties)) = out.get_mut("properties") {
            let forbidden = properties
                .iter_mut()
                .filter(|(name, _)| foreign.contains(name.as_str()));
            forbidden.for_each(|(_, schema)| *schema = Value::Bool(false));
        }
        if let Some(Value::Array(required)) = out.get_mut("required") {
            required.retain(|name| name.as_str().is_none_or(|name| !foreign.contains(name)));
        }
    }

    fn foreign_properties<'a>(
        &'a self,
        members: &'a Map<String, Value>,
        found: &mut HashSet<&'a str>,
        depth: usize,
    ) {
        let key = match self.part {
            MessagePart::Request => "readOnly",
            MessagePart::Response => "writeOnly",
        };
        let is_foreign = |schema: &Value| {
            let named = resolved(&self.document, String::new(), schema)
                .map(|(_, schema)| schema)
                .unwrap_or(schema);
            [schema, named]
                .iter()
                .any(|schema| schema[key] == Value::Bool(true))
        };
        let properties = members
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        found.extend(
            properties
                .filter(|(_, schema)| is_foreign(schema))
                .map(|(name, _)| name.as_str()),
        );
        if depth < 8 {
            for schema in members
                .get("allOf")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if let Ok((_, Value::Object(members))) =
                    resolved(&self.document, String::new(), schema)
                {
                    self.foreign_properties(members, found, depth + 1);
                }
            }
        }
    }
}

/// The name of a definition: the last part of its pointer, with a number where another has that name.
fn define(definitions: &mut BTreeMap<String, String>, pointer: String) -> String {
    if let Some((name, _)) = definitions.iter().find(|(_, known)| **known == pointer) {
        return name.clone();
    }
    let last = pointer.rsplit('/').next().unwrap_or_default();
    let plain: String = last
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect();
    let name = if definitions.contains_key(&plain) {
        format!("{plain}-{}", definitions.len())
    } else {
        plain
    };
    definitions.insert(name.clone(), pointer);
    name
}

/// Translates OpenAPI 3.0 into JSON Schema 2020-12 where they differ.
fn of_30(members: &Map<String, Value>, out: &mut Map<String, Value>, is_checked: bool) {
    for (limit, exclusive) in [
        ("minimum", "exclusiveMinimum"),
        ("maximum", "exclusiveMaximum"),
    ] {
        if let Some(is_exclusive) = members.get(exclusive).and_then(Value::as_bool) {
            out.remove(exclusive);
            if let Some(bound) = out.remove(limit) {
                out.insert(
                    if is_exclusive { exclusive } else { limit }.to_owned(),
                    bound,
                );
            }
        }
    }
    if members.get("nullable") != Some(&Value::Bool(true)) || is_checked {
        return;
    }
    if let Some(Value::Array(values)) = out.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    if let Some(name) = out.get("type").filter(|name| name.is_string()).cloned() {
        out.insert("type".to_owned(), json!([name, "null"]));
    }
    if COMBINING
        .iter()
        .chain(&["not", "const"])
        .any(|key| out.contains_key(*key))
    {
        let rest = std::mem::take(out);
        out.insert("if".to_owned(), json!({"type": "null"}));
        out.insert("else".to_owned(), Value::Object(rest));
    }
}

impl LazySchema {
    pub(super) fn at(pointer: String) -> Self {
        Self {
            pointer,
            compiled: OnceLock::new(),
        }
    }

    /// # Errors
    /// A sentence; the document was checked, so there should be none.
    pub(super) fn compiled(&self, schemas: &Schemas) -> Result<&CompiledSchema, &str> {
        let compile = || {
            let whole = schemas
                .whole(&self.pointer)
                .map_err(|error| format!("{}: {}", error.pointer, error.message))?;
            let written = Written {
                label: "",
                text: "",
                pointer: &self.pointer,
            };
            let schema = Schema::compile_part(written, whole.value, schemas.assert_formats)
                .map_err(|error| format!("the schema{error}"))?;
            Ok(CompiledSchema {
                schema,
                definitions: whole.definitions,
            })
        };
        self.compiled
            .get_or_init(compile)
            .as_ref()
            .map_err(String::as_str)
    }
}

impl CompiledSchema {
    /// JSON pointer into the document, of one into a schema that is at `pointer`.
    pub(super) fn place(&self, pointer: &str, schema_path: &str) -> String {
        let defined = schema_path.rsplit_once("/$defs/").and_then(|(_, rest)| {
            let (name, inside) = rest.split_once('/').unwrap_or((rest, ""));
            Some((self.definitions.get(name)?, inside))
        });
        match defined {
            Some((pointer, "")) => pointer.clone(),
            Some((pointer, inside)) => format!("{pointer}/{inside}"),
            None => format!("{pointer}{schema_path}"),
        }
    }
}

/// The values that a parameter takes, for parsing its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    List,
    /// An object with these properties.
    Fields(Vec<String>),
}

/// The shape of a schema's values, as far as `type`, `items` and `properties` say.
pub(super) fn shape(document: &Value, schema: &Value) -> Shape {
    shape_within(document, schema, 8).unwrap_or(Shape::Scalar)
}

fn shape_within(document: &Value, schema: &Value, depth: usize) -> Option<Shape> {
    let schema = resolved(document, String::new(), schema).ok()?.1;
    let is_of = |name: &str| match schema.get("type") {
        Some(Value::String(found)) => found == name,
        Some(Value::Array(all)) => all.iter().any(|found| found == name),
        _ => false,
    };
    if is_of("array") || schema.get("items").is_some() {
        return Some(Shape::List);
    }
    let branches = || {
        COMBINING
            .iter()
            .filter_map(|key| schema.get(*key)?.as_array())
            .flatten()
    };
    if is_of("object") || schema.get("properties").is_some() {
        let names = schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|names| names.keys());
        return Some(Shape::Fields(names.cloned().collect()));
    }
    if depth == 0 || schema.get("type").is_some() {
        return None;
    }
    branches().find_map(|branch| shape_within(document, branch, depth - 1))
}
