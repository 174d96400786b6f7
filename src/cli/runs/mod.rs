//! `grpo-tui runs`: what there is, one run in full or live, two side by side, and what can be done with a run that has ended.

mod attach;
mod compare;
mod export;
mod list;
mod promote;
mod remove;
mod show;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Outcome, print};
use crate::run::{Field, RunPlaces};

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
    List(list::Arguments),
    /// Show one run: state, configuration, progress, evals, checkpoints
    Show {
        /// A run's path, id, name, or a unique beginning of its id
        run: String,
        /// One JSON document
        #[arg(long)]
        json: bool,
    },
    /// Watch a run as plain text until it ends; Ctrl-C leaves, the run goes on
    Attach(attach::Arguments),
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
    /// Write a run's metrics as CSV or JSON lines, or the whole run as one HTML file
    Export(export::Arguments),
    /// Copy a checkpoint's weights into a folder of its own, with a note where they come from
    Promote(promote::Arguments),
    /// Delete a run that has ended
    Remove(remove::Arguments),
    #[command(flatten)]
    Control(super::runs_control::Command),
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let here = std::env::current_dir()?;
    let places = RunPlaces::discover(arguments.runs.as_deref(), &here);
    let seen = |run: &str| Seen::read(places.find(run)?);
    match arguments.command {
        Command::List(arguments) => list::run(&arguments, &places),
        Command::Show { run, json } => {
            let seen = seen(&run)?;
            print(&if json { pretty(&show::document(&seen)) } else { show::page(&seen) })
        }
        Command::Attach(arguments) => attach::run(&arguments, &places),
        Command::Compare { first, second, json } => print(&compare::compare(&seen(&first)?, &seen(&second)?, json)),
        Command::Export(arguments) => export::run(&arguments, &places),
        Command::Promote(arguments) => promote::run(&arguments, &places),
        Command::Remove(arguments) => remove::run(&arguments, &places),
        Command::Control(command) => super::runs_control::run(command, &places),
    }
}

/// One run as its files tell it.
struct Seen(crate::report::Report);

impl std::ops::Deref for Seen {
    type Target = crate::report::Report;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Seen {
    fn read(directory: crate::run::RunDirectory) -> Result<Self, Failure> {
        Ok(Self(crate::report::Report::read(directory)?))
    }

    /// What `list` tells in a line.
    fn row(&self) -> Value {
        let file = self.directory.file();
        let (set, summary) = self.latest_valid().unzip();
        json!({
            "id": file.id, "name": file.name, "task": file.task, "job": file.job, "created": file.created,
            "path": self.directory.path(), "status": self.status(), "step": self.history.last_step,
            "total_steps": self.history.run.as_ref().map(|run| run.total_steps),
            "base_model": file.config.base_model, "policy_loss": file.config.policy_loss,
            "valid_set": set, "valid": summary.map(|summary| summary.valid), "exact": summary.and_then(|summary| summary.exact),
            "reward": self.metric("reward", false),
        })
    }

    /// What a condition or an order finds under a name: a field of the run, `config.KEY`, or the last value of a metric, `smoothed` or not.
    fn field(&self, name: &str, smoothed: bool) -> Option<Field> {
        let file = self.directory.file();
        let text = |text: &str| Some(Field::Text(text.to_owned()));
        let number = |number: f64| Some(Field::Number(number));
        let of_value = |value: &Value| match value {
            Value::String(found) => Some(Field::Text(found.clone())),
            Value::Number(found) => found.as_f64().map(Field::Number),
            other => Some(Field::Text(other.to_string())),
        };
        match name {
            "id" | "run" => text(&file.id),
            "name" => text(&file.name),
            "task" => text(&file.task),
            "job" => text(&file.job),
            "status" => text(self.status().name()),
            "model" | "base_model" => text(&file.config.base_model),
            "host" => text(&file.host),
            "created" => text(&file.created),
            "step" => number(self.history.last_step as f64),
            "total_steps" => number(self.history.run.as_ref()?.total_steps as f64),
            "seconds" => number(self.computed_seconds()),
            "valid" => number(self.latest_valid()?.1.valid),
            // The held-out rate, where there is one; the metric of the same name is the training prompts'.
            "exact" if self.latest_valid().is_some() => number(self.latest_valid()?.1.exact?),
            "parse" => number(self.latest_valid()?.1.parse),
            _ => match name.strip_prefix("config.") {
                Some(key) => file.config.values().iter().find(|(found, _)| found == key).and_then(|(_, value)| of_value(value)),
                None => self.metric(name, smoothed).map(Field::Number),
            },
        }
    }
}

/// Names that [`Seen::field`] knows besides metrics and `config.KEY`.
const FIELDS: [&str; 16] = [
    "id",
    "run",
    "name",
    "task",
    "job",
    "status",
    "model",
    "base_model",
    "host",
    "created",
    "step",
    "total_steps",
    "seconds",
    "valid",
    "exact",
    "parse",
];

/// A configuration value without quotes.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// Bytes as a person reads them.
fn size(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let found = units.into_iter().find(|(unit, _)| bytes as f64 >= *unit);
    found.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{:.1} {name}", bytes as f64 / unit))
}
