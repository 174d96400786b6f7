//! A JSON Schema in one piece, of keywords that can be enforced while decoding: what cannot be is named with its place.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jsonschema_regex::to_rust_regex;
use referencing::{Draft, Registry, Resolver};
use regex_syntax::hir::{Hir, HirKind};
use serde_json::{Map, Value, json};

use super::ConstraintError;
use super::bounds::{BESIDE, Bounds};
use super::formats::pattern_of_format;
use crate::score::json::{self, Places};
use crate::score::{Draft as KnownDraft, Keyword, MessageSchema};

/// Base address of files of a task.
pub(super) const HOME: &str = "task:///";

/// Values that a schema with all that it refers to may have.
const MOST_VALUES: usize = 50_000;
/// Properties in a row that need not stand: each may be the next key, and the parser's work for a token grows with the
/// square of their number. [`vocabulary`](super::vocabulary) has the limits that go with it.
const MOST_OPTIONAL: usize = 1_000;
/// A double tells whole numbers apart up to here.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A file with a schema.
#[derive(Clone, Debug)]
pub struct SchemaFile {
    /// For people.
    pub label: String,
    pub text: Arc<str>,
    /// JSON pointer to the schema in the text.
    pub pointer: String,
    /// That references name.
    pub address: String,
    pub schema: Value,
    /// Of a part of an OpenAPI document: where its schemas stand there.
    pub(super) origin: Option<Arc<MessageSchema>>,
}

/// A schema that names a place of its source.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) schema: Value,
    /// In the documents of all that were added, and a JSON pointer.
    pub(super) place: (usize, String),
}

/// What schemas refer to, as the grammar's compiler takes it; several schemas share it.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) definitions: Map<String, Value>,
    /// Every schema, those within others first; only where asked for.
    pub(super) nodes: Option<Vec<Node>>,
    /// Definitions that have a name.
    named: usize,
    values: usize,
    /// Documents of the schemas that were added before.
    documents: usize,
}

impl SchemaFile {
    /// A schema that refers to no other file.
    pub fn alone(label: &str, schema: &Value) -> Self {
        let (text, address) = (schema.to_string().into(), format!("{HOME}part.json"));
        Self { label: label.to_owned(), text, pointer: String::new(), address, schema: schema.clone(), origin: None }
    }

    /// The messages of an operation of a document.
    pub(super) fn of_message(label: &str, text: Arc<str>, message: &Arc<MessageSchema>) -> Self {
        let alone = Self::alone(label, &message.schema);
        Self { text, origin: Some(Arc::clone(message)), ..alone }
    }

    pub(super) fn error(&self, pointer: &str, message: String) -> ConstraintError {
        let pointer = match &self.origin {
            Some(message) => message.place(pointer),
            None => format!("{}{pointer}", self.pointer),
        };
        let document = json::parse(&self.text, 0).ok();
        let offset = document.and_then(|document| document.root.pointer(&pointer).map(|value| value.start));
        let place = Places::new(&self.text).of(offset.unwrap_or(0));
        let (label, line, column) = (self.label.to_owned(), place.line, place.column);
        let pointer = if pointer.is_empty() { "the whole schema".to_owned() } else { pointer };
        ConstraintError::Schema { label, line, column, pointer, message }
    }
}

/// A schema that is being prepared.
struct Walk<'a, 'r> {
    bounds: Bounds,
    /// Places of excluded bounds that are replaced by [`BESIDE`] them.
    moved: HashSet<(usize, String)>,
    documents: &'r [SchemaFile],
    assert_formats: bool,
    prepared: &'a mut Prepared,
    /// Address in memory -> name in the definitions.
    names: HashMap<*const Value, String>,
    /// Names whose schemas are not prepared yet.
    waiting: VecDeque<(String, &'r Value, Resolver<'r>, Draft)>,
}

impl Prepared {
    /// That notes every schema with its place.
    pub(super) fn with_nodes() -> Self {
        Self { nodes: Some(Vec::new()), ..Self::default() }
    }

