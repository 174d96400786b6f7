//! A run as Markdown, for a pull request: outcome, rates, verdicts, failure classes, configuration, alerts.

use std::fmt::Write;

use super::eval_pair::{EvalPair, TaskSection, columns};
use super::event_text::alert_text;
use super::failures::failure_table;
use super::previous_run::RunChanges;
use super::run_report::Report;
use super::run_row::RunRow;
use super::summary_table::{labelled, rate_rows};
use crate::judge_check::{check_table, checks_in};
use crate::secrets::visible;

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
        let (titles, summaries) = columns(report, result);
        let titles = [vec![format!("{} set, 95% CI", result.set)], titles].concat();
        text += &table(&escaped(&titles), &labelled(rate_rows(&summaries)), "l");
        let sentences: Vec<String> = pair.iter().flat_map(EvalPair::sentences).collect();
        if !sentences.is_empty() {
            let _ = writeln!(
                text,
                "\n- {}",
                sentences
                    .iter()
                    .map(|sentence| line(sentence))
                    .collect::<Vec<_>>()
                    .join("\n- ")
            );
        }
    }
    if let Some(rows) = failure_table(history, pair.as_ref()) {
        let rows: Vec<Vec<String>> = rows.iter().map(|cells| escaped(cells)).collect();
        text += rows
            .split_first()
            .map(|(titles, rows)| table(titles, rows, "l"))
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
        .map(|(titles, rows)| table(titles, rows, "ll"))
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

/// Its cells are escaped; `align` has a letter per column, `r` for right.
pub(super) fn table(head: &[String], rows: &[Vec<String>], align: &str) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = align
        .chars()
        .map(|letter| if letter == 'r' { "---:|" } else { "---|" });
    let rule: String = rule
        .chain(std::iter::repeat("---:|"))
        .take(head.len())
        .collect();
    std::iter::once(format!("\n{}|{rule}\n", row(head)))
        .chain(rows.iter().map(|cells| row(cells)))
        .collect()
}

fn escaped(cells: &[String]) -> Vec<String> {
    cells.iter().map(|cell| line(cell)).collect()
}

/// One line of text that cannot begin a cell, a link or markup of its own. An underscore inside a word is none: escaped,
/// it would hide a secret from who masks them.
pub(super) fn line(text: &str) -> String {
    let (text, mut escaped) = (visible(text), String::new());
    let mut letters = text.chars().peekable();
    let mut is_in_word = false;
    while let Some(letter) = letters.next() {
        let continues = is_in_word && letters.peek().is_some_and(|next| next.is_alphanumeric());
        if "\\`*_[]<>|#".contains(letter) && !(letter == '_' && continues) {
            escaped.push('\\');
        }
        is_in_word = letter.is_alphanumeric() || (letter == '_' && is_in_word);
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_cell_without_markup() {
        assert_eq!(
            line("a|b\n<i>_x_ [y](z)"),
            "a\\|b␊\\<i\\>\\_x\\_ \\[y\\](z)"
        );
        assert_eq!(line("ghp_ab_c __d e_"), "ghp_ab_c \\_\\_d e\\_");
    }
}
