//! A run as Markdown, for a pull request: outcome, rates, configuration, alerts, and how to repeat it.

use std::fmt::Write;

use super::summary_table::rate_rows;
use super::{Report, RunRow, alert_text};
use crate::format::or_na;
use crate::run::EvalSummary;
use crate::secrets::visible;

/// The caller masks secrets.
pub fn markdown(report: &Report) -> String {
    let file = report.directory.file();
    let outcome = report.outcome();
    let name = if file.name.is_empty() { &file.id } else { &file.name };
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
    if let Some(result) = report.result() {
        let base = report.history.evals.get(&(0, result.set.clone(), "base".to_owned())).map(|eval| &eval.summary);
        let trained = if result.step == 0 { "base (best)".to_owned() } else { format!("step {}", result.step) };
        let rows = |summary: Option<&EvalSummary>| or_na(summary, |summary| summary.n.to_string());
        let _ = writeln!(
            text,
            "\n| {} set | base (n = {}) | {trained} (n = {}) |\n|---|---:|---:|",
            line(&result.set),
            rows(base),
            rows(Some(&result.summary))
        );
        let both = base.map_or_else(|| vec![&result.summary], |base| vec![base, &result.summary]);
        for (label, cells) in rate_rows(&both) {
            let base = if base.is_some() { cells.first().map_or("n/a", String::as_str) } else { "n/a" };
            let _ = writeln!(text, "| {label} | {base} | {} |", cells.last().map_or("n/a", String::as_str));
        }
    }
    let changed = RunRow::of(report).changed_keys();
    if !changed.is_empty() {
        text += "\n| key | value | set by |\n|---|---|---|\n";
        for cells in changed {
            let _ = writeln!(text, "| {} |", cells.map(|cell| line(&cell)).join(" | "));
        }
    }
    let alerts: Vec<String> =
        report.history.standing_alerts().map(|alert| format!("- {}\n", line(&alert_text(alert)))).collect();
    if !alerts.is_empty() {
        let _ = write!(text, "\nOpen alerts:\n\n{}", alerts.concat());
    }
    text
}

/// One line of text that cannot begin a cell, a link or markup of its own.
pub(super) fn line(text: &str) -> String {
    let mut escaped = String::new();
    for letter in visible(text).chars() {
        if "\\`*_[]<>|#".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_cell_without_markup() {
        assert_eq!(line("a|b\n<i>_x_ [y](z)"), "a\\|b␊\\<i\\>\\_x\\_ \\[y\\](z)");
    }
}
