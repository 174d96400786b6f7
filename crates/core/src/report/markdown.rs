//! A run as Markdown, for a pull request: outcome, rates, verdicts, failure classes, configuration, alerts.

use super::eval_pair::TaskSection;
use super::run_page;
use super::run_report::Report;
use crate::page::Block;
use crate::page::markdown::{line, render};

/// The caller masks secrets.
pub fn markdown(report: &Report) -> String {
    let file = report.directory.file();
    let name = if file.name.is_empty() {
        &file.id
    } else {
        &file.name
    };
    let page = [
        run_page::summary(report),
        results(report),
        run_page::configuration(report),
    ];
    format!("### {}\n{}", line(name), render(&page.concat()))
}

/// Rates of base and result with intervals, verdicts, failure classes, checks of judges.
pub(super) fn results(report: &Report) -> Vec<Block> {
    let tasks = TaskSection::all(report);
    let failures = tasks
        .iter()
        .flat_map(|task| run_page::failures(report, task));
    let results = run_page::results(report, &tasks);
    results.into_iter().chain(failures).collect()
}
