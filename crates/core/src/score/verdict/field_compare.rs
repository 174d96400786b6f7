//! Compares a completion's values with expected ones, field by field, under the task's
//! normalisations.

use std::borrow::Cow;

use serde_json::Map;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::field_rules::{LeafRule, Rule, Rules};
use super::ordered_map::OrderedMap;
use crate::dataset::expected::Expectation;
use crate::exact_json::marked_number;
use crate::json_number::Number;
use crate::score::answer::json::{Kind, Object, Value, parse};

/// Compares fields if an object is expected (else `None`), and whether everything is equal with
/// nothing extra. Of several alternatives uses the one with most fields in common.
pub(crate) fn compare(
    root: &Value<'_>,
    expected: &serde_json::Value,
    rules: &Rules,
) -> (Option<OrderedMap<bool>>, bool) {
    match Expectation::from_value(expected) {
        Expectation::Any(answers) => {
            let compared = answers.iter().map(|answer| compare(root, answer, rules));
            let in_common = |(fields, same): &(Option<OrderedMap<bool>>, bool)| {
                (
                    *same,
                    fields
                        .iter()
                        .flat_map(OrderedMap::iter)
                        .filter(|(_, same)| **same)
                        .count(),
                )
            };
            // Ties go to the first; `max_by_key` returns the last.
            compared.rev().max_by_key(in_common).unwrap_or_default()
        }
        Expectation::Plain(serde_json::Value::Object(members)) => {
            let (fields, same) = compare_members(root, members, rules);
            (Some(fields), same)
        }
        _ => (None, equal(root, expected, rules.root())),
    }
}

/// [`compare`] with an object's members. A missing optional field has no entry.
pub(crate) fn compare_members(
    root: &Value<'_>,
    members: &Map<String, serde_json::Value>,
    rules: &Rules,
) -> (OrderedMap<bool>, bool) {
    let found = root.as_object();
    let mut fields = Vec::with_capacity(members.len());
    for (name, value) in members {
        let member = found.and_then(|object| object.get(name));
        let same = match (member, Expectation::from_value(value)) {
            (None, Expectation::Optional(_)) if found.is_some() => continue,
            (None, _) => false,
            (Some(member), _) => equal(&member.value, value, rules.root().member(name)),
        };
        fields.push((name.clone(), same));
    }
    let is_expected = |object: &Object<'_>| {
        let mut keys = object.members().iter().map(|member| &*member.key);
        keys.all(|key| has_key(members, key))
    };
    let exact = fields.iter().all(|(_, same)| *same) && found.is_some_and(is_expected);
    (OrderedMap(fields), exact)
}

/// Whether an expected object has the key. A few are compared faster than one is hashed.
pub(super) fn has_key(members: &Map<String, serde_json::Value>, key: &str) -> bool {
    match members.len() {
        0..=8 => members.keys().any(|name| name == key),
        _ => members.contains_key(key),
    }
}

/// Whether plain text equals the expected value. A number may have any JSON notation.
pub(crate) fn equal_text(found: &str, expected: &serde_json::Value, rule: Rule<'_>) -> bool {
    let value = |kind| Value {
        start: 0,
        end: found.len(),
        kind,
    };
    match expected {
        serde_json::Value::Bool(expected) => found.parse() == Ok(*expected),
        serde_json::Value::Null => found == "null",
        _ if expected.is_number() || marked_number(expected).is_some() => written_number(found)
            .is_some_and(|number| equal(&value(Kind::Number(number)), expected, rule)),
        _ => equal(&value(Kind::String(Cow::Borrowed(found))), expected, rule),
    }
}

pub(super) fn equal(found: &Value<'_>, expected: &serde_json::Value, rule: Rule<'_>) -> bool {
    match Expectation::from_value(expected) {
        Expectation::Any(values) => values.iter().any(|value| equal(found, value, rule)),
        Expectation::Optional(value) => equal(found, value, rule),
        Expectation::Number(expected) => number(found, rule).is_some_and(|found| {
            found.equals(&expected) || rule.leaf.is_near(found.as_f64(), expected.as_f64())
        }),
        Expectation::Plain(value) => equal_plain(found, value, rule),
    }
}

