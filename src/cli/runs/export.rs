//! `runs export`: a run's metrics as CSV or JSON lines, or the whole run as one HTML file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, pretty, print, show};
use crate::report::{Report, csv, html, json_lines};
use crate::run::{RunPlaces, replace_file};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("form").required(true).multiple(true))]
pub(super) struct Arguments {
    /// The run
    run: String,
    /// As comma-separated values: a line a step, a column a metric
    #[arg(long, group = "form", conflicts_with_all = ["jsonl", "html"])]
    csv: bool,
    /// As JSON lines: an object a step
    #[arg(long, group = "form", conflicts_with = "html")]
    jsonl: bool,
    /// As one self-contained HTML file with charts and tables; secrets are masked. `-` writes it to standard output
    #[arg(long, group = "form", value_name = "FILE")]
    html: Option<PathBuf>,
    /// Everything as one JSON document; with --html, what was written
    #[arg(long, group = "form", conflicts_with_all = ["csv", "jsonl"])]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunPlaces) -> Outcome {
    let seen = Report::read(places.find(&arguments.run)?)?;
    if let Some(file) = &arguments.html {
        return write_html(&seen, file, arguments.json);
    }
    if arguments.csv {
        return print(&csv(&seen.history));
    }
    if arguments.jsonl {
        return print(&json_lines(&seen.history));
    }
    let mut document = show::document(&seen);
    let series = seen.history.metrics.iter();
    let series: serde_json::Map<String, serde_json::Value> = series
        .map(|(name, series)| (name.clone(), json!({"steps": series.steps().collect::<Vec<_>>(), "values": series.values()})))
        .collect();
    document["series"] = series.into();
    print(&pretty(&document))
}

fn write_html(seen: &Report, file: &Path, json: bool) -> Outcome {
    let page = html(seen);
    if file == Path::new("-") {
        return print(&page.text);
    }
    replace_file(file, page.text.as_bytes()).map_err(|error| Failure::failed(error.to_string()))?;
    if json {
        return print(&format!("{}\n", json!({"run": seen.directory.id(), "file": file, "bytes": page.text.len(), "masked": page.masked})));
    }
    let masked = if page.masked == 0 { "nothing looked like a secret".to_owned() } else { format!("{} secrets are masked", page.masked) };
    eprintln!("wrote {} ({}); {masked}", file.display(), super::size(page.text.len() as u64));
    Ok(ExitCode::SUCCESS)
}
