//! Bundles a JSON Schema into keywords that can be enforced while decoding; others are reported
//! with their position.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use referencing::{Draft, Registry, Resolver};
use serde_json::{Map, Value, json};

use super::ConstraintError;
use super::bounds::narrow_bounds;
use super::finite_patterns::name_keys;
use super::literals::{
    EXACT, check_data, check_least, check_name, check_optional, checked_format, unenforced,
    written_pattern,
};
use super::overlap::{Schemas, required, types_named};
use super::positive::{Positive, Refusal};
use crate::schema_keywords::{Draft as KnownDraft, Keyword};
use crate::score::json::{self, Places};
use crate::score::{MessageSchema, encode_references};
use crate::task::{decode_path, escaped};

/// Base address of task files.
pub(super) const HOME: &str = "task:///";

/// Values in a schema with everything it refers to.
const MAX_VALUES: usize = 50_000;

/// A schema and the name of its file.
#[derive(Clone, Debug)]
pub struct SchemaFile {
    /// Display name.
    pub label: String,
    pub text: Arc<str>,
    /// JSON pointer to the schema in the text.
    pub pointer: String,
    /// Used by references.
    pub address: String,
    pub schema: Value,
    /// The part of an OpenAPI document that the schemas come from.
    pub(super) origin: Option<Arc<MessageSchema>>,
}

/// Index of a document, and JSON pointer.
type Place = (usize, String);

/// A schema with its place in the source.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) schema: Value,
    /// Place among all added documents.
    pub(super) place: Place,
}

/// Referenced schemas in the grammar compiler's form, shared by several schemas.
#[derive(Debug, Default)]
pub(super) struct PreparedSchemas {
    pub(super) definitions: Map<String, Value>,
    /// All schemas, inner ones first; only if requested.
    pub(super) nodes: Option<Vec<Node>>,
    /// Number of named definitions.
    named: usize,
    values: usize,
    /// Documents of previously added schemas.
    documents: usize,
}

impl SchemaFile {
    /// A self-contained schema.
    pub fn alone(label: &str, schema: &Value) -> Self {
        let (text, address) = (schema.to_string().into(), format!("{HOME}part.json"));
        Self {
            label: label.to_owned(),
            text,
            pointer: String::new(),
            address,
            schema: schema.clone(),
            origin: None,
        }
    }

    /// Messages of an operation in a document.
    pub(super) fn for_message(label: &str, text: Arc<str>, message: &Arc<MessageSchema>) -> Self {
        let alone = Self::alone(label, &message.schema);
        Self {
            text,
            origin: Some(Arc::clone(message)),
            ..alone
        }
    }

    pub(super) fn error(&self, pointer: &str, message: String) -> ConstraintError {
        let pointer = match &self.origin {
            Some(message) => message.place(pointer),
            None => format!("{}{pointer}", self.pointer),
        };
        let document = json::parse(&self.text, 0).ok();
        let offset =
            document.and_then(|document| document.root.pointer(&pointer).map(|value| value.start));
        let place = Places::new(&self.text).locate(offset.unwrap_or(0));
        let (label, line, column) = (self.label.to_owned(), place.line, place.column);
        let pointer = if pointer.is_empty() {
            "the whole schema".to_owned()
        } else {
            pointer
        };
        ConstraintError::Schema {
            label,
            line,
            column,
            pointer,
            message,
        }
    }
}

/// State of preparing a schema.
struct Walk<'a, 'r> {
    documents: &'r [SchemaFile],
    assert_formats: bool,
    prepared: &'a mut PreparedSchemas,
    /// Address in memory -> definition name.
    names: HashMap<*const Value, String>,
    /// Named schemas still to be prepared.
    waiting: VecDeque<(String, &'r Value, Resolver<'r>, Draft)>,
    /// Definitions by name, not yet in positive form.
    definitions: Map<String, Value>,
    /// Places of keywords that need positive form.
    places: Vec<Place>,
    /// First reference to each definition.
    references: Vec<(String, Place)>,
}

/// An object of keywords.
struct Object<'o, 'r> {
    members: &'o Map<String, Value>,
    resolver: &'o Resolver<'r>,
    draft: Draft,
    place: Place,
}

impl Object<'_, '_> {
    fn at(&self, key: &str) -> Place {
        inside(&self.place, key)
    }
}

