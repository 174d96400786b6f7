//! Metrics as text that other programs read: a line a step.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::run::RunState;
use crate::secrets::visible;

/// One line a step, one column a metric; an empty field where a step has no value or one that is not finite.
pub fn csv(history: &RunState) -> String {
    let mut text = String::from("step");
    for name in history.metrics.keys() {
        let _ = write!(text, ",{}", field(name));
    }
    text.push('\n');
    for step in steps(history) {
        let _ = write!(text, "{step}");
        for name in history.metrics.keys() {
            let value = history.metric_at(name, step).filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string());
            let _ = write!(text, ",{value}");
        }
        text.push('\n');
    }
    text
}

/// One object a step; a number that is not finite is null.
pub fn json_lines(history: &RunState) -> Vec<Value> {
    let line = |step: u64| {
        let values = history.metrics.keys().filter_map(|name| Some((name.clone(), json!(history.metric_at(name, step)?))));
        std::iter::once(("step".to_owned(), json!(step))).chain(values).collect()
    };
    steps(history).into_iter().map(line).collect()
}

/// Every step that has any value.
fn steps(history: &RunState) -> BTreeSet<u64> {
    history.metrics.values().flat_map(|series| series.steps()).collect()
}

/// A name as a CSV field (RFC 4180), on one line; a spreadsheet takes none for a formula.
fn field(name: &str) -> String {
    let name = visible(name);
    let quote = if name.trim_start().starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    if name.contains([',', '"', '\'']) || !quote.is_empty() {
        format!("\"{quote}{}\"", name.replace('"', "\"\""))
    } else {
        name.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_field_and_no_formula() {
        let check = |name: &str, expected: &str| assert_eq!(field(name), expected);
        check("tiers/valid", "tiers/valid");
        check("a,b", "\"a,b\"");
        check("a\"b\r\n", "\"a\"\"b␍␊\"");
        check("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\"");
        for name in ["+1", "-1", "@x", " =1"] {
            check(name, &format!("\"'{name}\""));
        }
        // What a spreadsheet would leave out before it looks for a formula.
        check("\t=1", "\"' =1\"");
        check("\r=1", "␍=1");
    }
}
