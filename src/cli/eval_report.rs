//! What `eval` prints and writes: rates, verdicts, pages, thresholds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::rows::Rows;
use super::runs::{check_page, write_page};
use super::{Failure, Outcome, print, print_json};
use crate::report::{
    EvalId, EvalResult, Page, Threshold, Versus, thresholds_markdown, versus_html, versus_markdown,
    versus_text,
};
use crate::run::{EvalRecord, EvalSummary, sha256};
use crate::score::Task;

#[derive(Debug, clap::Args)]
pub(super) struct ReportArguments {
    /// Exit with 3 if a rate of the last model is lower, such as valid=0.9; rates: parse, valid, exact, tolerant
    #[arg(long, value_name = "RATE=X", value_parser = Threshold::lowest)]
    fail_under: Vec<Threshold>,
    /// Exit with 3 if a rate of the last model is higher, such as invented=0.05: the share of values where none is expected
    #[arg(long, value_name = "RATE=X", value_parser = Threshold::highest)]
    fail_over: Vec<Threshold>,
    /// Write one self-contained HTML file; secrets are masked
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write Markdown for a pull request: thresholds, verdicts, rates, groups of failures; secrets are masked
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Overwrite these files
    #[arg(long)]
    force: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl ReportArguments {
    /// Checks that each page can be written and that no two have the same path.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let pages = [("--html", &self.html), ("--markdown", &self.markdown)];
        let mut written: Vec<(&str, PathBuf)> = Vec::new();
        for (option, file) in pages
            .into_iter()
            .filter_map(|(option, file)| Some((option, file.as_deref()?)))
        {
            check_page(Some(file), self.force)?;
            // The file need not exist, its folder must.
            let folder = file
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let place = folder
                .canonicalize()
                .unwrap_or_else(|_| folder.to_owned())
                .join(file.file_name().unwrap_or_default());
            if let Some((other, _)) = written.iter().find(|(_, other)| *other == place) {
                let message = format!(
                    "{other} and {option} name the same file, {}: name two files",
                    file.display()
                );
                return Err(Failure::usage(message));
            }
            written.push((option, place));
        }
        Ok(())
    }

    /// Checks that a threshold of *exact* can be met.
    pub(super) fn check_expected(&self, has_expected: bool, label: &str) -> Result<(), Failure> {
        match has_expected {
            true => Ok(()),
            false => self.refuse(
                &["exact"],
                &format!("no row of {label} has an `expected` answer"),
            ),
        }
    }

    /// Refuses thresholds of rates that will not be known.
    pub(super) fn refuse(&self, rates: &[&str], why: &str) -> Result<(), Failure> {
        let asked = self.fail_under.iter().map(|asked| asked.metric.as_str());
        match { asked }.find(|asked| rates.contains(asked)) {
            Some(rate) => Err(Failure::usage(format!("--fail-under {rate}: {why}"))),
            None => Ok(()),
        }
    }

    pub(super) fn write(&self, versus: &Versus, document: Value) -> Outcome {
        let Some(last) = versus.evals.last() else {
            return Ok(ExitCode::SUCCESS);
        };
        let thresholds = [self.fail_under.as_slice(), &self.fail_over].concat();
        if let Some(file) = &self.html {
            write_page(file, &versus_html(versus)?, self.force)?;
        }
        if let Some(file) = &self.markdown {
            let text = versus_markdown(versus) + &thresholds_markdown(&thresholds, last);
            write_page(file, &Page::masked(&text), self.force)?;
        }
        if self.json {
            print_json(document)?;
        } else {
            print(&versus_text(versus))?;
        }
        judge(&thresholds, last)
    }
}

/// What the results of all models on a task's rows have in common.
pub(super) fn about(task: &Task, rows: &Rows) -> EvalResult {
    let by_id = rows.rows.iter().map(|row| (row.id.clone(), row.clone()));
    EvalResult {
        id: EvalId {
            set: rows.set.clone(),
            ..EvalId::default()
        },
        summary: EvalSummary {
            has_calls: task.has_calls(),
            ..EvalSummary::default()
        },
        task: task.name.clone(),
        prompts_digest: sha256(rows.lines().as_bytes()),
        judge: task.judge_name(),
        schema_digest: task.definition_digest(),
        task_digest: task.digest(),
        rows: by_id.collect(),
        ..EvalResult::default()
    }
}

/// The result of one model.
pub(super) fn result(about: &EvalResult, name: String, records: Vec<EvalRecord>) -> EvalResult {
    EvalResult {
        id: EvalId {
            target: name.clone(),
            ..about.id.clone()
        },
        name,
        summary: EvalSummary {
            has_calls: about.summary.has_calls,
            ..EvalSummary::from_records(&records)
        },
        records,
        ..about.clone()
    }
}

/// The result and its settings, without absent endpoints, prompts and limit.
pub(super) fn document(versus: &Versus, settings: Map<String, Value>) -> Value {
    let summaries: Map<String, Value> = versus
        .evals
        .iter()
        .map(|eval| (eval.name.clone(), json!(eval.summary)))
        .collect();
    let in_a_row = |place: usize| -> Map<String, Value> {
        versus
            .evals
            .iter()
            .map(|eval| (eval.name.clone(), eval.in_a_row()[place].clone()))
            .collect()
    };
    let mut document = json!({
        "targets": summaries, "comparisons": versus.comparisons(), "failures": versus.failures(), "in_a_row": in_a_row(0),
        "in_a_row_interval": in_a_row(1),
    });
    let is_had = |(name, value): &(String, Value)| {
        !(value.is_null() && ["endpoints", "prompts", "limit", "confidence"].contains(&&**name))
    };
    if let Some(fields) = document.as_object_mut() {
        fields.extend(settings.into_iter().filter(is_had));
        let look = versus.evals.iter().find_map(|eval| eval.look.as_ref());
        fields.extend(look.map(|look| ("look".to_owned(), json!(look))));
    }
    document
}

/// Exit code 3 if the last model misses a threshold.
fn judge(thresholds: &[Threshold], last: &EvalResult) -> Outcome {
    let missed: Vec<String> = thresholds
        .iter()
        .filter_map(|threshold| threshold.missed(last))
        .collect();
    if missed.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure {
            code: 3,
            message: missed.join("\n"),
        })
    }
}
