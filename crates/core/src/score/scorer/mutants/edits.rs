//! Breaks an expected answer in one way, wherever it has a value for it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::dataset::{mix, scale, text_hash};
use crate::exact_json::{self, marked_number};
use crate::format::shortened;
use crate::score::grounded::fields::Fields;

/// One way to break an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mutation {
    Dropped,
    Null,
    OtherType,
    OtherEnum,
    FirstDigit,
    LastDigit,
    Letter,
    Times100,
    OtherRow,
    ExtraKey,
    Reordered,
    ItemDropped,
    ItemRepeated,
    Emptied,
    WordDropped,
    Operator,
}

impl Mutation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Null => "null",
            Self::OtherType => "other type",
            Self::OtherEnum => "other enum value",
            Self::FirstDigit => "first digit off",
            Self::LastDigit => "last digit off",
            Self::Letter => "letter off",
            Self::Times100 => "times 100",
            Self::OtherRow => "another row's value",
            Self::ExtraKey => "extra key",
            Self::Reordered => "reordered",
            Self::ItemDropped => "item dropped",
            Self::ItemRepeated => "item repeated",
            Self::Emptied => "emptied",
            Self::WordDropped => "word dropped",
            Self::Operator => "operator swapped",
        }
    }
}

/// An answer with one fault.
#[derive(Debug)]
pub(super) struct Mutant {
    /// Path of what is broken, as of the leaves of a score; [`WHOLE`] for the answer itself.
    pub(super) field: String,
    pub(super) mutation: Mutation,
    pub(super) answer: Value,
    /// `5.5 to 6.5`
    pub(super) change: String,
}

/// The field of a text, and of the value that an answer is.
pub(super) const WHOLE: &str = "(answer)";
/// Name of the key that no answer has.
const EXTRA: &str = "mutant";
/// Values of an answer that are broken; others stay right.
const MAX_SITES: usize = 2_000;
/// Characters shown of a value.
const MAX_CHANGE_CHARS: usize = 50;
/// Different values remembered of a field, and the longest in bytes.
const MAX_OTHERS: usize = 32;
const MAX_OTHER_BYTES: usize = 2_000;
const MAX_FIELDS: usize = 5_000;
/// All mutants of an answer, and how many there may be of one however long it is.
const MAX_BYTES: usize = 16 << 20;
const MIN_MUTANTS: usize = 16;

/// What is written for what, between other letters; the first of a pair that the text has is swapped.
const OPERATORS: [(&str, &str); 22] = [
    ("<=", "<"),
    (">=", ">"),
    ("<>", "="),
    ("!=", "="),
    ("==", "!="),
    ("<", "<="),
    (">", ">="),
    ("=", "<>"),
    ("AND", "OR"),
    ("OR", "AND"),
    ("ASC", "DESC"),
    ("DESC", "ASC"),
    ("MIN", "MAX"),
    ("MAX", "MIN"),
    ("SUM", "AVG"),
    ("AVG", "SUM"),
    ("and", "or"),
    ("or", "and"),
    ("min", "max"),
    ("max", "min"),
    ("+", "-"),
    ("-", "+"),
];

#[derive(Debug, Clone, Copy)]
enum Step<'v> {
    Member(&'v str),
    Item(usize),
}

struct Site<'v> {
    place: Vec<Step<'v>>,
    value: &'v Value,
}

/// Values of other rows by field.
#[derive(Debug, Default)]
pub(super) struct OtherValues(HashMap<String, Vec<Value>>);

impl OtherValues {
    pub(super) fn add(&mut self, answer: &Value) {
        for (field, sites) in sites(answer) {
            for site in sites.into_iter().filter(|site| is_leaf(site.value)) {
                if self.0.len() >= MAX_FIELDS && !self.0.contains_key(&field) {
                    continue;
                }
                let known = self.0.entry(field.clone()).or_default();
                let is_new = known.len() < MAX_OTHERS && !known.contains(site.value);
                if is_new && site.value.to_string().len() <= MAX_OTHER_BYTES {
                    known.push(site.value.clone());
                }
            }
        }
    }

    /// One that differs; `choice` decides which.
    fn other(&self, field: &str, value: &Value, choice: u64) -> Option<&Value> {
        let known = self.0.get(field)?;
        let start = scale(choice, known.len() as u64) as usize;
        let mut turned = known.iter().cycle().skip(start).take(known.len());
        turned.find(|other| *other != value && !other.is_null())
    }
}

