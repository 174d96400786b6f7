//! Schemas of an OpenAPI document as JSON Schema: translates the 3.0 dialect and bundles
//! references.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::openapi::{OpenApiError, resolved, target};
use crate::schema_keywords::{Draft, Keyword, KeywordValue};
use crate::score::definition::MessagePart;
use crate::score::error::ScoreError;
use crate::score::kinds::json_schema::exact_numbers::LITERAL;
use crate::score::kinds::json_schema::schema::Schema;
use crate::score::kinds::json_schema::schema_faults::Written;
use crate::task::escaped;

/// Keywords whose schemas apply to the same value.
const COMBINING: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Keywords whose schemas apply, or may apply, to the object as a whole.
const SAME_VALUE: [&str; 5] = ["allOf", "anyOf", "oneOf", "then", "else"];

#[derive(Debug)]
pub(super) struct Schemas {
    pub(super) document: Value,
    /// OpenAPI 3.0, whose schemas are a dialect.
    is_30: bool,
    part: MessagePart,
    assert_formats: bool,
}

#[derive(Debug)]
pub(super) struct BundledSchema {
    pub(super) value: Value,
    /// Name in `$defs` -> JSON pointer into the document.
    pub(super) definitions: BTreeMap<String, String>,
}

/// A schema compiled on first use.
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

enum References<'r> {
    /// Drops them, and lists their targets.
    List(&'r mut Vec<String>),
    Define(&'r mut Definitions),
}

/// Properties not allowed in this part of the exchange.
type Foreign = BTreeSet<String>;

/// Name in `$defs` -> JSON pointer into the document, and foreign properties there.
type Definitions = BTreeMap<String, (String, Foreign)>;

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
                .translated(
                    &pointer,
                    schema,
                    &Foreign::new(),
                    &mut References::List(&mut found),
                )
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

    pub(super) fn whole(&self, pointer: &str) -> Result<BundledSchema, OpenApiError> {
        let schema = self.document.pointer(pointer).unwrap_or(&Value::Bool(true));
        let mut definitions = Definitions::new();
        let references = &mut References::Define(&mut definitions);
        let mut value = self.translated(pointer, schema, &Foreign::new(), references)?;
        let mut translated = Map::new();
        while let Some((name, (pointer, foreign))) = definitions
            .iter()
            .find(|(name, _)| !translated.contains_key(*name))
        {
            let (name, pointer, foreign) = (name.clone(), pointer.clone(), foreign.clone());
            let schema = self
                .document
                .pointer(&pointer)
                .unwrap_or(&Value::Bool(true));
            let references = &mut References::Define(&mut definitions);
            let schema = self.translated(&pointer, schema, &foreign, references)?;
            translated.insert(name, schema);
        }
        if let (Value::Object(members), false) = (&mut value, translated.is_empty()) {
            members.insert("$defs".to_owned(), Value::Object(translated));
        }
        let pointers = definitions
            .into_iter()
            .map(|(name, (pointer, _))| (name, pointer));
        Ok(BundledSchema {
            value,
            definitions: pointers.collect(),
        })
    }

    /// Translates a schema; `pointer`: its location, `around`: foreign properties by schemas of the
    /// same value.
    fn translated(
        &self,
        pointer: &str,
        schema: &Value,
        around: &Foreign,
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
        let mut foreign = self.foreign_properties(schema);
        foreign.extend(around.iter().cloned());
        if let Some(named) = self.reference(pointer, members)? {
            match references {
                References::List(found) => found.push(named),
                References::Define(definitions) => {
                    let target = self.document.pointer(&named).unwrap_or(&Value::Null);
                    let own = self.foreign_properties(target);
                    let mut required = BTreeSet::new();
                    self.required_names(target, &mut required, &mut HashSet::new());
                    let is_dropped =
                        |name: &&String| !own.contains(*name) && required.contains(name.as_str());
                    let dropped = foreign.iter().filter(is_dropped).cloned().collect();
                    let name = define(definitions, named, dropped);
                    out.insert("$ref".to_owned(), Value::String(format!("#/$defs/{name}")));
                }
            }
            if self.is_30 {
                return Ok(Value::Object(out));
            }
        }
        for (key, inner) in members {
            // A keyword without effect could give the schema another address.
            let Some(keyword) =
                Keyword::named(key).filter(|keyword| keyword.constrains(Draft::D2020))
            else {
                if key.starts_with(LITERAL) {
                    out.insert(key.clone(), inner.clone());
                }
                continue;
            };
            if keyword.holds == KeywordValue::Reference {
                continue;
            }
            let pointer = format!("{pointer}/{key}");
            let mut schema = |pointer: String, inner: &Value| {
                let judges_same =
                    SAME_VALUE.contains(&key.as_str()) && !asks_only_for(inner, &foreign);
                let none = Foreign::new();
                let around = if judges_same { &foreign } else { &none };
                self.translated(&pointer, inner, around, references)
            };
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
                // The meta-schema reports the error.
                _ => inner.clone(),
            };
            out.insert(key.clone(), translated);
        }
        leave_out(&foreign, &mut out);
        if self.is_30 {
            // Only definitions are checked as written, so that faults have their positions.
            let is_checked = matches!(references, References::List(_));
            of_30(members, &mut out, is_checked);
        }
        Ok(Value::Object(out))
    }

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

    /// Properties of a schema and all it combines that belong to the other part: `readOnly` in a
    /// request, `writeOnly` in a response.
    fn foreign_properties(&self, schema: &Value) -> Foreign {
        let mut found = Foreign::new();
        self.collect_foreign(schema, &mut found, &mut HashSet::new());
        found
    }

    fn collect_foreign<'a>(
        &'a self,
        schema: &'a Value,
        found: &mut Foreign,
        seen: &mut HashSet<*const Value>,
    ) {
        if !seen.insert(schema) {
            return;
        }
        let (members, target) = self.written(schema);
        if let Some(target) = target {
            self.collect_foreign(target, found, seen);
        }
        let Some(members) = members else { return };
        let properties = members.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            if self.is_foreign(schema, &mut HashSet::new()) {
                found.insert(name.clone());
            }
        }
        for branch in list(members, "allOf") {
            self.collect_foreign(branch, found, seen);
        }
        // Foreign in whichever branch.
        for key in ["anyOf", "oneOf"] {
            let of_branch = |branch| {
                let mut found = Foreign::new();
                self.collect_foreign(branch, &mut found, &mut seen.clone());
                found
            };
            let of_all = list(members, key)
                .iter()
                .map(of_branch)
                .reduce(|all, one| &all & &one);
            found.extend(of_all.into_iter().flatten());
        }
    }

    /// Whether a property belongs to the other part.
    fn is_foreign<'a>(&'a self, schema: &'a Value, seen: &mut HashSet<*const Value>) -> bool {
        let key = match self.part {
            MessagePart::Request => "readOnly",
            MessagePart::Response => "writeOnly",
        };
        if !seen.insert(schema) {
            return false;
        }
        let (members, target) = self.written(schema);
        let says_so = |members: &'a Map<String, Value>, seen: &mut HashSet<*const Value>| {
            members.get(key) == Some(&Value::Bool(true))
                || list(members, "allOf")
                    .iter()
                    .any(|branch| self.is_foreign(branch, seen))
        };
        members.is_some_and(|members| says_so(members, seen))
            || target.is_some_and(|target| self.is_foreign(target, seen))
    }

    fn required_names<'a>(
        &'a self,
        schema: &'a Value,
        found: &mut BTreeSet<&'a str>,
        seen: &mut HashSet<*const Value>,
    ) {
        if !seen.insert(schema) {
            return;
        }
        let (members, target) = self.written(schema);
        if let Some(target) = target {
            self.required_names(target, found, seen);
        }
        let Some(members) = members else { return };
        found.extend(list(members, "required").iter().filter_map(Value::as_str));
        for key in SAME_VALUE {
            match members.get(key) {
                Some(Value::Array(branches)) => {
                    for branch in branches {
                        self.required_names(branch, found, seen);
                    }
                }
                Some(branch) => self.required_names(branch, found, seen),
                None => {}
            }
        }
    }

    /// Effective keywords of a schema, and its reference's target: OpenAPI 3.0 ignores siblings of
    /// `$ref`.
    fn written<'a>(
        &'a self,
        schema: &'a Value,
    ) -> (Option<&'a Map<String, Value>>, Option<&'a Value>) {
        let members = schema.as_object();
        let reference = schema.get("$ref").and_then(Value::as_str);
        let target = reference.and_then(|reference| target(&self.document, "", reference).ok());
        (
            members.filter(|_| !(self.is_30 && reference.is_some())),
            target.map(|(_, target)| target),
        )
    }
}

