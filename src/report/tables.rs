//! Metrics as text that other programs read: a line a step.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::run::RunState;

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
pub fn json_lines(history: &RunState) -> String {
    let mut text = String::new();
    for step in steps(history) {
        let mut line = Map::from_iter([("step".to_owned(), json!(step))]);
        let values = history.metrics.keys().filter_map(|name| Some((name.clone(), json!(history.metric_at(name, step)?))));
        line.extend(values);
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{}", Value::Object(line));
    }
    text
}

/// Every step that has any value.
fn steps(history: &RunState) -> BTreeSet<u64> {
    history.metrics.values().flat_map(|series| series.steps()).collect()
}

/// A name as a CSV field (RFC 4180).
fn field(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}
