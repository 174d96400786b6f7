//! `runs show`: one run in full, as text or JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Failure;
use crate::dataset;
use crate::format::{amount, bytes, percent_short};
use crate::report::{Report, RunRow, alert_text, rank_lines, rates};
use crate::run::events::Eval;
use crate::run::{SolveRate, Status, disk_forecast, task_folder};
use crate::score::Task;
use crate::secrets::visible;
use crate::task::{PromptSet, split_task_set, task_prompt};

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
    let width = prompts
        .iter()
        .map(|(prompt, _)| prompt.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (prompt, found) in prompts {
        let rate = found.map_or_else(|| "n/a".to_owned(), |found| percent_short(found.rate()));
        let source = found.map_or_else(
            String::new,
            |SolveRate {
                 step,
                 solved,
                 scored,
             }| { format!("  {solved} of {scored} completions of step {step}") },
        );
        let _ = writeln!(text, "{:<width$} {rate:>6}{source}", visible(prompt));
    }
    text
}

pub(super) fn page(seen: &Report) -> String {
    let file = seen.directory.file();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {}", visible(&value));
    };
    line("run", file.id.clone());
    line("folder", seen.directory.path().display().to_string());
    line("task", format!("{} ({})", file.task, file.job));
    let all: usize = file.mix.iter().map(|task| task.weight).sum();
    for task in &file.mix {
        let share = percent_short(task.weight as f64 / all as f64);
        let limit = task.max_completion_tokens;
        line(
            "",
            format!(
                "{:<20} {share} of the prompts, at most {limit} tokens, from {}",
                task.name, task.origin
            ),
        );
    }
    line("launched", format!("{} on {}", file.created, file.host));
    line("status", seen.progress());
    if let Some(cause) = seen.state.as_ref().and_then(|state| state.cause.as_ref()) {
        line("cause", cause.to_string());
    }
    if let Some(job) = &seen.slurm {
        line("slurm", job.described());
    }
    line("outcome", seen.outcome().sentence());
    if seen.status() == Status::Interrupted {
        line("resume", format!("grpo-tui train --resume {}", file.id));
    }
    if !seen.tags.is_empty() {
        line("tags", seen.tags.join(" "));
    }
    line("model", file.config.base_model.clone());
    let changed: Vec<String> = RunRow::from_report(seen)
        .changed_keys()
        .into_iter()
        .map(|[key, value, source]| format!("{key}={value} ({source})"))
        .collect();
    line(
        "configured",
        if changed.is_empty() {
            "all keys at their defaults".to_owned()
        } else {
            changed.join(", ")
        },
    );
    for name in seen.history.metrics.keys() {
        let value = seen
            .metric(name, false)
            .map_or_else(|| "n/a".to_owned(), amount);
        line("", format!("{name:<42} {value}"));
    }
    if !seen.history.ranks.is_empty() {
        rank_lines(&seen.history.ranks, usize::MAX)
            .into_iter()
            .for_each(|ranks| line("", ranks));
    }
    let (listed, hidden) = listed_evals(seen);
    let set = listed.iter().map(|eval| eval.set.len()).fold(6, usize::max);
    for eval in listed {
        line(
            "eval",
            format!(
                "step {:>5}  {:<set$} {:<8} {}",
                eval.step,
                eval.set,
                eval.who(),
                rates(&eval.summary)
            ),
        );
    }
    if hidden > 0 {
        line(
            "",
            format!("and {hidden} earlier evals; --json has them all"),
        );
    }
    let steps: Vec<String> = seen.checkpoints.iter().map(u64::to_string).collect();
    let best = seen
        .best()
        .map_or_else(String::new, |step| format!(" (best: {step})"));
    line(
        "checkpoints",
        if steps.is_empty() {
            "none".to_owned()
        } else {
            format!("steps {}{best}", steps.join(", "))
        },
    );
    line("disk", disk(seen));
    for alert in seen.history.standing_alerts() {
        line("alert", alert_text(alert));
    }
    for (_, note) in &seen.history.notes {
        line("note", note.text.clone());
    }
    if let Some(damage) = seen.log_damage() {
        line("log", damage);
    }
    for warning in &seen.warnings {
        line("warning", warning.clone());
    }
    text
}

/// The listed evals (base, test set, best and latest), and the number of others.
fn listed_evals(seen: &Report) -> (Vec<&Eval>, usize) {
    let best = seen.best();
    let all: Vec<&Eval> = seen.history.evals.values().collect();
    let between: Vec<u64> = all
        .iter()
        .filter(|eval| eval.step > 0 && is_eval_set(eval) && Some(eval.step) != best)
        .map(|eval| eval.step)
        .collect();
    let latest = LATEST_EVALS * seen.directory.task_names().len();
    let hidden = &between[..between.len().saturating_sub(latest)];
    let listed = all
        .iter()
        .copied()
        .filter(|eval| !is_eval_set(eval) || !hidden.contains(&eval.step))
        .collect();
    (listed, hidden.len())
}

fn is_eval_set(eval: &Eval) -> bool {
    split_task_set(&eval.set).0 == "eval"
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