    /// Adds the first of the documents; references lead to it and to the others.
    ///
    /// # Errors
    /// [`ConstraintError`] naming file, place and keyword.
    pub(super) fn add(&mut self, documents: &[SchemaFile], assert_formats: bool) -> Result<Value, ConstraintError> {
        let [root, ..] = documents else { return Ok(Value::Bool(true)) };
        let fault = |error: referencing::Error| root.error("", error.to_string());
        let draft = Draft::default().detect(&root.schema);
        let resources = documents.iter().map(|document| (document.address.as_str(), &document.schema));
        let registry =
            Registry::new().draft(draft).extend(resources).and_then(|builder| builder.prepare()).map_err(fault)?;
        let base = referencing::uri::from_str(&root.address).map_err(fault)?;
        let resolver = registry.resolver(base);
        let (named, values, nodes) = (self.named, self.values, self.nodes.as_ref().map_or(0, Vec::len));
        let mut moved = HashSet::new();
        loop {
            let is_again = !moved.is_empty();
            let mut walk = Walk {
                bounds: Bounds::default(),
                moved: std::mem::take(&mut moved),
                documents,
                assert_formats,
                prepared: self,
                names: HashMap::new(),
                waiting: VecDeque::new(),
            };
            let schema = walk.schema(&root.schema, &resolver, draft, (0, String::new()))?;
            while let Some((name, value, resolver, draft)) = walk.waiting.pop_front() {
                let place = walk.place_of(value);
                let schema = walk.schema(value, &resolver, draft, place)?;
                walk.prepared.definitions.insert(name, schema);
            }
            moved = walk.bounds.faults();
            if is_again || moved.is_empty() {
                self.documents += documents.len();
                return Ok(schema);
            }
            (self.named, self.values) = (named, values);
            self.nodes.iter_mut().for_each(|found| found.truncate(nodes));
        }
    }
}