/// The number that a value is, or states as text where the rule reads those.
fn number<'v>(found: &'v Value<'_>, rule: Rule<'_>) -> Option<Number<'v>> {
    match &found.kind {
        Kind::Number(number) => Some(*number),
        Kind::String(text) if rule.leaf.number => written_number(text),
        _ => None,
    }
}

fn equal_plain(found: &Value<'_>, expected: &serde_json::Value, rule: Rule<'_>) -> bool {
    use serde_json::Value as Expected;
    match (&found.kind, expected) {
        (Kind::String(found), Expected::String(expected)) => {
            found == expected
                || rule.leaf.same_text(found, expected)
                || rule.leaf.is_near_text(found, expected)
        }
        (_, Expected::Number(expected)) => number(found, rule).is_some_and(|found| {
            found.equals_serde(expected) || rule.leaf.is_near(found.as_f64(), expected.as_f64())
        }),
        (Kind::Number(found), Expected::String(expected)) if rule.leaf.number => {
            written_number(expected).is_some_and(|expected| {
                expected.equals(found) || rule.leaf.is_near(found.as_f64(), expected.as_f64())
            })
        }
        (Kind::Bool(found), Expected::Bool(expected)) => found == expected,
        (Kind::Null, Expected::Null) => true,
        (Kind::Array(found), Expected::Array(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| equal(found, expected, rule))
        }
        (Kind::Object(found), Expected::Object(members)) => {
            let same = |(key, value): (&String, &Expected)| match found.get(key) {
                Some(member) => equal(&member.value, value, rule.member(key)),
                None => matches!(Expectation::from_value(value), Expectation::Optional(_)),
            };
            members.iter().all(same)
                && found
                    .members()
                    .iter()
                    .all(|member| has_key(members, &member.key))
        }
        _ => false,
    }
}

impl LeafRule {
    /// Of two numbers in texts, where the rule reads those.
    fn is_near_text(&self, found: &str, expected: &str) -> bool {
        let value = |text| written_number(text).and_then(|number| number.as_f64());
        self.number && self.tolerance.is_some() && self.is_near(value(found), value(expected))
    }

    fn same_text(&self, found: &str, expected: &str) -> bool {
        let same = |left: &str, right: &str| self.normal(left) == self.normal(right);
        let has = |group: &Vec<String>, text: &str| group.iter().any(|alias| same(alias, text));
        *self != Self::default()
            && (same(found, expected)
                || self
                    .aliases
                    .iter()
                    .any(|group| has(group, expected) && has(group, found)))
    }

    /// The text as it is compared.
    pub(super) fn normal<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut normal = Cow::Borrowed(if self.trim || self.whitespace {
            text.trim()
        } else {
            text
        });
        if self.date
            && let Some((year, month, day)) = date(text)
        {
            return Cow::Owned(format!("{year:04}-{month:02}-{day:02}"));
        }
        if self.number
            && let Some(number) = written_number(text)
        {
            let mut canonical = String::new();
            number.write_canonical(&mut canonical);
            return Cow::Owned(canonical);
        }
        if self.bfcl {
            normal = Cow::Owned(standard_text(&normal));
        }
        if self.accents {
            let letters = normal.nfd().filter(|letter| !is_combining_mark(*letter));
            normal = Cow::Owned(letters.collect());
        }
        if self.organisation {
            normal = Cow::Owned(without_company_kind(&normal));
        }
        if self.whitespace {
            normal = Cow::Owned(normal.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        if self.casefold {
            normal = Cow::Owned(case_folded(&normal));
        }
        normal
    }
}

/// A company's name without the words at its end that say what kind of company it is.
fn without_company_kind(name: &str) -> String {
    const KINDS: &str = " inc incorporated corp corporation co company llc llp lp ltd limited plc pty pte gmbh mbh ag kg kgaa ohg ug se sa sas sarl sl srl spa bv nv oy oyj ab as asa aps sro kft zrt doo ";
    let mut words: Vec<&str> = name.split_whitespace().collect();
    let is_kind = |word: &str| {
        let letters: String = word
            .chars()
            .filter(|letter| letter.is_alphanumeric())
            .collect();
        let joined = letters.is_empty() || word == "&";
        joined || KINDS.contains(&format!(" {} ", letters.to_lowercase()))
    };
    while words.len() > 1 && words.last().is_some_and(|word| is_kind(word)) {
        words.pop();
    }
    words.join(" ").trim_end_matches([',', ';']).to_owned()
}

/// A text without what the Berkeley Function Calling Leaderboard ignores when it compares texts.
pub fn standard_text(text: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|letter| !" ,./-_*^".contains(*letter))
        .collect();
    kept.to_lowercase().replace('\'', "\"")
}

