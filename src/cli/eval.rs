//! `grpo-tui eval`: one to three models on the same held-out prompts, and what the difference is worth.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::device::DeviceArguments;
use super::runs::masked;
use super::targets::{Rows, Target, common_limit, lengths, whole};
use super::{Failure, Outcome, print, print_json, progress};
use crate::eval::{Pass, evaluate, prepare_rows};
use crate::format::{bytes, duration, percent, percent_interval};
use crate::model::Adapters;
use crate::report::{self, PairedComparison};
use crate::rollout::{Sampling, ThreadPool};
use crate::run::{EvalFolder, EvalRecord, EvalSummary, RunFolders, check_export, sha256, write_export};
use crate::score::Scorer;
use crate::task::{PromptSet, Task};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A task's folder, or its name in the workspace above, or an embedded task (`invoice`)
    task: String,
    /// A model and its name in the results; one to three times. M is a model's or an adapter's folder, a Hugging Face name, `tiny` (embedded), or a run:
    /// RUN, RUN@STEP, RUN@best, RUN@last
    #[arg(long = "model", value_name = "NAME=M", required = true)]
    models: Vec<String>,
    /// Prompt set: test, eval, train, or a file of prompt rows (`proof` = test)
    #[arg(long, value_name = "SET", default_value = "test")]
    on: String,
    /// Sampling temperature; 0: greedy
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true, value_parser = temperature)]
    temperature: f64,
    /// Completions per prompt; more than one needs a temperature above 0
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    samples: u32,
    /// Sampling seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Maximum completion tokens, for all models [default: the run's own, else the task's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_completion_tokens: Option<u32>,
    /// Exit with 3 if the last model's rate is lower, e.g. valid=0.9; also parse, exact, tolerant
    #[arg(long, value_name = "RATE=X", value_parser = Threshold::parse)]
    fail_under: Vec<Threshold>,
    /// Runs folder [default: the workspace's runs/, then the user's data directory]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArguments,
    /// Threads (0 takes every core)
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Save every answer, the task and the result in this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the result as one self-contained HTML file; secrets are masked
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Overwrite the HTML file
    #[arg(long, requires = "html")]
    force: bool,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The lowest rate that the user accepts.
#[derive(Clone, Debug)]
struct Threshold {
    metric: String,
    lowest: f64,
}

const MOST_TARGETS: usize = 3;

pub(super) fn run(arguments: Arguments) -> Outcome {
    arguments
        .html
        .as_deref()
        .map_or(Ok(()), |file| check_export(file, arguments.force))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let task = Task::resolve(&arguments.task)?;
    let scorer = Scorer::new(&task)?;
    let places = RunFolders::discover(arguments.runs.as_deref(), &std::env::current_dir()?);
    let rows = Rows::on(&task, &arguments.on)?;
    let targets = targets(&arguments, &task, &places)?;
    if arguments.fail_under.iter().any(|threshold| threshold.metric == "exact") && rows.rows.iter().all(|row| row.expected.is_none()) {
        return Err(Failure::usage(format!("--fail-under exact: no row of {} has an `expected` answer", rows.label)));
    }
    let folder = arguments.out.as_ref().map(|out| keep(out, &task, &rows)).transpose()?;
    let engine = arguments.device.engine()?;
    let threads = ThreadPool::of_engine(&engine, arguments.threads)?;
    let limit = arguments.max_completion_tokens.map_or_else(|| common_limit(&targets), |limit| limit as usize);
    let mut passes = Vec::with_capacity(targets.len());
    for target in &targets {
        let (model, tokenizer) = target.load(&places, &engine)?;
        let prompts = prepare_rows(&task, &rows.label, rows.rows.clone(), &tokenizer, lengths(&model, limit))?;
        let sampling = Sampling {
            temperature: arguments.temperature,
            max_completion_tokens: limit,
            stop_ids: tokenizer.stop_ids().to_vec(),
            seed: arguments.seed,
        };
        let start = Instant::now();
        progress::say(&format!("{}: {} on {} {} prompts", target.name, target.model, prompts.len(), rows.set));
        let pass = Pass { model: &model, adapters: Adapters::On, tokenizer: &tokenizer, scorer: &scorer, threads: &threads };
        let records = evaluate(pass, &prompts, &sampling, arguments.samples as usize)?;
        let summary = EvalSummary::from_records(&records);
        progress::say(&format!("{}: valid {}  ({})", target.name, percent(summary.valid), duration(start.elapsed().as_secs_f64())));
        if let Some(folder) = &folder {
            folder.write(&rows.set, &target.name, &records)?;
        }
        passes.push((target, records, summary));
    }
    let pairs = compared(&passes);
    let document = document(&arguments, &task, limit, &passes, &pairs);
    if let Some(folder) = &folder {
        folder.finish(&document)?;
    }
    if let Some(file) = &arguments.html {
        write_html(file, arguments.force, &task, &rows, &passes)?;
    }
    if arguments.json {
        print_json(&format!("{document}\n"))?;
    } else {
        print(&text(&rows.set, arguments.samples, &passes, &pairs))?;
    }
    judge(&arguments.fail_under, &passes)
}

