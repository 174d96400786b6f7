//! Alternatives and optional values in a row's `expected`: `{"$any": [...]}`, `{"$optional": ...}`,
//! and `{"$value": ...}` for a value that looks like one of these.

use serde_json::{Map, Value};

use crate::exact_json::{self, marked_number};
use crate::json_number::Number;

const ANY: &str = "$any";
const OPTIONAL: &str = "$optional";
const VALUE: &str = "$value";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Expectation<'e> {
    Any(&'e [Value]),
    Optional(&'e Value),
    /// A number that `Value` would round.
    Number(Number<'e>),
    /// A plain value; its items and members may use the forms.
    Plain(&'e Value),
}

impl<'e> Expectation<'e> {
    pub(crate) fn from_value(expected: &'e Value) -> Self {
        if let Some(number) = marked_number(expected) {
            return Self::Number(number);
        }
        match only_member(expected) {
            Some((ANY, Value::Array(values))) => Self::Any(values),
            Some((OPTIONAL, value)) => Self::Optional(value),
            Some((VALUE, value)) => Self::Plain(value),
            _ => Self::Plain(expected),
        }
    }

    /// Words it: `"km" or "kilometers"`.
    pub(crate) fn describe(expected: &'e Value) -> String {
        match Self::from_value(expected) {
            Self::Any(values) => values
                .iter()
                .map(Self::describe)
                .collect::<Vec<_>>()
                .join(" or "),
            Self::Optional(value) => format!("{} or none", Self::describe(value)),
            Self::Number(number) => number.text().to_owned(),
            Self::Plain(value) => exact_json::write(value),
        }
    }
}

fn only_member(value: &Value) -> Option<(&str, &Value)> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members
        .iter()
        .next()
        .map(|(key, value)| (key.as_str(), value))
}

/// The right values; at least one unless `expected` is an empty `$any`.
pub(crate) fn alternatives(expected: &Value) -> Vec<&Value> {
    match Expectation::from_value(expected) {
        Expectation::Any(all) => all.iter().flat_map(alternatives).collect(),
        _ => vec![expected],
    }
}

/// Whether there is a value at a path (`lines.*.amount`), in any alternative.
pub fn has_path(expected: &Value, path: &str) -> bool {
    let below = |rest: &str, value: &Value| match rest.strip_prefix('.') {
        Some(rest) => has_path(value, rest),
        None => rest.is_empty(),
    };
    match Expectation::from_value(expected) {
        Expectation::Any(values) => values.iter().any(|value| has_path(value, path)),
        Expectation::Optional(value) => has_path(value, path),
        Expectation::Number(_) => false,
        Expectation::Plain(Value::Object(members)) => members.iter().any(|(name, value)| {
            path.strip_prefix(name.as_str())
                .is_some_and(|rest| below(rest, value))
        }),
        // `lines.amount` is `lines.*.amount`.
        Expectation::Plain(Value::Array(items)) => match path.strip_prefix('*') {
            Some("") => true,
            Some(rest) => items.iter().any(|item| below(rest, item)),
            None => items.iter().any(|item| has_path(item, path)),
        },
        Expectation::Plain(_) => false,
    }
}

/// A single right answer: first alternatives, without optional values.
pub fn target(expected: &Value) -> Value {
    answer(expected, 0, false)
}

/// [`target`] of an object that is not a form.
pub(crate) fn target_members(members: &Map<String, Value>) -> Map<String, Value> {
    member_answers(members, 0, false)
}

/// Answers that together cover every alternative, with and without optional values.
pub(crate) fn examples(expected: &Value) -> Vec<Value> {
    let full = (0..most_alternatives(expected)).map(|nth| answer(expected, nth, true));
    let mut examples: Vec<Value> = std::iter::once(target(expected)).chain(full).collect();
    examples.dedup();
    examples
}

fn answer(expected: &Value, nth: usize, with_optional: bool) -> Value {
    match Expectation::from_value(expected) {
        Expectation::Any(values) => values
            .get(nth)
            .or(values.last())
            .map_or(Value::Null, |value| answer(value, nth, with_optional)),
        Expectation::Optional(value) => answer(value, nth, with_optional),
        Expectation::Number(_) => expected.clone(),
        Expectation::Plain(Value::Array(items)) => items
            .iter()
            .map(|item| answer(item, nth, with_optional))
            .collect(),
        Expectation::Plain(Value::Object(members)) => {
            Value::Object(member_answers(members, nth, with_optional))
        }
        Expectation::Plain(value) => value.clone(),
    }
}

fn member_answers(
    members: &Map<String, Value>,
    nth: usize,
    with_optional: bool,
) -> Map<String, Value> {
    let is_wanted = |value: &Value| {
        with_optional || !matches!(Expectation::from_value(value), Expectation::Optional(_))
    };
    let wanted = members.iter().filter(|(_, value)| is_wanted(value));
    wanted
        .map(|(name, value)| (name.clone(), answer(value, nth, with_optional)))
        .collect()
}

/// Positive.
fn most_alternatives(expected: &Value) -> usize {
    let most =
        |values: &mut dyn Iterator<Item = &Value>| values.map(most_alternatives).max().unwrap_or(1);
    match Expectation::from_value(expected) {
        Expectation::Any(values) => values.len().max(most(&mut values.iter())),
        Expectation::Optional(value) => most_alternatives(value),
        Expectation::Plain(Value::Array(items)) => most(&mut items.iter()),
        Expectation::Plain(Value::Object(members)) => most(&mut members.values()),
        Expectation::Number(_) | Expectation::Plain(_) => 1,
    }
}

pub(crate) fn problem(expected: &Value) -> Option<String> {
    match Expectation::from_value(expected) {
        Expectation::Any([]) => Some(format!("`{ANY}` has no value: write at least one")),
        Expectation::Any(values) => values.iter().find_map(problem),
        Expectation::Optional(_) => Some(format!(
            "`{OPTIONAL}` is for a field or an argument, not for an item, an alternative or a whole answer"
        )),
        Expectation::Plain(Value::Array(items)) => items.iter().find_map(problem),
        Expectation::Plain(value @ Value::Object(members)) => {
            let is_written_so = std::ptr::eq(value, expected);
            let key = [ANY, OPTIONAL, VALUE]
                .into_iter()
                .find(|key| is_written_so && members.contains_key(*key));
            key.map(|key| stray(key, members))
                .or_else(|| members_problem(members))
        }
        Expectation::Number(_) | Expectation::Plain(_) => None,
    }
}

/// [`problem`] of an object that is not a form.
pub(crate) fn members_problem(members: &Map<String, Value>) -> Option<String> {
    members
        .values()
        .find_map(|value| match Expectation::from_value(value) {
            Expectation::Optional(value) => problem(value),
            _ => problem(value),
        })
}

fn stray(key: &str, members: &Map<String, Value>) -> String {
    match members.get(key) {
        Some(value) if members.len() == 1 => {
            format!(
                "`{key}` takes a list of values, not {}",
                crate::format::shortened(&value.to_string(), 60)
            )
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
            (
                json!({"a": 1, "b": [true, null]}),
                json!({"a": 1, "b": [true, null]}),
            ),
            (json!({"any": [1, 2]}), json!({"any": [1, 2]})),
            (
                json!({"a": {"$any": ["km", "kilometers"]}, "b": {"$optional": 7}}),
                json!({"a": "km"}),
            ),
            (
                json!([{"$any": [{"x": {"$any": [2, 3]}}, 4]}]),
                json!([{"x": 2}]),
            ),
            (
                json!({"$any": [{"a": {"$optional": {"$any": [1]}}}, {"b": 1}]}),
                json!({}),
            ),
            (
                json!({"a": {"$value": {"$any": [1]}}}),
                json!({"a": {"$any": [1]}}),
            ),
        ] {
            assert_eq!(
                (target(&expected), problem(&expected)),
                (answer, None),
                "{expected}"
            );
        }
    }

    #[test]
    fn examples_have_every_alternative() {
        let expected = json!({"a": {"$any": [1, 2]}, "b": {"$optional": true}});
        assert_eq!(
            examples(&expected),
            [
                json!({"a": 1}),
                json!({"a": 1, "b": true}),
                json!({"a": 2, "b": true})
            ]
        );
        assert_eq!(examples(&json!([1])), [json!([1])]);
    }

    #[test]
    fn malformed_alternatives_are_named() {
        for (expected, part) in [
            (json!({"a": {"$any": []}}), "`$any` has no value"),
            (
                json!({"a": {"$any": "km"}}),
                "`$any` takes a list of values, not \"km\"",
            ),
            (
                json!({"a": {"$any": [1], "b": 2}}),
                "`$any` has other keys beside it",
            ),
            (json!([{"$optional": 1}]), "`$optional` is for a field"),
            (
                json!({"a": {"$any": [{"$optional": 1}]}}),
                "`$optional` is for a field",
            ),
            (
                json!({"a": {"$optional": {"$optional": 1}}}),
                "`$optional` is for a field",
            ),
        ] {
            assert!(
                problem(&expected).is_some_and(|found| found.starts_with(part)),
                "{expected}: {:?}",
                problem(&expected)
            );
        }
    }
}