/// The mutants of a text that is not JSON.
pub(super) fn of_text(text: &str, others: &OtherValues, choice: u64) -> Vec<Mutant> {
    let value = Value::from(text);
    let other = others.other(WHOLE, &value, choice);
    let words: Vec<&str> = text.split_whitespace().collect();
    let dropped = scale(choice, words.len() as u64) as usize;
    let kept = words.iter().enumerate().filter(|(at, _)| *at != dropped);
    let kept: Vec<&str> = kept.map(|(_, word)| *word).collect();
    [
        (Mutation::LastDigit, last_digit(text)),
        (
            Mutation::OtherRow,
            other.and_then(Value::as_str).map(str::to_owned),
        ),
        (Mutation::WordDropped, Some(kept.join(" "))),
        (Mutation::Operator, operator_swapped(text)),
        (Mutation::Emptied, Some(String::new())),
    ]
    .into_iter()
    .filter_map(|(mutation, broken)| {
        let broken = broken.filter(|broken| broken.trim() != text.trim())?;
        Some(Mutant {
            field: WHOLE.to_owned(),
            mutation,
            change: shortened(&broken, 2 * MAX_CHANGE_CHARS),
            answer: broken.into(),
        })
    })
    .collect()
}

/// The mutants of a JSON answer: of each field one value, broken in every way that it has.
/// `choice` decides which of several values of a field.
pub(super) fn of_value(
    answer: &Value,
    fields: &Fields,
    others: &OtherValues,
    choice: u64,
) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    let most = (MAX_BYTES / answer.to_string().len().max(1)).max(MIN_MUTANTS);
    let sites = sites(answer);
    // A long answer has mutants of some fields, another row of others.
    let first = scale(choice, sites.len() as u64) as usize;
    for (field, sites) in sites.iter().cycle().skip(first).take(sites.len()) {
        if mutants.len() >= most {
            break;
        }
        let choice = mix(choice ^ text_hash(field));
        let Some(site) = sites.get(scale(choice, sites.len() as u64) as usize) else {
            continue;
        };
        let mut add = |mutation, changed: Option<Value>| {
            let different = changed.filter(|changed| changed != answer);
            mutants.extend(different.map(|answer| Mutant {
                field: field.clone(),
                mutation,
                change: change(site.value, value_at(&answer, &site.place)),
                answer,
            }));
        };
        let with = |value: Option<Value>| {
            let value = value?;
            Some(changed(answer, &site.place, |place| *place = value))
        };
        if let Some((Step::Member(name), above)) = site.place.split_last() {
            let rest = changed(answer, above, |above| {
                if let Some(members) = above.as_object_mut() {
                    members.shift_remove(*name);
                }
            });
            add(Mutation::Dropped, Some(rest));
        }
        match site.value {
            Value::Array(items) => {
                let mut rotated = items.clone();
                rotated.rotate_left(usize::from(!items.is_empty()));
                add(Mutation::Reordered, with(Some(rotated.into())));
                let at = scale(mix(choice), items.len() as u64) as usize;
                let mut fewer = items.clone();
                fewer.drain(at..(at + 1).min(items.len()));
                add(Mutation::ItemDropped, with(Some(fewer.into())));
                let more: Vec<Value> = items.iter().chain(items.get(at)).cloned().collect();
                add(Mutation::ItemRepeated, with(Some(more.into())));
                add(Mutation::OtherType, with(items.first().cloned()));
            }
            Value::Object(members) if marked_number(site.value).is_none() => {
                let mut more: Map<String, Value> = members.clone();
                more.insert(EXTRA.to_owned(), json!(EXTRA));
                add(Mutation::ExtraKey, with(Some(more.into())));
            }
            leaf => {
                let path: Vec<String> = site.place.iter().filter_map(name_of).collect();
                let form = fields.form(&path).unwrap_or_default();
                let listed: Vec<Value> = match leaf {
                    Value::Bool(truth) => vec![json!(!truth)],
                    _ => form.listed,
                };
                for (mutation, broken) in broken_leaves(leaf, &listed, choice) {
                    add(mutation, with(Some(broken)));
                }
                let other = others.other(field, leaf, choice);
                add(Mutation::OtherRow, with(other.cloned()));
            }
        }
    }
    mutants
}

fn broken_leaves(leaf: &Value, listed: &[Value], choice: u64) -> Vec<(Mutation, Value)> {
    let mut broken = Vec::new();
    let mut add = |mutation, value: Option<Value>| {
        broken.extend(value.map(|value| (mutation, value)));
    };
    let is_other = |other: &&Value| *other != leaf && !other.is_null();
    let other = listed.iter().rfind(is_other);
    add(Mutation::OtherEnum, other.cloned());
    if !leaf.is_null() {
        add(Mutation::Null, Some(Value::Null));
    }
    let number = match leaf {
        Value::Number(number) => Some(number.to_string()),
        _ => marked_number(leaf).map(|number| number.text().to_owned()),
    };
    match (leaf, number) {
        (_, Some(text)) => {
            let read = |text: String| Some(exact_json::number(&text));
            add(Mutation::FirstDigit, first_digit(&text).and_then(read));
            add(Mutation::LastDigit, last_digit(&text).and_then(read));
            add(Mutation::Times100, times_100(leaf));
            add(Mutation::OtherType, Some(text.into()));
        }
        (Value::Bool(truth), _) => add(Mutation::OtherType, Some(truth.to_string().into())),
        (Value::String(text), _) => {
            let as_number = serde_json::from_str::<Value>(text).ok();
            let as_number = as_number.filter(Value::is_number);
            add(
                Mutation::OtherType,
                as_number.or_else(|| Some(json!([text]))),
            );
            if listed.is_empty() {
                add(Mutation::LastDigit, last_digit(text).map(Value::from));
                add(Mutation::Letter, letter_off(text, choice).map(Value::from));
            }
        }
        _ => {}
    }
    broken
}

