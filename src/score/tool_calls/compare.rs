//! The calls of a completion against the expected ones: number, functions, order, arguments.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::field_compare::{Normalisation, compare};
use super::super::json_schema::{Violation, shorten};
use super::super::{FailureClass, OrderedMap};
use super::calls::Call;

/// The entry of `fields` that says whether the right functions are called, as often as expected and in order.
const CALLS: &str = "calls";

/// An expected call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'e> {
    name: &'e str,
    /// An object.
    arguments: &'e Value,
}

/// What a comparison finds.
#[derive(Debug)]
pub(super) struct Comparison {
    /// `calls`, and each expected argument as `FUNCTION.ARGUMENT`.
    pub(super) fields: OrderedMap<bool>,
    /// What differs, at its place; nothing where the calls are the expected ones.
    pub(super) differences: Vec<Violation>,
}

/// A call that answers an expected one, and its arguments compared.
struct Pair {
    call: usize,
    fields: OrderedMap<bool>,
    same: bool,
}

/// The calls that a row expects: `{"name", "arguments"}`, or a list of such.
pub(super) fn expected_calls(expected: &Value) -> Option<Vec<Expected<'_>>> {
    match expected {
        Value::Array(calls) => calls.iter().map(expected_call).collect(),
        call => Some(vec![expected_call(call)?]),
    }
}

fn expected_call(call: &Value) -> Option<Expected<'_>> {
    let arguments = call.get("arguments").filter(|arguments| arguments.is_object())?;
    Some(Expected { name: call.get("name")?.as_str()?, arguments })
}

