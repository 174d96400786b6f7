//! Metrics as CSV and JSON lines.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::run::RunState;
use crate::secrets::visible;

/// One line per step, one column per metric; empty fields for missing and non-finite values.
pub fn csv(history: &RunState) -> String {
    let mut text = String::from("step");
    for name in history.metrics.keys() {
        let _ = write!(text, ",{}", field(name));
    }
    text.push('\n');
    for step in steps(history) {
        let _ = write!(text, "{step}");
        for name in history.metrics.keys() {
            let value = history
                .metric_at(name, step)
                .filter(|value| value.is_finite())
                .map_or_else(String::new, |value| value.to_string());
            let _ = write!(text, ",{value}");
        }
        text.push('\n');
    }
    text
}

/// A line of CSV; numbers stay as they are.
pub fn csv_line(cells: &[String]) -> String {
    let cell = |cell: &String| {
        if cell.parse::<f64>().is_ok() {
            cell.clone()
        } else {
            field(cell)
        }
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\n"
}

/// One object per step; non-finite numbers are null.
pub fn json_lines(history: &RunState) -> Vec<Value> {
    let line = |step: u64| {
        let values = history
            .metrics
            .keys()
            .filter_map(|name| Some((name.clone(), json!(history.metric_at(name, step)?))));
        std::iter::once(("step".to_owned(), json!(step)))
            .chain(values)
            .collect()
    };
    steps(history).into_iter().map(line).collect()
}

pub(super) fn steps(history: &RunState) -> BTreeSet<u64> {
    history
        .metrics
        .values()
        .flat_map(|series| series.steps())
        .collect()
}

/// A CSV field (RFC 4180) on one line, which a spreadsheet does not take for a formula.
fn field(name: &str) -> String {
    let name = visible(name);
    let quote = if name.trim_start().starts_with(['=', '+', '-', '@']) {
        "'"
    } else {
        ""
    };
    if name.contains([',', '"', '\'']) || !quote.is_empty() {
        format!("\"{quote}{}\"", name.replace('"', "\"\""))
    } else {
        name.into_owned()
    }
}

/// A configuration value without quotes.
pub fn shown(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// At most `most` evenly spaced values, including the first and the last.
pub fn spread(values: &[f64], most: usize) -> Vec<f64> {
    if values.len() <= most || most < 2 {
        return values.to_vec();
    }
    (0..most)
        .map(|index| values[index * (values.len() - 1) / (most - 1)])
        .collect()
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
        // Spreadsheets skip leading white space before a formula.
        check("\t=1", "\"' =1\"");
        check("\r=1", "␍=1");
    }
}
