//! `runs show`: one run in full, as text or JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Failure;
use crate::dataset;
use crate::format::{bytes, counted};
use crate::page::text::render;
use crate::page::{Block, Cell, Fact, Row, Table};
use crate::report::{Report, RunContext, RunRow, eval_table, rank_table};
use crate::run::events::Eval;
use crate::run::{SolveRate, Status, disk_forecast, task_folder};
use crate::score::Task;
use crate::task::{PromptSet, task_prompt};

/// The number of listed evals on the eval set, besides the best.
const LATEST_EVALS: usize = 6;

/// The document of `runs list`, and more.
pub(super) fn document(seen: &Report) -> Value {
    let mut document = RunRow::from_report(seen).document();
    let file = seen.directory.file();
    let evals: Vec<Value> = seen
        .history
        .evals
        .values()
        .map(|eval| json!(eval))
        .collect();
    let last: serde_json::Map<String, Value> = seen
        .history
        .metrics
        .keys()
        .map(|name| (name.clone(), json!(seen.metric(name, false))))
        .collect();
    let forecast = disk_forecast(seen.directory.path(), &seen.history, &file.config);
    let more = json!({
        "host": file.host, "argv": file.argv, "binary_version": file.binary_version, "config_digest": file.config_digest,
        "config": file.config, "sources": file.sources, "metrics": last, "ranks": seen.history.ranks, "evals": evals, "checkpoints": seen.checkpoints,
        "resumed": seen.history.resumed,
        "controls": seen.history.controls, "disk": forecast, "fits": forecast.fits(),
        "log": {
            "dropped_bytes": seen.history.dropped_bytes, "skipped_lines": seen.history.skipped, "missing_events": seen.history.gaps,
            "unknown_kinds": seen.history.unknown,
        },
        "warning": (!seen.warnings.is_empty()).then(|| seen.warnings.join(" ")),
    });
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
        if !file.mix.is_empty() {
            document.insert("mix".to_owned(), json!(file.mix));
        }
    }
    document
}

/// The training prompts of a run by name, each with its solve rate if the run has sampled it.
pub(super) fn prompts(seen: &Report) -> Result<Vec<(String, Option<SolveRate>)>, Failure> {
    let (run, mut found) = (&seen.directory, Vec::new());
    let max_rows = Some(run.file().config.max_rows)
        .filter(|rows| *rows > 0)
        .unwrap_or(usize::MAX);
    for name in run.task_names() {
        let task = Task::load(&task_folder(run.path(), name))?;
        let rows = dataset::load(&task, PromptSet::Train)?
            .into_iter()
            .take(max_rows);
        found.extend(rows.map(|row| {
            let prompt = task_prompt(name, &row.id);
            let rate = seen.history.solve_rates.get(&prompt).copied();
            (prompt, rate)
        }));
    }
    Ok(found)
}

pub(super) fn prompts_document(seen: &Report, prompts: &[(String, Option<SolveRate>)]) -> Value {
    let prompt = |(prompt, found): &(String, Option<SolveRate>)| {
        let [solved, scored] = [
            found.map(|found| found.solved),
            found.map(|found| found.scored),
        ];
        let (rate, step) = (found.map(SolveRate::rate), found.map(|found| found.step));
        json!({"prompt": prompt, "solve_rate": rate, "solved": solved, "scored": scored, "step": step})
    };
    json!({"run": seen.directory.id(), "prompts": prompts.iter().map(prompt).collect::<Vec<_>>()})
}

pub(super) fn prompts_page(prompts: &[(String, Option<SolveRate>)]) -> String {
    let row = |(prompt, found): &(String, Option<SolveRate>)| {
        let source = |found: &SolveRate| {
            let SolveRate {
                step,
                solved,
                scored,
            } = found;
            format!("{solved} of {scored} completions of step {step}")
        };
        let source = found.as_ref().map(source).unwrap_or_default();
        let rate = found.map(|found| Cell::rate(found.rate()));
        Row::new(
            prompt.as_str(),
            [Cell::known(rate, "not sampled"), source.into()],
        )
    };
    let rows = prompts.iter().map(row).collect();
    render(&[Block::Table(Table::new(&[], "lrl", rows))])
}

pub(super) fn page(seen: &Report) -> String {
    let (file, row) = (seen.directory.file(), RunRow::from_report(seen));
    let context = RunContext {
        launched: file.created.clone(),
        folder: seen.directory.path().display().to_string(),
        disk: Some(disk(seen)),
    };
    let cause = row.cause.as_ref();
    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
    let mut facts = vec![
        Fact::new("run", file.id.clone()),
        Fact::new("state", format!("{}{cause}", row.status.name())),
    ];
    if row.status == Status::Interrupted {
        let resume = format!("grpo-tui train --resume {}", file.id);
        facts.push(Fact::new("resume", resume));
    }
    facts.push(row.outcome_fact());
    facts.extend(row.configuration_facts(context));
    facts.extend(row.happenings());
    facts.extend(seen.log_damage().map(|damage| Fact::new("log", damage)));
    let (listed, hidden) = listed_evals(seen);
    let metrics = seen.history.metrics.keys().map(|name| {
        let value = seen.metric(name, false).map(Cell::Amount);
        Row::new(name, [Cell::known(value, "not measured at this step")])
    });
    let metrics = Table::new(&[], "l", metrics.collect());
    let mut page = vec![Block::Facts(facts)];
    if !listed.is_empty() {
        page.push(Block::heading("evals"));
        page.push(Block::Table(eval_table(listed)));
    }
    if hidden > 0 {
        let more = format!("and {}; --json has all", counted(hidden, "earlier eval"));
        page.push(Block::detail(more));
    }
    if !seen.history.ranks.is_empty() {
        page.push(Block::heading("ranks"));
        page.push(Block::Table(rank_table(&seen.history.ranks)));
    }
    if !metrics.rows.is_empty() {
        let step = seen.history.last_step;
        page.push(Block::heading(format!("metrics of step {step}")));
        page.push(Block::Table(metrics));
    }
    render(&page)
}

/// The listed evals (base, test set, best and latest), and the number of others.
fn listed_evals(seen: &Report) -> (Vec<&Eval>, usize) {
    let best = seen.best();
    let all: Vec<&Eval> = seen.history.evals.values().collect();
    let between: Vec<u64> = all
        .iter()
        .filter(|eval| eval.step > 0 && eval.is_on(PromptSet::Eval) && Some(eval.step) != best)
        .map(|eval| eval.step)
        .collect();
    let latest = LATEST_EVALS * seen.directory.task_names().len();
    let hidden = &between[..between.len().saturating_sub(latest)];
    let listed = all
        .iter()
        .copied()
        .filter(|eval| !eval.is_on(PromptSet::Eval) || !hidden.contains(&eval.step))
        .collect();
    (listed, hidden.len())
}

fn disk(seen: &Report) -> String {
    let forecast = disk_forecast(
        seen.directory.path(),
        &seen.history,
        &seen.directory.file().config,
    );
    let mut text = bytes(forecast.now.total_bytes);
    let ended = seen.status().is_ended() && seen.status() != Status::Interrupted;
    if let (Some(at_end), Some(free), false) = (forecast.at_end_bytes, forecast.free_bytes, ended) {
        let _ = write!(
            text,
            ", about {} at the end; {} free",
            bytes(at_end),
            bytes(free)
        );
        if !forecast.fits() {
            let _ = write!(
                text,
                ", not enough for the {} still needed",
                bytes(forecast.needed_bytes.unwrap_or(0))
            );
        }
    }
    text
}
