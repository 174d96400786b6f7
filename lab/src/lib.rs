//! What only the developers of grpo-tui run: it makes the sample data, the embedded models, and tasks of benchmarks.

mod bench; // `bench`: speed of this machine or of a server at a model's shape
mod bfcl; // the Berkeley Function Calling Leaderboard as rows
mod bfcl_import; // `bfcl`: rows as a task
mod generator; // prompts from templates, pools and value formats
mod prompt_files; // `prompts`: the prompt files of a sample task
mod pretrain; // `pretrain`: a small model from a task's generator

use std::error::Error;
use std::ffi::OsString;

use clap::Parser;

pub use generator::{GeneratedRow, Generator, Stream};

/// Ends a command.
pub type Fault = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
#[command(name = "grpo-tui-lab")]
enum Command {
    /// Write the prompt files of a sample task from its generator.toml
    Prompts(prompt_files::Arguments),
    /// Pretrain a small model on the generator of a sample task
    Pretrain(Box<pretrain::Arguments>),
    /// Measure the speed of this machine, or of a server
    Bench(bench::Arguments),
    /// Make a task of the Berkeley Function Calling Leaderboard, single turn
    Bfcl(bfcl_import::Arguments),
}

/// Runs a command line, whose first word is the program's name.
///
/// # Errors
/// A malformed command line, or what the command failed on.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Result<(), Fault> {
    match Command::try_parse_from(words) {
        Ok(Command::Prompts(arguments)) => prompt_files::run(&arguments),
        Ok(Command::Pretrain(arguments)) => pretrain::run(&arguments),
        Ok(Command::Bench(arguments)) => bench::run(arguments),
        Ok(Command::Bfcl(arguments)) => bfcl_import::run(&arguments),
        Err(error) if error.use_stderr() => Err(error.into()),
        Err(help) => Ok(help.print()?),
    }
}
