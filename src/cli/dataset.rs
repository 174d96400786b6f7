//! `grpo-tui dataset build|check`: make a task's prompt files, or say what is wrong with them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::dataset::{self, BuiltSet};
use crate::task::Task;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the prompt files that the task's generator makes: always the same bytes
    Build(Build),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// A task's folder or name
    task: String,
    /// Write into this folder instead of the task's own
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing; fail if a file is not what the generator makes
    #[arg(long)]
    check: bool,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    match arguments.command {
        Command::Build(arguments) => build(&arguments),
    }
}

fn build(arguments: &Build) -> Outcome {
    let task = Task::resolve(&arguments.task)?;
    let sets = dataset::build(&task)?;
    let folder = match (&arguments.out, task.folder()) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.to_path_buf(),
        (None, None) => return Err(Failure::usage(format!("{} is embedded in the program; add --out DIR", arguments.task))),
    };
    if arguments.check {
        return check_built(&folder, &sets, &arguments.task);
    }
    for set in &sets {
        let path = set.write(&folder)?;
        println!("{}: {} rows", path.display(), set.rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn check_built(folder: &Path, sets: &[BuiltSet], task: &str) -> Outcome {
    for set in sets {
        let path = folder.join(&set.file);
        let stored = std::fs::read(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        if let Some(line) = set.first_difference(&stored) {
            let message = format!(
                "{} line {line} is not what the generator makes; run `grpo-tui dataset build {task}` to rewrite it",
                path.display()
            );
            return Err(Failure::failed(message));
        }
        println!("{}: {} rows, as the generator makes them", path.display(), set.rows);
    }
    Ok(ExitCode::SUCCESS)
}
