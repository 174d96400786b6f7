//! `runs list`: one line per run, filtered by a condition and sorted by any field or metric.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use super::{Failure, Outcome, print, print_json_lines};
use crate::format::{or_na, percent};
use crate::report::{Report, RunRow, order, text_table, unknown_field};
use crate::run::{Field, Query, RunFolders};
use crate::secrets::visible;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Filter by run fields, config.KEY and metrics, such as `valid>0.9 and task:invoice`; operators: >= <= != > < = :,
    /// and, or, not, has:NAME
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Sort by a field, config.KEY or the last value of a metric, and show it
    #[arg(long, value_name = "NAME")]
    sort: Option<String>,
    /// Sort in descending order; runs without a value come last
    #[arg(long)]
    descending: bool,
    /// Use smoothed metrics (EMA over about 10 steps)
    #[arg(long)]
    smoothed: bool,
    /// Print one JSON object per run
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let query = arguments
        .condition
        .as_deref()
        .map(Query::parse)
        .transpose()
        .map_err(|error| Failure::usage(error.to_string()))?;
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
        seen.sort_by(|a, b| {
            order(a.field(name, arguments.smoothed), b.field(name, arguments.smoothed), arguments.descending)
        });
    }
    if arguments.json {
        let unreadable =
            unreadable.iter().map(|(path, message)| json!({"id": id(path), "path": path, "error": message}));
        let rows = seen.iter().map(|run| {
            let mut row = run.document();
            if let Some(name) = &arguments.sort {
                row["sorted_by"] = json!({name: run.field(name, arguments.smoothed).map(|field| value(&field))});
            }
            row
        });
        return print_json_lines(unreadable.chain(rows).collect());
    }
    let mut text = table(&seen, arguments);
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

fn table(seen: &[RunRow], arguments: &Arguments) -> String {
    let extra = arguments
        .sort
        .as_deref()
        .filter(|name| !["id", "run", "status", "step", "valid", "exact", "outcome", "model"].contains(name));
    let row = |cells: [String; 6], sorted: Option<String>, model: &str| {
        [cells.to_vec(), sorted.into_iter().collect(), vec![model.to_owned()]].concat()
    };
    let title = extra.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
    let mut rows = vec![row(["run", "status", "step", "valid", "exact", "vs base"].map(str::to_owned), title, "model")];
    for run in seen {
        let share = |rate: Option<f64>| or_na(rate, percent);
        let summary = run.latest_valid().map(|(_, summary)| summary);
        let (valid, exact) =
            (share(summary.map(|summary| summary.valid)), share(summary.and_then(|summary| summary.exact)));
        let [id, status, outcome] = [run.directory.id(), run.status.name(), run.outcome.label()].map(str::to_owned);
        let cells = [id, status, run.last_step.to_string(), valid, exact, outcome];
        let sorted = extra.map(|name| match run.field(name, arguments.smoothed) {
            Some(Field::Number(number)) => format!("{number:.4}"),
            Some(Field::Text(text)) => text,
            None => "-".to_owned(),
        });
        rows.push(row(cells, sorted, &run.directory.file().config.base_model));
    }
    text_table(&rows, if extra.is_some() { "llrrrlrl" } else { "llrrrll" })
}