type Done<'a> = (&'a Target, Vec<EvalRecord>, EvalSummary);

fn targets(arguments: &Arguments, task: &Task, places: &RunFolders) -> Result<Vec<Target>, Failure> {
    if arguments.models.len() > MOST_TARGETS {
        return Err(Failure::usage(format!("{} models: at most {MOST_TARGETS} --model", arguments.models.len())));
    }
    if arguments.samples > 1 && arguments.temperature == 0.0 {
        return Err(Failure::usage(format!("--samples {} needs a temperature above 0: add --temperature 1", arguments.samples)));
    }
    let mut targets: Vec<Target> = Vec::new();
    for text in &arguments.models {
        let target = Target::find(text, task, places)?;
        if targets.iter().any(|other| other.name == target.name) {
            return Err(Failure::usage(format!("--model {text}: duplicate name `{}`: write NAME=M", target.name)));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// The folder for everything that the eval brings; prompts that are no set of the task are kept with their ids.
fn keep(out: &Path, task: &Task, rows: &Rows) -> Result<EvalFolder, Failure> {
    let folder = EvalFolder::create(out, &task.files()?)?;
    if PromptSet::ALL.into_iter().all(|set| set.name() != rows.set) {
        folder.keep_prompts(lines(rows).as_bytes())?;
    }
    Ok(folder)
}

/// The rows as JSON lines, each with its id.
fn lines(rows: &Rows) -> String {
    rows.rows.iter().map(|row| format!("{}\n", whole(row))).collect()
}

fn write_html(file: &Path, force: bool, task: &Task, rows: &Rows, passes: &[Done<'_>]) -> Result<(), Failure> {
    let prompts = lines(rows);
    let passes = passes.iter().map(|(target, records, summary)| report::Pass {
        id: report::EvalId { folder: PathBuf::new(), step: 0, set: rows.set.clone(), target: target.name.clone() },
        name: target.name.clone(),
        records: records.clone(),
        summary: summary.clone(),
        task: task.name.clone(),
        prompts_digest: sha256(prompts.as_bytes()),
        schema_digest: sha256(task.schema_text.as_bytes()),
        task_digest: task.digest(),
        rows: rows.rows.iter().map(|row| (row.id.clone(), row.clone())).collect(),
    });
    let mut passes: Vec<report::Pass> = passes.collect();
    let versus = if passes.len() == 1 { report::Versus::alone(passes.remove(0)) } else { report::Versus::of(passes)? };
    let page = report::versus_html(&versus);
    write_export(file, page.text.as_bytes(), force)?;
    progress::say(&format!("wrote {} ({}); {}", file.display(), bytes(page.text.len() as u64), masked(page.masked)));
    Ok(())
}

/// Every pair of passes, the earlier one first.
fn compared(passes: &[Done<'_>]) -> Vec<PairedComparison> {
    let pairs = (0..passes.len()).flat_map(|a| (a + 1..passes.len()).map(move |b| (a, b)));
    pairs.map(|(a, b)| PairedComparison::of((a, &passes[a].1), (b, &passes[b].1))).collect()
}

fn document(arguments: &Arguments, task: &Task, limit: usize, passes: &[Done<'_>], pairs: &[PairedComparison]) -> Value {
    let targets: Map<String, Value> = passes.iter().map(|(target, _, summary)| (target.name.clone(), json!(summary))).collect();
    let comparisons: Vec<Value> =
        pairs.iter().map(|pair| pair.document([&passes[pair.first].0.name, &passes[pair.second].0.name])).collect();
    let models: Map<String, Value> = passes.iter().map(|(target, ..)| (target.name.clone(), json!(target.model))).collect();
    json!({
        "targets": targets, "comparisons": comparisons, "models": models, "task": task.name, "set": arguments.on,
        "temperature": arguments.temperature, "samples": arguments.samples, "seed": arguments.seed, "max_completion_tokens": limit,
    })
}

fn text(set: &str, samples: u32, passes: &[Done<'_>], pairs: &[PairedComparison]) -> String {
    let columns: Vec<(&str, &EvalSummary)> = passes.iter().map(|(target, _, summary)| (target.name.as_str(), summary)).collect();
    let mut text = report::columns(set, &columns);
    for pair in pairs {
        if pairs.len() > 1 {
            text.push_str(&format!("{} to {}:\n", columns[pair.first].0, columns[pair.second].0));
        }
        text.extend(pair.judged().map(report::MetricComparison::line));
    }
    if samples > 1 {
        text.push_str("intervals and p-values are clustered by prompt\n");
    }
    if let Some((_, last)) = columns.last() {
        text.push_str(&report::value_drift(last));
    }
    text
}

/// Exit code 3 where the last model misses a threshold.
fn judge(thresholds: &[Threshold], passes: &[Done<'_>]) -> Outcome {
    let Some((target, _, summary)) = passes.last() else { return Ok(ExitCode::SUCCESS) };
    let mut missed = Vec::new();
    for Threshold { metric, lowest } in thresholds {
        let rate = summary.metric(metric);
        // A rate that is not there misses every threshold.
        if rate.is_nan() || rate < *lowest {
            let (rows, interval) = (summary.rows_of(metric), summary.interval(metric));
            missed.push(format!(
                "{}: {metric} {}, n = {rows}, is {:.1} points below the {} of --fail-under",
                target.name,
                percent_interval(rate, interval),
                100.0 * (lowest - rate),
                percent(*lowest)
            ));
        }
    }
    if missed.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure { code: 3, message: missed.join("\n") }) }
}

impl Threshold {
    fn parse(text: &str) -> Result<Self, String> {
        let names = ["parse", "valid", "exact", "tolerant"];
        let (metric, lowest) = text.split_once('=').ok_or("write it as RATE=X, for example valid=0.9")?;
        if !names.contains(&metric) {
            return Err(format!("unknown rate `{metric}`: use {}", names.join(", ")));
        }
        match lowest.parse::<f64>() {
            Ok(lowest) if (0.0..=1.0).contains(&lowest) => Ok(Self { metric: metric.to_owned(), lowest }),
            Ok(percent) if percent > 1.0 && percent <= 100.0 => {
                Err(format!("a rate is a number from 0 to 1; for {percent}% write {metric}={}", percent / 100.0))
            }
            _ => Err(format!("`{lowest}` is not a number from 0 to 1")),
        }
    }
}

/// A sampling temperature: 0 or above, finite.
pub(super) fn temperature(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0).ok_or_else(|| "must be a number >= 0".to_owned())
}