fn list<'a>(members: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    let list = members.get(key).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Whether a branch only requires foreign properties: it then fails instead of always holding.
fn asks_only_for(branch: &Value, foreign: &Foreign) -> bool {
    let is_foreign = |name: &Value| name.as_str().is_some_and(|name| foreign.contains(name));
    branch.as_object().is_some_and(|members| {
        let required = list(members, "required");
        members.len() == 1 && !required.is_empty() && required.iter().all(is_foreign)
    })
}

/// Forbids foreign properties instead of requiring them.
fn leave_out(foreign: &Foreign, out: &mut Map<String, Value>) {
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

/// Name of a definition: last part of its pointer and the foreign properties, numbered if taken.
fn define(definitions: &mut Definitions, pointer: String, foreign: Foreign) -> String {
    let wanted = (pointer, foreign);
    if let Some((name, _)) = definitions.iter().find(|(_, known)| **known == wanted) {
        return name.clone();
    }
    let last = wanted.0.rsplit('/').next().unwrap_or_default();
    let without = wanted.1.iter().map(|name| format!("_without_{name}"));
    let plain: String = std::iter::once(last.to_owned())
        .chain(without)
        .collect::<String>()
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .collect();
    let name = if definitions.contains_key(&plain) {
        format!("{plain}-{}", definitions.len())
    } else {
        plain
    };
    definitions.insert(name.clone(), wanted);
    name
}

/// Translates OpenAPI 3.0 to JSON Schema 2020-12 where they differ.
fn of_30(members: &Map<String, Value>, out: &mut Map<String, Value>, is_checked: bool) {
    for (limit, exclusive) in [
        ("minimum", "exclusiveMinimum"),
        ("maximum", "exclusiveMaximum"),
    ] {
        if let Some(is_exclusive) = members.get(exclusive).and_then(Value::as_bool) {
            out.remove(exclusive);
            for literal in ["", LITERAL].into_iter().filter(|_| is_exclusive) {
                if let Some(bound) = out.remove(&format!("{literal}{limit}")) {
                    out.insert(format!("{literal}{exclusive}"), bound);
                }
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
    /// A sentence; not expected, as the document was checked.
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

/// Shape of a parameter's values, for parsing text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    List,
    /// An object with these properties.
    Fields(Vec<String>),
}

/// Determined by `type`, `items` and `properties`.
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
