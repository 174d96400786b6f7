//! A run as Markdown, for a pull request: outcome, rates, verdicts, failure classes, configuration, alerts.

use std::fmt::Write;

use super::eval_pair::{TaskSection, result_page};
use super::event_text::alert_text;
use super::failures::failure_table;
use super::previous_run::RunChanges;
use super::run_report::Report;
use super::run_row::RunRow;
use crate::judge_check::{check_table, checks_in};
use crate::page::markdown::{escaped, line, render, table};

/// The caller masks secrets.
pub fn markdown(report: &Report) -> String {
    let file = report.directory.file();
    let outcome = report.outcome();
    let name = if file.name.is_empty() {
        &file.id
    } else {
        &file.name
    };
    // Writing into a String cannot fail.
    let mut text = format!("### {}\n\n{}\n\n", line(name), line(&outcome.sentence()));
    let _ = writeln!(
        text,
        "Run `{}`, task {}, from {}: {}.",
        line(&file.id),
        line(&file.task),
        line(&file.config.base_model),
        report.progress()
    );
    text += &results(report);
    text += &judges(report);
    text += &changed_configuration(report);
    if let Some(RunChanges { previous, rows }) = RunChanges::since_previous(&report.directory) {
        let none = if rows.is_empty() { ": nothing" } else { "" };
        let _ = writeln!(
            text,
            "\nChanged since the previous run of this task, `{}`{none}.",
            line(&previous)
        );
        if !rows.is_empty() {
            let rows: Vec<_> = rows.iter().map(|cells| escaped(cells)).collect();
            text += &table(
                &["", "previous run", "this run"].map(str::to_owned),
                &rows,
                "lll",
            );
        }
    }
    let alerts: Vec<String> = report
        .history
        .standing_alerts()
        .map(|alert| format!("- {}\n", line(&alert_text(alert))))
        .collect();
    if !alerts.is_empty() {
        let _ = write!(text, "\nOpen alerts:\n\n{}", alerts.concat());
    }
    text
}

/// Rates of base and result with intervals, verdicts, and failure classes.
pub(super) fn results(report: &Report) -> String {
    TaskSection::all(report)
        .iter()
        .map(|section| task_results(report, section))
        .collect()
}

fn task_results(
    report: &Report,
    TaskSection {
        history,
        result,
        pair,
        ..
    }: &TaskSection<'_>,
) -> String {
    let mut text = String::new();
    if let Some(result) = result {
        text += &render(&result_page(report, result, pair.as_ref()));
    }
    if let Some(rows) = failure_table(history, pair.as_ref()) {
        let rows: Vec<Vec<String>> = rows.iter().map(|cells| escaped(cells)).collect();
        text += rows
            .split_first()
            .map(|(titles, rows)| table(titles, rows, "lr"))
            .unwrap_or_default()
            .as_str();
    }
    text
}

/// How far the tasks' judges agreed with people when the run was launched.
fn judges(report: &Report) -> String {
    let (folder, names) = (report.directory.task_path(), report.directory.task_names());
    let checks: Vec<_> = names
        .iter()
        .flat_map(|name| checks_in(&folder.join(name)))
        .collect();
    let rows = check_table(&checks);
    let rows: Vec<Vec<String>> = rows.iter().map(|cells| escaped(cells)).collect();
    rows.split_first()
        .map(|(titles, rows)| table(titles, rows, "llr"))
        .unwrap_or_default()
}

/// The keys without their default, and what set them.
pub(super) fn changed_configuration(report: &Report) -> String {
    let rows: Vec<_> = RunRow::from_report(report)
        .changed_keys()
        .iter()
        .map(|cells| escaped(cells))
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        table(&["key", "value", "set by"].map(str::to_owned), &rows, "lll")
    }
}
