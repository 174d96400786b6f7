//! A line of an outline and its position in the definition.

use crate::score::json::{self, Kind, Place, Places};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutlineEntry {
    pub depth: usize,
    /// Name of a field, function, table or key, or a topic.
    pub name: String,
    /// `None` if the line is not a field.
    pub required: Option<bool>,
    pub text: String,
    /// Line and column in the definition, from 1.
    pub place: Option<(usize, usize)>,
    /// Further lines.
    pub details: Vec<String>,
}

/// An outline line before its position is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Nesting level; the whole answer is 0.
    pub depth: usize,
    pub name: String,
    /// `None` if the line is not a field.
    pub required: Option<bool>,
    pub text: String,
    /// JSON pointer to its definition in the schema.
    pub pointer: String,
}

/// Resolves JSON pointers to positions: that of the key, if the value has one.
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
