//! Schemas of an OpenAPI document as JSON Schema, with what they refer to.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::openapi::{OpenApiError, resolved, target};
use crate::exact_json;
use crate::schema_keywords::visit_mut;
use crate::score::answer::json;
use crate::score::definition::MessagePart;
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::exact_numbers::LITERAL;
use crate::score::kinds::json_schema::schema::Schema;
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::task::escaped;

/// Keywords without effect, or with which a schema would have another address.
const LEFT_OUT: [&str; 6] = [
    "$id",
    "$schema",
    "$anchor",
    "example",
    "xml",
    "discriminator",
];
/// Nesting of schemas that a parameter combines.
const MAX_NESTING: usize = 8;

#[derive(Debug)]
pub(super) struct Schemas {
    pub(super) document: Value,
    /// OpenAPI 3.0, whose schemas are a dialect.
    is_30: bool,
    /// Marks properties that messages of this part lack.
    refused: &'static str,
    pub(super) assert_formats: bool,
}

/// Name in `$defs` -> JSON pointer into the document.
pub(super) type Definitions = BTreeMap<String, String>;

impl Schemas {
    pub(super) fn new(document: Value, part: MessagePart, assert_formats: bool) -> Self {
        let version = document["openapi"].as_str().unwrap_or_default();
        Self {
            is_30: version.starts_with("3.0"),
            refused: match part {
                MessagePart::Request => "readOnly",
                MessagePart::Response => "writeOnly",
            },
            document,
            assert_formats,
        }
    }

    /// Checks schemas and all that they refer to, each alone, so that faults have their places.
    pub(super) fn check(
        &self,
        written: Written<'_>,
        mut pointers: Vec<String>,
    ) -> Result<(), ScoreError> {
        let mut seen: HashSet<String> = pointers.iter().cloned().collect();
        while let Some(pointer) = pointers.pop() {
            let mut found = Vec::new();
            let mut refer = |target| {
                found.push(target);
                None
            };
            let alone = self
                .translated(&pointer, &mut refer)
                .map_err(|error| written.error(&error.pointer, error.message))?;
            let pointer = &pointer;
            Schema::compile_part(Written { pointer, ..written }, alone, self.assert_formats)?;
            pointers.extend(found.into_iter().filter(|found| seen.insert(found.clone())));
        }
        Ok(())
    }

    /// A schema; what it refers to is added to the definitions.
    pub(super) fn whole(
        &self,
        pointer: &str,
        definitions: &mut Definitions,
        translated: &mut Map<String, Value>,
    ) -> Result<Value, OpenApiError> {
        let whole = self.translated(pointer, &mut |target| define(definitions, target))?;
        let is_new = |name: &&String, translated: &Map<_, _>| !translated.contains_key(*name);
        while let Some(name) = definitions.keys().find(|name| is_new(name, translated)) {
            let (name, pointer) = (name.clone(), definitions[name].clone());
            let schema = self.translated(&pointer, &mut |target| define(definitions, target))?;
            translated.insert(name, schema);
        }
        Ok(whole)
    }

    /// The schema at a pointer. `refer` gets the target of each `$ref`, and returns the address to
    /// write in its place.
    fn translated(
        &self,
        pointer: &str,
        refer: &mut dyn FnMut(String) -> Option<String>,
    ) -> Result<Value, OpenApiError> {
        let mut schema = self.document.pointer(pointer).cloned().unwrap_or(json!({}));
        if !schema.is_object() && !schema.is_boolean() {
            let message = format!("a schema is an object, not {schema}");
            return Err(OpenApiError::new(pointer, message));
        }
        let mut fault = None;
        visit_mut(&mut schema, &mut |members| {
            members.retain(|key, _| !LEFT_OUT.contains(&key.as_str()));
            if members.get(self.refused) == Some(&Value::Bool(true)) {
                let message = format!(
                    "`{}` is not supported here: give the body a schema without this property",
                    self.refused
                );
                fault.get_or_insert((message, self.refused, Value::Bool(true)));
            }
            if let Some(reference) = members.remove("$ref") {
                let address = reference.as_str().unwrap_or_default();
                match target(&self.document, pointer, address) {
                    Ok((found, _)) => {
                        // OpenAPI 3.0 ignores what stands beside a reference.
                        members.retain(|_, _| !self.is_30);
                        let address = refer(found);
                        members.extend(address.map(|to| ("$ref".to_owned(), to.into())));
                    }
                    Err(error) => _ = fault.get_or_insert((error.message, "$ref", reference)),
                }
            } else if self.is_30 {
                translate_30(members);
            }
        });
        let Some((message, key, value)) = fault else {
            return Ok(schema);
        };
        let inside = self.document.pointer(pointer);
        let place = inside.and_then(|schema| place_of(schema, key, &value));
        Err(OpenApiError::new(
            format!("{pointer}{}", place.unwrap_or_default()),
            message,
        ))
    }
}

