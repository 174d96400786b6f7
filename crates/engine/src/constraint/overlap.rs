//! Whether schemas are disjoint. True is certain; false may mean unknown.

use std::cell::Cell;

use serde_json::{Map, Value};

use super::formats::is_of_format;

/// Set of value types; integers and fractions are separate.
pub(super) type Types = u8;
pub(super) const STRING: Types = 1;
pub(super) const INTEGER: Types = 2;
pub(super) const FRACTION: Types = 4;
pub(super) const NUMBER: Types = INTEGER | FRACTION;
pub(super) const BOOLEAN: Types = 8;
pub(super) const NULL: Types = 16;
pub(super) const ARRAY: Types = 32;
pub(super) const OBJECT: Types = 64;
pub(super) const ALL: Types = 127;
/// Type names in schemas.
pub(super) const NAMES: [(&str, Types); 7] = [
    ("string", STRING),
    ("number", NUMBER),
    ("integer", INTEGER),
    ("boolean", BOOLEAN),
    ("null", NULL),
    ("array", ARRAY),
    ("object", OBJECT),
];

/// Combinations of alternatives examined per question.
const MAX_STEPS: usize = 2_000;

/// Schemas as in [`PreparedSchemas`](super::schema::PreparedSchemas) before conversion to positive
/// form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schemas<'a> {
    pub(super) definitions: &'a Map<String, Value>,
}

/// Schemas that apply to one value.
#[derive(Clone, Debug, Default)]
pub(super) struct ApplicableSchemas<'a> {
    pub(super) schemas: Vec<&'a Map<String, Value>>,
    /// One schema of each list applies.
    pub(super) choices: Vec<&'a [Value]>,
    /// Whether one of them is `false`.
    is_false: bool,
}

