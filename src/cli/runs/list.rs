//! `runs list`: a line a run, chosen by a condition and ordered by any field or metric.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use super::{FIELDS, Failure, Outcome, Seen, print};
use crate::run::{Field, Query, RunPlaces};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only runs for which this holds, such as `valid>0.9 and task:invoice`: fields of a run, config.KEY or metrics; >= <= != > < = :, and, or, not, has:NAME
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Order by a field, config.KEY or the last value of a metric, and show it
    #[arg(long, value_name = "NAME")]
    sort: Option<String>,
    /// The highest first; runs without a value come last
    #[arg(long)]
    descending: bool,
    /// Metrics by their moving average over about ten steps
    #[arg(long)]
    smoothed: bool,
    /// One JSON object a run
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunPlaces) -> Outcome {
    let query = arguments.condition.as_deref().map(Query::parse).transpose().map_err(|error| Failure::usage(error.to_string()))?;
    let (mut seen, mut unreadable) = (Vec::new(), Vec::new());
    for (path, run) in places.list() {
        match run.map_err(Failure::from).and_then(Seen::read) {
            Ok(run) => seen.push(run),
            Err(failure) => unreadable.push((path, failure.message)),
        }
    }
    if seen.is_empty() && unreadable.is_empty() && !arguments.json {
        return print(&format!("no runs in {}; `grpo-tui train TASK` makes one\n", places.described()));
    }
    let named: Vec<&str> = query.iter().flat_map(Query::fields).chain(arguments.sort.as_deref()).collect();
    if !seen.is_empty() {
        named.iter().try_for_each(|name| check_field(name, &seen, arguments.smoothed))?;
    }
    let all = seen.len();
    seen.retain(|run| query.as_ref().is_none_or(|query| query.matches(&|name| run.field(name, arguments.smoothed))));
    if let Some(name) = &arguments.sort {
        seen.sort_by(|a, b| order(a.field(name, arguments.smoothed), b.field(name, arguments.smoothed), arguments.descending));
    }
    let mut text = String::new();
    if arguments.json {
        for (path, message) in &unreadable {
            let _ = writeln!(text, "{}", json!({"id": id(path), "path": path, "error": message}));
        }
        for run in &seen {
            let mut row = run.row();
            if let Some(name) = &arguments.sort {
                row["sorted_by"] = json!({name: run.field(name, arguments.smoothed).map(|field| value(&field))});
            }
            let _ = writeln!(text, "{row}");
        }
    } else {
        table(&mut text, &seen, arguments);
        for (path, message) in &unreadable {
            let _ = writeln!(text, "{:<40} unreadable: {message}", id(path));
        }
        if seen.len() < all {
            let _ = writeln!(text, "{} of {all} runs", seen.len());
        }
    }
    print(&text)
}

fn id(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn value(field: &Field) -> serde_json::Value {
    match field {
        Field::Text(text) => json!(text),
        Field::Number(number) => json!(number),
    }
}

fn table(text: &mut String, seen: &[Seen], arguments: &Arguments) {
    let extra = arguments.sort.as_deref().filter(|name| !["id", "run", "status", "step", "valid", "exact", "model"].contains(name));
    let column = |title: &str| extra.map_or_else(String::new, |_| format!("  {title:>14}"));
    let title = extra.map_or("", |name| name.rsplit('/').next().unwrap_or(name));
    let (status, step, valid, exact) = ("status", "step", "valid", "exact");
    let _ = writeln!(text, "{:<40} {status:<11} {step:>6} {valid:>9} {exact:>9}{}  model", "run", column(title));
    for run in seen {
        let percent = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", 100.0 * rate));
        let summary = run.latest_valid().map(|(_, summary)| summary);
        let (valid, exact) = (percent(summary.map(|summary| summary.valid)), percent(summary.and_then(|summary| summary.exact)));
        let (id, status, step) = (run.directory.id(), run.status().name(), run.history.last_step);
        let sorted = extra.and_then(|name| run.field(name, arguments.smoothed)).map_or_else(
            || "-".to_owned(),
            |field| match field {
                Field::Number(number) => format!("{number:.4}"),
                Field::Text(text) => text,
            },
        );
        let model = &run.directory.file().config.base_model;
        let _ = writeln!(text, "{id:<40} {status:<11} {step:>6} {valid:>9} {exact:>9}{}  {model}", column(&sorted));
    }
}

/// Runs without a value, or with one that is no number, come last either way; equal ones stay oldest first.
fn order(a: Option<Field>, b: Option<Field>, descending: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let known = |field: &Option<Field>| field.as_ref().is_some_and(|field| !matches!(field, Field::Number(number) if number.is_nan()));
    let found = match (&a, &b) {
        _ if known(&a) != known(&b) => return known(&b).cmp(&known(&a)),
        (Some(Field::Number(a)), Some(Field::Number(b))) => a.total_cmp(b),
        (Some(a), Some(b)) => a.to_string().cmp(&b.to_string()),
        _ => Ordering::Equal,
    };
    if descending { found.reverse() } else { found }
}

/// A name that no run knows is a slip of the pen, not a condition that never holds.
fn check_field(name: &str, seen: &[Seen], smoothed: bool) -> Result<(), Failure> {
    if FIELDS.contains(&name) || seen.iter().any(|run| run.field(name, smoothed).is_some()) {
        return Ok(());
    }
    let metrics = seen.iter().flat_map(|run| run.history.metrics.keys().cloned());
    let keys = crate::config::KEYS.iter().map(|key| format!("config.{}", key.name));
    let known = FIELDS.iter().map(|field| (*field).to_owned()).chain(metrics).chain(keys);
    let near = known.map(|known| (strsim::jaro_winkler(name, &known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = near.filter(|(near, _)| *near > 0.8).map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"));
    Err(Failure::usage(format!("no run has `{name}`{hint} There are the fields {}, config.KEY, and every metric", FIELDS.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_come_last() {
        let number = |number| Some(Field::Number(number));
        let check = |descending, expected: [Option<f64>; 4]| {
            let mut fields = [None, number(1.0), number(f64::NAN), number(3.0)];
            fields.sort_by(|a, b| order(a.clone(), b.clone(), descending));
            let found = fields.map(|field| match field {
                Some(Field::Number(number)) if !number.is_nan() => Some(number),
                _ => None,
            });
            assert_eq!(found, expected);
        };
        check(false, [Some(1.0), Some(3.0), None, None]);
        check(true, [Some(3.0), Some(1.0), None, None]);
    }
}