/// The values of an answer by field: paths of names, `*` for the items of a list.
fn sites(answer: &Value) -> BTreeMap<String, Vec<Site<'_>>> {
    let mut found = BTreeMap::new();
    let mut left = MAX_SITES;
    collect(
        answer,
        String::new(),
        &mut Vec::new(),
        &mut left,
        &mut found,
    );
    found
}

fn collect<'v>(
    value: &'v Value,
    field: String,
    place: &mut Vec<Step<'v>>,
    left: &mut usize,
    found: &mut BTreeMap<String, Vec<Site<'v>>>,
) {
    if *left == 0 {
        return;
    }
    *left -= 1;
    let name = if field.is_empty() { WHOLE } else { &field };
    found.entry(name.to_owned()).or_default().push(Site {
        place: place.clone(),
        value,
    });
    let below = |name: &str| match field.as_str() {
        "" => name.to_owned(),
        above => format!("{above}.{name}"),
    };
    match value {
        Value::Object(members) if marked_number(value).is_none() => {
            for (name, member) in members {
                place.push(Step::Member(name));
                collect(member, below(name), place, left, found);
                place.pop();
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                place.push(Step::Item(at));
                collect(item, below("*"), place, left, found);
                place.pop();
            }
        }
        _ => {}
    }
}

fn change(before: &Value, after: Option<&Value>) -> String {
    let shown = |value| shortened(&exact_json::write(value), MAX_CHANGE_CHARS);
    match after {
        Some(after) => format!("{} to {}", shown(before), shown(after)),
        None => format!("{} dropped", shown(before)),
    }
}

fn is_leaf(value: &Value) -> bool {
    !value.is_array() && (!value.is_object() || marked_number(value).is_some())
}

fn name_of(step: &Step<'_>) -> Option<String> {
    match step {
        Step::Member(name) => Some((*name).to_owned()),
        Step::Item(_) => None,
    }
}