/// Unicode's full case folding, as Python's `str.casefold`. It is that of the capital letters, but for dotless i, which
/// has one without its distinction, and Cherokee, which folds to capitals.
fn case_folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            'ı' => folded.push(letter),
            '\u{13a0}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => {
                folded.extend(letter.to_uppercase());
            }
            _ => {
                let capitals = letter.to_lowercase().flat_map(char::to_uppercase);
                folded.extend(capitals.flat_map(char::to_lowercase));
            }
        }
    }
    folded
}

/// A number in JSON's grammar, trimmed.
fn written_number(text: &str) -> Option<Number<'_>> {
    match parse(text, 0).ok()?.root.kind {
        Kind::Number(number) => Some(number),
        _ => None,
    }
}

/// Year, month and day of an unambiguous date: `2024-03-11`, `2024/3/11`, `11.03.2024`, `11 March
/// 2024`, `Mar 11, 2024`, `13/03/2024`, `03/13/2024`; not `11/03/2024`.
fn date(text: &str) -> Option<(u32, u32, u32)> {
    let parts: Vec<&str> = text
        .split([' ', '-', '/', '.', ','])
        .filter(|part| !part.is_empty())
        .collect();
    let [first, second, third] = parts.as_slice() else {
        return None;
    };
    let number = |part: &str| {
        part.trim_end_matches(|letter: char| letter.is_ascii_alphabetic())
            .parse::<u32>()
            .ok()
    };
    let (year, month, day) = match (month_named(first), month_named(second)) {
        (Some(month), _) => (number(third)?, month, number(second)?),
        (_, Some(month)) if first.len() == 4 => (number(first)?, month, number(third)?),
        (_, Some(month)) => (number(third)?, month, number(first)?),
        _ if first.len() == 4 => (
            first.parse().ok()?,
            second.parse().ok()?,
            third.parse().ok()?,
        ),
        _ => {
            let (left, right, year): (u32, u32, u32) = (
                first.parse().ok()?,
                second.parse().ok()?,
                third.parse().ok()?,
            );
            match (text.contains('.'), left > 12, right > 12) {
                (true, _, false) | (false, true, false) => (year, right, left),
                (false, false, true) => (year, left, right),
                (false, false, false) if left == right => (year, left, right),
                _ => return None,
            }
        }
    };
    ((1000..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day))
        .then_some((year, month, day))
}

