//! Several right values and values that may be missing, in a row's `expected`: `{"$any": [...]}`,
//! `{"$optional": ...}`, and `{"$value": ...}` for a value that would read as one of these.

use serde_json::{Map, Value};

const ANY: &str = "$any";
const OPTIONAL: &str = "$optional";
const VALUE: &str = "$value";

/// What a value of `expected` says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expectation<'e> {
    /// One of these.
    Any(&'e [Value]),
    /// A field that may be missing.
    Optional(&'e Value),
    /// This value, which is none of the forms itself; its items and members may be.
    Plain(&'e Value),
}

impl<'e> Expectation<'e> {
    pub(super) fn of(expected: &'e Value) -> Self {
        match only_member(expected) {
            Some((ANY, Value::Array(values))) => Self::Any(values),
            Some((OPTIONAL, value)) => Self::Optional(value),
            Some((VALUE, value)) => Self::Plain(value),
            _ => Self::Plain(expected),
        }
    }

    /// In words: `"km" or "kilometers"`.
    pub(super) fn describe(expected: &'e Value) -> String {
        match Self::of(expected) {
            Self::Any(values) => values.iter().map(Self::describe).collect::<Vec<_>>().join(" or "),
            Self::Optional(value) => format!("{} or none", Self::describe(value)),
            Self::Plain(value) => value.to_string(),
        }
    }
}

fn only_member(value: &Value) -> Option<(&str, &Value)> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.iter().next().map(|(key, value)| (key.as_str(), value))
}

/// The one answer that an `expected` gives: the first of alternatives, without what may be missing.
pub fn target(expected: &Value) -> Value {
    match Expectation::of(expected) {
        Expectation::Any(values) => values.first().map_or(Value::Null, target),
        Expectation::Optional(value) => target(value),
        Expectation::Plain(Value::Array(items)) => items.iter().map(target).collect(),
        Expectation::Plain(Value::Object(members)) => Value::Object(target_members(members)),
        Expectation::Plain(value) => value.clone(),
    }
}

/// [`target`] of an object that is none of the forms itself.
pub(super) fn target_members(members: &Map<String, Value>) -> Map<String, Value> {
    let needed = members.iter().filter(|(_, value)| !matches!(Expectation::of(value), Expectation::Optional(_)));
    needed.map(|(name, value)| (name.clone(), target(value))).collect()
}

/// What is wrong with the alternatives of an `expected`.
pub(super) fn problem(expected: &Value) -> Option<String> {
    match Expectation::of(expected) {
        Expectation::Any([]) => Some(format!("`{ANY}` has no value: write at least one")),
        Expectation::Any(values) => values.iter().find_map(problem),
        Expectation::Optional(_) => Some(format!(
            "`{OPTIONAL}` is for a field or an argument, not for an item, an alternative or a whole answer"
        )),
        Expectation::Plain(Value::Array(items)) => items.iter().find_map(problem),
        Expectation::Plain(value @ Value::Object(members)) => {
            let is_written_so = std::ptr::eq(value, expected);
            let key = [ANY, OPTIONAL, VALUE].into_iter().find(|key| is_written_so && members.contains_key(*key));
            key.map(|key| stray(key, members)).or_else(|| members_problem(members))
        }
        Expectation::Plain(_) => None,
    }
}

/// [`problem`] of an object that is none of the forms itself.
pub(super) fn members_problem(members: &Map<String, Value>) -> Option<String> {
    members.values().find_map(|value| match Expectation::of(value) {
        Expectation::Optional(value) => problem(value),
        _ => problem(value),
    })
}

fn stray(key: &str, members: &Map<String, Value>) -> String {
    match members.get(key) {
        Some(value) if members.len() == 1 => {
            format!("`{key}` takes a list of values, not {}", crate::format::shortened(&value.to_string(), 60))
        }
        _ => format!(
            "`{key}` has other keys beside it: write {{\"{VALUE}\": {{…}}}} around an object that has such a key"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn alternatives_give_one_answer() {
        for (expected, answer) in [
            (json!({"a": 1, "b": [true, null]}), json!({"a": 1, "b": [true, null]})),
            (json!({"any": [1, 2]}), json!({"any": [1, 2]})),
            (json!({"a": {"$any": ["km", "kilometers"]}, "b": {"$optional": 7}}), json!({"a": "km"})),
            (json!([{"$any": [{"x": {"$any": [2, 3]}}, 4]}]), json!([{"x": 2}])),
            (json!({"$any": [{"a": {"$optional": {"$any": [1]}}}, {"b": 1}]}), json!({})),
            (json!({"a": {"$value": {"$any": [1]}}}), json!({"a": {"$any": [1]}})),
        ] {
            assert_eq!((target(&expected), problem(&expected)), (answer, None), "{expected}");
        }
    }

    #[test]
    fn malformed_alternatives_are_named() {
        for (expected, part) in [
            (json!({"a": {"$any": []}}), "`$any` has no value"),
            (json!({"a": {"$any": "km"}}), "`$any` takes a list of values, not \"km\""),
            (json!({"a": {"$any": [1], "b": 2}}), "`$any` has other keys beside it"),
            (json!([{"$optional": 1}]), "`$optional` is for a field"),
            (json!({"a": {"$any": [{"$optional": 1}]}}), "`$optional` is for a field"),
            (json!({"a": {"$optional": {"$optional": 1}}}), "`$optional` is for a field"),
        ] {
            assert!(
                problem(&expected).is_some_and(|found| found.starts_with(part)),
                "{expected}: {:?}",
                problem(&expected)
            );
        }
    }
}
