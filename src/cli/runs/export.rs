//! `runs export`: a run's metrics as CSV or JSON lines, or the whole run as one HTML file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Outcome, check_page, output, print, print_json, print_json_lines, report_masked, show, write_page};
use crate::report::{Report, csv, html, json_lines, markdown};
use crate::run::RunFolders;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("form").required(true).multiple(true))]
pub(super) struct Arguments {
    /// Run: a path, name, id, or unique id prefix
    run: String,
    /// Print CSV: one line per step, one column per metric
    #[arg(long, group = "form", conflicts_with_all = ["jsonl", "html", "markdown"])]
    csv: bool,
    /// Print JSON lines: one object per step
    #[arg(long, group = "form", conflicts_with_all = ["html", "markdown"])]
    jsonl: bool,
    /// Print a Markdown summary for a pull request: outcome, rates, configuration, alerts; secrets are masked
    #[arg(long, group = "form", conflicts_with = "html")]
    markdown: bool,
    /// Write one self-contained HTML file; secrets are masked; `-`: standard output
    #[arg(long, group = "form", value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print everything as one JSON document; with --html, what was written
    #[arg(long, group = "form", conflicts_with_all = ["csv", "jsonl", "markdown"])]
    json: bool,
    /// Overwrite FILE
    #[arg(long, requires = "html")]
    force: bool,
}

pub(super) fn run(arguments: &Arguments, places: &RunFolders) -> Outcome {
    let file = arguments.html.as_deref().filter(|file| *file != Path::new("-"));
    check_page(file, arguments.force)?;
    let seen = Report::read(places.find(&arguments.run)?)?;
    if let Some(file) = &arguments.html {
        return write_html(&seen, file, arguments);
    }
    if arguments.markdown {
        return print(&markdown(&seen));
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
        .map(|(name, series)| {
            (name.clone(), json!({"steps": series.steps().collect::<Vec<_>>(), "values": series.values()}))
        })
        .collect();
    document["series"] = series.into();
    print_json(document)
}

fn write_html(seen: &Report, file: &Path, arguments: &Arguments) -> Outcome {
    let page = html(seen)?;
    if file == Path::new("-") {
        report_masked(page.masked);
        return output::print_exact(&page.text);
    }
    write_page(file, &page, arguments.force)?;
    let (run, path, bytes) = (seen.directory.id(), seen.directory.path(), page.text.len());
    let document = json!({"run": run, "path": path, "file": file, "bytes": bytes, "masked": page.masked});
    if arguments.json { print_json_lines(vec![document]) } else { Ok(ExitCode::SUCCESS) }
}
