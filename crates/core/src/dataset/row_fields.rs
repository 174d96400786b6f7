//! A row's fields as text, with selected ones parsed.

use serde_json::{Map, Value};

use crate::exact_json;

/// Typed members of [`super::row::PromptRow`].
const TYPED: [&str; 4] = ["id", "messages", "expected", "tags"];

/// A row as text, with the values of fields that [`super::row::PromptRow`] lacks. Parsed as a whole
/// it would take ten times the memory.
#[derive(Clone, Debug)]
pub struct RowFields {
    other: Map<String, Value>,
    text: Box<str>,
}

impl RowFields {
    pub(super) fn new(text: &str, fields: Map<String, Value>) -> Self {
        // Collecting leaves no spare capacity.
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

    pub fn value(&self, name: &str) -> Option<Value> {
        if TYPED.contains(&name) {
            self.whole().swap_remove(name)
        } else {
            self.get(name).cloned()
        }
    }

    pub fn other(&self) -> &Map<String, Value> {
        &self.other
    }

    pub fn whole(&self) -> Map<String, Value> {
        match exact_json::parse(&self.text) {
            Ok(Value::Object(fields)) => fields,
            // It was parsed when the row was read.
            _ => Map::new(),
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has no text: the row was neither read nor written.
    pub fn is_empty(&self) -> bool {
        *self.text == *"{}"
    }

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
    /// Ignores spacing.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text || self.whole() == other.whole()
    }
}
