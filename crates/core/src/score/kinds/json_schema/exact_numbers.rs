//! Numeric keywords with exact values: the validator's own round both sides to 64 bits.

use std::cmp::Ordering;

use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

use super::instance::{Completion, equals};
use super::schema_rewrite::DATA;
use crate::exact_json::{self, marked_number};
use crate::json_number::Number;
use crate::schema_keywords::visit_mut;
use crate::score::answer::json;

pub(super) const BOUNDS: [&str; 5] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
pub(super) const VALUES: [&str; 2] = ["const", "enum"];
/// Prefix of a bound's literal, kept if the bound itself is rounded.
pub(crate) const LITERAL: &str = "$exact ";
/// Significant digits of a divisor: ten times a remainder must fit 128 bits.
const MAX_DIVISOR_DIGITS: usize = 37;

type Rule = Box<dyn for<'i> Keyword<'i, Completion>>;

/// Parses a schema: rounds bounds, keeping their literals; marks allowed values like
/// [`exact_json`].
pub(crate) fn parse(text: &str) -> serde_json::Result<Value> {
    let mut schema = exact_json::parse(text)?;
    round(&mut schema);
    Ok(schema)
}

fn round(schema: &mut Value) {
    visit_mut(schema, &mut |members| {
        let mut literals = Vec::new();
        for (key, inner) in members.iter_mut() {
            let Some(number) = marked_number(inner).filter(|_| !DATA.contains(&key.as_str()))
            else {
                continue;
            };
            let literal = number.text().to_owned();
            *inner = serde_json::from_str(&literal).unwrap_or_default();
            if BOUNDS.contains(&key.as_str()) {
                literals.push((format!("{LITERAL}{key}"), literal.into()));
            }
        }
        members.extend(literals);
    });
}

/// Whether allowed values contain numbers that the validator cannot represent.
pub(super) fn has_exact_values(schema: &Value) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(has_exact_values),
        Value::Object(members) => {
            marked_number(schema).is_some() || members.values().any(has_exact_values)
        }
        _ => false,
    }
}

pub(super) fn bound<'a>(
    keyword: &'static str,
    schema: &'a Map<String, Value>,
    value: &'a Value,
) -> Result<Rule, ValidationError<'a>> {
    let literal = schema.get(&format!("{LITERAL}{keyword}"));
    let limit = match literal.and_then(Value::as_str) {
        Some(literal) => literal.to_owned(),
        None => value.to_string(),
    };
    let strict = |other: &str| schema.get(other) == Some(&Value::Bool(true));
    let relation = match keyword {
        // In draft 4 it modifies the bound next to it.
        _ if value.is_boolean() => Relation::Any,
        "minimum" if strict("exclusiveMinimum") => Relation::Above,
        "maximum" if strict("exclusiveMaximum") => Relation::Below,
        "minimum" => Relation::AtLeast,
        "maximum" => Relation::AtMost,
        "exclusiveMinimum" => Relation::Above,
        "exclusiveMaximum" => Relation::Below,
        _ if Number::new(&limit).digit_count() > MAX_DIVISOR_DIGITS => {
            return Err(ValidationError::custom(format!(
                "multipleOf takes at most {MAX_DIVISOR_DIGITS} digits"
            )));
        }
        _ => Relation::MultipleOf,
    };
    Ok(Box::new(Bound { relation, limit }))
}

#[derive(Clone, Copy)]
enum Relation {
    AtLeast,
    AtMost,
    Above,
    Below,
    MultipleOf,
    Any,
}

struct Bound {
    relation: Relation,
    limit: String,
}

impl Bound {
    fn holds(&self, value: &json::Value<'_>) -> bool {
        let json::Kind::Number(number) = &value.kind else {
            return true;
        };
        let limit = Number::new(&self.limit);
        let order = || number.compare(&limit);
        match self.relation {
            Relation::AtLeast => order() != Ordering::Less,
            Relation::AtMost => order() != Ordering::Greater,
            Relation::Above => order() == Ordering::Greater,
            Relation::Below => order() == Ordering::Less,
            Relation::MultipleOf => number.is_multiple_of(&limit),
            Relation::Any => true,
        }
    }
}

impl<'i> Keyword<'i, Completion> for Bound {
    /// The error is a predicate whose subject is the value.
    fn validate(&self, value: &'i json::Value<'i>) -> Result<(), ValidationError<'i>> {
        let what = match self.relation {
            _ if self.holds(value) => return Ok(()),
            Relation::AtLeast | Relation::Any => "less than the minimum of",
            Relation::AtMost => "greater than the maximum of",
            Relation::Above => "less than or equal to the minimum of",
            Relation::Below => "greater than or equal to the maximum of",
            Relation::MultipleOf => "not a multiple of",
        };
        Err(ValidationError::custom(format!("is {what} {}", self.limit)))
    }

    fn is_valid(&self, value: &'i json::Value<'i>) -> bool {
        super::budget::step();
        self.holds(value)
    }
}

pub(super) fn allowed(keyword: &'static str, value: &Value) -> Rule {
    let values = match value {
        Value::Array(values) if keyword == "enum" => values.clone(),
        value => vec![value.clone()],
    };
    let one_of = if keyword == "enum" { "one of " } else { "" };
    let expected = format!("expected {one_of}{}", exact_json::write(value));
    Box::new(Allowed { values, expected })
}

struct Allowed {
    values: Vec<Value>,
    expected: String,
}

impl<'i> Keyword<'i, Completion> for Allowed {
    /// The error is the sentence up to the value.
    fn validate(&self, value: &'i json::Value<'i>) -> Result<(), ValidationError<'i>> {
        if Keyword::is_valid(self, value) {
            return Ok(());
        }
        Err(ValidationError::custom(self.expected.clone()))
    }

    fn is_valid(&self, value: &'i json::Value<'i>) -> bool {
        self.values.iter().any(|allowed| equals(value, allowed))
    }
}
