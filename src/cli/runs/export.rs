//! `runs export`: a run's metrics as CSV or JSON lines, or the whole run as one HTML file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, masked, output, print, print_json, print_json_lines, show, tell_masked};
use crate::format::bytes;
use crate::report::{Report, csv, html, json_lines};
use crate::run::{RunFolders, check_export, write_export};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("form").required(true).multiple(true))]
pub(super) struct Arguments {
    /// The run
    run: String,
    /// CSV: one line per step, one column per metric
    #[arg(long, group = "form", conflicts_with_all = ["jsonl", "html"])]
    csv: bool,
    /// JSON lines: one object per step
    #[arg(long, group = "form", conflicts_with = "html")]
    jsonl: bool,
    /// One self-contained HTML file; secrets are masked; `-` writes to standard output
    #[arg(long, group = "form", value_name = "FILE")]
    html: Option<PathBuf>,
    /// Everything as one JSON document; with --html, what was written
    #[arg(long, group = "form", conflicts_with_all = ["csv", "jsonl"])]
    json: bool,
    /// Overwrite FILE
    #[arg(long, requires = "html")]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let file = arguments.html.as_deref().filter(|file| *file != Path::new("-"));
    file.map_or(Ok(()), |file| check_export(file, arguments.force)).map_err(|error| Failure::usage(error.to_string()))?;
    let seen = Report::read(places.find(&arguments.run)?)?;
    if let Some(file) = &arguments.html {
        return write_html(&seen, file, arguments);
    }
    if arguments.csv {
        return print(&csv(&seen.history));
    }
    if arguments.jsonl {
        return print_json_lines(json_lines(&seen.history));
    }
    let mut document = show::document(&seen);
    let series = seen.history.metrics.iter();
    let series: serde_json::Map<String, serde_json::Value> = series
        .map(|(name, series)| (name.clone(), json!({"steps": series.steps().collect::<Vec<_>>(), "values": series.values()})))
        .collect();
    document["series"] = series.into();
    print_json(document)
}

fn write_html(seen: &Report, file: &Path, arguments: &Arguments) -> Outcome {
    let page = html(seen);
    if file == Path::new("-") {
        tell_masked(page.masked);
        return output::print_exact(&page.text);
    }
    write_export(file, page.text.as_bytes(), arguments.force)?;
    if arguments.json {
        let (run, bytes) = (seen.directory.id(), page.text.len());
        return print_json_lines(vec![json!({"run": run, "file": file, "bytes": bytes, "masked": page.masked})]);
    }
    output::say(&format!("wrote {} ({}); {}", file.display(), bytes(page.text.len() as u64), masked(page.masked)));
    Ok(ExitCode::SUCCESS)
}
