//! `grpo-tui task`: creates a task, checks one, and its reward for degenerate answers.

mod audit;
mod check;
mod new;
mod python_schema;
mod render;
mod trust;

use super::Outcome;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Create a task from a schema, from examples of answers, from a CSV, JSON, JSONL or Parquet file, or from a template
    New(Box<new::Arguments>),
    /// Check a task's files: schema, prompts, expected answers
    Check(check::Arguments),
    /// Score degenerate answers, to find rewards that a model could earn without doing the work
    Audit(audit::Arguments),
    /// Print the prompt of a row as a model reads it: the chat template applied
    Render(render::Arguments),
    /// Allow the command of a task to run (`[score] kind = "command"`), until the command or its files change, and its
    /// judge to be asked (`kind = "judge"`), until the server changes
    Trust(trust::Arguments),
}

#[derive(Debug, clap::Args)]
struct Choice {
    /// Task: a folder, a name in the workspace, or an embedded task (`invoice`, `sql`, `tool-calls`, `shell-lint`, `py-functions`, `assistant`)
    task: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Trust(arguments) => trust::run(&arguments),
    }
}
