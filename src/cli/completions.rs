//! `grpo-tui completions SHELL`: a script with which a shell asks this program for candidates, and the answer.

mod candidates;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::env::{self, CompleteEnv, EnvCompleter, Shells};

use super::Outcome;
use super::output::print_exact;

/// Set by the scripts.
const VARIABLE: &str = "GRPO_TUI_COMPLETE";
const SHELLS: Shells<'static> = Shells(&[
    &Script {
        shell: &env::Bash,
        text: include_str!("completions/bash.sh"),
    },
    &env::Elvish,
    &env::Fish,
    &env::Powershell,
    &Script {
        shell: &env::Zsh,
        text: include_str!("completions/zsh.sh"),
    },
]);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut script = Vec::new();
    if let Some(shell) = SHELLS.completer(&arguments.shell.to_string()) {
        shell.write_registration(VARIABLE, "grpo-tui", "grpo-tui", "grpo-tui", &mut script)?;
    }
    print_exact(&String::from_utf8_lossy(&script))
}

/// Prints candidates and exits if a shell asks for them.
pub(super) fn answer() {
    let command = || candidates::with_candidates(super::Arguments::command());
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .shells(SHELLS)
        .complete();
}

/// A shell whose generated script is adapted: it handles arguments with `=`, and after which candidate no space
/// follows.
struct Script {
    shell: &'static (dyn EnvCompleter + Sync),
    text: &'static str,
}

impl EnvCompleter for Script {
    fn name(&self) -> &'static str {
        self.shell.name()
    }

    fn is(&self, name: &str) -> bool {
        self.shell.is(name)
    }

    fn write_registration(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &str,
        to: &mut dyn Write,
    ) -> std::io::Result<()> {
        to.write_all(self.text.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        folder: Option<&Path>,
        to: &mut dyn Write,
    ) -> std::io::Result<()> {
        self.shell.write_complete(command, words, folder, to)
    }
}