impl<'a> Schemas<'a> {
    pub(super) fn target(&self, reference: &Value) -> Option<&'a Value> {
        self.definitions
            .get(reference.as_str()?.strip_prefix("#/$defs/")?)
    }

    /// Whether a definition refers, possibly indirectly, to itself for the same value.
    pub(super) fn leads_back(&self, name: &str) -> bool {
        let Some(start) = self.definitions.get(name) else {
            return false;
        };
        let (mut seen, mut open) = (Vec::new(), vec![start]);
        while let Some(schema) = open.pop() {
            let Some(members) = schema.as_object() else {
                continue;
            };
            let inside = ["allOf", "anyOf", "oneOf", "not", "if"]
                .iter()
                .flat_map(|keyword| list(members, keyword));
            let target = members
                .get("$ref")
                .and_then(|reference| self.target(reference));
            if target.is_some_and(|target| std::ptr::eq(target, start)) {
                return true;
            }
            let is_new = |target: &&Value| {
                !seen
                    .iter()
                    .any(|known: &&Value| std::ptr::eq(*known, *target))
            };
            let target = target.filter(is_new);
            seen.extend(target);
            open.extend(inside.chain(target));
        }
        false
    }

    /// Whether no value is valid by all schemas.
    pub(super) fn are_disjoint(&self, all: &[&'a Value]) -> bool {
        self.is_empty(&self.applied(all), &Cell::new(MAX_STEPS))
    }

    /// Everything that applies where these schemas do.
    pub(super) fn applied(&self, all: &[&'a Value]) -> ApplicableSchemas<'a> {
        let mut applied = ApplicableSchemas::default();
        all.iter()
            .for_each(|schema| self.apply(schema, &mut applied));
        applied
    }

    fn apply(&self, schema: &'a Value, applied: &mut ApplicableSchemas<'a>) {
        let Some(members) = schema.as_object() else {
            applied.is_false |= *schema == Value::Bool(false);
            return;
        };
        if applied
            .schemas
            .iter()
            .any(|seen| std::ptr::eq(*seen, members))
        {
            return;
        }
        applied.schemas.push(members);
        if let Some(target) = members
            .get("$ref")
            .and_then(|reference| self.target(reference))
        {
            self.apply(target, applied);
        }
        for part in list(members, "allOf") {
            self.apply(part, applied);
        }
        // The first element of `oneOf` is its place.
        let choices = [
            list(members, "anyOf"),
            list(members, "oneOf").get(1..).unwrap_or_default(),
        ];
        applied
            .choices
            .extend(choices.into_iter().filter(|choice| !choice.is_empty()));
    }

    fn is_empty(&self, applied: &ApplicableSchemas<'a>, steps: &Cell<usize>) -> bool {
        let Some(left) = steps.get().checked_sub(1) else {
            return false;
        };
        steps.set(left);
        if applied.is_false || self.takes_nothing(applied, steps) {
            return true;
        }
        let is_empty_with = |index: usize, alternative: &'a Value| {
            let mut more = ApplicableSchemas {
                choices: applied.choices[index + 1..].to_vec(),
                ..applied.clone()
            };
            self.apply(alternative, &mut more);
            self.is_empty(&more, steps)
        };
        let mut choices = applied.choices.iter().enumerate();
        choices.any(|(index, choice)| {
            choice
                .iter()
                .all(|alternative| is_empty_with(index, alternative))
        })
    }

    /// Whether no value is valid, whatever the choices.
    fn takes_nothing(&self, applied: &ApplicableSchemas<'a>, steps: &Cell<usize>) -> bool {
        if let Some(values) = applied.values() {
            return values.is_empty();
        }
        let types = applied.types();
        NAMES
            .iter()
            .filter(|(name, _)| *name != "number")
            .all(|(_, kind)| {
                types & kind == 0
                    || match *kind {
                        OBJECT => self.takes_no_object(applied, steps),
                        ARRAY => self.takes_no_array(applied, steps),
                        STRING => applied.least("minLength") > applied.most("maxLength"),
                        INTEGER => applied.has_no_number(true),
                        _ => false,
                    }
            })
            && (types & FRACTION == 0 || applied.has_no_number(false))
    }

    fn takes_no_object(&self, applied: &ApplicableSchemas<'a>, steps: &Cell<usize>) -> bool {
        let all_required = || {
            let schemas = applied.schemas.iter();
            schemas.flat_map(|members| required(members))
        };
        let is_impossible =
            |name: &str| self.is_empty(&self.applied(&applied.for_property(name)), steps);
        let most = applied.most("maxProperties");
        applied.least("minProperties") > most
            || (most < 1.0 && all_required().next().is_some())
            || all_required().any(is_impossible)
    }

    fn takes_no_array(&self, applied: &ApplicableSchemas<'a>, steps: &Cell<usize>) -> bool {
        let least = applied.least("minItems");
        let known = applied
            .schemas
            .iter()
            .map(|members| list(members, "prefixItems").len())
            .max()
            .unwrap_or(0);
        let is_impossible =
            |index: usize| self.is_empty(&self.applied(&applied.for_item(index)), steps);
        least > applied.most("maxItems")
            || (0..=known)
                .take_while(|index| (*index as f64) < least)
                .any(is_impossible)
    }
}

impl<'a> ApplicableSchemas<'a> {
    /// Possible types of a value.
    pub(super) fn types(&self) -> Types {
        let of_schema =
            |members: &&Map<String, Value>| members.get("type").map_or(ALL, types_named);
        self.schemas
            .iter()
            .map(of_schema)
            .fold(ALL, |all, types| all & types)
    }

    /// Remaining values if constants are named.
    pub(super) fn values(&self) -> Option<Vec<&'a Value>> {
        let mut named = self
            .schemas
            .iter()
            .filter_map(|members| values_named(members));
        let mut values: Vec<&Value> = Vec::new();
        for value in named.next()? {
            if !values.iter().any(|known| same(known, value)) {
                values.push(value);
            }
        }
        values.retain(|value| self.schemas.iter().all(|members| may_take(members, value)));
        Some(values)
    }

    /// Schemas that apply to a property.
    pub(super) fn for_property(&self, name: &str) -> Vec<&'a Value> {
        let mut found = Vec::new();
        for members in &self.schemas {
            let named = members
                .get("properties")
                .and_then(|properties| properties.get(name));
            let mut is_named = named.is_some();
            found.extend(named);
            for (pattern, schema) in entries(members, "patternProperties") {
                let is_match = regex::Regex::new(pattern).map(|pattern| pattern.is_match(name));
                is_named |= is_match.as_ref().map_or(true, |is_match| *is_match);
                found.extend(is_match.is_ok_and(|is_match| is_match).then_some(schema));
            }
            found.extend(members.get("additionalProperties").filter(|_| !is_named));
        }
        found
    }

    /// Schemas that apply to an item.
    pub(super) fn for_item(&self, index: usize) -> Vec<&'a Value> {
        let of_schema = |members: &&'a Map<String, Value>| {
            list(members, "prefixItems")
                .get(index)
                .or_else(|| members.get("items"))
        };
        self.schemas.iter().filter_map(of_schema).collect()
    }

    /// Largest value of a minimum keyword.
    pub(super) fn least(&self, keyword: &str) -> f64 {
        self.numbers(keyword).fold(0.0, f64::max)
    }

    /// Smallest value of a maximum keyword.
    pub(super) fn most(&self, keyword: &str) -> f64 {
        self.numbers(keyword).fold(f64::INFINITY, f64::min)
    }

    fn numbers(&self, keyword: &str) -> impl Iterator<Item = f64> {
        self.schemas
            .iter()
            .filter_map(move |members| members.get(keyword)?.as_f64())
    }

    fn has_no_number(&self, is_whole: bool) -> bool {
        let lowest = self.numbers("minimum").fold(f64::NEG_INFINITY, f64::max);
        let above = self
            .numbers("exclusiveMinimum")
            .fold(f64::NEG_INFINITY, f64::max);
        let (highest, below) = (self.most("maximum"), self.most("exclusiveMaximum"));
        if is_whole {
            return lowest.ceil().max(above.floor() + 1.0)
                > highest.floor().min(below.ceil() - 1.0);
        }
        lowest > highest || lowest >= below || above >= highest || above >= below
    }
}

