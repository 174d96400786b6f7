//! `grpo-tui completions SHELL`: what the shell needs to complete subcommands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Outcome;
use super::output::print_exact;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "grpo-tui", &mut script);
    print_exact(&String::from_utf8_lossy(&script))
}