impl<'r> Walk<'_, 'r> {
    fn refuse(&self, (document, pointer): &(usize, String), message: String) -> ConstraintError {
        self.documents[*document].error(pointer, message)
    }

    /// Where a schema that was referred to is written.
    fn place_of(&self, value: &Value) -> (usize, String) {
        let find = |(index, document): (usize, &SchemaFile)| {
            pointer_to(&document.schema, value).map(|pointer| (index, pointer))
        };
        self.documents.iter().enumerate().find_map(find).unwrap_or_default()
    }

    fn schema(
        &mut self,
        value: &Value,
        resolver: &Resolver<'r>,
        draft: Draft,
        place: (usize, String),
    ) -> Result<Value, ConstraintError> {
        self.prepared.values += 1;
        if self.prepared.values > MOST_VALUES {
            return Err(self.refuse(
                &place,
                format!("a schema of more than {MOST_VALUES} schemas cannot be enforced while decoding"),
            ));
        }
        let Some(members) = value.as_object() else { return Ok(value.clone()) };
        let draft = draft.detect(value);
        let known = known_draft(draft);
        let resolver = resolver
            .in_subresource(draft.create_resource_ref(value))
            .map_err(|error| self.refuse(&place, error.to_string()))?;
        let (mut plain, mut combining) = (Map::new(), Map::new());
        // Schemas that apply as well.
        let mut others = Vec::new();
        // Until draft 7 keywords beside a reference have no effect.
        let alone = known <= KnownDraft::D7 && members.contains_key("$ref");
        for (key, inner) in members.iter().filter(|(key, _)| !alone || *key == "$ref") {
            let is_silent = |keyword: &Keyword| keyword.since > known || !keyword.constrains(known);
            // `items` takes its `additionalItems` with it.
            if key == "additionalItems" || Keyword::named(key).is_none_or(is_silent) {
                continue;
            }
            let at = (place.0, format!("{}/{}", place.1, escaped(key)));
            match key.as_str() {
                "type" | "required" | "minItems" | "maxItems" | "minLength" | "maxLength" | "maxProperties" => {
                    plain.insert(key.clone(), whole(inner));
                }
                "minProperties" => {
                    self.check_least(members, inner, &at)?;
                    plain.insert(key.clone(), whole(inner));
                }
                "minimum" | "maximum" | "multipleOf" | "exclusiveMinimum" | "exclusiveMaximum" => {
                    self.check_data(inner, &at)?;
                    // Until draft 4 it says that the other one is excluded.
                    let other = if key == "exclusiveMinimum" { "minimum" } else { "maximum" };
                    let own = if *inner == Value::Bool(true) { members.get(other) } else { Some(inner) };
                    let is_whole = members.get("type").is_some_and(|kind| kind == "integer");
                    if let Some(bound) = own.and_then(Value::as_f64).filter(|_| !is_whole && key != "multipleOf") {
                        self.bounds.note(key, bound, &at);
                        if self.moved.contains(&at) {
                            let is_least = key == "exclusiveMinimum";
                            let moved = if is_least { bound + BESIDE } else { bound - BESIDE };
                            others.push(if is_least { json!({"minimum": moved}) } else { json!({"maximum": moved}) });
                            continue;
                        }
                    }
                    plain.insert(key.clone(), inner.clone());
                }
                "pattern" => {
                    plain.insert(key.clone(), self.pattern(inner.as_str().unwrap_or_default(), &at)?.into());
                }
                "format" if self.assert_formats => {
                    others.extend(self.format(inner, &at)?.map(|pattern| json!({"pattern": pattern})));
                }
                "properties" | "patternProperties" => {
                    if key == "properties" {
                        self.check_optional(members, inner, &at)?;
                    }
                    let mut named = Map::new();
                    for (name, schema) in inner.as_object().into_iter().flatten() {
                        let at = (at.0, format!("{}/{}", at.1, escaped(name)));
                        let written = if key == "properties" { name.clone() } else { self.pattern(name, &at)? };
                        named.insert(written, self.schema(schema, &resolver, draft, at)?);
                    }
                    plain.insert(key.clone(), named.into());
                }
                "additionalProperties" => {
                    plain.insert(key.clone(), self.schema(inner, &resolver, draft, at)?);
                }
                // Without keywords that apply to the same value they see the same properties.
                "unevaluatedProperties" if !members.keys().any(|key| APPLIED.contains(&key.as_str())) => {
                    let beside = members.contains_key("additionalProperties");
                    let schema = self.schema(inner, &resolver, draft, at)?;
                    if !beside {
                        plain.insert("additionalProperties".to_owned(), schema);
                    }
                }
                "items" => match inner {
                    Value::Array(items) => {
                        plain.insert("prefixItems".to_owned(), self.schemas(items, &resolver, draft, &at)?);
                        if let Some(rest) = members.get("additionalItems") {
                            let at = (place.0, format!("{}/additionalItems", place.1));
                            plain.insert("items".to_owned(), self.schema(rest, &resolver, draft, at)?);
                        }
                    }
                    _ => drop(plain.insert(key.clone(), self.schema(inner, &resolver, draft, at)?)),
                },
                "prefixItems" => {
                    let items = inner.as_array().map(Vec::as_slice).unwrap_or_default();
                    plain.insert(key.clone(), self.schemas(items, &resolver, draft, &at)?);
                }
                "allOf" | "anyOf" | "oneOf" => {
                    let branches = inner.as_array().map(Vec::as_slice).unwrap_or_default();
                    combining.insert(key.clone(), self.schemas(branches, &resolver, draft, &at)?);
                }
                "enum" | "const" => {
                    self.check_data(inner, &at)?;
                    combining.insert(key.clone(), inner.clone());
                }
                "$ref" => {
                    let reference = inner.as_str().unwrap_or_default();
                    let found = resolver.lookup(reference).map_err(|error| self.refuse(&at, error.to_string()))?;
                    let (target, resolver, draft) = found.into_inner();
                    combining.insert(key.clone(), format!("#/$defs/{}", self.name(target, resolver, draft)).into());
                }
                "format" => {}
                _ if is_without_effect(key, inner, members) => {}
                _ => return Err(self.refuse(&at, unenforced(key))),
            }
        }
        if !others.is_empty() {
            let own = combining.entry("allOf").or_insert_with(|| json!([]));
            if let Some(branches) = own.as_array_mut() {
                branches.append(&mut others);
            }
        }
        // The compiler reads keywords in order, and those that combine must find the others before them.
        plain.extend(combining);
        let schema = Value::Object(plain);
        let first = self.prepared.documents;
        if let Some(nodes) = &mut self.prepared.nodes {
            nodes.push(Node { schema: schema.clone(), place: (first + place.0, place.1) });
        }
        Ok(schema)
    }

    fn schemas(
        &mut self,
        list: &[Value],
        resolver: &Resolver<'r>,
        draft: Draft,
        at: &(usize, String),
    ) -> Result<Value, ConstraintError> {
        let one = |(index, schema)| self.schema(schema, resolver, draft, (at.0, format!("{}/{index}", at.1)));
        list.iter().enumerate().map(one).collect()
    }

    /// The definition of a schema that is referred to.
    fn name(&mut self, target: &'r Value, resolver: Resolver<'r>, draft: Draft) -> String {
        if let Some(name) = self.names.get(&std::ptr::from_ref(target)) {
            return name.clone();
        }
        let name = format!("d{}", self.prepared.named);
        self.prepared.named += 1;
        self.names.insert(std::ptr::from_ref(target), name.clone());
        self.waiting.push_back((name.clone(), target, resolver, draft));
        name
    }

    /// The pattern with ECMA 262's classes written out, as the validator reads it.
    fn pattern(&self, pattern: &str, at: &(usize, String)) -> Result<String, ConstraintError> {
        let refuse = |advice: &str| {
            self.refuse(
                at,
                format!("the pattern {pattern:?} cannot be enforced while decoding: rewrite it without {advice}"),
            )
        };
        let pattern = to_rust_regex(pattern).map_err(|()| refuse("look-around and back-references"))?;
        if regex_syntax::parse(&pattern).is_ok_and(|hir| has_unwritten_text(&hir)) {
            return Err(refuse("control characters"));
        }
        Ok(pattern.into_owned())
    }

    /// The pattern of a format that the validator checks; nothing for one that it does not know.
    fn format(&self, name: &Value, at: &(usize, String)) -> Result<Option<&'static str>, ConstraintError> {
        let name = name.as_str().unwrap_or_default();
        if !crate::score::FORMATS.iter().any(|known| known.0 == name) {
            return Ok(None);
        }
        let found = pattern_of_format(name);
        found.map(Some).ok_or_else(|| self.refuse(at, format!("format {name:?} cannot be enforced while decoding: write a `pattern`, or set assert_formats = false")))
    }

    /// A key that may stand twice counts once, so properties without names cannot be counted while they are written.
    fn check_least(
        &self,
        members: &Map<String, Value>,
        least: &Value,
        at: &(usize, String),
    ) -> Result<(), ConstraintError> {
        let required = members.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        let is_open = members.contains_key("patternProperties")
            || members.get("additionalProperties").is_none_or(|schema| *schema != Value::Bool(false));
        let least = least.as_f64().unwrap_or_default();
        if is_open && least > required as f64 + 1.0 {
            return Err(self.refuse(at, unenforced("minProperties")));
        }
        Ok(())
    }

    fn check_optional(
        &self,
        members: &Map<String, Value>,
        properties: &Value,
        at: &(usize, String),
    ) -> Result<(), ConstraintError> {
        let required = members.get("required").and_then(Value::as_array).into_iter().flatten();
        let required: HashSet<&str> = required.filter_map(Value::as_str).collect();
        let (mut run, mut longest) = (0, 0);
        for name in properties.as_object().into_iter().flatten().map(|(name, _)| name.as_str()) {
            run = if required.contains(name) { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        match longest {
            0..=MOST_OPTIONAL => Ok(()),
            _ => Err(self.refuse(
                at,
                format!("{longest} optional properties in a row cannot be enforced while decoding, at most {MOST_OPTIONAL} can: require some between them, or group them in objects"),
            )),
        }
    }

    /// Numbers that doubles tell apart, and characters that strings can have without `\u`.
    fn check_data(&self, value: &Value, at: &(usize, String)) -> Result<(), ConstraintError> {
        match value {
            Value::Number(number) if number.as_f64().is_none_or(|number| number.abs() >= EXACT) => {
                Err(self.refuse(at, format!("{number} cannot be enforced while decoding: numbers up to 2^53 can")))
            }
            Value::String(text) if text.bytes().any(is_unwritten) => {
                Err(self.refuse(at, format!("{value} cannot be enforced while decoding: it has a control character")))
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.check_data(item, at)),
            Value::Object(members) => members.values().try_for_each(|member| self.check_data(member, at)),
            _ => Ok(()),
        }
    }
}

/// Whether JSON can write a byte of a string only with `\u`.
fn is_unwritten(byte: u8) -> bool {
    byte == 0x7F || byte < 0x20 && !b"\n\r\t\x08\x0C".contains(&byte)
}

/// Whether a text of a pattern has such a byte: the compiler would leave it out.
fn has_unwritten_text(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.iter().copied().any(is_unwritten),
        HirKind::Capture(group) => has_unwritten_text(&group.sub),
        HirKind::Repetition(repeated) => has_unwritten_text(&repeated.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(has_unwritten_text),
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => false,
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
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty) || *value == Value::Bool(true);
    match key {
        "uniqueItems" => *inner == Value::Bool(false),
        "then" | "else" => !members.contains_key("if"),
        "if" => !members.contains_key("then") && !members.contains_key("else"),
        "minContains" | "maxContains" => !members.contains_key("contains"),
        "unevaluatedProperties" | "unevaluatedItems" | "propertyNames" => is_empty(inner),
        "dependentRequired" | "dependentSchemas" | "dependencies" => inner.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

pub(super) fn unenforced(keyword: &str) -> String {
    format!("`{keyword}` cannot be enforced while decoding: remove it, or sample without a constraint")
}

/// The compiler takes 3.0 for no whole number.
fn whole(value: &Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && (0.0..=EXACT).contains(&number) => json!(number as u64),
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

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// JSON pointer to a value within another, by its address in memory.
fn pointer_to(within: &Value, wanted: &Value) -> Option<String> {
    if std::ptr::eq(within, wanted) {
        return Some(String::new());
    }
    let inside = |(key, value): (String, &Value)| pointer_to(value, wanted).map(|rest| format!("/{key}{rest}"));
    match within {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).find_map(inside),
        Value::Object(members) => members.iter().map(|(key, member)| (escaped(key), member)).find_map(inside),
        _ => None,
    }
}
