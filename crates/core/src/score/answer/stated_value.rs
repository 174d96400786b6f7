//! Values stated by a JSON answer: its leaves with field and position.

use super::json::{Kind, Value};
use crate::task::escaped;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StatedValue {
    /// Keys from the root; list items share the list's path.
    pub(crate) path: Vec<String>,
    /// JSON pointer from the same root.
    pub(crate) pointer: String,
    /// Byte offset in the completion.
    pub(crate) at: usize,
    pub(crate) leaf: Leaf,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Leaf {
    /// `null`, `""`, `[]` or `{}`.
    Nothing,
    Boolean,
    /// Canonical text, shared by equal numbers.
    Number(String),
    Text(String),
}

/// Adds the leaves of a value. `locate` maps its offsets to the completion.
pub(crate) fn state(
    value: &Value<'_>,
    (path, pointer): (&[String], &str),
    locate: &mut dyn FnMut(usize) -> usize,
    found: &mut Vec<StatedValue>,
) {
    let leaf = match &value.kind {
        Kind::Object(object) if !object.members().is_empty() => {
            for member in object.members() {
                let path = [path, &[member.key.to_string()]].concat();
                state(
                    &member.value,
                    (&path, &format!("{pointer}/{}", escaped(&member.key))),
                    locate,
                    found,
                );
            }
            return;
        }
        Kind::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                state(item, (path, &format!("{pointer}/{index}")), locate, found);
            }
            return;
        }
        Kind::String(text) if !text.trim().is_empty() => Leaf::Text(text.to_string()),
        Kind::Null | Kind::String(_) | Kind::Array(_) | Kind::Object(_) => Leaf::Nothing,
        Kind::Bool(_) => Leaf::Boolean,
        Kind::Number(number) => {
            let mut canonical = String::new();
            number.write_canonical(&mut canonical);
            Leaf::Number(canonical)
        }
    };
    found.push(StatedValue {
        path: path.to_vec(),
        pointer: pointer.to_owned(),
        at: locate(value.start),
        leaf,
    });
}
