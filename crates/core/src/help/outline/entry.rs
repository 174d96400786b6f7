//! A line of an outline, with its place in the definition's text.

use crate::score::json::{self, Kind, Place, Places};

/// One line of an outline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutlineEntry {
    /// How deep it is nested.
    pub depth: usize,
    /// The name of a field, function, table or key, or what the line is about.
    pub name: String,
    /// Whether the field must be there; `None` where the line is not a field.
    pub required: Option<bool>,
    /// Its type or accepted values.
    pub text: String,
    /// Line and column, both from 1, in the text of the definition.
    pub place: Option<(usize, usize)>,
    /// More about it, in lines.
    pub details: Vec<String>,
}

/// A line of an outline, before its place is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    /// How deep it is nested; the whole answer is 0.
    pub depth: usize,
    /// The field's name, or what the line is about.
    pub name: String,
    /// Whether the field must be there; `None` where the line is not a field.
    pub required: Option<bool>,
    /// The accepted values.
    pub text: String,
    /// JSON pointer into the schema, to where the line is defined.
    pub pointer: String,
}

/// Finds the place of each JSON pointer: that of the key, where the value has one.
pub(super) fn placed(text: &str, lines: Vec<Accepted>) -> Vec<OutlineEntry> {
    let document = json::parse(text, 0).ok();
    let mut places = Places::new(text);
    let offset = |pointer: &str| {
        let root = &document.as_ref()?.root;
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        match &root.pointer(parent)?.kind {
            Kind::Object(object) if !pointer.is_empty() => object
                .get(&key.replace("~1", "/").replace("~0", "~"))
                .map(|member| member.key_start),
            _ => root.pointer(pointer).map(|value| value.start),
        }
    };
    let entry = |line: Accepted| {
        let place = offset(&line.pointer).map(|offset| places.locate(offset));
        let Accepted {
            depth,
            name,
            required,
            text,
            ..
        } = line;
        let place = place.map(|Place { line, column }| (line, column));
        OutlineEntry {
            depth,
            name,
            required,
            text,
            place,
            details: Vec::new(),
        }
    };
    lines.into_iter().map(entry).collect()
}
