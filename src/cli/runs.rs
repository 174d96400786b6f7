//! `grpo-tui runs`: the list of runs, one run in full, two side by side, a run's metrics as CSV.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Outcome, print};
use crate::run::{EvalSummary, RunDirectory, RunPlaces, RunState, State, Status, list_checkpoints};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Look for runs in this folder only
    #[arg(long, global = true, value_name = "DIR")]
    runs: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List runs, oldest first
    List {
        /// One JSON object a run
        #[arg(long)]
        json: bool,
    },
    /// Show one run: state, configuration, progress, evals, checkpoints
    Show {
        /// A run's path, id, name, or a unique beginning of its id
        run: String,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show where two runs differ: configuration, progress, evals
    Compare {
        /// The first run
        first: String,
        /// The second run
        second: String,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print a run's metrics, one line a step
    Export {
        /// The run
        run: String,
        /// As comma-separated values
        #[arg(long, required = true)]
        csv: bool,
    },
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let here = std::env::current_dir()?;
    let places = RunPlaces::discover(arguments.runs.as_deref(), &here);
    let text = match arguments.command {
        Command::List { json } => list(&places, json),
        Command::Show { run, json } => {
            let seen = Seen::read(places.find(&run)?)?;
            if json { pretty(&seen.document()) } else { seen.page() }
        }
        Command::Compare { first, second, json } => compare(&Seen::read(places.find(&first)?)?, &Seen::read(places.find(&second)?)?, json),
        Command::Export { run, .. } => csv(&RunState::read(places.find(&run)?.path())?),
    };
    print(&text)
}

/// One run as its files tell it.
struct Seen {
    directory: RunDirectory,
    history: RunState,
    state: Option<State>,
    checkpoints: Vec<u64>,
}

impl Seen {
    fn read(directory: RunDirectory) -> Result<Self, Failure> {
        let state = State::observe(directory.path());
        let history = RunState::read(directory.path())?;
        let checkpoints = list_checkpoints(directory.path())?;
        Ok(Self { directory, history, state, checkpoints })
    }

    fn status(&self) -> Status {
        self.state.as_ref().map_or(Status::Created, |state| state.status)
    }

    fn best(&self) -> Option<u64> {
        self.history.best_step(&self.checkpoints)
    }

    /// The latest rate that says how good the run's model is, with the set it was measured on.
    fn latest_valid(&self) -> Option<(&str, &EvalSummary)> {
        let of = |set: &'static str| self.history.latest_eval(set, "trained").map(|eval| (set, &eval.summary));
        of("proof").or_else(|| of("eval"))
    }

    fn row(&self) -> Value {
        let file = self.directory.file();
        let (set, summary) = self.latest_valid().unzip();
        json!({
            "id": file.id, "name": file.name, "task": file.task, "job": file.job, "created": file.created,
            "path": self.directory.path(), "status": self.status(), "step": self.history.last_step,
            "total_steps": self.history.run.as_ref().map(|run| run.total_steps),
            "base_model": file.config.base_model, "policy_loss": file.config.policy_loss,
            "valid_set": set, "valid": summary.map(|summary| summary.valid), "exact": summary.and_then(|summary| summary.exact),
            "reward": self.history.metrics.get("reward").and_then(|series| series.last()),
        })
    }

    fn document(&self) -> Value {
        let mut document = self.row();
        let file = self.directory.file();
        let evals: Vec<Value> = self.history.evals.values().map(|eval| json!(eval)).collect();
        let last: serde_json::Map<String, Value> =
            self.history.metrics.iter().filter_map(|(name, series)| Some((name.clone(), json!(series.last()?)))).collect();
        let state = self.state.as_ref();
        let more = json!({
            "cause": state.and_then(|state| state.cause.clone()).or_else(|| self.history.end.as_ref().map(|end| end.cause.clone())),
            "host": file.host, "argv": file.argv, "binary_version": file.binary_version, "config_digest": file.config_digest,
            "config": file.config, "sources": file.sources, "metrics": last, "evals": evals, "checkpoints": self.checkpoints,
            "best": self.best(), "alerts": self.history.alerts.values().filter(|alert| !alert.cleared).collect::<Vec<_>>(),
            "notes": self.history.notes.iter().map(|(_, note)| &note.text).collect::<Vec<_>>(), "resumed": self.history.resumed,
            "log": {"dropped_bytes": self.history.dropped_bytes, "skipped_lines": self.history.skipped, "missing_events": self.history.gaps},
        });
        if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
            document.extend(more);
        }
        document
    }

    fn page(&self) -> String {
        let file = self.directory.file();
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{name:<12} {value}");
        };
        line("run", file.id.clone());
        line("folder", self.directory.path().display().to_string());
        line("task", format!("{} ({})", file.task, file.job));
        line("launched", format!("{} on {}", file.created, file.host));
        let planned = self.history.run.as_ref().map_or_else(String::new, |run| format!(" of {}", run.total_steps));
        line("status", format!("{}, step {}{planned}", self.status().name(), self.history.last_step));
        if let Some(cause) = self.state.as_ref().and_then(|state| state.cause.as_ref()) {
            line("cause", cause.clone());
        }
        if self.status() == Status::Interrupted {
            line("go on", format!("grpo-tui train --resume {}", file.id));
        }
        line("model", file.config.base_model.clone());
        let changed: Vec<String> =
            changed_keys(&self.directory).into_iter().map(|(key, value, source)| format!("{key}={value} ({source})")).collect();
        line("configured", if changed.is_empty() { "every key at its default".to_owned() } else { changed.join(", ") });
        for (name, series) in &self.history.metrics {
            if let Some(value) = series.last() {
                line("", format!("{name:<42} {value:.4}"));
            }
        }
        for eval in self.history.evals.values() {
            line("eval", format!("step {:>5}  {:<6} {:<8} {}", eval.step, eval.set, eval.target, rates(&eval.summary)));
        }
        let steps: Vec<String> = self.checkpoints.iter().map(u64::to_string).collect();
        let best = self.best().map_or_else(String::new, |step| format!(" (best: {step})"));
        line("checkpoints", if steps.is_empty() { "none".to_owned() } else { format!("steps {}{best}", steps.join(", ")) });
        for alert in self.history.alerts.values().filter(|alert| !alert.cleared) {
            line("alert", format!("{} {}", alert.sentence, alert.suggestion));
        }
        for (_, note) in &self.history.notes {
            line("note", note.text.clone());
        }
        let history = &self.history;
        if history.dropped_bytes > 0 || history.skipped > 0 || history.gaps > 0 {
            let (bytes, lines, gaps) = (history.dropped_bytes, history.skipped, history.gaps);
            line("log", format!("{bytes} torn bytes dropped, {lines} unreadable lines, {gaps} events missing"));
        }
        text
    }
}