/// January is 1; three letters suffice.
pub(crate) fn month_named(part: &str) -> Option<u32> {
    const NAMES: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let part = part.to_lowercase();
    let found = NAMES.iter().position(|name| {
        part.len() >= 3 && (name.starts_with(&part) || (part == "sept" && *name == "september"))
    })?;
    u32::try_from(found + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Normalisation, Normalisations};

    fn check(rule: &str, found: &str, expected: &str, same: bool) {
        let document = parse(found, 0).unwrap();
        let expected_value = serde_json::from_str(expected).unwrap();
        let names = rule
            .split('+')
            .filter_map(Normalisation::from_name)
            .collect();
        let rules = Rules::of_texts(&Normalisations(names));
        assert_eq!(
            equal(&document.root, &expected_value, rules.root()),
            same,
            "{rule}: {found} against {expected}"
        );
    }

    #[test]
    fn values_are_compared_as_the_rule_says() {
        for (rule, found, expected, same) in [
            ("", "1.0", "1", true),
            ("", "1e2", "100", true),
            ("", "\"1\"", "1", false),
            ("", "1e400", "1", false),
            ("", "0.1", "0.1", true),
            ("", "1249.50", "1249.5", true),
            ("", "-0", "0", true),
            ("", "0.30000000000000004", "0.3", false),
            ("", "\"a\"", "\"A\"", false),
            ("casefold", "\"ÄB\"", "\"äb\"", true),
            ("casefold", "\"Hauptstraße\"", "\"HAUPTSTRASSE\"", true),
            ("casefold", "\"STRAẞE\"", "\"strasse\"", true),
            ("casefold", "\"ΟΔΟΣ οδος\"", "\"οδοσ οδοσ\"", true),
            ("casefold", "\"ﬁx ŉ ῼ\"", "\"FIX ʼN ωι\"", true),
            ("casefold", "\"µ ſ K\"", "\"μ s k\"", true),
            ("casefold", "\"İ\"", "\"i\u{307}\"", true),
            ("casefold", "\"ı\"", "\"i\"", false),
            ("casefold", "\"é\"", "\"e\u{301}\"", false),
            ("", "\"a \"", "\"a\"", false),
            ("trim", "\" a\"", "\"a\"", true),
            ("trim", "\"a  b\"", "\"a b\"", false),
            ("whitespace", "\" a \\n b\"", "\"a b\"", true),
            ("casefold+whitespace", "\" A  b\"", "\"a B\"", true),
            ("accents", "\"Café Zoë\"", "\"Cafe Zoe\"", true),
            ("casefold", "\"Café\"", "\"Cafe\"", false),
            (
                "organisation",
                "\"Acme Inc.\"",
                "\"Acme, Incorporated\"",
                true,
            ),
            ("organisation", "\"Acme GmbH & Co. KG\"", "\"Acme\"", true),
            ("organisation", "\"Inc.\"", "\"Acme\"", false),
            ("number", "\"12.50\"", "12.5", true),
            ("number", "12.5", "\" 12.50\"", true),
            ("number", "\"12.5\"", "\"12.50\"", true),
            ("number", "\"1,249\"", "1249", false),
            ("number", "\"abc\"", "\"abc\"", true),
            ("number", "\"12.50\"", "\"12.51\"", false),
            ("", "[1,2]", "[1,2.0]", true),
            ("", "[1,2]", "[2,1]", false),
            ("", "{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", true),
            ("", "{\"a\":1}", "{\"a\":1,\"b\":null}", false),
            ("", "null", "null", true),
            ("", "true", "false", false),
            ("", "null", "false", false),
        ] {
            check(rule, found, expected, same);
        }
    }

    /// Letters whose folding differs from lower case, with Python's `str.casefold`.
    #[test]
    fn case_folding_is_that_of_unicode() {
        for (letters, folded) in [
            (
                "ßſŉǰΐΰςϐϑϕϖϰϱϵև",
                "sssʼnj\u{30c}ι\u{308}\u{301}υ\u{308}\u{301}σβθφπκρεեւ",
            ),
            ("Ꭰꭰᏸ", "ᎠᎠᏰ"),
            (
                "ᲀẖẚẛẞὐᾀᾈᾳᾶᾷιιῼ",
                "вh\u{331}aʾṡssυ\u{313}ἀιἀιαια\u{342}α\u{342}ιιιωι",
            ),
            ("ﬀﬃﬅﬓ", "ffffistմն"),
            ("ǅΣĲ𐐀ı", "ǆσĳ𐐨ı"),
        ] {
            assert_eq!(case_folded(letters), folded);
        }
    }

    #[test]
    fn dates_are_the_same_day_or_not_dates() {
        for (found, same) in [
            ("2024-03-11", true),
            ("2024/3/11", true),
            ("11.03.2024", true),
            ("11 March 2024", true),
            ("11 Mar 2024", true),
            ("March 11, 2024", true),
            ("Mar 11th, 2024", true),
            ("2024-Mar-11", true),
            ("11/03/2024", false),
            ("2024-03-12", false),
            ("2024-11-03", false),
            ("March 2024", false),
            ("", false),
            ("11.03.24", false),
        ] {
            check("date", &format!("{found:?}"), "\"2024-03-11\"", same);
        }
        check("date", "\"13/03/2024\"", "\"2024-03-13\"", true);
        check("date", "\"03/13/2024\"", "\"2024-03-13\"", true);
        check("date", "\"unknown\"", "\"unknown\"", true);
    }
}
