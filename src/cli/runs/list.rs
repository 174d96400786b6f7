//! `runs list`: a line a run, chosen by a condition and ordered by any field or metric.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use super::{Failure, Outcome, print, print_json_lines};
use crate::format::or_na;
use crate::report::{Report, RunRow, order, unknown_field};
use crate::run::{Field, Query, RunFolders};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only runs for which this holds, such as `valid>0.9 and task:invoice`: fields of a run, config.KEY or metrics; >= <= != > < = :, and, or, not, has:NAME
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Sort by a field, config.KEY or the last value of a metric, and show it
    #[arg(long, value_name = "NAME")]
    sort: Option<String>,
    /// Descending; runs without a value come last
    #[arg(long)]
    descending: bool,
    /// Smooth metrics over about ten steps
    #[arg(long)]
    smoothed: bool,
    /// One JSON object a run
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let query = arguments.condition.as_deref().map(Query::parse).transpose().map_err(|error| Failure::usage(error.to_string()))?;
    let (mut seen, mut unreadable) = (Vec::new(), Vec::new());
    for (path, run) in places.list() {
        match run.and_then(Report::read) {
            Ok(run) => seen.push(RunRow::of(&run)),
            Err(error) => unreadable.push((path, error.to_string())),
        }
    }
    if seen.is_empty() && unreadable.is_empty() && !arguments.json {
        return print(&format!("no runs in {}: start one with `grpo-tui train TASK`\n", places.described()));
    }
    let named: Vec<&str> = query.iter().flat_map(Query::fields).chain(arguments.sort.as_deref()).collect();
    if !seen.is_empty() {
        let unknown = named.iter().find_map(|name| unknown_field(name, seen.iter(), arguments.smoothed));
        unknown.map_or(Ok(()), |message| Err(Failure::usage(message)))?;
    }
    let all = seen.len();
    seen.retain(|run| query.as_ref().is_none_or(|query| query.matches(&|name| run.field(name, arguments.smoothed))));
    if let Some(name) = &arguments.sort {
        seen.sort_by(|a, b| order(a.field(name, arguments.smoothed), b.field(name, arguments.smoothed), arguments.descending));
    }
    if arguments.json {
        let unreadable = unreadable.iter().map(|(path, message)| json!({"id": id(path), "path": path, "error": message}));
        let rows = seen.iter().map(|run| {
            let mut row = run.document();
            if let Some(name) = &arguments.sort {
                row["sorted_by"] = json!({name: run.field(name, arguments.smoothed).map(|field| value(&field))});
            }
            row
        });
        return print_json_lines(unreadable.chain(rows).collect());
    }
    let mut text = String::new();
    table(&mut text, &seen, arguments);
    for (path, message) in &unreadable {
        let _ = writeln!(text, "{:<40} unreadable: {}", visible(&id(path)), visible(message));
    }
    if seen.len() < all {
        let _ = writeln!(text, "{} of {all} runs", seen.len());
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

fn table(text: &mut String, seen: &[RunRow], arguments: &Arguments) {
    let extra = arguments.sort.as_deref().filter(|name| !["id", "run", "status", "step", "valid", "exact", "model"].contains(name));
    let column = |title: &str| extra.map_or_else(String::new, |_| format!("  {title:>14}"));
    let title = visible(extra.map_or("", |name| name.rsplit('/').next().unwrap_or(name)));
    let (status, step, valid, exact) = ("status", "step", "valid", "exact");
    let _ = writeln!(text, "{:<40} {status:<11} {step:>6} {valid:>9} {exact:>9}{}  model", "run", column(&title));
    for run in seen {
        let percent = |rate: Option<f64>| or_na(rate, crate::format::percent);
        let summary = run.latest_valid().map(|(_, summary)| summary);
        let (valid, exact) = (percent(summary.map(|summary| summary.valid)), percent(summary.and_then(|summary| summary.exact)));
        let (id, status, step) = (visible(run.directory.id()), run.status.name(), run.last_step);
        let sorted = extra.and_then(|name| run.field(name, arguments.smoothed)).map_or_else(
            || "-".to_owned(),
            |field| match field {
                Field::Number(number) => format!("{number:.4}"),
                Field::Text(text) => visible(&text).into_owned(),
            },
        );
        let model = visible(&run.directory.file().config.base_model);
        let _ = writeln!(text, "{id:<40} {status:<11} {step:>6} {valid:>9} {exact:>9}{}  {model}", column(&sorted));
    }
}