/// Replacement of an object's keywords for the grammar compiler.
#[derive(Default)]
struct Written {
    plain: Map<String, Value>,
    combining: Map<String, Value>,
    /// Schemas that also apply.
    also: Vec<Value>,
}

impl Written {
    /// The compiler reads keywords in order, combining ones last.
    fn ordered(mut self) -> Map<String, Value> {
        if !self.also.is_empty() {
            let all = self.combining.entry("allOf").or_insert_with(|| json!([]));
            if let Some(branches) = all.as_array_mut() {
                branches.append(&mut self.also);
            }
        }
        name_keys(&mut self.plain);
        self.plain.extend(self.combining);
        self.plain
    }
}

impl PreparedSchemas {
    /// Records every schema with its place.
    pub(super) fn with_nodes() -> Self {
        Self {
            nodes: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// Adds the first document; references lead to it and the others.
    ///
    /// # Errors
    /// [`ConstraintError`] with file, place and keyword.
    pub(super) fn add(
        &mut self,
        documents: &[SchemaFile],
        assert_formats: bool,
    ) -> Result<Value, ConstraintError> {
        let mut documents = documents.to_vec();
        documents
            .iter_mut()
            .for_each(|document| encode_references(&mut document.schema));
        let [root, ..] = documents.as_slice() else {
            return Ok(Value::Bool(true));
        };
        let fault = |error: referencing::Error| root.error("", error.to_string());
        let draft = Draft::default().detect(&root.schema);
        let resources = documents
            .iter()
            .map(|document| (document.address.as_str(), &document.schema));
        let registry = Registry::new()
            .draft(draft)
            .extend(resources)
            .and_then(|builder| builder.prepare())
            .map_err(fault)?;
        let base = referencing::uri::from_str(&root.address).map_err(fault)?;
        let resolver = registry.resolver(base);
        let first_node = self.nodes.as_ref().map_or(0, Vec::len);
        let mut walk = Walk {
            documents: &documents,
            assert_formats,
            prepared: self,
            names: HashMap::new(),
            waiting: VecDeque::new(),
            definitions: Map::new(),
            places: Vec::new(),
            references: Vec::new(),
        };
        let schema = walk.schema(&root.schema, &resolver, draft, (0, String::new()))?;
        while let Some((name, value, resolver, draft)) = walk.waiting.pop_front() {
            let place = walk.place_of(value);
            let schema = walk.resolved((value, draft.detect(value)), &resolver, place)?;
            walk.definitions.insert(name, schema);
        }
        let (definitions, places, references) = (walk.definitions, walk.places, walk.references);
        let is_circle = |(name, _): &&(String, _)| {
            Schemas {
                definitions: &definitions,
            }
            .leads_back(name)
        };
        if let Some((_, (document, pointer))) = references.iter().find(is_circle) {
            let message = "`$ref` cannot be enforced while decoding: it leads back to itself without a property or an item between: remove it";
            return Err(documents[*document].error(pointer, message.to_owned()));
        }
        let refused = |refusal: Refusal| {
            let (document, pointer) = places.get(refusal.place).cloned().unwrap_or_default();
            documents[document].error(&pointer, refusal.message)
        };
        let positive = Positive::new(&definitions);
        let mut schema = positive.schema(&schema, &[]).map_err(refused)?;
        let mut said = Map::new();
        for (name, definition) in &definitions {
            said.insert(
                name.clone(),
                positive.schema(definition, &[]).map_err(refused)?,
            );
        }
        narrow_bounds(said.values_mut().chain([&mut schema]));
        self.definitions.append(&mut said);
        self.documents += documents.len();
        for node in self.nodes.iter_mut().flatten().skip(first_node) {
            // What has no positive form alone needs its context, which is not examined here.
            node.schema = Positive::new(&definitions)
                .schema(&node.schema, &[])
                .unwrap_or(Value::Bool(true));
            narrow_bounds(std::iter::once(&mut node.schema));
        }
        Ok(schema)
    }
}

impl<'r> Walk<'_, 'r> {
    fn refuse(&self, (document, pointer): &Place, message: String) -> ConstraintError {
        self.documents[*document].error(pointer, message)
    }

    fn checked<T>(&self, at: &Place, result: Result<T, String>) -> Result<T, ConstraintError> {
        result.map_err(|message| self.refuse(at, message))
    }

    /// Source place of a referenced schema.
    fn place_of(&self, value: &Value) -> Place {
        let find = |(index, document): (usize, &SchemaFile)| {
            pointer_to(&document.schema, value).map(|pointer| (index, pointer))
        };
        self.documents
            .iter()
            .enumerate()
            .find_map(find)
            .unwrap_or_default()
    }

    fn schema(
        &mut self,
        value: &Value,
        resolver: &Resolver<'r>,
        draft: Draft,
        place: Place,
    ) -> Result<Value, ConstraintError> {
        self.prepared.values += 1;
        if self.prepared.values > MAX_VALUES {
            return Err(self.refuse(
                &place,
                format!(
                    "a schema of more than {MAX_VALUES} schemas cannot be enforced while decoding"
                ),
            ));
        }
        let draft = draft.detect(value);
        let resolver = resolver
            .in_subresource(draft.create_resource_ref(value))
            .map_err(|error| self.refuse(&place, error.to_string()))?;
        self.resolved((value, draft), &resolver, place)
    }

    /// A schema whose base address is already resolved.
    fn resolved(
        &mut self,
        (value, draft): (&Value, Draft),
        resolver: &Resolver<'r>,
        place: Place,
    ) -> Result<Value, ConstraintError> {
        let Some(members) = value.as_object() else {
            return Ok(value.clone());
        };
        let object = Object {
            members,
            resolver,
            draft,
            place,
        };
        let mut written = Written::default();
        let known = known_draft(draft);
        // Until draft 7, siblings of `$ref` are ignored.
        let is_alone = known <= KnownDraft::D7 && members.contains_key("$ref");
        for (key, inner) in members {
            let has_effect =
                |keyword: &Keyword| keyword.since <= known && keyword.constrains(known);
            let is_read = if is_alone {
                key == "$ref"
            } else {
                key != "additionalItems"
            };
            if is_read && Keyword::named(key).is_some_and(has_effect) {
                self.keyword((key, inner), &object, &mut written)?;
            }
        }
        let schema = Value::Object(written.ordered());
        let first = self.prepared.documents;
        if let Some(nodes) = &mut self.prepared.nodes {
            let (document, pointer) = object.place;
            nodes.push(Node {
                schema: schema.clone(),
                place: (first + document, pointer),
            });
        }
        Ok(schema)
    }

    /// Translates one keyword of an object for the grammar compiler.
    fn keyword(
        &mut self,
        (key, inner): (&str, &Value),
        object: &Object<'_, 'r>,
        written: &mut Written,
    ) -> Result<(), ConstraintError> {
        let (members, at) = (object.members, object.at(key));
        let checked = |result: Result<(), String>| self.checked(&at, result);
        let copied = match key {
            "type" if types_named(inner) == 0 => {
                let message = format!("`type` = {inner} names no type of JSON Schema");
                return Err(self.refuse(&at, message));
            }
            "type" | "minItems" | "maxItems" | "minLength" | "maxLength" | "maxProperties" => {
                whole(inner)
            }
            "minProperties" => {
                checked(check_least(members, inner))?;
                whole(inner)
            }
            "required" => {
                checked(required(members).try_for_each(check_name))?;
                inner.clone()
            }
            // Until draft 4 a boolean makes the other bound exclusive.
            "exclusiveMinimum" | "exclusiveMaximum" if inner.is_boolean() => {
                let other = ["minimum", "maximum"][usize::from(key == "exclusiveMaximum")];
                match members.get(other).filter(|_| *inner == Value::Bool(true)) {
                    Some(bound) => bound.clone(),
                    None => return Ok(()),
                }
            }
            "minimum" | "maximum" | "multipleOf" | "exclusiveMinimum" | "exclusiveMaximum" => {
                checked(check_data(inner))?;
                inner.clone()
            }
            "pattern" => {
                let pattern = written_pattern(inner.as_str().unwrap_or_default());
                self.checked(&at, pattern)?.into()
            }
            "properties" | "patternProperties" => self.properties((key, inner), object)?,
            "additionalProperties" => self.schema_in(inner, object, at)?,
            "items" if inner.is_array() => return self.tuple(inner, object, written),
            "items" => self.schema_in(inner, object, at)?,
            "prefixItems" => self.schemas(inner, object, &at)?,
            _ => return self.combining((key, inner), object, written),
        };
        written.plain.insert(key.to_owned(), copied);
        Ok(())
    }

    /// As [`Self::keyword`], for keywords that apply schemas to the same value or name values.
    fn combining(
        &mut self,
        (key, inner): (&str, &Value),
        object: &Object<'_, 'r>,
        written: &mut Written,
    ) -> Result<(), ConstraintError> {
        let (members, at) = (object.members, object.at(key));
        let combined = match key {
            "enum" | "const" => {
                self.checked(&at, check_data(inner))?;
                inner.clone()
            }
            "allOf" | "anyOf" => self.schemas(inner, object, &at)?,
            "oneOf" => {
                let branches = self.schemas(inner, object, &at)?;
                self.marked(at, branches)
            }
            "not" => {
                let inner = self.schema_in(inner, object, at.clone())?;
                self.marked(at, json!([inner]))
            }
            "if" if !is_without_effect(key, inner, members) => {
                let mut parts = vec![self.schema_in(inner, object, at.clone())?];
                for keyword in ["then", "else"] {
                    let part = members.get(keyword);
                    let part = part.map(|part| self.schema_in(part, object, object.at(keyword)));
                    parts.push(part.unwrap_or(Ok(Value::Bool(true)))?);
                }
                self.marked(at, parts.into())
            }
            "uniqueItems" if *inner == Value::Bool(true) => self.marked(at, json!([])),
            "$ref" => self.reference(inner, object, at)?,
            "dependencies" | "dependentRequired" | "dependentSchemas" => {
                return self.dependencies(inner, object, at, written);
            }
            // Alone on its value, it sees the same properties as `additionalProperties`.
            "unevaluatedProperties"
                if !members.keys().any(|key| APPLIED.contains(&key.as_str())) =>
            {
                let schema = self.schema_in(inner, object, at)?;
                if !members.contains_key("additionalProperties") {
                    let plain = &mut written.plain;
                    plain.insert("additionalProperties".to_owned(), schema);
                }
                return Ok(());
            }
            "format" if self.assert_formats => {
                let is_constant = members.contains_key("const") || members.contains_key("enum");
                let pattern = checked_format(inner.as_str().unwrap_or_default(), is_constant);
                let pattern = self.checked(&at, pattern)?;
                let also = pattern.map(|pattern| json!({"pattern": pattern}));
                written.also.extend(also);
                return Ok(());
            }
            "format" | "then" | "else" => return Ok(()),
            _ if is_without_effect(key, inner, members) => return Ok(()),
            _ => return Err(self.refuse(&at, unenforced(key))),
        };
        written.combining.insert(key.to_owned(), combined);
        Ok(())
    }

    fn properties(
        &mut self,
        (key, inner): (&str, &Value),
        object: &Object<'_, 'r>,
    ) -> Result<Value, ConstraintError> {
        let (at, is_named) = (object.at(key), key == "properties");
        if is_named {
            self.checked(&at, check_optional(object.members, inner))?;
        }
        let mut named = Map::new();
        for (name, schema) in inner.as_object().into_iter().flatten() {
            let at = inside(&at, name);
            self.checked(&at, check_name(name))?;
            let written = if is_named {
                Ok(name.clone())
            } else {
                written_pattern(name)
            };
            let written = self.checked(&at, written)?;
            named.insert(written, self.schema_in(schema, object, at)?);
        }
        Ok(named.into())
    }

    /// `items` as a list of schemas, with `additionalItems`.
    fn tuple(
        &mut self,
        items: &Value,
        object: &Object<'_, 'r>,
        written: &mut Written,
    ) -> Result<(), ConstraintError> {
        let items = self.schemas(items, object, &object.at("items"))?;
        written.plain.insert("prefixItems".to_owned(), items);
        if let Some(rest) = object.members.get("additionalItems") {
            let rest = self.schema_in(rest, object, object.at("additionalItems"))?;
            written.plain.insert("items".to_owned(), rest);
        }
        Ok(())
    }

    /// Writes each dependency as: the property is missing, or what it depends on holds.
    fn dependencies(
        &mut self,
        inner: &Value,
        object: &Object<'_, 'r>,
        at: Place,
        written: &mut Written,
    ) -> Result<(), ConstraintError> {
        for (name, needed) in inner.as_object().into_iter().flatten() {
            let with = if let Value::Array(names) = needed {
                let others = names.iter().filter(|needed| *needed != name).cloned();
                let names: Vec<Value> = std::iter::once(json!(name)).chain(others).collect();
                json!({"required": names})
            } else {
                let needed = self.schema_in(needed, object, inside(&at, name))?;
                json!({"required": [name], "allOf": [needed]})
            };
            let also = json!({"anyOf": [{"properties": {name: false}}, with]});
            written.also.push(also);
        }
        Ok(())
    }

    fn reference(
        &mut self,
        inner: &Value,
        object: &Object<'_, 'r>,
        at: Place,
    ) -> Result<Value, ConstraintError> {
        let reference = inner.as_str().unwrap_or_default();
        let missing = |_| format!("`$ref` target not found: {}", decode_path(reference));
        let found = object.resolver.lookup(reference).map_err(missing);
        let (target, resolver, draft) = self.checked(&at, found)?.into_inner();
        let name = self.name(target, resolver, draft, at);
        Ok(format!("#/$defs/{name}").into())
    }

    /// A schema within an object.
    fn schema_in(
        &mut self,
        value: &Value,
        object: &Object<'_, 'r>,
        at: Place,
    ) -> Result<Value, ConstraintError> {
        self.schema(value, object.resolver, object.draft, at)
    }

    /// Schemas of a list; empty if it is not a list.
    fn schemas(
        &mut self,
        list: &Value,
        object: &Object<'_, 'r>,
        at: &Place,
    ) -> Result<Value, ConstraintError> {
        let list = list.as_array().into_iter().flatten().enumerate();
        list.map(|(index, schema)| self.schema_in(schema, object, inside(at, &index.to_string())))
            .collect()
    }

    /// Marks a keyword's schemas with their place for later conversion to positive form.
    fn marked(&mut self, at: Place, parts: Value) -> Value {
        self.places.push(at);
        let parts = parts.as_array().map(Vec::as_slice).unwrap_or_default();
        std::iter::once(json!(self.places.len() - 1))
            .chain(parts.iter().cloned())
            .collect()
    }

    /// Definition name of a referenced schema.
    fn name(
        &mut self,
        target: &'r Value,
        resolver: Resolver<'r>,
        draft: Draft,
        at: Place,
    ) -> String {
        if let Some(name) = self.names.get(&std::ptr::from_ref(target)) {
            return name.clone();
        }
        let name = format!("d{}", self.prepared.named);
        self.prepared.named += 1;
        self.names.insert(std::ptr::from_ref(target), name.clone());
        self.references.push((name.clone(), at));
        self.waiting
            .push_back((name.clone(), target, resolver, draft));
        name
    }
}

/// Keywords whose schemas apply to the same value.
const APPLIED: [&str; 11] = [
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
];

fn is_without_effect(key: &str, inner: &Value, members: &Map<String, Value>) -> bool {
    let is_empty =
        |value: &Value| value.as_object().is_some_and(Map::is_empty) || *value == Value::Bool(true);
    match key {
        "uniqueItems" => *inner == Value::Bool(false),
        "if" => !members.contains_key("then") && !members.contains_key("else"),
        "minContains" | "maxContains" => !members.contains_key("contains"),
        "unevaluatedProperties" | "unevaluatedItems" | "propertyNames" => is_empty(inner),
        _ => false,
    }
}

/// The compiler does not treat 3.0 as an integer.
fn whole(value: &Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && (0.0..=EXACT).contains(&number) => {
            json!(number as u64)
        }
        _ => value.clone(),
    }
}

fn known_draft(draft: Draft) -> KnownDraft {
    match draft {
        Draft::Draft4 => KnownDraft::D4,
        Draft::Draft6 => KnownDraft::D6,
        Draft::Draft7 => KnownDraft::D7,
        Draft::Draft201909 => KnownDraft::D2019,
        _ => KnownDraft::D2020,
    }
}

fn inside((document, pointer): &Place, key: &str) -> Place {
    (*document, format!("{pointer}/{}", escaped(key)))
}

/// JSON pointer to a contained value, by its address in memory.
fn pointer_to(within: &Value, wanted: &Value) -> Option<String> {
    if std::ptr::eq(within, wanted) {
        return Some(String::new());
    }
    let inside = |(key, value): (String, &Value)| {
        pointer_to(value, wanted).map(|rest| format!("/{key}{rest}"))
    };
    match within {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| (index.to_string(), item))
            .find_map(inside),
        Value::Object(members) => members
            .iter()
            .map(|(key, member)| (escaped(key), member))
            .find_map(inside),
        _ => None,
    }
}
