//! Compares calls with expected ones: number, functions, order, arguments.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::calls::Call;
use crate::dataset::expected::Expectation;
use crate::score::kinds::json_schema::pattern::shorten;
use crate::score::kinds::json_schema::schema::Violation;
use crate::score::verdict::field_compare::compare_members;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::{FailureClass, OrderedMap};
use crate::task::escaped;

/// Entry of `fields`: whether the right functions are called, as often as expected and in order.
const CALLS: &str = "calls";

#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedCall<'e> {
    pub(super) name: &'e str,
    pub(super) arguments: &'e Map<String, Value>,
}

#[derive(Debug)]
pub(super) struct Comparison {
    /// `calls`, and each expected argument as `FUNCTION.ARGUMENT`.
    pub(super) fields: OrderedMap<bool>,
    pub(super) differences: Vec<Violation>,
}

struct Pair {
    call: usize,
    fields: OrderedMap<bool>,
    same: bool,
}

pub(super) fn expected_calls(expected: &Value) -> Option<Vec<ExpectedCall<'_>>> {
    match expected {
        Value::Array(calls) => calls.iter().map(expected_call).collect(),
        call => Some(vec![expected_call(call)?]),
    }
}

fn expected_call(call: &Value) -> Option<ExpectedCall<'_>> {
    let arguments = call.get("arguments")?.as_object()?;
    Some(ExpectedCall {
        name: call.get("name")?.as_str()?,
        arguments,
    })
}

pub(super) fn compare_calls(
    completion: &str,
    calls: &[Call<'_>],
    expected: &[ExpectedCall<'_>],
    in_order: bool,
    rules: &Rules,
) -> Comparison {
    let pairs = pairs(calls, expected, rules);
    let wrong_calls = wrong_calls(completion, calls, expected, &pairs, in_order);
    let mut fields = vec![(CALLS.to_owned(), wrong_calls.is_none())];
    let mut differences: Vec<Violation> = wrong_calls.into_iter().collect();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (wanted, pair) in expected.iter().zip(&pairs) {
        let number = seen
            .entry(wanted.name)
            .and_modify(|number| *number += 1)
            .or_insert(1);
        let name = if *number == 1 {
            wanted.name.to_owned()
        } else {
            format!("{}[{number}]", wanted.name)
        };
        match &pair {
            Some(pair) => fields.extend(
                pair.fields
                    .iter()
                    .map(|(argument, same)| (format!("{name}.{argument}"), *same)),
            ),
            None => {
                fields.extend(needed(wanted).map(|argument| (format!("{name}.{argument}"), false)))
            }
        }
        if let Some(pair) = pair.as_ref().filter(|pair| !pair.same) {
            differences.extend(wrong_arguments(completion, pair, &calls[pair.call], wanted));
        }
    }
    Comparison {
        fields: OrderedMap(fields),
        differences,
    }
}

fn needed<'e>(wanted: &ExpectedCall<'e>) -> impl Iterator<Item = &'e String> {
    let needed =
        |value: &Value| !matches!(Expectation::from_value(value), Expectation::Optional(_));
    wanted
        .arguments
        .iter()
        .filter(move |(_, value)| needed(value))
        .map(|(name, _)| name)
}

/// Matches each expected call with one of the same function: as many with equal arguments as
/// possible, preferring equal positions.
fn pairs(calls: &[Call<'_>], expected: &[ExpectedCall<'_>], rules: &Rules) -> Vec<Option<Pair>> {
    let compared = |call: usize, wanted: &ExpectedCall<'_>| {
        let (fields, same) =
            compare_members(calls[call].arguments.value(), wanted.arguments, rules);
        Pair { call, fields, same }
    };
    let candidates = |place: usize| {
        let here = Some(place).filter(|place| *place < calls.len());
        here.into_iter()
            .chain((0..calls.len()).filter(move |call| *call != place))
    };
    let named = |place: usize| {
        candidates(place).filter(move |call| calls[*call].name == expected[place].name)
    };
    let equal: Vec<Vec<usize>> = (0..expected.len())
        .map(|place| {
            named(place)
                .filter(|call| compared(*call, &expected[place]).same)
                .collect()
        })
        .collect();
    let mut answers: Vec<Option<usize>> = vec![None; calls.len()];
    for place in 0..expected.len() {
        assign(place, &equal, &mut answers, &mut vec![false; calls.len()]);
    }
    let mut pairs: Vec<Option<Pair>> = expected.iter().map(|_| None).collect();
    for (call, place) in answers
        .iter()
        .enumerate()
        .filter_map(|(call, place)| Some((call, (*place)?)))
    {
        pairs[place] = Some(compared(call, &expected[place]));
    }
    for place in 0..expected.len() {
        if pairs[place].is_none()
            && let Some(call) = named(place).find(|call| answers[*call].is_none())
        {
            answers[call] = Some(place);
            pairs[place] = Some(compared(call, &expected[place]));
        }
    }
    pairs
}

