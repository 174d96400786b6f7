//! Fields of an answer by its schemas: which exist, and what they may hold.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::score::definition::{Definition, Grammar};
use crate::score::kinds::http_request::message_schema::message_schemas;
use crate::task::{functions, referenced_part};

/// Limit of nested references and combinations.
const MAX_DEPTH: usize = 12;
/// Schemas read for one field: a recursive one has no end.
const MAX_READ: usize = 2_000;
/// Names collected for messages.
const MAX_NAMES: usize = 1_000;

/// Schemas of whole answers, or of function arguments.
#[derive(Debug, Default)]
pub(in crate::score) struct Fields {
    schemas: Vec<(Option<String>, Value)>,
}

#[derive(Debug, Default)]
pub(in crate::score) struct FieldForm {
    pub(in crate::score) listed: Vec<Value>,
    pub(super) is_boolean: bool,
    pub(super) is_number: bool,
    pub(super) is_date: bool,
    pub(super) patterns: Vec<regex::Regex>,
    /// Free text, or anything.
    pub(super) is_text: bool,
    read: usize,
}

impl Fields {
    /// `None` for kinds with non-JSON answers.
    pub(in crate::score) fn new(definition: &dyn Definition) -> Option<Self> {
        let schemas = match (definition.schema(), definition.grammar()) {
            (Some(schema), _) => vec![(None, schema.value.clone())],
            (_, Some(Grammar::ToolCalls(rules))) => {
                return Some(rules.tools.as_ref().map(Self::of_tools).unwrap_or_default());
            }
            (_, Some(Grammar::HttpMessage(rules))) => message_schemas(rules, false)
                .into_iter()
                .map(|message| (None, message.schema))
                .collect(),
            _ => return None,
        };
        Some(Self { schemas })
    }

    pub(in crate::score) fn of_schema(schema: Value) -> Self {
        Self {
            schemas: vec![(None, schema)],
        }
    }

    /// Reads tools in OpenAI's schema.
    pub(super) fn of_tools(tools: &Value) -> Self {
        let functions = functions(tools).unwrap_or_default().into_iter();
        let named = |function: crate::task::Function<'_>| {
            (
                Some(function.name.to_owned()),
                function.parameters.cloned().unwrap_or_default(),
            )
        };
        Self {
            schemas: functions.map(named).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.schemas.is_empty()
    }

    pub(super) fn has(&self, path: &[String]) -> bool {
        !self.described(path).is_empty()
    }

    /// `None` if no schema describes the field.
    pub(in crate::score) fn form(&self, path: &[String]) -> Option<FieldForm> {
        let found = self.described(path);
        let mut form = FieldForm::default();
        for (root, schema) in &found {
            form.add(root, schema, 0);
        }
        (!found.is_empty()).then_some(form)
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (name, schema) in &self.schemas {
            collect(
                schema,
                schema,
                name.as_deref().unwrap_or_default(),
                0,
                &mut names,
            );
        }
        names
    }

    fn described(&self, path: &[String]) -> Vec<(&Value, &Value)> {
        let mut found = Vec::new();
        for (name, root) in &self.schemas {
            let path = match name {
                Some(name) if path.first() == Some(name) => &path[1..],
                Some(_) => continue,
                None => path,
            };
            let mut schemas = alternatives(root, root, 0);
            for key in path {
                schemas = schemas
                    .into_iter()
                    .flat_map(|schema| members(root, schema, key))
                    .collect();
            }
            found.extend(schemas.into_iter().map(|schema| (root, schema)));
        }
        found
    }
}

impl FieldForm {
    fn add(&mut self, root: &Value, schema: &Value, depth: usize) {
        self.read += 1;
        if self.read > MAX_READ {
            return;
        }
        let own = |key: &str| schema.get(key);
        if let Some(value) = own("const") {
            return self.listed.push(value.clone());
        }
        if let Some(values) = own("enum").and_then(Value::as_array) {
            return self.listed.extend(values.iter().cloned());
        }
        let types = own("type");
        let named = types.map(|types| {
            types
                .as_array()
                .map_or(std::slice::from_ref(types), Vec::as_slice)
        });
        let names = named
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null");
        let names: Vec<&str> = names.collect();
        let is_combined = ["$ref", "anyOf", "oneOf", "allOf"]
            .iter()
            .any(|key| own(key).is_some());
        for name in &names {
            match *name {
                "boolean" => self.is_boolean = true,
                "number" | "integer" => self.is_number = true,
                "string" => self.add_text(schema),
                _ if depth < MAX_DEPTH => self.add_inner(root, schema, depth),
                _ => {}
            }
        }
        let is_structure = own("properties").is_some() || own("items").is_some();
        match types {
            None if is_structure && depth < MAX_DEPTH => self.add_inner(root, schema, depth),
            None if !is_combined && !is_structure => self.add_text(schema),
            _ => {}
        }
    }

    fn add_text(&mut self, schema: &Value) {
        let format = schema.get("format").and_then(Value::as_str);
        let pattern = schema
            .get("pattern")
            .and_then(Value::as_str)
            .and_then(|text| regex::Regex::new(text).ok());
        match (format, pattern) {
            (Some("date" | "date-time"), _) => self.is_date = true,
            (_, Some(pattern)) => self.patterns.push(pattern),
            _ => self.is_text = true,
        }
    }

    fn add_inner(&mut self, root: &Value, schema: &Value, depth: usize) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let items = [schema.get("items"), schema.get("additionalProperties")]
            .into_iter()
            .flatten();
        for inner in properties
            .into_iter()
            .flat_map(|members| members.values())
            .chain(items)
            .filter(|it| it.is_object())
        {
            alternatives(root, inner, depth)
                .into_iter()
                .for_each(|inner| self.add(root, inner, depth + 1));
        }
    }
}

/// A schema with those it refers to or combines.
fn alternatives<'s>(root: &'s Value, schema: &'s Value, depth: usize) -> Vec<&'s Value> {
    let mut found = vec![schema];
    if depth < MAX_DEPTH {
        let target = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|address| referenced_part(root, address));
        let combined = ["allOf", "anyOf", "oneOf"]
            .into_iter()
            .filter_map(|key| schema.get(key)?.as_array())
            .flatten();
        let branches = ["then", "else"]
            .into_iter()
            .filter_map(|key| schema.get(key));
        for other in target.into_iter().chain(combined).chain(branches) {
            found.extend(alternatives(root, other, depth + 1));
        }
        // List items share the list's path.
        let items = schema.get("items").filter(|items| items.is_object());
        let prefix = schema
            .get("prefixItems")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for item in items.into_iter().chain(prefix) {
            found.extend(alternatives(root, item, depth + 1));
        }
    }
    found
}

fn members<'s>(root: &'s Value, schema: &'s Value, key: &str) -> Vec<&'s Value> {
    let own = schema
        .get("properties")
        .and_then(|properties| properties.get(key));
    let other = schema
        .get("additionalProperties")
        .filter(|other| own.is_none() && other.is_object());
    own.or(other)
        .map_or_else(Vec::new, |member| alternatives(root, member, 0))
}

fn collect(root: &Value, schema: &Value, name: &str, depth: usize, names: &mut BTreeSet<String>) {
    for schema in alternatives(root, schema, 0) {
        for (key, inner) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let name = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            if names.len() < MAX_NAMES && names.insert(name.clone()) && depth < MAX_DEPTH {
                collect(root, inner, &name, depth + 1, names);
            }
        }
    }
}
