//! A score of a log as a number, or unknown; never 0 for what is not a number.

use serde_json::Value;

use super::sample::NamedScore;
use crate::exact_json::marked_number;

/// Numbers, booleans, inspect's letters (C 1, P 0.5, I and N 0), and their texts.
pub(super) fn number(value: &Value) -> Option<f64> {
    let found = match value {
        _ if let Some(number) = marked_number(value) => number.text().parse().ok(),
        Value::Number(number) => number.as_f64(),
        Value::Bool(is_true) => Some(f64::from(u8::from(*is_true))),
        Value::String(text) => match text.trim() {
            "C" => Some(1.0),
            "P" => Some(0.5),
            "I" | "N" => Some(0.0),
            text => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "pass" | "correct" => Some(1.0),
                "false" | "no" | "fail" | "incorrect" => Some(0.0),
                text => text.parse().ok(),
            },
        },
        _ => None,
    };
    found.filter(|number: &f64| number.is_finite())
}

/// Adds a score; the members of an object each under `NAME.KEY`.
pub(super) fn push(scores: &mut Vec<NamedScore>, name: &str, value: &Value, explanation: &str) {
    let named = |name: String, value: &Value| NamedScore {
        name,
        value: value.clone(),
        explanation: explanation.to_owned(),
    };
    match value {
        Value::Object(members) if marked_number(value).is_none() => {
            let members = members.iter();
            scores.extend(members.map(|(key, value)| named(format!("{name}.{key}"), value)));
        }
        value => scores.push(named(name.to_owned(), value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_numbers_are_numbers() {
        let check = |value: Value, expected: Option<f64>| {
            assert_eq!(number(&value), expected, "{value}");
        };
        check(json!(0.25), Some(0.25));
        check(json!(true), Some(1.0));
        check(json!("C"), Some(1.0));
        check(json!("P"), Some(0.5));
        check(json!("I"), Some(0.0));
        check(json!("N"), Some(0.0));
        check(json!("FALSE"), Some(0.0));
        check(json!(" 0.5"), Some(0.5));
        for unknown in [json!("great"), json!("NaN"), json!("inf"), json!(null)] {
            check(unknown, None);
        }
        for unknown in [json!([]), json!({"a": 1}), json!("")] {
            check(unknown, None);
        }
        let mut scores = Vec::new();
        push(&mut scores, "odd", &json!({"a": 1, "b": "C"}), "");
        push(&mut scores, "match", &json!("I"), "why");
        let names: Vec<_> = scores.iter().map(|score| score.name.as_str()).collect();
        assert_eq!(names, ["odd.a", "odd.b", "match"]);
    }
}
