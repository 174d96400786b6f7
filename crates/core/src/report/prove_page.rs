//! What `prove` found, as a page.

use super::measure::Metric;
use super::significance::MetricVerdict;
use crate::format::{counted, duration};
use crate::page::{Block, Cell, Fact, Level, Row, Table};
use crate::run::{CheckOutcome, Comparison, ProveRecord, SettingResult};

/// The verdict, each cause with its remedy, what was compared, and answers by setting.
pub fn prove_page(record: &ProveRecord) -> Vec<Block> {
    let ProveRecord {
        base_url,
        model,
        task,
        set,
        prompts,
        step,
        ..
    } = record;
    let level = match record.differs() {
        Some(true) => Level::Error,
        Some(false) => Level::Good,
        None => Level::Warning,
    };
    let mut page = vec![
        Block::heading(format!("{model} at {base_url}")),
        Block::Text(level, record.verdict()),
        Block::detail(format!(
            "step {step}, {} of the {set} set of {task}",
            counted(*prompts, "prompt")
        )),
    ];
    for finding in &record.findings {
        let text = format!("{}\n{}", finding.sentence, finding.fault.remedy());
        page.push(Block::Finding(Level::Error, text));
    }
    let check = |check: &crate::run::ServingCheck| Row {
        level: match check.outcome {
            CheckOutcome::Equal => Level::Good,
            CheckOutcome::Differs => Level::Error,
            CheckOutcome::NotCompared => Level::Step,
        },
        ..Row::new(
            check.name.as_str(),
            [check.outcome.name().into(), check.detail.as_str().into()],
        )
    };
    let rows = record.checks.iter().map(check).collect();
    page.push(Block::Table(Table::new(
        &["compared", "outcome", "measured"],
        "lll",
        rows,
    )));
    if !record.settings.is_empty() {
        let rows = record.settings.iter().map(setting).collect();
        let head = ["setting", "answers", "as the run's", "valid", "exact"];
        page.push(Block::Table(Table::new(&head, "lrrll", rows)));
    }
    page.push(Block::Facts(vec![
        Fact::new("requests", Cell::Count(record.requests)),
        Fact::new("time", duration(record.seconds)),
    ]));
    page
}

fn setting(result: &SettingResult) -> Row {
    let share = (result.comparable > 0).then(|| result.same as f64 / result.comparable as f64);
    let verdict = |metric, comparison: &Comparison| {
        Cell::Text(MetricVerdict::from_comparison(metric, comparison, None).words())
    };
    let answers = match result.answered == result.prompts {
        true => result.answered.to_string(),
        false => format!("{} of {}", result.answered, result.prompts),
    };
    let exact = result.exact.as_ref();
    Row::new(
        result.name.as_str(),
        [
            answers.into(),
            Cell::known(share.map(Cell::rate), "no text"),
            verdict(Metric::Valid, &result.valid),
            Cell::known(
                exact.map(|exact| verdict(Metric::Exact, exact)),
                "no expected values",
            ),
        ],
    )
}