/// A keyword's list; empty if there is none.
pub(super) fn list<'a>(members: &'a Map<String, Value>, keyword: &str) -> &'a [Value] {
    members
        .get(keyword)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A keyword's named schemas; none if it has no object.
pub(super) fn entries<'a>(
    members: &'a Map<String, Value>,
    keyword: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    let named = members.get(keyword).and_then(Value::as_object);
    named.into_iter().flatten()
}

pub(super) fn required(members: &Map<String, Value>) -> impl Iterator<Item = &str> {
    list(members, "required").iter().filter_map(Value::as_str)
}

pub(super) fn types_named(value: &Value) -> Types {
    let one = |name: &Value| {
        NAMES
            .iter()
            .find(|(known, _)| name == known)
            .map_or(0, |(_, types)| *types)
    };
    match value {
        Value::Array(names) => names.iter().map(one).fold(0, |all, types| all | types),
        name => one(name),
    }
}

pub(super) fn type_of(value: &Value) -> Types {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => {
            INTEGER
        }
        Value::Number(_) => FRACTION,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

/// Values that `const` or `enum` names.
pub(super) fn values_named(members: &Map<String, Value>) -> Option<&[Value]> {
    match (members.get("const"), members.get("enum")) {
        (Some(value), _) => Some(std::slice::from_ref(value)),
        (None, Some(Value::Array(values))) => Some(values),
        _ => None,
    }
}

/// JSON Schema equality: 1 is 1.0.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_in_other = |(key, value): (&String, &Value)| {
                other.get(key).is_some_and(|other| same(value, other))
            };
            one.len() == other.len() && one.iter().all(is_in_other)
        }
        _ => one == other,
    }
}

/// Whether a schema's non-combining keywords may accept a value.
fn may_take(members: &Map<String, Value>, value: &Value) -> bool {
    let number = |keyword: &str| members.get(keyword).and_then(Value::as_f64);
    let is_between = |found: f64, least: &str, most: &str| {
        number(least).is_none_or(|least| least <= found)
            && number(most).is_none_or(|most| found <= most)
    };
    let has_type = members
        .get("type")
        .is_none_or(|types| types_named(types) & type_of(value) != 0);
    let is_named = |list: &[Value]| list.iter().any(|named| same(named, value));
    has_type
        && members.get("const").is_none_or(|named| same(named, value))
        && members
            .get("enum")
            .and_then(Value::as_array)
            .is_none_or(|named| is_named(named))
        && match value {
            Value::String(text) => {
                // A format's pattern is a little weaker than the format.
                let pattern = members
                    .get("pattern")
                    .and_then(Value::as_str)
                    .filter(|pattern| !is_of_format(pattern));
                let pattern = pattern.and_then(|pattern| regex::Regex::new(pattern).ok());
                is_between(text.chars().count() as f64, "minLength", "maxLength")
                    && pattern.is_none_or(|pattern| pattern.is_match(text))
            }
            Value::Number(found) => {
                let found = found.as_f64().unwrap_or_default();
                is_between(found, "minimum", "maximum")
                    && number("exclusiveMinimum").is_none_or(|bound| bound < found)
                    && number("exclusiveMaximum").is_none_or(|bound| found < bound)
            }
            Value::Array(items) => is_between(items.len() as f64, "minItems", "maxItems"),
            Value::Object(found) => {
                is_between(found.len() as f64, "minProperties", "maxProperties")
                    && required(members).all(|name| found.contains_key(name))
            }
            _ => true,
        }
}
