//! `grpo-tui dataset build|check`: make a task's prompt files, or say what is wrong with them.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::dataset;
use crate::task::Task;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the prompt files that the task's generator makes
    Build(Build),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// A task's folder or name
    task: String,
    /// Write into this folder instead of the task's own
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing; fail if a file differs from what the generator makes
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
    for set in dataset::build(&task)? {
        let path = match &arguments.out {
            Some(folder) => folder.join(&set.file),
            None => PathBuf::from(task.label(&set.file)),
        };
        if arguments.check {
            let same = std::fs::read(&path).is_ok_and(|bytes| bytes == set.text.as_bytes());
            if !same {
                return Err(Failure::failed(format!("{} differs", path.display())));
            }
        } else {
            std::fs::write(&path, &set.text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