/// Augmenting path of the bipartite matching, since one call may match several alternatives: gives
/// the expected call at `place` one of its `equal` calls, moving others if that frees one.
fn assign(
    place: usize,
    equal: &[Vec<usize>],
    answers: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for call in &equal[place] {
        if std::mem::replace(&mut seen[*call], true) {
            continue;
        }
        let is_free = match answers[*call] {
            None => true,
            Some(other) => assign(other, equal, answers, seen),
        };
        if is_free {
            answers[*call] = Some(place);
            return true;
        }
    }
    false
}

/// One sentence on number, functions and order, at the first unexpected call.
fn wrong_calls(
    completion: &str,
    calls: &[Call<'_>],
    expected: &[ExpectedCall<'_>],
    pairs: &[Option<Pair>],
    in_order: bool,
) -> Option<Violation> {
    let of = |message: String, call: usize| Violation {
        message,
        instance_path: format!("/{call}"),
        schema_path: String::new(),
        offset: calls
            .get(call)
            .map_or(completion.len(), |call| call.name_at),
        class: FailureClass::WrongCalls,
    };
    let first_other = || {
        let named = |call: &usize| {
            expected
                .get(*call)
                .is_none_or(|wanted| wanted.name != calls[*call].name)
        };
        (0..calls.len()).find(named).unwrap_or(calls.len())
    };
    if calls.len() != expected.len() {
        let wanted = crate::format::counted(expected.len(), "call");
        return Some(of(
            format!("{wanted} expected, found {}", calls.len()),
            first_other(),
        ));
    }
    if let Some(missing) = pairs.iter().position(Option::is_none) {
        let unused = |call: &usize| !pairs.iter().flatten().any(|pair| pair.call == *call);
        let call = (0..calls.len()).find(unused).unwrap_or(0);
        let (wanted, found) = (shorten(expected[missing].name), shorten(calls[call].name));
        return Some(of(
            format!("expected a call of {wanted}, found {found}"),
            call,
        ));
    }
    let mut order = pairs.iter().flatten().map(|pair| pair.call).enumerate();
    let (place, call) = order.find(|(place, call)| in_order && place != call)?;
    let name = shorten(calls[call].name);
    Some(of(
        format!(
            "wrong order: {name} is expected as call {}, found as call {}",
            place + 1,
            call + 1
        ),
        call,
    ))
}

fn wrong_arguments(
    completion: &str,
    pair: &Pair,
    call: &Call<'_>,
    wanted: &ExpectedCall<'_>,
) -> Vec<Violation> {
    let mut places = call.arguments.places(completion);
    let Some(object) = call.arguments.value().as_object() else {
        return Vec::new();
    };
    let mut of = |argument: &str, message: String, offset: Option<usize>| Violation {
        message: format!("argument {argument:?} of {}: {message}", shorten(call.name)),
        instance_path: format!("/{}/arguments/{}", pair.call, escaped(argument)),
        schema_path: String::new(),
        offset: offset.map_or(call.name_at, |offset| places.locate(offset)),
        class: FailureClass::WrongValue,
    };
    let mut differences = Vec::new();
    let text = call.arguments.text(completion);
    for (argument, _) in pair.fields.iter().filter(|(_, same)| !**same) {
        let value = wanted
            .arguments
            .get(argument)
            .map(Expectation::describe)
            .unwrap_or_default();
        let value = shorten(&value);
        let member = object.get(argument);
        let found = member
            .and_then(|member| text.get(member.value.start..member.value.end))
            .map(shorten);
        let message = match found {
            Some(found) => format!("expected {value}, found {found}"),
            None => format!("missing; expected {value}"),
        };
        differences.push(of(
            argument,
            message,
            member.map(|member| member.value.start),
        ));
    }
    for member in object
        .members()
        .iter()
        .filter(|member| !wanted.arguments.contains_key(&*member.key))
    {
        differences.push(of(
            &member.key,
            "not expected".to_owned(),
            Some(member.key_start),
        ));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::kinds::tool_calls::calls::Answer;
    use crate::task::{Normalisation, Normalisations};

    #[test]
    fn each_difference_is_named_once_at_its_place() {
        let casefold = Normalisations(vec![Normalisation::Casefold]);
        let rules = Rules::of_texts(&casefold);
        let check =
            |found: &str, expected: &str, in_order: bool, fields: &str, differences: &[&str]| {
                let answer = Answer::read(found, 0).unwrap();
                let calls = answer.calls(found).unwrap();
                let expected: Value = serde_json::from_str(expected).unwrap();
                let compared = compare_calls(
                    found,
                    &calls,
                    &expected_calls(&expected).unwrap(),
                    in_order,
                    &rules,
                );
                let shown: Vec<String> = compared
                    .fields
                    .iter()
                    .map(|(name, same)| format!("{}{name}", if *same { "" } else { "!" }))
                    .collect();
                assert_eq!(shown.join(" "), fields, "{found}");
                let shown: Vec<String> = compared
                    .differences
                    .iter()
                    .map(|one| format!("{} {}", one.offset, one.message))
                    .collect();
                assert_eq!(shown, differences, "{found}");
            };
        let f = |arguments: &str| format!(r#"{{"name":"f","arguments":{arguments}}}"#);
        let g = |arguments: &str| format!(r#"{{"name":"g","arguments":{arguments}}}"#);
        let list = |calls: &[String]| format!("[{}]", calls.join(","));
        check(
            &f(r#"{"a":1.0,"day":"MON"}"#),
            &f(r#"{"day":"mon","a":1}"#),
            true,
            "calls f.day f.a",
            &[],
        );
        check(&list(&[f("{}")]), &f("{}"), true, "calls", &[]);
        check(
            &f(r#"{"a":2,"c":3}"#),
            &f(r#"{"a":1,"b":"x"}"#),
            true,
            "calls !f.a !f.b",
            &[
                "29 argument \"a\" of f: expected 1, found 2",
                "8 argument \"b\" of f: missing; expected \"x\"",
                "31 argument \"c\" of f: not expected",
            ],
        );
        // Number, function, order.
        check(
            "[]",
            &f(r#"{"a":1}"#),
            true,
            "!calls !f.a",
            &["2 1 call expected, found 0"],
        );
        check(
            &f("{}"),
            "[]",
            true,
            "!calls",
            &["8 0 calls expected, found 1"],
        );
        check(
            &list(&[f("{}"), g("{}")]),
            &f("{}"),
            true,
            "!calls",
            &["37 1 call expected, found 2"],
        );
        check(
            &g(r#"{"a":1}"#),
            &f(r#"{"a":1}"#),
            true,
            "!calls !f.a",
            &["8 expected a call of f, found g"],
        );
        let (both, turned) = (
            list(&[f(r#"{"a":1}"#), g("{}")]),
            list(&[g("{}"), f(r#"{"a":1}"#)]),
        );
        check(
            &turned,
            &both,
            true,
            "!calls f.a",
            &["37 wrong order: f is expected as call 1, found as call 2"],
        );
        check(&turned, &both, false, "calls f.a", &[]);
        let twice = list(&[f(r#"{"a":1}"#), f(r#"{"a":2}"#)]);
        check(&twice, &twice, true, "calls f.a f[2].a", &[]);
        let turned = list(&[f(r#"{"a":2}"#), f(r#"{"a":1}"#)]);
        check(&turned, &twice, false, "calls f.a f[2].a", &[]);
        check(
            &turned,
            &twice,
            true,
            "!calls f.a f[2].a",
            &["42 wrong order: f is expected as call 1, found as call 2"],
        );
        check(
            &f(r#"{"a":2}"#),
            &twice,
            true,
            "!calls !f.a f[2].a",
            &["32 2 calls expected, found 1"],
        );
        // In a string, positions count escapes as written.
        check(
            r#"{"function":{"name":"f","arguments":"{\"é\":\"\u00e9\",\"a\":2}"}}"#,
            &f(r#"{"é":"é","a":1}"#),
            true,
            "calls f.é !f.a",
            &["62 argument \"a\" of f: expected 1, found 2"],
        );
    }

    #[test]
    fn what_is_expected_is_calls_or_nothing() {
        for (text, count) in [
            (r#"{"name":"f","arguments":{}}"#, Some(1)),
            (
                r#"[{"name":"f","arguments":{}},{"name":"f","arguments":{}}]"#,
                Some(2),
            ),
            ("[]", Some(0)),
            (r#"{"name":"f"}"#, None),
            (r#"{"name":"f","arguments":"{}"}"#, None),
            (r#"[{"name":7,"arguments":{}}]"#, None),
            ("7", None),
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(
                expected_calls(&expected).map(|calls| calls.len()),
                count,
                "{text}"
            );
        }
    }
}
