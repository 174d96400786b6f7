//! A JSON value with positions.

use std::borrow::Cow;

use crate::json_number::Number;

#[derive(Debug, Clone, PartialEq)]
pub struct Value<'t> {
    /// Byte offset of the first character.
    pub start: usize,
    /// Byte offset after the last character.
    pub end: usize,
    pub kind: Kind<'t>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind<'t> {
    Null,
    Bool(bool),
    /// A number as written, of any magnitude.
    Number(Number<'t>),
    /// Unescaped.
    String(Cow<'t, str>),
    Array(Vec<Value<'t>>),
    Object(Object<'t>),
}

/// Members in the order written. Of equal keys the last counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'t> {
    pub(super) members: Vec<Member<'t>>,
    /// Indices of members sorted by key; empty for small objects.
    pub(super) by_key: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Member<'t> {
    /// Unescaped.
    pub key: Cow<'t, str>,
    /// Byte offset of the opening quote.
    pub key_start: usize,
    pub value: Value<'t>,
}

/// Larger objects are searched by a sorted index.
pub(super) const SMALL_OBJECT: usize = 16;

impl<'t> Object<'t> {
    /// Members in the order written.
    pub fn members(&self) -> &[Member<'t>] {
        &self.members
    }

    /// Members in the order written.
    pub fn into_members(self) -> Vec<Member<'t>> {
        self.members
    }

    pub fn get(&self, key: &str) -> Option<&Member<'t>> {
        if self.by_key.is_empty() {
            return self.members.iter().find(|member| member.key == key);
        }
        let at = |position: &u32| self.members.get(*position as usize);
        let found = self
            .by_key
            .binary_search_by(|position| at(position).map_or("", |member| &member.key).cmp(key))
            .ok()?;
        self.by_key.get(found).and_then(at)
    }
}

impl Value<'_> {
    /// Resolves a JSON pointer (RFC 6901).
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        let mut value = self;
        for token in pointer.split('/').skip(1) {
            value = match &value.kind {
                Kind::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                Kind::Object(object) if token.contains('~') => {
                    &object
                        .get(&token.replace("~1", "/").replace("~0", "~"))?
                        .value
                }
                Kind::Object(object) => &object.get(token)?.value,
                _ => return None,
            };
        }
        Some(value)
    }

    pub fn as_object(&self) -> Option<&Object<'_>> {
        match &self.kind {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    /// `null`, `boolean`, `number`, `string`, `array` or `object`.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "boolean",
            Kind::Number(_) => "number",
            Kind::String(_) => "string",
            Kind::Array(_) => "array",
            Kind::Object(_) => "object",
        }
    }
}
