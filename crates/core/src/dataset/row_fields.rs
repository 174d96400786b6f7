//! The fields of a row as text, and those that are asked for by name as values.

use serde_json::{Map, Value};

use crate::exact_json;

/// What [`super::row::PromptRow`] has of its own.
const TYPED: [&str; 4] = ["id", "messages", "expected", "tags"];

/// The fields of a row: values of those that a [`super::row::PromptRow`] does not have itself, and the whole row as text. As
/// values it would take ten times the memory.
#[derive(Clone, Debug)]
pub struct RowFields {
    other: Map<String, Value>,
    text: Box<str>,
}

impl RowFields {
    /// Of a line that was parsed.
    pub(super) fn new(text: &str, fields: Map<String, Value>) -> Self {
        // What is collected has no room for what is left out.
        let other = fields
            .into_iter()
            .filter(|(name, _)| !TYPED.contains(&name.as_str()));
        Self {
            other: other.collect(),
            text: text.into(),
        }
    }

    /// A field other than `id`, `messages`, `expected` and `tags`; see [`Self::value`].
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.other.get(name)
    }

    /// Any field, as the row's line has it.
    pub fn value(&self, name: &str) -> Option<Value> {
        if TYPED.contains(&name) {
            self.whole().swap_remove(name)
        } else {
            self.get(name).cloned()
        }
    }

    /// All but `id`, `messages`, `expected` and `tags`.
    pub fn other(&self) -> &Map<String, Value> {
        &self.other
    }

    /// The whole row.
    pub fn whole(&self) -> Map<String, Value> {
        match exact_json::parse(&self.text) {
            Ok(Value::Object(fields)) => fields,
            // It was parsed when the row was read.
            _ => Map::new(),
        }
    }

    /// The whole row as JSON.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the row is known by its values alone: none was read or written.
    pub fn is_empty(&self) -> bool {
        *self.text == *"{}"
    }

    /// Sets a field.
    pub fn insert(&mut self, name: &str, value: Value) {
        let mut fields = self.whole();
        fields.insert(name.to_owned(), value);
        *self = fields.into();
    }
}

impl From<Map<String, Value>> for RowFields {
    fn from(fields: Map<String, Value>) -> Self {
        Self::new(&exact_json::write(&fields), fields)
    }
}

impl Default for RowFields {
    fn default() -> Self {
        Map::new().into()
    }
}

impl PartialEq for RowFields {
    /// However the lines are spaced.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text || self.whole() == other.whole()
    }
}
