//! Adapts our JSON values to the schema validator: without copies, with exact numbers. Each access
//! is a step of the budget.

use std::borrow::Cow;
use std::collections::HashSet;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object as ObjectNode};

use super::budget::{error, key, step, steps};
use crate::exact_json::marked_number;
use crate::json_number::Number;
use crate::score::answer::json::{Kind, Member, Object, Value};

/// Bytes read in about the time of one access.
const BYTES_PER_STEP: u64 = 64;

#[derive(Debug, Clone, Copy)]
pub(super) struct Completion;

impl Json for Completion {
    type Node<'a> = &'a Value<'a>;
    type PreparedKey = String;
    type StringBuffer = ();
    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(
        _buffer: &mut (),
        string: &str,
        f: impl FnOnce(Self::Node<'_>) -> T,
    ) -> T {
        f(&Value {
            start: 0,
            end: 0,
            kind: Kind::String(Cow::Borrowed(string)),
        })
    }
}

impl<'a> Node<'a, Completion> for &'a Value<'a> {
    type Object = &'a Object<'a>;
    type Array = &'a [Value<'a>];
    type Number = Number<'a>;

    #[inline]
    fn as_object(&self) -> Option<Self::Object> {
        step();
        match &self.kind {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Self::Array> {
        step();
        match &self.kind {
            Kind::Array(items) => Some(items),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        step();
        match &self.kind {
            Kind::String(text) => {
                // Reads the whole text.
                steps(text.len() as u64 / BYTES_PER_STEP);
                Some(Cow::Borrowed(text))
            }
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Number<'a>> {
        step();
        match &self.kind {
            Kind::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        step();
        match &self.kind {
            Kind::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        step();
        matches!(self.kind, Kind::Null)
    }

    #[inline]
    fn is_number(&self) -> bool {
        step();
        matches!(self.kind, Kind::Number(_))
    }

    #[inline]
    fn is_string(&self) -> bool {
        step();
        matches!(self.kind, Kind::String(_))
    }

    #[inline]
    fn json_type(&self) -> JsonType {
        step();
        match self.kind {
            Kind::Null => JsonType::Null,
            Kind::Bool(_) => JsonType::Boolean,
            Kind::Number(_) => JsonType::Number,
            Kind::String(_) => JsonType::String,
            Kind::Array(_) => JsonType::Array,
            Kind::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &serde_json::Value) -> bool {
        equals(self, expected)
    }

    /// Only carried in the validator's errors: nothing is copied, since reasons quote the
    /// completion.
    fn to_value(&self) -> Cow<'a, serde_json::Value> {
        error();
        Cow::Owned(serde_json::Value::Null)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(
            std::ptr::from_ref::<Value<'a>>(self) as usize
        ))
    }
}

/// Iterates in order.
#[derive(Debug)]
pub(super) struct Members<'a>(std::slice::Iter<'a, Member<'a>>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.0.next()?;
        key(member.key.len());
        Some((&*member.key, &member.value))
    }
}

/// Iterates in order.
#[derive(Debug)]
pub(super) struct Elements<'a>(std::slice::Iter<'a, Value<'a>>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        step();
        self.0.next()
    }
}

impl<'a> ObjectNode<'a, Completion> for &'a Object<'a> {
    type Node = &'a Value<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        Object::members(self).len()
    }

    fn get(&self, key: &String) -> Option<Self::Node> {
        step();
        Object::get(self, key).map(|member| &member.value)
    }

    fn members(&self) -> Members<'a> {
        Members(Object::members(self).iter())
    }
}

impl<'a> Array<'a, Completion> for &'a [Value<'a>] {
    type Node = &'a Value<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        <[Value<'a>]>::len(self)
    }

    fn elements(&self) -> Self::ElementsIter {
        Elements(self.iter())
    }

    fn is_unique(&self) -> bool {
        let mut seen = HashSet::with_capacity(<[Value<'a>]>::len(self));
        self.iter().all(|item| {
            let mut canonical = String::new();
            write_canonical(item, &mut canonical);
            seen.insert(canonical)
        })
    }
}

impl JsonNumber for Number<'_> {
    fn as_u64(&self) -> Option<u64> {
        Number::as_u64(self)
    }

    fn as_i64(&self) -> Option<i64> {
        Number::as_i64(self)
    }

    /// `None` beyond the range of floats: the validator then compares by sign, as with infinity.
    fn as_f64(&self) -> Option<f64> {
        Number::as_f64(self)
    }

    fn as_str(&self) -> Cow<'_, str> {
        self.plain()
    }

    fn to_number(&self) -> Cow<'_, serde_json::Number> {
        Cow::Owned(serde_number(self))
    }

    fn is_integer(&self) -> bool {
        Number::is_integer(self)
    }

    fn is_written_as_integer(&self) -> bool {
        Number::is_written_as_integer(self)
    }
}

/// JSON Schema equality: numbers by value, objects in any order.
pub(super) fn equals(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
    use serde_json::Value as Theirs;
    step();
    match (&ours.kind, theirs) {
        (Kind::Null, Theirs::Null) => true,
        (Kind::Bool(left), Theirs::Bool(right)) => left == right,
        (Kind::String(left), Theirs::String(right)) => left == right,
        (Kind::Number(left), Theirs::Number(right)) => left.equals_serde(right),
        (Kind::Number(left), theirs @ Theirs::Object(_)) => {
            marked_number(theirs).is_some_and(|right| left.equals(&right))
        }
        (Kind::Array(left), Theirs::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| equals(left, right))
        }
        (Kind::Object(left), Theirs::Object(right)) => {
            left.members().len() == right.len()
                && left.members().iter().all(|member| {
                    right
                        .get(&*member.key)
                        .is_some_and(|value| equals(&member.value, value))
                })
        }
        _ => false,
    }
}

/// Canonical text, shared exactly by equal values.
fn write_canonical(value: &Value<'_>, text: &mut String) {
    step();
    match &value.kind {
        Kind::Null => text.push('z'),
        Kind::Bool(value) => text.push(if *value { 't' } else { 'f' }),
        Kind::Number(number) => number.write_canonical(text),
        Kind::String(string) => write_string(string, text),
        Kind::Array(items) => {
            text.push('[');
            for item in items {
                write_canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Kind::Object(object) => {
            let mut members: Vec<&Member<'_>> = object.members().iter().collect();
            members.sort_by(|left, right| left.key.cmp(&right.key));
            text.push('{');
            for member in members {
                write_string(&member.key, text);
                write_canonical(&member.value, text);
            }
            text.push('}');
        }
    }
}

/// Length-prefixed, so that content cannot imitate structure.
fn write_string(string: &str, text: &mut String) {
    steps(string.len() as u64 / BYTES_PER_STEP);
    text.push_str(&format!("\"{}:", string.len()));
    text.push_str(string);
}

fn serde_number(number: &Number<'_>) -> serde_json::Number {
    let float = || {
        let value = number
            .as_f64()
            .unwrap_or(if number.text().starts_with('-') {
                f64::MIN
            } else {
                f64::MAX
            });
        serde_json::Number::from_f64(value).unwrap_or_else(|| 0.into())
    };
    number
        .as_u64()
        .map(Into::into)
        .or_else(|| number.as_i64().map(Into::into))
        .unwrap_or_else(float)
}