/// Compares calls; `rules` are for arguments of these names.
pub(super) fn compare_calls(
    completion: &str,
    calls: &[Call<'_>],
    expected: &[Expected<'_>],
    in_order: bool,
    rules: &BTreeMap<String, Normalisation>,
) -> Comparison {
    let pairs = pairs(calls, expected, rules);
    let wrong_calls = wrong_calls(completion, calls, expected, &pairs, in_order);
    let mut fields = vec![(CALLS.to_owned(), wrong_calls.is_none())];
    let mut differences: Vec<Violation> = wrong_calls.into_iter().collect();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (wanted, pair) in expected.iter().zip(&pairs) {
        let number = seen.entry(wanted.name).and_modify(|number| *number += 1).or_insert(1);
        let name = if *number == 1 { wanted.name.to_owned() } else { format!("{}[{number}]", wanted.name) };
        let names = wanted.arguments.as_object().into_iter().flat_map(|arguments| arguments.keys());
        let is_same = |argument: &str| pair.as_ref().and_then(|pair| pair.fields.get(argument)) == Some(&true);
        fields.extend(names.map(|argument| (format!("{name}.{argument}"), is_same(argument))));
        if let Some(pair) = pair.as_ref().filter(|pair| !pair.same) {
            differences.extend(wrong_arguments(completion, pair, &calls[pair.call], wanted));
        }
    }
    Comparison { fields: OrderedMap(fields), differences }
}

/// For each expected call a call of the same function: one with equal arguments, if there is one; that at the same
/// place first.
fn pairs(calls: &[Call<'_>], expected: &[Expected<'_>], rules: &BTreeMap<String, Normalisation>) -> Vec<Option<Pair>> {
    let mut used = vec![false; calls.len()];
    let mut pairs: Vec<Option<Pair>> = expected.iter().map(|_| None).collect();
    for must_be_same in [true, false] {
        for (place, wanted) in
            expected.iter().enumerate().filter(|(place, _)| pairs[*place].is_none()).collect::<Vec<_>>()
        {
            let here = Some(place).filter(|place| *place < calls.len());
            let candidates = here.into_iter().chain(0..calls.len());
            let mut free = candidates.filter(|call| !used[*call] && calls[*call].name == wanted.name);
            let compared = |call: usize| {
                let (fields, same) = compare(calls[call].arguments.value(), wanted.arguments, rules);
                Pair { call, fields: fields.unwrap_or_default(), same }
            };
            let found = match must_be_same {
                true => free.map(compared).find(|pair| pair.same),
                false => free.next().map(compared),
            };
            if let Some(pair) = &found {
                used[pair.call] = true;
            }
            pairs[place] = found;
        }
    }
    pairs
}

/// What is wrong with number, functions and order: one sentence, at the first call that is not as expected.
fn wrong_calls(
    completion: &str,
    calls: &[Call<'_>],
    expected: &[Expected<'_>],
    pairs: &[Option<Pair>],
    in_order: bool,
) -> Option<Violation> {
    let of = |message: String, call: usize| Violation {
        message,
        instance_path: format!("/{call}"),
        schema_path: String::new(),
        offset: calls.get(call).map_or(completion.len(), |call| call.name_at),
        class: FailureClass::WrongCalls,
    };
    let first_other = || {
        let named = |call: &usize| expected.get(*call).is_none_or(|wanted| wanted.name != calls[*call].name);
        (0..calls.len()).find(named).unwrap_or(calls.len())
    };
    if calls.len() != expected.len() {
        let wanted = crate::format::counted(expected.len(), "call");
        return Some(of(format!("{wanted} expected, found {}", calls.len()), first_other()));
    }
    if let Some(missing) = pairs.iter().position(Option::is_none) {
        let unused = |call: &usize| !pairs.iter().flatten().any(|pair| pair.call == *call);
        let call = (0..calls.len()).find(unused).unwrap_or(0);
        let (wanted, found) = (shorten(expected[missing].name), shorten(calls[call].name));
        return Some(of(format!("expected a call of {wanted}, found {found}"), call));
    }
    let mut order = pairs.iter().flatten().map(|pair| pair.call).enumerate();
    let (place, call) = order.find(|(place, call)| in_order && place != call)?;
    let name = shorten(calls[call].name);
    Some(of(format!("wrong order: {name} is expected as call {}, found as call {}", place + 1, call + 1), call))
}

/// Arguments that are not as expected, and those that nobody expects.
fn wrong_arguments(completion: &str, pair: &Pair, call: &Call<'_>, wanted: &Expected<'_>) -> Vec<Violation> {
    let mut places = call.arguments.places(completion);
    let Some(object) = call.arguments.value().as_object() else { return Vec::new() };
    let mut of = |argument: &str, message: String, offset: Option<usize>| Violation {
        message: format!("argument {argument:?} of {}: {message}", shorten(call.name)),
        instance_path: format!("/{}/arguments/{}", pair.call, argument.replace('~', "~0").replace('/', "~1")),
        schema_path: String::new(),
        offset: offset.map_or(call.name_at, |offset| places.of(offset)),
        class: FailureClass::WrongValue,
    };
    let mut differences = Vec::new();
    let text = call.arguments.text(completion);
    for (argument, _) in pair.fields.iter().filter(|(_, same)| !**same) {
        let value = shorten(&wanted.arguments[argument].to_string());
        let member = object.get(argument);
        let found = member.and_then(|member| text.get(member.value.start..member.value.end)).map(shorten);
        let message = match found {
            Some(found) => format!("expected {value}, found {found}"),
            None => format!("missing; expected {value}"),
        };
        differences.push(of(argument, message, member.map(|member| member.value.start)));
    }
    for member in object.members().iter().filter(|member| wanted.arguments.get(&*member.key).is_none()) {
        differences.push(of(&member.key, "not expected".to_owned(), Some(member.key_start)));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::super::calls::Answer;
    use super::*;

    #[test]
    fn each_difference_is_named_once_at_its_place() {
        let rules = BTreeMap::from([("day".to_owned(), Normalisation::named("casefold"))]);
        let check = |found: &str, expected: &str, in_order: bool, fields: &str, differences: &[&str]| {
            let answer = Answer::read(found, 0).unwrap();
            let calls = answer.calls(found).unwrap();
            let expected: Value = serde_json::from_str(expected).unwrap();
            let compared = compare_calls(found, &calls, &expected_calls(&expected).unwrap(), in_order, &rules);
            let shown: Vec<String> =
                compared.fields.iter().map(|(name, same)| format!("{}{name}", if *same { "" } else { "!" })).collect();
            assert_eq!(shown.join(" "), fields, "{found}");
            let shown: Vec<String> =
                compared.differences.iter().map(|one| format!("{} {}", one.offset, one.message)).collect();
            assert_eq!(shown, differences, "{found}");
        };
        let f = |arguments: &str| format!(r#"{{"name":"f","arguments":{arguments}}}"#);
        let g = |arguments: &str| format!(r#"{{"name":"g","arguments":{arguments}}}"#);
        let list = |calls: &[String]| format!("[{}]", calls.join(","));
        check(&f(r#"{"a":1.0,"day":"MON"}"#), &f(r#"{"day":"mon","a":1}"#), true, "calls f.day f.a", &[]);
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
        check("[]", &f(r#"{"a":1}"#), true, "!calls !f.a", &["2 1 call expected, found 0"]);
        check(&f("{}"), "[]", true, "!calls", &["8 0 calls expected, found 1"]);
        check(&list(&[f("{}"), g("{}")]), &f("{}"), true, "!calls", &["37 1 call expected, found 2"]);
        check(&g(r#"{"a":1}"#), &f(r#"{"a":1}"#), true, "!calls !f.a", &["8 expected a call of f, found g"]);
        let (both, turned) = (list(&[f(r#"{"a":1}"#), g("{}")]), list(&[g("{}"), f(r#"{"a":1}"#)]));
        check(&turned, &both, true, "!calls f.a", &["37 wrong order: f is expected as call 1, found as call 2"]);
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
        check(&f(r#"{"a":2}"#), &twice, true, "!calls !f.a f[2].a", &["32 2 calls expected, found 1"]);
        // In a string, escapes count as written.
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
            (r#"[{"name":"f","arguments":{}},{"name":"f","arguments":{}}]"#, Some(2)),
            ("[]", Some(0)),
            (r#"{"name":"f"}"#, None),
            (r#"{"name":"f","arguments":"{}"}"#, None),
            (r#"[{"name":7,"arguments":{}}]"#, None),
            ("7", None),
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(expected_calls(&expected).map(|calls| calls.len()), count, "{text}");
        }
    }
}
