//! A JSON value with its places in the text.

use std::borrow::Cow;

use crate::json_number::Number;

/// A JSON value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Value<'t> {
    /// Byte offset of the value's first character.
    pub start: usize,
    /// Byte offset just after the value.
    pub end: usize,
    pub kind: Kind<'t>,
}

/// The six kinds of JSON values (`true` and `false` are one).
#[derive(Debug, Clone, PartialEq)]
pub enum Kind<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as written, of any magnitude.
    Number(Number<'t>),
    /// A string, its escapes resolved.
    String(Cow<'t, str>),
    /// The items in order.
    Array(Vec<Value<'t>>),
    /// The members, each key once.
    Object(Object<'t>),
}

/// The members of an object in the order written. Of equal keys the last one counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'t> {
    pub(super) members: Vec<Member<'t>>,
    /// Positions of the members by key, kept only where searching one by one would be slow.
    pub(super) by_key: Vec<u32>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Member<'t> {
    /// The key, its escapes resolved.
    pub key: Cow<'t, str>,
    /// Byte offset of the key's opening quote.
    pub key_start: usize,
    pub value: Value<'t>,
}

/// Objects with more members than this are searched by a sorted index.
pub(super) const SMALL_OBJECT: usize = 16;

impl<'t> Object<'t> {
    /// All members, in the order written.
    pub fn members(&self) -> &[Member<'t>] {
        &self.members
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
    /// The value that a JSON pointer (RFC 6901) names, if there is one.
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

    /// The members, when this is an object.
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