fn rates(summary: &EvalSummary) -> String {
    let [low, high] = summary.valid_interval;
    let exact = summary.exact.map_or_else(String::new, |exact| format!("  exact {:5.1} %", 100.0 * exact));
    let (valid, low, high, parse) = (100.0 * summary.valid, 100.0 * low, 100.0 * high, 100.0 * summary.parse);
    format!("n {:<5} valid {valid:5.1} % [{low:.1}, {high:.1}]{exact}  parse {parse:5.1} %", summary.n)
}

/// Keys that some layer set, with value and layer.
fn changed_keys(directory: &RunDirectory) -> Vec<(String, String, String)> {
    let file = directory.file();
    let set = |key: &String| file.sources.get(key).filter(|source| **source != crate::config::Source::Default);
    let values = file.config.values().into_iter();
    values.filter_map(|(key, value)| set(&key).map(|source| (key.clone(), shown(&value), source.to_string()))).collect()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(places: &RunPlaces, json: bool) -> String {
    let mut text = String::new();
    let runs = places.list();
    if !json && runs.is_empty() {
        return format!("no runs in {}; `grpo-tui train TASK` makes one\n", places.described());
    }
    if !json {
        let _ = writeln!(text, "{:<40} {:<11} {:>6} {:>9} {:>9}  model", "run", "status", "step", "valid", "exact");
    }
    for (path, run) in runs {
        match run.map_err(Failure::from).and_then(Seen::read) {
            Ok(seen) if json => {
                let _ = writeln!(text, "{}", seen.row());
            }
            Ok(seen) => {
                let percent = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", 100.0 * rate));
                let summary = seen.latest_valid().map(|(_, summary)| summary);
                let (valid, exact) = (percent(summary.map(|summary| summary.valid)), percent(summary.and_then(|summary| summary.exact)));
                let (id, status, step) = (seen.directory.id(), seen.status().name(), seen.history.last_step);
                let _ =
                    writeln!(text, "{id:<40} {status:<11} {step:>6} {valid:>9} {exact:>9}  {}", seen.directory.file().config.base_model);
            }
            Err(failure) => unreadable(&mut text, &path, &failure.message, json),
        }
    }
    text
}

fn unreadable(text: &mut String, path: &Path, message: &str, json: bool) {
    let id = path.file_name().unwrap_or_default().to_string_lossy();
    let _ = if json {
        writeln!(text, "{}", json!({"id": id, "path": path, "error": message}))
    } else {
        writeln!(text, "{id:<40} unreadable: {message}")
    };
}

fn compare(first: &Seen, second: &Seen, json: bool) -> String {
    let pairs = first.directory.file().config.values().into_iter().zip(second.directory.file().config.values());
    let different: Vec<(String, Value, Value)> = pairs.filter(|((_, a), (_, b))| a != b).map(|((key, a), (_, b))| (key, a, b)).collect();
    let keys: BTreeSet<_> = first.history.evals.keys().chain(second.history.evals.keys()).collect();
    if json {
        let config: serde_json::Map<String, Value> = different.into_iter().map(|(key, a, b)| (key, json!([a, b]))).collect();
        let summary = |seen: &Seen, key| seen.history.evals.get(key).map(|eval| json!(eval.summary));
        let evals: Vec<Value> = keys
            .into_iter()
            .map(|key| json!({"step": key.0, "set": key.1, "target": key.2, "first": summary(first, key), "second": summary(second, key)}))
            .collect();
        return pretty(&json!({"first": first.row(), "second": second.row(), "config": config, "evals": evals}));
    }
    let mut text = format!("{:<32} {:<40} {}\n", "", first.directory.id(), second.directory.id());
    for (key, a, b) in &different {
        let _ = writeln!(text, "{key:<32} {:<40} {}", shown(a), shown(b));
    }
    if different.is_empty() {
        text.push_str("the configurations are the same\n");
    }
    let names: BTreeSet<&String> = first.history.metrics.keys().chain(second.history.metrics.keys()).collect();
    let last = |seen: &Seen, name: &str| {
        seen.history.metrics.get(name).and_then(|series| series.last()).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
    };
    for name in names {
        let _ = writeln!(text, "{name:<32} {:<40} {}", last(first, name), last(second, name));
    }
    for key in keys {
        let valid = |seen: &Seen| seen.history.evals.get(key).map_or_else(|| "-".to_owned(), |eval| rates(&eval.summary));
        let _ = writeln!(text, "step {} {} {}\n  {}\n  {}", key.0, key.1, key.2, valid(first), valid(second));
    }
    text
}

/// One line a step, one column a metric; an empty field where a step has no value or one that is not finite.
fn csv(history: &RunState) -> String {
    let steps: BTreeSet<u64> = history.metrics.values().flat_map(|series| series.steps()).collect();
    let names: Vec<&String> = history.metrics.keys().collect();
    let mut text = String::from("step");
    for name in &names {
        let _ = write!(text, ",{name}");
    }
    text.push('\n');
    for step in steps {
        let _ = write!(text, "{step}");
        for series in history.metrics.values() {
            let value = series.at(step).filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string());
            let _ = write!(text, ",{value}");
        }
        text.push('\n');
    }
    text
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}