fn value_at<'v>(value: &'v Value, place: &[Step<'_>]) -> Option<&'v Value> {
    place.iter().try_fold(value, |value, step| match step {
        Step::Member(name) => value.get(*name),
        Step::Item(at) => value.get(*at),
    })
}

/// The answer, changed at a place.
fn changed(answer: &Value, place: &[Step<'_>], change: impl FnOnce(&mut Value)) -> Value {
    let mut changed = answer.clone();
    let target = place
        .iter()
        .try_fold(&mut changed, |value, step| match step {
            Step::Member(name) => value.get_mut(*name),
            Step::Item(at) => value.get_mut(*at),
        });
    if let Some(target) = target {
        change(target);
    }
    changed
}

/// With a digit made one less, or 0 made 1.
fn with_digit(text: &str, at: usize, change: impl Fn(u8) -> u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = b'0' + change(bytes[at] - b'0');
    String::from_utf8(bytes).unwrap_or_default()
}

fn last_digit(text: &str) -> Option<String> {
    // Digits of an exponent are of another size.
    let is_number = text.starts_with(|letter: char| letter.is_ascii_digit() || letter == '-');
    let mantissa = match text.find(['e', 'E']).filter(|_| is_number) {
        Some(end) => &text[..end],
        None => text,
    };
    let at = mantissa.rfind(|letter: char| letter.is_ascii_digit())?;
    Some(with_digit(text, at, |digit| {
        digit.checked_sub(1).unwrap_or(1)
    }))
}

/// Of a number of several digits.
fn first_digit(text: &str) -> Option<String> {
    let at = text.find(|letter: char| ('1'..='9').contains(&letter))?;
    let is_several = text[at + 1..].contains(|letter: char| letter.is_ascii_digit());
    is_several.then(|| with_digit(text, at, |digit| if digit == 9 { 8 } else { digit + 1 }))
}

fn times_100(value: &Value) -> Option<Value> {
    match value.as_i64() {
        Some(whole) => whole.checked_mul(100).map(Value::from),
        None => Some(json!((value.as_f64()? * 1e8).round() / 1e6)),
    }
}

/// With one letter replaced by another one.
fn letter_off(text: &str, choice: u64) -> Option<String> {
    let letters: Vec<(usize, char)> = text
        .char_indices()
        .filter(|(_, letter)| letter.is_alphabetic())
        .collect();
    let (at, letter) = *letters.get(scale(choice, letters.len() as u64) as usize)?;
    let other = if letter.eq_ignore_ascii_case(&'q') {
        'k'
    } else {
        'q'
    };
    let end = at + letter.len_utf8();
    Some(format!("{}{other}{}", &text[..at], &text[end..]))
}

fn operator_swapped(text: &str) -> Option<String> {
    let is_word = |letter: Option<char>| {
        letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    };
    let is_sign = |letter: Option<char>| letter.is_some_and(|letter| "<>=!+-".contains(letter));
    OPERATORS.iter().find_map(|(operator, other)| {
        let is_named = is_word(operator.chars().next());
        let mut places = text.match_indices(operator);
        let (at, _) = places.find(|(at, _)| {
            let before = text[..*at].chars().next_back();
            let after = text[at + operator.len()..].chars().next();
            let joined = |letter| {
                if is_named {
                    is_word(letter)
                } else {
                    is_sign(letter)
                }
            };
            !joined(before) && !joined(after)
        })?;
        let rest = &text[at + operator.len()..];
        Some(format!("{}{other}{rest}", &text[..at]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_broken_in_every_way_that_it_has() {
        let schema = json!({"properties": {"kind": {"enum": ["a", "b"]}, "lines": {"items": {"properties": {"n": {"type": "integer"}}}}}});
        let answer = json!({"kind": "a", "paid": true, "date": "2028-06-07", "note": null, "lines": [{"n": 41}, {"n": 7}]});
        let mut others = OtherValues::default();
        others.add(&json!({"kind": "b", "note": "late", "lines": [{"n": 3}]}));
        let made = of_value(&answer, &Fields::of_schema(schema), &others, 1);
        let mut found: Vec<String> = made
            .iter()
            .map(|mutant| format!("{}: {}", mutant.field, mutant.mutation.name()))
            .collect();
        found.sort();
        let number = ["null", "last digit off", "times 100", "other type"];
        let mut expected: Vec<String> = [
            ("(answer)", &["extra key"][..]),
            (
                "kind",
                &[
                    "dropped",
                    "null",
                    "other type",
                    "other enum value",
                    "another row's value",
                ],
            ),
            (
                "paid",
                &["dropped", "null", "other type", "other enum value"],
            ),
            ("date", &["dropped", "null", "other type", "last digit off"]),
            ("note", &["dropped", "another row's value"]),
            (
                "lines",
                &[
                    "dropped",
                    "reordered",
                    "item dropped",
                    "item repeated",
                    "other type",
                ],
            ),
            ("lines.*", &["extra key"]),
            ("lines.*.n", &["dropped", "another row's value"]),
            ("lines.*.n", &number),
        ]
        .into_iter()
        .flat_map(|(field, names)| names.iter().map(move |name| format!("{field}: {name}")))
        .collect();
        // 41 has a first digit of its own, 7 has not.
        let is_broken = |number: &str| {
            made.iter()
                .any(|one| one.change == format!("{number} dropped"))
        };
        assert_ne!(is_broken("41"), is_broken("7"));
        expected.extend(is_broken("41").then(|| "lines.*.n: first digit off".to_owned()));
        expected.sort();
        assert_eq!(found, expected);
        assert!(made.iter().all(|mutant| mutant.answer != answer));
    }

    #[test]
    fn digits_letters_and_operators_are_changed_once() {
        let check = |found: Option<String>, expected: Option<&str>| {
            assert_eq!(found.as_deref(), expected);
        };
        check(last_digit("58463.87"), Some("58463.86"));
        check(last_digit("20"), Some("21"));
        check(last_digit("1e5"), Some("0e5"));
        check(last_digit("Rue 3e"), Some("Rue 2e"));
        check(last_digit("none"), None);
        check(first_digit("0.95"), Some("0.85"));
        check(first_digit("7"), None);
        check(first_digit("-12"), Some("-22"));
        check(
            times_100(&json!(4828.78)).map(|value| value.to_string()),
            Some("482878.0"),
        );
        check(letter_off("Zü", u64::MAX), Some("Zq"));
        check(letter_off("7", 0), None);
        check(
            operator_swapped("SELECT a FROM t WHERE b <= 3"),
            Some("SELECT a FROM t WHERE b < 3"),
        );
        check(
            operator_swapped("SELECT MAX(a) FROM ORDERS"),
            Some("SELECT MIN(a) FROM ORDERS"),
        );
        check(operator_swapped("SELECT a FROM b"), None);
    }
}