/// JSON pointer to the first member with this key and value.
fn place_of(within: &Value, key: &str, value: &Value) -> Option<String> {
    if within.get(key) == Some(value) {
        return Some(format!("/{}", escaped(key)));
    }
    let below = |name: &str, inner| Some(format!("/{name}{}", place_of(inner, key, value)?));
    match within {
        Value::Object(members) => members
            .iter()
            .find_map(|(name, inner)| below(&escaped(name), inner)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, inner)| below(&index.to_string(), inner)),
        _ => None,
    }
}

/// Address of a definition: the last part of its pointer, numbered if taken.
fn define(definitions: &mut Definitions, pointer: String) -> Option<String> {
    let known = definitions.iter().find(|(_, known)| **known == pointer);
    if let Some((name, _)) = known {
        return Some(format!("#/$defs/{name}"));
    }
    let last = pointer.rsplit('/').next().unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    let mut name: String = last.chars().filter(is_plain).collect();
    if definitions.contains_key(&name) {
        name = format!("{name}-{}", definitions.len());
    }
    definitions.insert(name.clone(), pointer);
    Some(format!("#/$defs/{name}"))
}

/// Translates the keywords of OpenAPI 3.0 that JSON Schema 2020-12 has otherwise.
fn translate_30(members: &mut Map<String, Value>) {
    for (limit, exclusive) in [
        ("minimum", "exclusiveMinimum"),
        ("maximum", "exclusiveMaximum"),
    ] {
        if let Some(is_exclusive) = members.get(exclusive).and_then(Value::as_bool) {
            members.remove(exclusive);
            for literal in ["", LITERAL].into_iter().filter(|_| is_exclusive) {
                if let Some(bound) = members.remove(&format!("{literal}{limit}")) {
                    members.insert(format!("{literal}{exclusive}"), bound);
                }
            }
        }
    }
    if members.remove("nullable") != Some(Value::Bool(true)) {
        return;
    }
    if let Some(Value::Array(values)) = members.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    if let Some(name) = members.get("type").filter(|name| name.is_string()).cloned() {
        members.insert("type".to_owned(), json!([name, "null"]));
    }
    let combining = ["allOf", "anyOf", "oneOf", "not", "const"];
    if combining.iter().any(|key| members.contains_key(*key)) {
        let rest = std::mem::take(members);
        members.insert("if".to_owned(), json!({"type": "null"}));
        members.insert("else".to_owned(), Value::Object(rest));
    }
}

/// Names of the types that a schema states, `number` for `integer`; empty if it states none.
#[derive(Debug, Default)]
pub(super) struct Types {
    names: Vec<String>,
    /// Those of a list's items.
    items: Vec<String>,
}

impl Types {
    pub(super) fn new(document: &Value, schema: &Value) -> Self {
        let mut found = Self::default();
        found.note(document, schema, MAX_NESTING);
        found
    }

    fn note(&mut self, document: &Value, schema: &Value, depth: usize) {
        let Ok((_, schema)) = resolved(document, String::new(), schema) else {
            return;
        };
        let list = |key| schema.get(key).and_then(Value::as_array);
        let is_nullable = schema.get("nullable") == Some(&Value::Bool(true));
        self.names.extend(is_nullable.then(|| "null".to_owned()));
        if let (Some(items), 1..) = (schema.get("items"), depth) {
            let mut inner = Self::default();
            inner.note(document, items, depth - 1);
            self.items = inner.names;
        }
        match schema.get("type") {
            Some(Value::String(name)) => self.add(name),
            Some(Value::Array(names)) => {
                names
                    .iter()
                    .filter_map(Value::as_str)
                    .for_each(|name| self.add(name));
            }
            _ => {
                let values = list("enum").into_iter().flatten();
                for value in values.chain(schema.get("const")) {
                    let text = exact_json::write(value);
                    let value = json::parse(&text, 0);
                    self.add(value.map_or("string", |value| value.root.type_name()));
                }
                let branches = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(list);
                for branch in branches.flatten().filter(|_| depth > 0) {
                    self.note(document, branch, depth - 1);
                }
                for (key, name) in [("items", "array"), ("properties", "object")] {
                    if schema.get(key).is_some() {
                        self.add(name);
                    }
                }
            }
        }
    }

    fn add(&mut self, name: &str) {
        let name = if name == "integer" { "number" } else { name };
        self.names.push(name.to_owned());
    }

    /// Whether the schema states this type.
    pub(super) fn states(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// Whether a value, or an item of a list, may have this type.
    pub(super) fn allow(&self, name: &str) -> bool {
        let names = match self.states("array") {
            true => &self.items,
            false => &self.names,
        };
        names.is_empty() || names.iter().any(|known| known == name)
    }
}
